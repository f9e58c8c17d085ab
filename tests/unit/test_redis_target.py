"""Redis URLs, what an error may show of them, and where Heimdall looks for Redis."""

from typing import Any

import pytest

from heimdall_lib.config.redis_target import (
    STEP_DISABLED,
    STEP_NONE,
    STEP_SERVICE,
    URL,
    detect,
    masked,
    parse_redis_url,
)
from heimdall_lib.errors import SettingError
from heimdall_lib.settings import Endpoint, Secret

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("url", "fields"),
    [
        ("redis://cache", {"hosts": (Endpoint("cache", 6379),)}),
        ("REDIS://Cache.Example.:7000", {"hosts": (Endpoint("cache.example", 7000),)}),
        ("redis://cache/", {"hosts": (Endpoint("cache", 6379),)}),
        ("redis://cache/3", {"hosts": (Endpoint("cache", 6379),), "database": 3}),
        ("redis://192.0.2.1:1/15", {"hosts": (Endpoint("192.0.2.1", 1),), "database": 15}),
        ("redis://[2001:DB8::1]", {"hosts": (Endpoint("2001:db8::1", 6379),)}),
        ("redis://[::1]:7000/1", {"hosts": (Endpoint("::1", 7000),), "database": 1}),
        ("redis://:pw@cache", {"hosts": (Endpoint("cache", 6379),), "password": "pw"}),
        ("redis://ann@cache", {"hosts": (Endpoint("cache", 6379),), "username": "ann"}),
        ("redis://ann:pw@cache", {"hosts": (Endpoint("cache", 6379),), "username": "ann", "password": "pw"}),
        ("redis://a%40b:p%3Aw%2F%25@c", {"hosts": (Endpoint("c", 6379),), "username": "a@b", "password": "p:w/%"}),
        ("redis://ann:p@w/#?:@cache", {"hosts": (Endpoint("cache", 6379),), "username": "ann", "password": "p@w/#?:"}),
        ("redis://:p%C3%A4ss@cache", {"hosts": (Endpoint("cache", 6379),), "password": "päss"}),
        ("redis://@cache", {"hosts": (Endpoint("cache", 6379),)}),
        ("rediss://cache", {"hosts": (Endpoint("cache", 6379),), "tls": True}),
    ],
)
def test_one_server(url: str, fields: dict[str, Any]) -> None:
    target = parse_redis_url(url, "REDIS_URL")
    assert target.topology == "standalone"
    assert target.step == "REDIS_URL"
    assert not target.guessed
    defaults = {"database": 0, "path": "", "service_name": "", "tls": False, "username": "", "password": ""}
    assert {name: getattr(target, name) for name in ("hosts", *defaults)} == defaults | fields
    assert isinstance(target.password, Secret)


@pytest.mark.parametrize(
    ("url", "path", "database", "username", "password"),
    [
        ("unix:///run/redis.sock", "/run/redis.sock", 0, "", ""),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock", 2, "", ""),
        ("unix://ann:pw@/run/redis.sock?db=0", "/run/redis.sock", 0, "ann", "pw"),
        ("unix://:p%2Fw@/run/a%20b@c", "/run/a b@c", 0, "", "p/w"),
    ],
)
def test_a_socket(url: str, path: str, database: int, username: str, password: str) -> None:
    target = parse_redis_url(url)
    assert (target.topology, target.hosts, target.tls) == ("unix", (), False)
    assert (target.path, target.database, target.username, target.password) == (path, database, username, password)


@pytest.mark.parametrize("tls", [False, True])
def test_sentinels(tls: bool) -> None:
    scheme = "rediss+sentinel" if tls else "redis+sentinel"
    target = parse_redis_url(f"{scheme}://ann:pw@h1,h2:1,[::1]/my-master_1.x/4")
    assert (target.topology, target.tls) == ("sentinel", tls)
    assert target.hosts == (Endpoint("h1", 26379), Endpoint("h2", 1), Endpoint("::1", 26379))
    assert (target.service_name, target.database) == ("my-master_1.x", 4)
    assert (target.username, target.password) == ("ann", "pw")


@pytest.mark.parametrize("tail", ["", "/"])
def test_the_database_behind_sentinels_may_be_left_out(tail: str) -> None:
    assert parse_redis_url(f"redis+sentinel://h1/mymaster{tail}").database == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("tail", ["", "/", "/0"])
def test_a_cluster(tls: bool, tail: str) -> None:
    scheme = "rediss+cluster" if tls else "redis+cluster"
    target = parse_redis_url(f"{scheme}://:pw@h1:7000, h2{tail}")
    assert (target.topology, target.tls, target.database) == ("cluster", tls, 0)
    assert target.hosts == (Endpoint("h1", 7000), Endpoint("h2", 6379))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "a URL whose scheme is one of redis, rediss, unix,"),
        ("cache:6379", "a URL whose scheme"),
        ("http://cache", "a URL whose scheme"),
        ("redis:/cache", "a URL whose scheme"),
        ("redis+unix:///run/redis.sock", "a URL whose scheme"),
        ("redis://", "the host must be"),
        ("redis:///0", "the host must be"),
        ("redis://:6379", "the host must be"),
        ("redis://h1,h2", "only one host is possible"),
        ("redis://cache:0", "a port from 1 to 65535"),
        ("redis://cache:redis", "host:port is allowed"),
        ("redis://2001:db8::1", "host:port is allowed"),
        ("redis://cache/zero", "the database must be"),
        ("redis://cache/0/1", "the database must be"),
        ("redis://cache/-1", "the database must be"),
        ("redis://cache/123456", "the database must be"),
        ("redis://cache?db=1", "an unknown query parameter"),
        ("redis://cache/0?ssl_cert_reqs=none", "an unknown query parameter"),
        ("redis://cache#fragment", "the host must be"),
        ("redis://a%FF:x@cache", "user name and password must be UTF-8"),
        ("redis://:%FF@cache", "user name and password must be UTF-8"),
        ("redis://:\udcff@cache", "user name and password must be UTF-8"),
        ("unix://", "the path of the socket is missing"),
        ("unix:///", "the path of the socket is missing"),
        ("unix://?db=0", "the path of the socket is missing"),
        ("unix://run/redis.sock", "the path of the socket is missing"),
        ("unix:///run/redis.sock?db=x", "the database must be"),
        ("unix:///run/redis.sock?", "an unknown query parameter"),
        ("unix:///run/redis.sock?timeout=1", "an unknown query parameter"),
        ("unix:///run/redis.sock?db=0&timeout=1", "the database must be"),
        ("redis+sentinel://h1", "the service that the sentinels watch"),
        ("redis+sentinel://h1/", "the service that the sentinels watch"),
        ("redis+sentinel://h1/my master", "the service that the sentinels watch"),
        ("redis+sentinel://h1/mymaster/x", "the service that the sentinels watch"),
        ("redis+sentinel://h1,,h2/mymaster", "the host must be"),
        ("redis+sentinel://h1,h1:26379/mymaster", "a host is listed twice"),
        ("redis+cluster://h1/1", "a cluster has database 0 only"),
        ("redis+cluster://h1,", "the host must be"),
    ],
)
def test_urls_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at
        parse_redis_url(url)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("rediss://", "redis[s]://[user:password@]host[:port][/db]"),
        ("unix://", "unix://[user:password@]/path[?db=0]"),
        ("rediss+sentinel://h", "redis[s]+sentinel://[user:password@]host[:port],.../service[/db]"),
        ("redis+cluster://", "redis[s]+cluster://[user:password@]host[:port],..."),
    ],
)
def test_an_error_shows_the_form_of_such_a_url(url: str, form: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at
        parse_redis_url(url)
    assert str(caught.value).endswith(f"; {form}")
    assert form in URL.allowed


def test_the_kind_keeps_the_url_as_text() -> None:
    assert URL.parse("redis://cache") == "redis://cache"
    with pytest.raises(ValueError, match="a URL whose scheme"):
        URL.parse("cache")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://cache:6379/0", "redis://cache:6379/0"),
        ("redis://cache/zero", "redis://cache/zero"),
        ("redis://ann:hunter2@cache:6379/x", "redis://***@cache:6379/x"),
        ("redis://h1,h2", "redis://h1,h2"),
        ("redis://:hunter2@[::1]/x", "redis://***@[::1]/x"),
        ("unix://:hunter2@/run/redis.sock?db=1", "unix://***@/run/redis.sock?db=1"),
        ("http://cache", "http://cache"),
        ("redis://", "redis://"),
    ],
)
def test_the_harmless_part_of_a_url_is_shown(url: str, shown: str) -> None:
    assert masked(url) == shown


MISPLACED = [
    "hunter2",
    ":hunter2@cache",
    "ann:hunter2@cache:6379",
    "redis:ann:hunter2@cache",
    "redis:/:hunter2@cache",
    "redis://:hunter2",
    "redis://ann:hunter2",
    "redis://:hunter2@cache/x",
    "redis://:hunter2@cache:x",
    "redis://:hunter2@cache:0",
    "redis://:hunter2@h1,h2",
    "redis://:hunter2@",
    "redis://:hunter2/more@cache:x",
    "redis://:more/hunter2@cache/x",
    "redis://:hunter2#@cache/x",
    "redis://:a@hunter2@cache/x",
    "redis://:hunter2%FF@cache",
    "redis://:hunter2\udcff@cache",
    "redis://cache?password=hunter2",
    "redis://cache/0?password=hunter2",
    "rediss://cache:hunter2@",
    "http://ann:hunter2@cache",
    "ht tp://hunter2@cache",
    "unix://hunter2",
    "UNIX://hunter2",
    "unix://ann:hunter2@",
    "unix:///run/redis.sock?password=hunter2",
    "unix://ann:hunter2/more@/run/redis.sock",
    "redis+sentinel://ann:hunter2@h1",
    "redis+sentinel://ann:hunter2@h1/a b",
    "redis+cluster://:hunter2@h1/1",
    "redis+cluster://h1:hunter2,h2",
]


@pytest.mark.parametrize("url", MISPLACED)
def test_no_error_ever_shows_the_password(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        detect("", "", {"REDIS_URL": url}, enabled=None)
    assert PASSWORD not in str(caught.value)
    assert PASSWORD not in repr(caught.value)
    assert PASSWORD not in masked(url)
    assert caught.value.__suppress_context__


SERVICE = {"HEIMDALL_REDIS_SERVICE_HOST": "10.96.0.20", "HEIMDALL_REDIS_SERVICE_PORT": "6380"}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
SHARED = {"REDIS_URL": "redis://shared"}


@pytest.mark.parametrize(
    ("url", "environ", "shown", "step"),
    [
        ("redis://set", SHARED | SERVICE | KUBERNETES, "redis://set:6379/0", "--redis-url"),
        ("", SHARED | SERVICE | KUBERNETES, "redis://shared:6379/0", "REDIS_URL"),
        ("", SERVICE | KUBERNETES, "redis://10.96.0.20:6380/0", "HEIMDALL_REDIS_SERVICE_HOST"),
        ("", KUBERNETES, "redis://heimdall-redis:6379/0", STEP_SERVICE),
    ],
)
def test_the_first_step_that_finds_redis_decides(url: str, environ: dict[str, str], shown: str, step: str) -> None:
    for enabled in (None, True):
        target, decided = detect(url, "--redis-url", environ, enabled=enabled)
        assert target is not None
        assert (str(target), target.step, decided) == (shown, step, step)


def test_only_the_name_in_kubernetes_is_a_guess_and_only_while_nobody_said_that_there_is_a_redis() -> None:
    guessed = {}
    for environ in (SHARED, SERVICE, KUBERNETES):
        for enabled in (None, True):
            target, step = detect("", "", environ, enabled=enabled)
            assert target is not None
            guessed[step, enabled] = target.guessed
    assert [case for case, guess in guessed.items() if guess] == [(STEP_SERVICE, None)]


@pytest.mark.parametrize(
    "environ", [{}, {"REDIS_URL": "", "HEIMDALL_REDIS_SERVICE_HOST": "", "KUBERNETES_SERVICE_HOST": ""}]
)
def test_nothing_detected(environ: dict[str, str]) -> None:
    assert detect("", "", environ, enabled=None) == (None, STEP_NONE)
    assert detect("", "", environ, enabled=True) == (None, STEP_NONE)
    assert detect("", "", environ, enabled=False) == (None, STEP_DISABLED)


def test_disabled_wins_over_every_step_and_over_what_is_wrong_with_them() -> None:
    environ = SHARED | SERVICE | KUBERNETES | {"REDIS_URL": "nonsense"}
    assert detect("redis://set", "--redis-url", environ, enabled=False) == (None, "--redis-enabled false")


@pytest.mark.parametrize(
    ("host", "port", "shown"),
    [
        ("10.96.0.20", "", "redis://10.96.0.20:6379/0"),
        ("fd00::20", "", "redis://[fd00::20]:6379/0"),
        ("fd00::20", "6380", "redis://[fd00::20]:6380/0"),
        ("heimdall-redis.dns.svc", "1", "redis://heimdall-redis.dns.svc:1/0"),
    ],
)
def test_the_service_variables(host: str, port: str, shown: str) -> None:
    environ = {"HEIMDALL_REDIS_SERVICE_HOST": host, "HEIMDALL_REDIS_SERVICE_PORT": port}
    assert str(detect("", "", environ, enabled=None)[0]) == shown


def test_the_service_port_may_be_absent() -> None:
    environ = {"HEIMDALL_REDIS_SERVICE_HOST": "10.96.0.20"}
    assert str(detect("", "", environ, enabled=None)[0]) == "redis://10.96.0.20:6379/0"


@pytest.mark.parametrize("host", ["10.96.0.20:6379", "a b", "ann:hunter2@cache", "[fd00::20]"])
def test_a_service_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(SettingError, match=r"HEIMDALL_REDIS_SERVICE_HOST: .*: an IP address or a host name"):
        detect("", "", {"HEIMDALL_REDIS_SERVICE_HOST": host}, enabled=None)


@pytest.mark.parametrize("port", ["tcp://10.0.0.1:6379", "0", "65536", "-1", "6379x", "²", "٣", "123456"])
def test_a_service_port_that_is_none_is_refused(port: str) -> None:
    environ = {"HEIMDALL_REDIS_SERVICE_HOST": "10.96.0.20", "HEIMDALL_REDIS_SERVICE_PORT": port}
    with pytest.raises(SettingError, match=r"HEIMDALL_REDIS_SERVICE_PORT: .*: a port from 1 to 65535"):
        detect("", "", environ, enabled=None)


def test_the_variable_with_the_wrong_url_is_named() -> None:
    with pytest.raises(SettingError, match=r"REDIS_URL: 'redis://\*\*\*@cache/x': the database must be a number"):
        detect("", "", {"REDIS_URL": "redis://ann:hunter2@cache/x"}, enabled=None)


def test_a_target_never_shows_its_password() -> None:
    target = parse_redis_url("redis://ann:hunter2@cache/2")
    assert target.password == PASSWORD
    assert str(target) == "redis://cache:6379/2"
    assert PASSWORD not in repr(target)
