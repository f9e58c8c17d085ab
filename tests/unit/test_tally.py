"""The sum over several processes, those that have ended included."""

import json
from dataclasses import replace
from typing import Any

import pytest

from heimdall_lib.stats import Stats
from heimdall_lib.tally import (
    Plain,
    Reading,
    ReplicaState,
    Tally,
    WarmingState,
    WorkerState,
    is_cold,
    plain,
    queries,
)

FIRST, SECOND = "udp://192.0.2.1:53", "udp://192.0.2.2:53"


def read(number: int, **reading: Any) -> Plain:
    """Return what came over the channel from a process that has counted ``number`` of everything."""
    stats = Stats()
    for name in Stats.__slots__:
        value = getattr(stats, name)
        if type(value) is int:
            setattr(stats, name, number)
    stats.queries["udp"] = stats.dropped["overload"] = stats.redis_invalidations["sent"] = number
    stats.responses[3] = number
    stats.redis_errors["timeout"] = number
    stats.redis_up = True
    stats.redis_operations["get"].observe_many(0.25, number)
    stats.durations["l1"].observe_many(0.5, number)
    upstream = stats.upstream(FIRST)
    upstream.queries = upstream.failures["timeout"] = number
    upstream.duration.observe_many(0.125, number)
    over_the_channel: Plain = json.loads(json.dumps(plain(Reading(stats, **reading))))
    return over_the_channel


def flattened(value: Any) -> Any:
    """Return counters in a form that can be compared."""
    if hasattr(value, "__slots__"):
        return {name: flattened(getattr(value, name)) for name in value.__slots__}
    return {key: flattened(each) for key, each in value.items()} if isinstance(value, dict) else value


def test_one_process_alone_is_its_own_sum() -> None:
    reading = Tally().total([read(7, entries=3, size=300, round_trips={FIRST: 1.5})])
    assert (reading.entries, reading.size, reading.round_trips, reading.workers) == (3, 300, {FIRST: 1.5}, ())
    assert plain(reading) == read(7, entries=3, size=300, round_trips={FIRST: 1.5})


@pytest.mark.parametrize("name", sorted(set(Stats.__slots__) - {"redis_up", "redis_breaker_open"}))
def test_everything_that_is_counted_is_added(name: str) -> None:
    total = Tally().total([read(2), read(3)]).stats
    assert flattened(getattr(total, name)) == read(5)["stats"][name]


def test_what_is_held_is_added_over_those_that_run() -> None:
    total = Tally().total([read(1, entries=3, size=300), read(1, entries=4, size=500)])
    assert (total.entries, total.size, total.stats.inflight, total.stats.tcp_connections) == (7, 800, 2, 2)


def test_a_label_that_only_one_has_seen_is_there() -> None:
    one, other = read(1), read(1)
    other["stats"]["redis_errors"] = {"oom": 4}
    other["stats"]["upstreams"] = {SECOND: one["stats"]["upstreams"][FIRST]}
    stats = Tally().total([one, other]).stats
    assert stats.redis_errors == {"timeout": 1, "oom": 4}
    assert {server: each.queries for server, each in stats.upstreams.items()} == {FIRST: 1, SECOND: 1}


@pytest.mark.parametrize(
    ("up", "expected"), [([True, True], True), ([True, False], False), ([False, False], False), ([], False)]
)
def test_redis_and_an_upstream_server_are_up_when_they_are_for_all(up: list[bool], expected: bool) -> None:
    readings = [read(1) for _ in up]
    for reading, is_up in zip(readings, up, strict=True):
        reading["stats"]["redis_up"] = reading["stats"]["upstreams"][FIRST]["up"] = is_up
    stats = Tally().total(readings).stats
    assert stats.redis_up is expected
    assert [each.up for each in stats.upstreams.values()] == ([expected] if up else [])


@pytest.mark.parametrize(("is_open", "expected"), [([False, False], False), ([False, True], True)])
def test_the_breaker_is_open_when_it_is_for_one(is_open: list[bool], expected: bool) -> None:
    readings = [read(1) for _ in is_open]
    for reading, one in zip(readings, is_open, strict=True):
        reading["stats"]["redis_breaker_open"] = one
    assert Tally().total(readings).stats.redis_breaker_open is expected


def test_round_trips_are_the_mean_over_who_has_measured_one() -> None:
    trips = [{FIRST: 1.0, SECOND: 0.0}, {FIRST: 4.0, SECOND: 0.0}, {FIRST: 0.0}]
    assert Tally().total([read(1, round_trips=each) for each in trips]).round_trips == {FIRST: 2.5, SECOND: 0.0}


WAITING, RUNNING = WarmingState("waiting", cold=True), WarmingState("running", cold=True, entries=5, seconds=0.5)
DONE = WarmingState("done", entries=70, seconds=1.5, ended="Redis has no more")
OFF = WarmingState()


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([DONE], DONE),
        ([DONE, RUNNING, WAITING], replace(WAITING, entries=75)),
        ([DONE, RUNNING], replace(RUNNING, entries=75)),
        ([DONE, DONE], replace(DONE, entries=140)),
        ([OFF, OFF], OFF),
        ([], OFF),
    ],
)
def test_warming_is_as_far_as_who_has_most_before_it(states: list[WarmingState], expected: WarmingState) -> None:
    assert Tally().total([read(1, warming=state) for state in states]).warming == expected


def test_a_process_is_as_cold_as_its_warming_says() -> None:
    assert [is_cold(read(1, warming=state)) for state in (WAITING, RUNNING, DONE, OFF)] == [True, True, False, False]


def seen(replica: str, ago: float, *, host: str = "pod", here: bool = False) -> ReplicaState:
    return ReplicaState(replica, host, "1.0", 60.0, ago, 5.0, 0.5, None, here=here)


def test_the_fleet_is_everybody_whom_a_process_knows_as_the_last_to_see_it_did() -> None:
    one = read(1, fleet=(seen("a", 1.0, here=True), seen("b", 3.0), seen("c", 2.0, host="another")))
    other = read(1, fleet=(seen("a", 4.0), seen("b", 2.0, here=True)))
    expected = [seen("c", 2.0, host="another"), seen("a", 1.0, here=True), seen("b", 2.0, here=True)]
    assert Tally().total([one, other]).fleet == expected
    assert Tally().total([other, one]).fleet == expected
    assert Tally().total([]).fleet == []


class TestEnded:
    def test_counters_of_a_process_that_has_ended_stay(self) -> None:
        tally = Tally()
        tally.end(read(5))
        tally.end(read(6))
        stats = tally.total([read(1)]).stats
        assert (stats.cache_hits, stats.queries["udp"], stats.responses[3]) == (12, 12, 12)
        assert stats.redis_errors == {"timeout": 12}
        assert sum(stats.durations["l1"].counts) == 12
        assert stats.durations["l1"].total == 6.0
        assert stats.upstreams[FIRST].failures == {"timeout": 12}

    def test_what_it_held_does_not(self) -> None:
        tally = Tally()
        last = read(5, entries=10, size=1000, round_trips={FIRST: 3.0})
        last["stats"]["redis_breaker_open"] = True
        last["stats"]["upstreams"][FIRST]["up"] = False
        tally.end(last)
        total = tally.total([read(1)])
        assert (total.stats.inflight, total.stats.tcp_connections, total.entries, total.size) == (1, 1, 0, 0)
        assert (total.stats.redis_up, total.stats.redis_breaker_open) == (True, False)
        assert total.stats.upstreams[FIRST].up is True
        assert total.round_trips == {}

    def test_while_none_runs_nothing_is_held_and_redis_is_not_in_use(self) -> None:
        tally = Tally()
        tally.end(read(5))
        stats = tally.total([]).stats
        assert (stats.cache_hits, stats.inflight, stats.redis_up) == (5, 0, False)

    def test_the_sum_is_made_anew_each_time(self) -> None:
        tally = Tally()
        tally.end(read(5))
        for _ in range(3):
            assert tally.total([read(1)]).stats.queries["udp"] == 6

    def test_servers_that_are_no_more_in_use_are_forgotten(self) -> None:
        tally = Tally()
        tally.end(read(5))
        tally.keep_upstreams({FIRST})
        assert set(tally.total([]).stats.upstreams) == {FIRST}
        tally.keep_upstreams({SECOND})
        assert not tally.total([]).stats.upstreams


def test_queries_of_one_process() -> None:
    assert queries(read(5)) == 5


def test_the_workers_are_handed_on() -> None:
    state = WorkerState(number=1, pid=4711, up=True, uptime_seconds=2.0, queries=3, restarts=0)
    assert Tally().total([], [state]).workers == [state]
