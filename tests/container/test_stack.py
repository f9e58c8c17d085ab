"""The stack of compose.yml under a Docker engine: what a user of it does in a day."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import ADDRESS, STOPS_WITHIN_SECONDS, Stack, eventually, health, run, running_stack, state
from tests.support import client

pytestmark = [pytest.mark.container, pytest.mark.timeout(300)]


@pytest.fixture
def stack(compose: list[str], image: str, tmp_path: Path) -> Iterator[Stack]:
    with running_stack(compose, image, tmp_path) as stack:
        yield stack


def test_it_answers_over_udp_and_tcp_and_remembers_across_a_stop(stack: Stack) -> None:
    (heimdall,) = stack.replicas()
    assert heimdall.addresses("over-udp.example") == [ADDRESS]
    assert heimdall.addresses("over-tcp.example", transport="tcp") == [ADDRESS]
    eventually(lambda: all(name in stack.stored() for name in ("over-udp.example", "over-tcp.example")))

    started_at = time.monotonic()
    stack("stop", "heimdall")
    assert time.monotonic() - started_at < STOPS_WITHIN_SECONDS
    assert state(heimdall.container)["ExitCode"] == 0
    stack("stop")
    assert state(stack.container("redis"))["ExitCode"] == 0

    # Redis kept the answers in its volume: nothing else can give them now, the authority is not started again.
    stack.start("redis", "heimdall")
    assert heimdall.addresses("over-udp.example") == [ADDRESS]
    assert heimdall.addresses("over-tcp.example", transport="tcp") == [ADDRESS]
    assert client.rcode(heimdall.ask("never-asked.example")) == "SERVFAIL"


def test_its_metrics_say_what_happened_and_a_flush_makes_it_forget(stack: Stack) -> None:
    (heimdall,) = stack.replicas()
    for _ in range(2):
        assert heimdall.addresses("www.example") == [ADDRESS]
    assert heimdall.metric("cache_hits_total") == 1
    assert heimdall.metric("redis_up") == 1
    assert heimdall.get("/readyz").status == 200
    eventually(lambda: heimdall.where("www.example") == "both")
    printed = heimdall.command("flush", "www.example")
    assert "forgotten by 1 of 1 replicas" in printed
    assert heimdall.where("www.example") == "nowhere"
    assert stack.asked("www.example") == 1
    assert heimdall.addresses("www.example") == [ADDRESS]
    assert stack.asked("www.example") == 2


def test_it_answers_while_redis_restarts_and_uses_it_afterwards(stack: Stack) -> None:
    (heimdall,) = stack.replicas()
    stack("stop", "redis")
    assert heimdall.addresses("without-redis.example") == [ADDRESS]
    assert health(heimdall.container) == "healthy"
    assert heimdall.get("/readyz").status == 200
    stack.start("redis")
    eventually(lambda: heimdall.metric("redis_up") == 1)
    assert heimdall.addresses("with-redis.example") == [ADDRESS]
    eventually(lambda: "with-redis.example" in stack.stored())


def test_a_redis_that_hangs_slows_nothing_and_is_used_again(compose: list[str], image: str, tmp_path: Path) -> None:
    with running_stack(compose, image, tmp_path, patient=False) as stack:
        (heimdall,) = stack.replicas()
        eventually(lambda: heimdall.metric("redis_up") == 1)
        redis = stack.container("redis")
        run("docker", "pause", redis)
        took = []
        for number in range(10):
            started_at = time.monotonic()
            assert heimdall.addresses(f"n{number}.example") == [ADDRESS]
            took.append(time.monotonic() - started_at)
        assert statistics.median(took) < 1, took  # docker and a busy machine included
        eventually(lambda: heimdall.metric("redis_breaker_open") == 1)
        run("docker", "unpause", redis)
        eventually(lambda: heimdall.metric("redis_up") == 1)
        assert heimdall.addresses("again.example") == [ADDRESS]
