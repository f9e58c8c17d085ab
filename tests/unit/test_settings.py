"""The values that Heimdall runs with: how they are written, and what they never show."""

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from heimdall_lib.settings import Endpoint, ForwardZone, RedisTarget, RedisTopology, Secret, Settings, UpstreamServer

HIDDEN = "correct-horse"


# Secrets


def test_a_secret_is_its_text_to_who_uses_it() -> None:
    assert Secret(HIDDEN) == HIDDEN
    assert Secret(HIDDEN).encode() == HIDDEN.encode()
    assert not Secret("")


@pytest.mark.parametrize("text", ["", HIDDEN])
def test_a_secrets_representation_is_the_same_whatever_its_text(text: str) -> None:
    assert repr(Secret(text)) == repr(Secret("another"))


def test_what_holds_a_secret_does_not_show_it() -> None:
    target = RedisTarget("standalone", (Endpoint("redis", 6379),), "--redis-url", password=Secret(HIDDEN))
    values: dict[str, Any] = {field.name: 0 for field in fields(Settings)}
    values |= {"admin_token": Secret(HIDDEN), "redis_signing_key": (Secret(HIDDEN),), "redis_target": target}
    settings = Settings(**values | {"shown": {"redis-password": HIDDEN}})
    for shown in (repr(target), str(target), f"{target}", repr(settings), str(settings), repr([settings])):
        assert HIDDEN not in shown


# Addresses


@pytest.mark.parametrize(
    ("host", "text"), [("127.0.0.1", "127.0.0.1:53"), ("::1", "[::1]:53"), ("localhost", "localhost:53")]
)
def test_an_address_is_written_with_its_port(host: str, text: str) -> None:
    assert str(Endpoint(host, 53)) == text


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (UpstreamServer("udp", "192.0.2.1", 53), "udp://192.0.2.1:53"),
        (UpstreamServer("tcp", "2001:db8::1", 5353), "tcp://[2001:db8::1]:5353"),
        (UpstreamServer("tls", "192.0.2.1", 853, "dns.example"), "tls://192.0.2.1:853#dns.example"),
    ],
)
def test_an_upstream_server_is_written_as_it_would_be_set(server: UpstreamServer, text: str) -> None:
    assert str(server) == text


def test_addresses_and_servers_have_an_order_and_can_be_keys() -> None:
    first, second = Endpoint("a", 1), Endpoint("a", 2)
    assert sorted([second, first]) == [first, second]
    assert len({first, Endpoint("a", 1), second}) == 2
    assert min(UpstreamServer("udp", "b", 1), UpstreamServer("udp", "a", 2)).host == "a"


# Redis


HOSTS = (Endpoint("h1", 6379), Endpoint("::1", 6380))


@pytest.mark.parametrize(
    ("topology", "tls", "text"),
    [
        ("standalone", False, "redis://h1:6379/3"),
        ("standalone", True, "rediss://h1:6379/3"),
        ("sentinel", False, "redis+sentinel://h1:6379,[::1]:6380/mymaster/3"),
        ("sentinel", True, "rediss+sentinel://h1:6379,[::1]:6380/mymaster/3"),
        ("cluster", False, "redis+cluster://h1:6379,[::1]:6380"),
        ("cluster", True, "rediss+cluster://h1:6379,[::1]:6380"),
    ],
)
def test_a_redis_target_is_written_as_its_url_without_credentials(
    topology: RedisTopology, tls: bool, text: str
) -> None:
    target = RedisTarget(
        topology,
        HOSTS[:1] if topology == "standalone" else HOSTS,
        "--redis-url",
        database=0 if topology == "cluster" else 3,
        service_name="mymaster" if topology == "sentinel" else "",
        tls=tls,
        username="somebody",
        password=Secret(HIDDEN),
    )
    assert str(target) == text


def test_a_redis_socket_is_written_with_its_path() -> None:
    target = RedisTarget("unix", (), "--redis-url", database=2, path="/run/redis.sock", password=Secret(HIDDEN))
    assert str(target) == "unix:///run/redis.sock?db=2"


# Frozen


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Endpoint("a", 1), "port"),
        (UpstreamServer("udp", "a", 1), "port"),
        (ForwardZone("corp.example", ()), "name"),
        (RedisTarget("unix", (), "", path="/run/redis.sock"), "path"),
    ],
)
def test_settings_do_not_change(value: object, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, "other")
