"""Names that nobody has asked for: what a trip upstream costs."""

from benchmarks import zone
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load
from benchmarks.measure import each, interleave, throughput
from benchmarks.results import Row
from benchmarks.scenario import Scenario

_NAMES = 20_000
_FILES = 2  # a sample of the fastest would otherwise take less than a second


def _miss(bench: Bench) -> list[Row]:
    count = bench.count(_FILES * _NAMES)
    loads = [
        Load(names=bench.names_file(zone.names(f"miss{number}-", count)), passes=1) for number in range(bench.rounds)
    ]
    # nsd without anything in front: the miss load must stay well below what the upstream could answer.
    entries = 2 * _FILES * _NAMES * bench.rounds  # room for all: what eviction costs is another question
    peers = bench.peers(entries=entries, compare_relays=False)
    servers = [bench.heimdall(entries=entries), *peers, bench.upstream()]
    return interleave(bench, each(servers, lambda server, number: throughput(bench, server, loads[number])))


SCENARIOS = (
    Scenario(
        name="miss",
        title="Misses",
        about=f"{_FILES * _NAMES} distinct names a round, none of them known, forwarded to nsd. dnsdist is a relay, "
        "which passes the answer on without understanding it: it is shown, but not compared with. nsd's own rate "
        "is the limit that the upstream sets.",
        run=_miss,
    ),
)
