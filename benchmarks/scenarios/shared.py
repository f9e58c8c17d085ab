"""Answers from Redis: a replica that starts cold finds what another one has learned."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks import redis_server, zone
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load
from benchmarks.measure import Subject, fill, interleave, latency, throughput
from benchmarks.peers import UNBOUND_CACHEDB
from benchmarks.results import HEIMDALL, Kind, Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_NAMES = 40_000
_FILL_RATE = 6000  # what a writer behind the queries keeps up with
_WARM_UP = 300
_OFFERED = 2000
_LATENCY_ROUND_TRIP = 0.003
_FAR, _FAR_SECONDS = "Redis 15 ms away", 0.015  # within the read budget of 20 ms: a miss has to wait for it
_NO_CACHEDB = "Unbound cachedb, the peer that shares a cache through Redis, is missing: unbound -V lists no cachedb."


@dataclass(frozen=True)
class _Sharer:
    """A server that shares its cache through the Redis on a port."""

    name: str
    kind: Kind
    start: Callable[[int], Server]


def _l2(round_trip: float, bench: Bench) -> list[Row]:
    names = zone.names("shared", bench.count(_NAMES))
    load = Load(names=bench.names_file(names), passes=1)
    return _cold(bench, names, round_trip, lambda server: throughput(bench, server, load))


def _l2_latency(bench: Bench) -> list[Row]:
    names = zone.names("shared", int(_OFFERED * bench.seconds))
    return _cold(bench, names, _LATENCY_ROUND_TRIP, lambda server: latency(server, names, _OFFERED))


def _cold(
    bench: Bench, names: list[str], round_trip: float, measure: Callable[[Server], dict[str, float]]
) -> list[Row]:
    """Fill Redis; then, each round, start the server anew and measure it while it has nothing in memory."""
    redis = redis_server.start(bench)
    distant = bench.distance(redis, round_trip) if round_trip else redis
    warm_up = bench.names_file(zone.names("warm", _WARM_UP))
    to_ping = redis_server.round_trip_seconds(distant) * 1e6

    def measure_cold(start: Callable[[int], Server], _: int) -> dict[str, float]:
        server = start(distant)
        fill(bench, server, warm_up)
        before = _l2_hits(server)
        sample = measure(server)
        sample["l2_share"] = 100 * (_l2_hits(server) - before) / len(names)
        if "p50_us" in sample:
            sample["above_rtt_us"] = sample["p50_us"] - to_ping
        bench.stop(server)
        return sample

    subjects = []
    for sharer in _sharers(bench):
        filler = sharer.start(redis)
        fill(bench, filler, warm_up)
        fill(bench, filler, bench.names_file(names), rate=_FILL_RATE)
        bench.stop(filler)
        subjects.append(Subject(sharer.name, sharer.kind, partial(measure_cold, sharer.start)))
    bench.notes.append(f"A PING takes {to_ping / 1000:.2f} ms; Redis holds {redis_server.entries(redis)} keys.")
    return interleave(bench, subjects)


def _sharers(bench: Bench) -> list[_Sharer]:
    sharers = [_Sharer(HEIMDALL, "heimdall", partial(_heimdall, bench))]
    if UNBOUND_CACHEDB.installed():
        start = partial(bench.peer, UNBOUND_CACHEDB, "peer", entries=2 * _NAMES)
        sharers.append(_Sharer(UNBOUND_CACHEDB.name, "peer", lambda redis: start(redis=redis)))
    else:
        bench.notes.append(_NO_CACHEDB)
    return sharers


def _heimdall(bench: Bench, redis: int, name: str = HEIMDALL, kind: Kind = "heimdall") -> Server:
    # Nothing may be fetched at start: the scenario is about what is not in memory.
    return bench.heimdall("--warm-cache-entries", "0", name=name, kind=kind, redis=redis)


def _l2_hits(server: Server) -> float:
    return server.counter("redis_hits_total") if server.http_port else 0.0


def _miss_l2(bench: Bench) -> list[Row]:
    redis = redis_server.start(bench)
    servers = [_heimdall(bench, redis), bench.heimdall(name="without Redis", kind="beside")]
    if UNBOUND_CACHEDB.installed():
        servers.append(bench.peer(UNBOUND_CACHEDB, "peer", redis=redis))
    else:
        bench.notes.append(_NO_CACHEDB)
    servers.append(_heimdall(bench, bench.distance(redis, _FAR_SECONDS), _FAR, "beside"))

    def measure(server: Server, number: int) -> dict[str, float]:
        # Names of its own for each server: what one has stored, another one would find.
        prefix = f"new{number}{server.port}-"
        slow = zone.names(f"{prefix}a", int(_OFFERED * bench.seconds))
        fast = zone.names(f"{prefix}b", bench.count(_NAMES // 2))
        before = server.child.cpu_seconds()
        sample = latency(server, slow, _OFFERED)
        alone, lost = server.child.cpu_seconds() - before, sample["lost"]
        sample |= throughput(bench, server, Load(names=bench.names_file(fast), passes=1))
        return sample | {"alone_cpu_us": alone / len(slow) * 1e6, "lost": sample["lost"] + lost}

    return interleave(bench, [Subject(server.name, server.kind, partial(measure, server)) for server in servers])


def _scenario(name: str, where: str, round_trip: float) -> Scenario:
    return Scenario(
        name=name,
        title=f"L2 hits, Redis {where}",
        about=f"{_NAMES} names that another replica has stored in Redis, each asked for once from a replica that has "
        "just started.",
        run=partial(_l2, round_trip),
        shown=("rate", "cpu_us", "l2_share", "lost", "errors"),
    )


SCENARIOS = (
    _scenario("l2", "on loopback", 0.0),
    _scenario("l2-1ms", "1 ms away", 0.001),
    _scenario("l2-3ms", "3 ms away", 0.003),
    _scenario("l2-5ms", "5 ms away", 0.005),
    Scenario(
        name="l2-latency",
        title="Latency of L2 hits, Redis 3 ms away",
        about=f"{_OFFERED} queries a second, each for another name that Redis has and the replica's memory has not.",
        run=_l2_latency,
        shown=("p50_us", "above_rtt_us", "p99_us", "max_us", "l2_share", "lost"),
        compared=("p50_us", "p99_us"),
    ),
    Scenario(
        name="miss-l2",
        title="Misses with Redis",
        about=f"New names at {_OFFERED} queries a second (latency), then {_NAMES // 2} more as fast as they are "
        "answered: what it costs to look into an empty Redis first and to store there, and what it costs when Redis is "
        "nearly too far away for its read budget.",
        run=_miss_l2,
        seconds=1.5,
        shown=("rate", "cpu_us", "alone_cpu_us", "p50_us", "p99_us", "lost", "errors"),
        compared=("p50_us", "rate"),
    ),
)
