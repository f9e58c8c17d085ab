"""Hits beside misses that hang: who waits for a slow or dead upstream, and who does not."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import zone
from benchmarks.bench import Bench
from benchmarks.dns import ZONE
from benchmarks.dnsperf import Load
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Subject, each, fill, interleave, latency, throughput
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_NAMES = 1000
_OFFERED = 10_000
_BAD_ZONE = f"bad.{ZONE}"
_WAITING = 1000
_NAMES_OF_A_ROUND = 50_000
_BUILD_UP_SECONDS = 2.0
_DEAD_RATE = 1000
_SLOW_RATE = 500
_SLOW_SECONDS = 0.5


def _dead_upstream(bench: Bench) -> list[Row]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:  # takes queries and never answers one
        silent.bind(("127.0.0.1", 0))
        return _beside(bench, silent.getsockname()[1], _DEAD_RATE)


def _slow_upstream(bench: Bench) -> list[Row]:
    return _beside(bench, bench.late_answers(_SLOW_SECONDS), _SLOW_RATE)


def _beside(bench: Bench, bad_port: int, miss_rate: int) -> list[Row]:
    names = zone.names("good", _NAMES)
    hits = bench.names_file(names)
    asked = random.Random(5).choices(names, k=int(_OFFERED * bench.seconds))
    zones = {_BAD_ZONE: bad_port}

    def measure(server: Server, _: int) -> dict[str, float]:
        sample = latency(server, asked, _OFFERED)
        fast = throughput(bench, server, Load(names=hits, seconds=bench.seconds))
        return sample | {"rate": fast["rate"], "lost": sample["lost"] + fast["lost"]}

    def measure_beside(server: Server, number: int) -> dict[str, float]:
        with _misses(bench, server, miss_rate, number):
            waiting = {"waiting": server.counter("inflight_queries")} if server.http_port else {}
            return measure(server, number) | waiting

    subjects = []
    for server in (bench.heimdall(zones=zones), *bench.peers("unbound", zones=zones)):
        fill(bench, server, hits)
        subjects += each([server], measure_beside)
        subjects.append(Subject(f"{server.name}, no misses", "beside", partial(measure, server)))
    return interleave(bench, subjects)


@contextmanager
def _misses(bench: Bench, server: Server, rate: int, number: int) -> Iterator[None]:
    """Keep asking for names of the bad upstream, with a thousand queries at most waiting."""
    names = bench.names_file(zone.names(f"hang{number}-", _NAMES_OF_A_ROUND, zone=_BAD_ZONE))
    load = Load(names=names, seconds=60, rate=rate, outstanding=_WAITING, timeout=5)
    child = bench.nursery.start("misses", load.argv(server.port), cores=bench.cores.load)
    try:
        if child.wait(_BUILD_UP_SECONDS) is not None:
            raise BenchmarkError(f"the misses ended early: {child.last_words()}")
        yield
    finally:
        bench.nursery.stop(child)


_SHOWN = ("p50_us", "p99_us", "max_us", "lost", "rate", "waiting")

SCENARIOS = (
    Scenario(
        name="l1-with-dead-upstream",
        title="Hits while misses wait for a dead upstream",
        about=f"Hits at {_OFFERED} queries a second, then as fast as they are answered, while a zone's upstream never "
        f"answers and up to {_WAITING} queries for that zone wait for it.",
        run=_dead_upstream,
        seconds=1.5,
        shown=_SHOWN,
        compared=("p50_us", "rate"),
    ),
    Scenario(
        name="slow-upstream",
        title="Hits beside a slow upstream",
        about=f"The same with {_SLOW_RATE} queries a second for an upstream that takes {_SLOW_SECONDS * 1000:g} ms.",
        run=_slow_upstream,
        seconds=1.5,
        shown=_SHOWN,
        compared=("p50_us", "rate"),
    ),
)
