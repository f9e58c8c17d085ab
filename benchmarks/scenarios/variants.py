"""Heimdall run differently: what an option costs, and what a second process brings."""

from benchmarks import zone
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load
from benchmarks.measure import each, fill, interleave, throughput
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_NAMES = 1000
_OPTIONS = {
    "rate limit": ("--rate-limit", "10000000"),
    "query log": ("--query-log", "true"),
    "query log in JSON": ("--query-log", "true", "--log-format", "json"),
}


def _options(bench: Bench) -> list[Row]:
    variants = [bench.heimdall(*flags, name=name, kind="variant") for name, flags in _OPTIONS.items()]
    return _hits(bench, [bench.heimdall(), *variants])


def _workers(bench: Bench) -> list[Row]:
    cores = bench.cores.workers
    pair = bench.heimdall("--workers", "2", name="--workers 2", kind="variant", cores=cores)
    if cores & bench.cores.load:
        bench.notes.append(
            "The workers share a core with the load generator: too few cores to show what a second brings."
        )
    return _hits(bench, [bench.heimdall(), pair])


def _hits(bench: Bench, servers: list[Server]) -> list[Row]:
    names = bench.names_file(zone.names("option", _NAMES))
    for server in servers:
        fill(bench, server, names)
    load = Load(names=names, seconds=bench.seconds)
    return interleave(bench, each(servers, lambda server, _: throughput(bench, server, load)))


SCENARIOS = (
    Scenario(
        name="options",
        title="What options cost",
        about="L1 hits with an option switched on, beside the defaults. The log goes to a file in memory.",
        run=_options,
    ),
    Scenario(
        name="workers",
        title="Two processes",
        about="L1 hits from two processes that share the port.",
        run=_workers,
    ),
)
