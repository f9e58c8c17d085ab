"""Replicas on machines whose clocks are wrong: what they share keeps its age, and what was flushed stays flushed."""

import json
import subprocess
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support import client
from tests.support.client import addresses, ttl
from tests.support.processes import PATIENCE, Heimdall, Launcher, RedisServer, eventually, program
from tests.support.upstream import Upstream

NAME = "www.example.com"
OLD, NEW = "192.0.2.1", "192.0.2.2"
WRONG_SECONDS = 600
INEXACT = 2.0
"""How far off Redis's clock may be measured while the machine is busy, since nothing here is slow for Heimdall (s)."""
# A clock that is set does not move the monotonic one, by which intervals are measured.
MONOTONIC = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
PRELOADED = ("LD_PRELOAD", "FAKETIME")
PATIENT = ("--redis-timeout", "5", "--redis-read-budget", "4", "--warm-cache-entries", "0")


@pytest.fixture(params=[(WRONG_SECONDS, -WRONG_SECONDS), (-WRONG_SECONDS, WRONG_SECONDS), (0, WRONG_SECONDS)])
def pair(request: pytest.FixtureRequest, heimdall: Launcher, redis: RedisServer) -> tuple[Heimdall, Heimdall]:
    """Two replicas whose clocks are ahead by so many seconds, or behind."""

    def start(ahead: int) -> Heimdall:
        started = heimdall("--redis-url", redis.url, *PATIENT, env=shifted(ahead))
        started.wait_for_redis()
        assert seconds_ahead(started) == pytest.approx(ahead, abs=WRONG_SECONDS / 4)
        return started

    one, other = (start(ahead) for ahead in request.param)
    eventually(lambda: redis.client.pubsub_numsub("heimdall:dns:cache:events")[0][1] == 2)
    return one, other


def shifted(ahead: int) -> dict[str, str]:
    """Return what faketime sets for a program that it starts, which it would stand in the way of signals to."""
    command = [program("faketime"), "-f", f"{ahead:+d}s", program("env")]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    variables = dict(line.partition("=")[::2] for line in printed.splitlines())
    return {name: variables[name] for name in PRELOADED} | MONOTONIC


def seconds_ahead(server: Heimdall) -> float:
    """How far ahead a replica's clock is, as its log shows."""
    shown = datetime.fromisoformat(server.wait_for_line("Heimdall ").split()[0])
    return (shown - datetime.now(UTC)).total_seconds()


def hits(server: Heimdall) -> float:
    return server.metric("redis_hits_total")


def entry(server: Heimdall) -> dict[str, Any]:
    return dict(json.loads(server.get(f"/cache/entry?name={NAME}").body))


def flush(server: Heimdall) -> dict[str, Any]:
    return dict(json.loads(client.http(server.http, f"/cache/flush?name={NAME}", method="POST").body))


def test_an_answer_keeps_its_age(pair: tuple[Heimdall, Heimdall], upstream: Upstream, redis: RedisServer) -> None:
    one, other = pair
    upstream.add(NAME, "A", OLD, ttl=300)
    began = time.monotonic()
    one.ask(NAME)
    redis.wait_for_key(NAME)
    answer = other.ask(NAME)
    assert (addresses(answer), hits(other), upstream.count(NAME)) == ([OLD], 1, 1)
    eventually(lambda: entry(other)["age"] >= 1)
    passed = time.monotonic() - began
    assert 300 - passed - INEXACT <= ttl(answer) <= 300
    assert entry(other)["age"] <= time.monotonic() - began + INEXACT


def test_an_answer_is_over_when_its_time_is(
    pair: tuple[Heimdall, Heimdall], upstream: Upstream, redis: RedisServer
) -> None:
    one, other = pair
    upstream.add(NAME, "A", OLD, ttl=2)
    one.ask(NAME)
    redis.wait_for_key(NAME)
    upstream.add(NAME, "A", NEW, ttl=300)
    eventually(lambda: addresses(other.ask(NAME)) == [NEW])
    assert upstream.count(NAME) == 2


def test_a_flush_holds_and_what_is_stored_after_it_counts(
    pair: tuple[Heimdall, Heimdall], upstream: Upstream, redis: RedisServer
) -> None:
    one, other = pair
    upstream.add(NAME, "A", OLD, ttl=300)
    one.ask(NAME)
    key = redis.wait_for_key(NAME)
    value = redis.client.get(key)
    other.ask(NAME)
    eventually(lambda: entry(other)["age"] >= INEXACT)
    upstream.add(NAME, "A", NEW, ttl=300)
    answer, flushed_at = flush(one), time.monotonic()
    assert (answer["replicas"], answer["complete"]) == ({"expected": 2, "acknowledged": 2}, True)
    # A replica that was late with its write would put the old answer back: nobody believes it.
    redis.client.set(key, value, ex=300)
    eventually(lambda: time.monotonic() - flushed_at >= INEXACT)
    assert addresses(other.ask(NAME)) == [NEW]
    eventually(lambda: redis.client.get(key) != value)
    before = hits(one)
    assert addresses(one.ask(NAME)) == [NEW]
    assert (hits(one), upstream.count(NAME)) == (before + 1, 2)
