"""Answers from memory: what a hit costs, and how soon it is there."""

import random
from collections.abc import Mapping

from benchmarks import zone
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load
from benchmarks.measure import each, fill, interleave, latency, send, throughput
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_NAMES = 1000
_MANY_NAMES = 100_000
_SPELLINGS = 50
_OFFERED = 10_000
_WARM_UP_SECONDS = 0.3
_UPSTREAM_SECONDS = 0.02  # some ten thousand queries of nsd's: more than a few lost datagrams explain


def _l1(bench: Bench) -> list[Row]:
    load = Load(names=bench.names_file(zone.names("hit", _NAMES)), seconds=bench.seconds)
    return _throughput(bench, load, [bench.heimdall(), *bench.peers(), *bench.floor()])


def _l1_many_names(bench: Bench) -> list[Row]:
    names = zone.names("many", bench.count(_MANY_NAMES))
    random.Random(2).shuffle(names)  # not in the order in which they lie in memory
    entries = 2 * _MANY_NAMES
    load = Load(names=bench.names_file(names), seconds=bench.seconds)
    return _throughput(bench, load, [bench.heimdall(entries=entries), *bench.peers(entries=entries)])


def _l1_edns_mixed_case(bench: Bench) -> list[Row]:
    # Clients that use the case of letters as a nonce never spell a name the same way twice.
    names = bench.names_file(zone.names("case", _NAMES) * _SPELLINGS, mixed=True)
    return _throughput(bench, Load(names=names, seconds=bench.seconds, edns=True), [bench.heimdall(), *bench.peers()])


def _tcp(bench: Bench) -> list[Row]:
    load = Load(names=bench.names_file(zone.names("tcp", _NAMES)), seconds=bench.seconds, tcp=True)
    return _throughput(bench, load, [bench.heimdall(), *bench.peers()])


def _l1_latency(bench: Bench) -> list[Row]:
    names = zone.names("late", _NAMES)
    servers = [bench.heimdall(), *bench.peers(), *bench.floor()]
    for server in servers:
        fill(bench, server, bench.names_file(names))
    asked = random.Random(3).choices(names, k=int(_OFFERED * bench.seconds))
    return interleave(bench, each(servers, lambda server, _: latency(server, asked, _OFFERED)))


def _throughput(bench: Bench, load: Load, servers: list[Server]) -> list[Row]:
    for server in servers:
        fill(bench, server, load.names)
        send(bench, server, Load(names=load.names, seconds=_WARM_UP_SECONDS, edns=load.edns, tcp=load.tcp))

    upstream, asking = bench.upstream().child, set[str]()

    def measure(server: Server, _: int) -> Mapping[str, float]:
        before = upstream.cpu_seconds()
        sample = throughput(bench, server, load)
        if upstream.cpu_seconds() - before > _UPSTREAM_SECONDS:
            asking.add(server.name)
        return sample

    rows = interleave(bench, each(servers, measure))
    bench.notes += [f"{name} asked upstream meanwhile: not all of these were hits." for name in sorted(asking)]
    return rows


SCENARIOS = (
    Scenario(
        name="l1",
        title="L1 hits",
        about=f"{_NAMES} names that every server has in memory, asked for as fast as they are answered. The bare echo "
        "receives and sends the same datagrams without looking at them: what the kernel costs.",
        run=_l1,
        rounds=5,
    ),
    Scenario(
        name="l1-100k",
        title="L1 hits among 100 000 names",
        about="The same with a hundred times the names, in random order: what it costs that memory is larger than the "
        "processor's caches, and that an answer is rarely asked for twice in a second.",
        run=_l1_many_names,
    ),
    Scenario(
        name="l1-edns-mixed-case",
        title="L1 hits with EDNS and mixed case",
        about=f"{_NAMES} names with EDNS, each in {_SPELLINGS} spellings.",
        run=_l1_edns_mixed_case,
    ),
    Scenario(
        name="l1-latency",
        title="Latency of L1 hits",
        about=f"{_OFFERED} queries a second, sent at fixed instants whether or not the one before was answered.",
        run=_l1_latency,
        shown=("p50_us", "p99_us", "max_us", "offered", "lost"),
        compared=("p50_us", "p99_us"),
    ),
    Scenario(
        name="tcp",
        title="L1 hits over TCP",
        about="1000 names over 20 connections, queries pipelined.",
        run=_tcp,
    ),
)
