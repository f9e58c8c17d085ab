"""More queries than can be answered: who still gets an answer, how soon, and what is left of it afterwards."""

import random
from collections.abc import Sequence

from benchmarks import dns, dnsperf, zone
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load
from benchmarks.figures import TIMES
from benchmarks.measure import fill, probe_sample, throughput
from benchmarks.prober import probe
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_HITS, _MISSES = 1000, 30_000
_MISS_SHARE = 0.3
_ENTRIES = 5000  # in L1: what is missed is forgotten long before it is asked for again
_TIMES = 3
_PROBED = 500  # hits a second whose latency is taken
_OUTSTANDING = 60_000  # more than are ever answered late
_TIMEOUT_SECONDS = 1
_CAPACITY_SECONDS = 5.0
_SETTLE_SECONDS = 2.0  # after which everything is to be as before
_MIB = 1 << 20


def _overload(bench: Bench) -> list[Row]:
    hits = zone.names("hit", _HITS)
    server = bench.heimdall(entries=_ENTRIES)
    mix = bench.names_file(_mixed(hits, zone.names("miss", _MISSES)))
    fill(bench, server, bench.names_file(hits))
    seconds = min(bench.seconds, _CAPACITY_SECONDS)
    rows = [Row(name, "variant") for name in ("before", f"{_TIMES} {TIMES} capacity", "the 2 s after", "then")]
    for number in range(bench.rounds):
        bench.progress.say(f"round {number + 1} of {bench.rounds}")
        capacity = throughput(bench, server, Load(names=mix, seconds=seconds))["rate"]
        flood = Load(
            names=mix,
            seconds=bench.seconds,
            rate=int(_TIMES * capacity),
            outstanding=_OUTSTANDING,
            timeout=_TIMEOUT_SECONDS,
        )
        rows[0].samples.append({"rate": capacity, **_quiet(server, hits, seconds)})
        rows[1].samples.append(_flooded(bench, server, flood, hits))
        rows[2].samples.append(_quiet(server, hits, _SETTLE_SECONDS))
        rows[3].samples.append(_quiet(server, hits, seconds))
    return rows


def _mixed(hits: Sequence[str], misses: Sequence[str]) -> list[str]:
    chance = random.Random(8)
    repeated = chance.choices(hits, k=int(len(misses) * (1 - _MISS_SHARE) / _MISS_SHARE))
    mixed = [*repeated, *misses]
    chance.shuffle(mixed)
    return mixed


def _quiet(server: Server, hits: Sequence[str], seconds: float) -> dict[str, float]:
    """Probe the hits alone."""
    sample = _probed(server, hits, seconds)
    return {**sample, "memory": server.child.memory_bytes() / _MIB}


def _flooded(bench: Bench, server: Server, flood: Load, hits: Sequence[str]) -> dict[str, float]:
    """Probe the hits while ``flood`` comes in beside."""
    shed, used = server.counter("dropped_queries_total"), server.child.cpu_seconds()
    child = bench.nursery.start("dnsperf", flood.argv(server.port), cores=bench.cores.load)
    sample = _probed(server, hits, bench.seconds)
    child.wait(bench.seconds + 30)
    bench.nursery.stop(child)
    used = server.child.cpu_seconds() - used
    outcome = dnsperf.parse(child.log.read_text(errors="replace"))
    return {
        **sample,
        "rate": outcome.rate,
        "cpu_us": used / outcome.completed * 1e6,
        "offered": outcome.sent / outcome.seconds,
        "errors": outcome.errors,
        "shed": server.counter("dropped_queries_total") - shed,
        "memory": server.child.memory_bytes() / _MIB,
    }


def _probed(server: Server, hits: Sequence[str], seconds: float) -> dict[str, float]:
    names = random.Random(9).choices(hits, k=int(_PROBED * seconds))
    found = probe([server.port], [(0, dns.query(name, 0)) for name in names], _PROBED)
    server.child.check()
    sample = probe_sample(found)
    return {
        "answered": 100 * (1 - found.lost / len(names)),
        **{key: sample[key] for key in ("p50_us", "p99_us", "max_us")},
    }


SCENARIOS = (
    Scenario(
        name="overload",
        title="Overload",
        about=f"{100 * _MISS_SHARE:.0f} % misses among hits, {_TIMES} times as many queries as are answered when they "
        f"wait for each other; beside them {_PROBED} hits a second, whose latency is taken.",
        run=_overload,
        rounds=1,
        seconds=60.0,
        shown=("offered", "rate", "cpu_us", "errors", "shed", "answered", "p50_us", "p99_us", "max_us", "memory"),
        compared=(),
    ),
)
