"""Who shares a real Redis: seen, gone, cut off, lied about."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from heimdall_lib.settings import RedisTarget, Secret
from heimdall_lib.shared_cache.client import ClientOptions, connect
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.roster import Roster
from heimdall_lib.stats import Stats
from tests.fakes import Lines, eventually
from tests.integration.conftest import RedisServer, StartRedis, fill_up, start_cluster
from tests.support.engines import on_every_engine

PREFIX = "heimdall:dns:cache"
INDEX = f"{PREFIX}:replicas"
STRANGER = "f" * 16
VALUE: dict[str, Any] = {
    "v": 1,
    "host": "pod-9",
    "version": "1.0",
    "started_at": 0,
    "seen_at": 1 << 52,
    "queries_per_second": 1.5,
    "l1_hit_ratio": 0.5,
    "l2_hit_ratio": None,
}


class Replica:
    """One that says that it is there, as often as its link has the clock measured."""

    def __init__(self, number: int, target: RedisTarget) -> None:
        self.id = f"{number:016x}"
        self.key = f"{PREFIX}:replica:{self.id}"
        self.stats = Stats()
        options = ClientOptions(1.0)
        self.link = Link(
            lambda: connect(target, options), name="the test's", slow_seconds=5.0, expected=True, stats=self.stats
        )
        self.roster = Roster(
            self.link, prefix=PREFIX, replica=self.id, host=f"pod-{number}", version="1.0", stats=self.stats
        )
        self._keeper = Thread(target=self.link.keep, daemon=True)
        self._keeper.start()

    def renew(self) -> None:
        """Let the time to do so have come."""
        self.link._clock_due = 0.0

    def hosts(self) -> list[str]:
        return [each.host for each in self.roster.describe()]

    def stop(self) -> None:
        self.link.stop()
        self._keeper.join(5.0)


Join = Callable[..., Replica]


@pytest.fixture
def join(redis_server: RedisServer) -> Iterator[Join]:
    """Make a replica of the test's Redis, or of another target, and wait until it has said that it is there."""
    with ExitStack() as stack:
        count = 0

        def make(target: RedisTarget | None = None, *, seen: bool = True) -> Replica:
            nonlocal count
            count += 1
            made = Replica(count, target or redis_server.target)
            stack.callback(made.stop)
            eventually(made.hosts if seen else (lambda: not made.link.open))
            return made

        yield make


def put(server: RedisServer, value: bytes, replica: str = STRANGER) -> None:
    server.admin.zadd(INDEX, {replica: 1e15})
    server.admin.set(f"{PREFIX}:replica:{replica}", value)


@on_every_engine
def test_each_is_known_to_all_with_what_it_counts(join: Join) -> None:
    one, two = join(), join()
    two.stats.queries["tcp"] = two.stats.cache_hits = 30
    two.stats.cache_misses = two.stats.redis_misses = 10
    two.renew()
    eventually(lambda: two.roster.describe()[1].l1_hit_ratio is not None)
    one.renew()
    eventually(lambda: one.roster.describe()[1:] and one.roster.describe()[1].l2_hit_ratio is not None)
    first, second = one.roster.describe()
    assert (first.id, first.host, first.version, first.here) == (one.id, "pod-1", "1.0", True)
    assert (second.id, second.host, second.here) == (two.id, "pod-2", False)
    assert (second.l1_hit_ratio, second.l2_hit_ratio) == (0.75, 0.0)
    assert second.queries_per_second > 0
    assert 0 <= second.uptime_seconds <= 60
    assert second.seen_seconds_ago <= 30


def test_who_is_there_is_asked_anew_for_a_flush(join: Join) -> None:
    one = join()
    two = join()
    assert set(one.roster.present()) == {one.id, two.id}


def test_it_is_one_round_trip_to_say_so_and_one_to_read(join: Join, redis_server: RedisServer) -> None:
    one = join()
    assert one.stats.redis_operations["replicas"].counts != [0] * 17
    assert sum(one.stats.redis_operations["replicas"].counts) == 2
    assert 0 < redis_server.admin.ttl(one.key) <= 30
    assert 0 < redis_server.admin.ttl(INDEX) <= 30


@on_every_engine
def test_who_leaves_is_gone_and_does_not_come_back(join: Join, redis_server: RedisServer) -> None:
    one, two = join(), join()
    two.roster.leave(5.0)
    assert set(one.roster.present()) == {one.id}
    asked = redis_server.calls("time")
    two.renew()
    eventually(lambda: redis_server.calls("time") > asked)
    two.stop()
    assert not redis_server.admin.exists(two.key)


def test_to_leave_a_redis_that_is_not_in_use_costs_nothing(join: Join, redis_server: RedisServer) -> None:
    one = join()
    redis_server.kill()
    one.renew()
    eventually(lambda: one.link.open)
    errors = dict(one.stats.redis_errors)
    one.roster.leave(5.0)
    assert dict(one.stats.redis_errors) == errors


def test_what_expired_is_gone_though_the_index_has_it(join: Join, redis_server: RedisServer) -> None:
    one, two = join(), join()
    redis_server.admin.delete(two.key)
    assert set(one.roster.present()) == {one.id}
    assert one.hosts() == ["pod-1"]


def test_a_redis_that_lost_everything_is_told_again(join: Join, redis_server: RedisServer) -> None:
    one = join()
    redis_server.kill()
    one.renew()
    eventually(lambda: one.link.open)
    redis_server.start()
    eventually(lambda: redis_server.admin.exists(one.key))


def test_when_redis_cannot_say_those_count_that_it_named_last(join: Join, redis_server: RedisServer) -> None:
    one, two = join(), join()
    assert len(one.roster.present()) == 2
    redis_server.kill()
    assert set(one.roster.present()) == {one.id, two.id}
    assert one.hosts() == ["pod-1", "pod-2"]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[" * 2000,
        b"\xff\xfe",
        json.dumps(VALUE).encode() + b" " * 2048,
        *(
            json.dumps(VALUE | {field: wrong}).encode()
            for field, wrong in [
                ("v", 2),
                ("host", ""),
                ("host", "x" * 254),
                ("host", "a\nb"),
                ("host", 1),
                ("started_at", -1),
                ("seen_at", True),
                ("queries_per_second", float("nan")),
                ("l1_hit_ratio", 1.5),
                ("l2_hit_ratio", "1"),
                ("another", 1),
            ]
        ),
    ],
)
def test_who_says_what_nobody_understands_is_counted_and_not_shown(
    join: Join, redis_server: RedisServer, value: bytes
) -> None:
    one = join()
    put(redis_server, value)
    assert set(one.roster.present()) == {one.id, STRANGER}
    assert one.hosts() == ["pod-1"]


def test_a_clock_that_runs_ahead_was_seen_just_now(join: Join, redis_server: RedisServer) -> None:
    one = join()
    put(redis_server, json.dumps(VALUE).encode())
    one.roster.present()
    assert [each.seen_seconds_ago for each in one.roster.describe() if each.host == "pod-9"] == [0.0]


def test_members_that_are_no_ids_are_passed_over_and_the_list_is_bounded(join: Join, redis_server: RedisServer) -> None:
    one = join()
    for member in ("x" * 100_000, "0", "F" * 16, f"{STRANGER}:lease"):
        redis_server.admin.zadd(INDEX, {member: 1e15})
    assert set(one.roster.present()) == {one.id}
    redis_server.admin.zadd(INDEX, {f"{number:016x}": 2e15 for number in range(1000, 1300)})
    redis_server.admin.mset({f"{PREFIX}:replica:{number:016x}": b"" for number in range(1000, 1300)})
    assert len(one.roster.present()) == 256
    one.renew()
    eventually(lambda: redis_server.admin.zcard(INDEX) == 256)


@pytest.mark.parametrize("name", [INDEX, f"{PREFIX}:replica:{STRANGER}"])
def test_another_type_under_a_key_does_no_harm(join: Join, redis_server: RedisServer, name: str) -> None:
    put(redis_server, b"")
    redis_server.admin.delete(name)
    redis_server.admin.lpush(name, "x")
    one = join(seen=name != INDEX)
    assert set(one.roster.present()) == ({one.id} if name != INDEX else set())
    assert not one.link.open


def test_a_full_redis_is_told_of_nobody_and_in_use_all_the_same(join: Join, redis_server: RedisServer) -> None:
    one = join()
    fill_up(redis_server)
    one.renew()
    eventually(lambda: one.stats.redis_errors["oom"])
    assert not one.link.open


@on_every_engine
def test_without_the_permission_the_log_says_so_once_and_redis_is_in_use(join: Join, redis_server: RedisServer) -> None:
    redis_server.admin.execute_command(*f"ACL SETUSER narrow on >pass ~{PREFIX}:* +get +set +time".split())
    with Lines("heimdall.redis") as lines:
        one = join(replace(redis_server.target, username="narrow", password=Secret("pass")), seen=False)
        assert set(one.roster.present()) == set(one.roster.present()) == set()
        said = [line for line in lines if "replicas may not know of each other" in line]
    assert len(said) == 1
    assert not one.link.open


def test_in_a_cluster_too(join: Join, start_redis: StartRedis) -> None:
    endpoints = tuple(server.target.hosts[0] for server in start_cluster(start_redis))
    target = RedisTarget("cluster", endpoints, "test")
    one, two = join(target), join(target)
    assert set(one.roster.present()) == {one.id, two.id}
    two.roster.leave(5.0)
    assert set(one.roster.present()) == {one.id}
