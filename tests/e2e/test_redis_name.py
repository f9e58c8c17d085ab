"""Redis behind a name that the system's resolver does not find any more: the look-up hangs, and nothing else does."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Namespace, NamespaceUnavailableError, Nsd
from tests.support.processes import Heimdall, Process, eventually, program

RESOLVER, AUTHORITY, SERVER = "127.0.0.54", "127.0.0.55", "127.0.0.53"  # all inside the namespace
ZONE = "$ORIGIN example.test.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\n"
LOOK_UP_SECONDS = 20


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    """A piece of machine that is patient with its resolver."""
    try:
        made = Namespace(tmp_path / "etc", f"nameserver {RESOLVER}\noptions timeout:{LOOK_UP_SECONDS} attempts:1\n")
    except NamespaceUnavailableError as error:
        pytest.skip(f"no namespace can be made here: {error}")
    with made:
        yield made


@pytest.fixture
def resolver(namespace: Namespace, tmp_path: Path) -> Iterator[Nsd]:
    """The system's resolver, which knows where Redis is."""
    zones = {"example.test": ZONE + "redis A 127.0.0.1\n"}
    with Nsd(tmp_path / "resolver", zones, address=RESOLVER, port=53, prefix=namespace.prefix) as nsd:
        try:
            yield nsd
        finally:
            os.killpg(nsd.pid, signal.SIGCONT)


@pytest.fixture
def redis(namespace: Namespace, tmp_path: Path) -> Iterator[Process]:
    settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
    process = Process([*namespace.prefix, program("redis-server"), *settings])
    yield process
    process.kill()


@pytest.fixture
def server(namespace: Namespace, resolver: Nsd, redis: Process, tmp_path: Path) -> Iterator[Heimdall]:
    zones = {"example.test": ZONE + "* A 192.0.2.1\n"}
    with Nsd(tmp_path / "authority", zones, address=AUTHORITY, port=53, prefix=namespace.prefix):
        flags = ["--bind-addr", f"{SERVER}:53", "--http-bind-addr", "127.0.0.1:8080", "--upstream-servers", AUTHORITY]
        started = Heimdall(*flags, "--redis-url", "redis://redis.example.test", prefix=namespace.prefix)
        try:
            started.wait_for_redis()
            yield started
            assert started.stop() == 0
        finally:
            started.kill()


def test_a_look_up_that_hangs_opens_the_breaker_before_it_is_over(
    server: Heimdall, resolver: Nsd, namespace: Namespace
) -> None:
    os.killpg(resolver.pid, signal.SIGSTOP)
    namespace.run(program("redis-cli"), "client", "kill", "type", "normal")
    asked = 0

    def is_open() -> bool:
        nonlocal asked
        asked += 1
        answer = namespace.run(program("dig"), f"@{SERVER}", "+short", "+tries=1", f"n{asked}.example.test")
        assert answer == "192.0.2.1\n"
        return bool(l2(namespace)["breaker_open"])

    eventually(is_open, timeout=LOOK_UP_SECONDS / 2)
    assert any("not in use (" in line for line in server.lines)
    waited = l2(namespace)["budget_exceeded"]
    for number in range(5):
        namespace.run(program("dig"), f"@{SERVER}", "+short", f"open{number}.example.test")
    assert l2(namespace)["budget_exceeded"] == waited
    mark = len(server.lines)
    os.killpg(resolver.pid, signal.SIGCONT)
    server.wait_for_redis(start=mark)


def l2(namespace: Namespace) -> dict[str, Any]:
    printed = namespace.run("curl", "--silent", "--noproxy", "*", "http://127.0.0.1:8080/stats")
    return dict(json.loads(printed)["l2"])
