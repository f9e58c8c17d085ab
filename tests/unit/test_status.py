"""What the process knows of itself."""

import json
import socket
import time
from typing import Any

import pytest

from heimdall_lib import __version__
from heimdall_lib.stats import Stats
from heimdall_lib.status import Status
from heimdall_lib.tally import Reading, ReplicaState, WarmingState, WorkerState
from heimdall_lib.top_names import Asked, TopNames
from tests.fakes import eventually

SERVER = "udp://192.0.2.53:53"


class House:
    def __init__(self) -> None:
        self.stats = Stats()
        self.reading = Reading(self.stats, entries=1, size=120, round_trips={SERVER: 1.5})
        self.shown = {"redis-password": "***", "workers": "1"}
        self.unready = ""
        self.names: TopNames = {"asked": [Asked("www.example.com", "A", 2.5)], "missed": []}
        self.status = Status(
            look=lambda: self.reading,
            names=lambda: self.names,
            unready=lambda: self.unready,
            redis="redis://192.0.2.1:6379/0 (redis-url)",
            shown=lambda: self.shown,
        )

    def described(self, part: str) -> Any:
        return self.status.describe(names=True, series=True)[part]


@pytest.fixture
def house() -> House:
    return House()


def test_the_parts_and_that_they_are_json(house: House) -> None:
    described = house.status.describe(names=False, series=False)
    assert list(described) == [
        *("version", "host", "uptime_seconds", "ready", "not_ready"),
        *("queries", "last_minute", "l1", "l2", "upstreams", "fleet", "settings"),
    ]
    assert json.loads(json.dumps(described)) == described
    assert (described["version"], described["host"]) == (__version__, socket.gethostname())


def test_names_and_the_course_of_figures_are_for_who_wants_them(house: House) -> None:
    for _ in range(3):
        house.status.sample()
    described = house.status.describe(names=True, series=True)
    assert described["names"] == {"asked": [{"name": "www.example.com", "type": "A", "times": 2.5}], "missed": []}
    assert house.described("series")["step_seconds"] == 5
    assert house.described("series")["queries_per_second"] == [0, 0]
    assert json.loads(json.dumps(described)) == described


def test_uptime_counts_from_the_start(house: House) -> None:
    before = house.described("uptime_seconds")
    assert 0 <= before < 60
    eventually(lambda: house.described("uptime_seconds") > before)


def test_the_process_is_not_ready_until_it_is_said_to_be(house: House) -> None:
    assert house.status.not_ready == "starting"
    assert (house.described("ready"), house.described("not_ready")) == (False, "starting")
    assert house.status.unready() == "starting"
    house.status.not_ready = ""
    assert (house.described("ready"), house.described("not_ready")) == (True, "")
    assert house.status.unready() == ""


def test_once_it_is_ready_its_service_may_want_clients_to_go_elsewhere_all_the_same(house: House) -> None:
    house.status.not_ready, house.unready = "", "warming"
    assert house.described("ready") is False
    assert house.status.unready() == "warming"
    house.status.not_ready = "draining"
    assert house.status.unready() == "draining"


def test_queries(house: House) -> None:
    stats = house.stats
    stats.queries["udp"] += 3
    stats.responses[3] += 2
    stats.responses[16] += 1
    stats.durations["stale"].observe(0.1)
    stats.coalesced_queries = 4
    stats.dropped["overload"] += 5
    stats.inflight = 6
    stats.tcp_connections = 7
    queries = house.described("queries")
    assert queries.pop("per_second") > 0
    assert queries == {
        "by_transport": {"udp": 3, "tcp": 0},
        "responses": {"NXDOMAIN": 2, "BADVERS": 1},
        "by_source": {"l1": 0, "l2": 0, "upstream": 0, "stale": 1, "local": 0},
        "coalesced": 4,
        "dropped": {"malformed": 0, "overload": 5, "rate_limit": 0, "connection_limit": 0, "send": 0},
        "inflight": 6,
        "tcp_connections": 7,
    }


def test_l1(house: House) -> None:
    house.stats.cache_hits, house.stats.cache_misses = 3, 1
    house.stats.cache_evictions, house.stats.cache_expired = 5, 6
    house.stats.cache_stale_answers, house.stats.cache_prefetches = 7, 8
    assert house.described("l1") == {
        "entries": 1,
        "bytes": 120,
        "hits": 3,
        "misses": 1,
        "hit_ratio": 0.75,
        "evictions": 5,
        "expired": 6,
        "stale_answers": 7,
        "prefetches": 8,
    }


def test_l2(house: House) -> None:
    stats = house.stats
    stats.redis_up = True
    stats.redis_hits, stats.redis_misses = 1, 2
    stats.redis_errors["oom"] += 3
    stats.redis_rejected["format"] += 4
    stats.redis_dropped_writes, stats.redis_budget_exceeded, stats.redis_bytes_saved = 5, 6, 7
    stats.redis_held_back_writes = 9
    house.reading = Reading(stats, warming=WarmingState("done", cold=False, entries=8, seconds=1.5, ended="why"))
    assert house.described("l2") == {
        "redis": "redis://192.0.2.1:6379/0 (redis-url)",
        "up": True,
        "breaker_open": False,
        "hits": 1,
        "misses": 2,
        "hit_ratio": 0.3333,
        "errors": {"oom": 3},
        "rejected": {"format": 4},
        "dropped_writes": 5,
        "held_back_writes": 9,
        "budget_exceeded": 6,
        "bytes_saved": 7,
        "warming": {"state": "done", "cold": False, "entries": 8, "seconds": 1.5, "ended": "why"},
    }


def test_there_is_no_ratio_before_the_first_query(house: House) -> None:
    assert house.described("l1")["hit_ratio"] is None
    assert house.described("l2")["hit_ratio"] is None


def test_upstreams(house: House) -> None:
    house.stats.upstream(SERVER).queries += 2
    house.stats.upstream("udp://192.0.2.54:53").failures["timeout"] += 1
    house.stats.upstream("udp://192.0.2.54:53").up = False
    house.stats.upstream(SERVER).cookies = True
    house.stats.upstream("udp://192.0.2.54:53").lower_case = True
    assert house.described("upstreams") == [
        {
            "server": SERVER,
            "up": True,
            "round_trip_ms": 1.5,
            "queries": 2,
            "failures": {},
            "cookies": True,
            "lower_case": False,
        },
        {
            "server": "udp://192.0.2.54:53",
            "up": False,
            "round_trip_ms": 0.0,
            "queries": 0,
            "failures": {"timeout": 1},
            "cookies": False,
            "lower_case": True,
        },
    ]


def test_workers_when_there_are_any(house: House) -> None:
    state = WorkerState(number=1, pid=4711, up=True, uptime_seconds=2.5, queries=3, restarts=0)
    house.reading = Reading(house.stats, workers=(state,))
    assert house.described("workers") == [
        {"number": 1, "pid": 4711, "up": True, "uptime_seconds": 2.5, "queries": 3, "restarts": 0}
    ]


def test_the_fleet_and_that_there_is_none_without_redis(house: House) -> None:
    assert house.described("fleet") == []
    replica = ReplicaState("0123456789abcdef", "pod-1", "1.0", 60.5, 2.5, 12.5, 0.9, None, here=True)
    house.reading = Reading(house.stats, fleet=(replica,))
    assert house.described("fleet") == [
        {
            "id": "0123456789abcdef",
            "host": "pod-1",
            "version": "1.0",
            "uptime_seconds": 60.5,
            "seen_seconds_ago": 2.5,
            "queries_per_second": 12.5,
            "l1_hit_ratio": 0.9,
            "l2_hit_ratio": None,
            "here": True,
        }
    ]


def test_settings_are_those_in_effect_now(house: House) -> None:
    house.shown = {"workers": "2"}
    assert house.described("settings") == {"workers": "2"}


class TestRate:
    def rate(self, house: House) -> float:
        rate: float = house.described("queries")["per_second"]
        return rate

    def test_nothing_asked_is_nothing_per_second(self, house: House) -> None:
        house.status.sample()
        assert self.rate(house) == 0

    def test_before_the_first_sample_it_counts_from_the_start(self, house: House) -> None:
        started = time.monotonic()
        house.stats.queries["tcp"] += 1000
        eventually(lambda: time.monotonic() - started > 0.1)
        assert 0 < self.rate(house) <= 1000 / 0.1

    def test_it_counts_from_the_oldest_sample(self, house: House) -> None:
        house.stats.queries["udp"] += 1_000_000
        house.status.sample()
        started = time.monotonic()
        house.stats.queries["udp"] += 10
        eventually(lambda: time.monotonic() - started > 0.1)
        assert 0 < self.rate(house) <= 10 / 0.1

    def test_samples_older_than_a_minute_are_forgotten(self, house: House) -> None:
        house.stats.queries["udp"] += 1_000_000
        for _ in range(14):
            house.status.sample()
            house.stats.queries["udp"] += 1
        assert self.rate(house) <= 13 / 0.001

    def test_the_last_minute_has_the_same_rate(self, house: House) -> None:
        house.status.sample()
        described = house.status.describe(names=False, series=False)
        last_minute, queries = described["last_minute"], described["queries"]
        assert isinstance(last_minute, dict)
        assert isinstance(queries, dict)
        assert last_minute["queries_per_second"] == queries["per_second"]
