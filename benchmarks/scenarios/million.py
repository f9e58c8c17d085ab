"""A million entries: memory, hits and pauses."""

import random
from pathlib import Path

from benchmarks import zone
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load
from benchmarks.measure import Subject, fill, interleave, latency, send, throughput
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_ENTRIES = 1_000_000
_FEW = 1000
_FILL_SECONDS = 85.0  # what the time limit of a scenario leaves; the report says how many entries it was enough for
_OFFERED = 10_000
_PURGE_SECONDS = 3.0


def _million(bench: Bench) -> list[Row]:
    few = zone.names("few", _FEW)
    few_file = bench.names_file(few)
    small = bench.heimdall(name="1 k entries", kind="variant")
    # A purge within every latency sample, instead of every 30 s: its pauses are what is looked for.
    flags = ("--max-cache-bytes", str(4 << 30), "--purge-interval", str(_PURGE_SECONDS))
    large = bench.heimdall(*flags, name="many entries", kind="variant", entries=_ENTRIES + 10 * _FEW)
    for server in (small, large):
        fill(bench, server, few_file)
    before = large.child.memory_bytes(), large.counter("cache_size")
    names = zone.names("million", bench.count(_ENTRIES))
    bench.progress.say("filling 1 M entries, a minute or so")
    send(bench, large, Load(names=bench.names_file(names), passes=1, seconds=_FILL_SECONDS))
    entries = large.counter("cache_size")
    if entries < (goal := bench.count(_ENTRIES)):
        bench.notes.append(
            f"{_FILL_SECONDS:.0f} s, the time that filling may take, were enough for {entries / goal:.0%}."
        )
    memory = {"entries": entries, "bytes_per_entry": (large.child.memory_bytes() - before[0]) / (entries - before[1])}
    known = names[: int(entries) - 2 * _FEW]  # dnsperf sends them in order
    asked = random.Random(4).choices(known, k=bench.count(200_000))

    def hits(server: Server, file: Path, chosen: list[str], facts: dict[str, float]) -> Subject:
        def measure(number: int) -> dict[str, float]:
            offered = random.Random(number).choices(chosen, k=int(_OFFERED * (_PURGE_SECONDS + 0.5)))
            sample = throughput(bench, server, Load(names=file, seconds=bench.seconds))
            return sample | latency(server, offered, _OFFERED) | facts

        return Subject(server.name, server.kind, measure)

    return interleave(
        bench,
        [
            hits(small, few_file, few, {"entries": small.counter("cache_size")}),
            hits(large, bench.names_file(asked), asked, memory),
        ],
    )


SCENARIOS = (
    Scenario(
        name="l1-million",
        title="A million entries in L1",
        about="Heimdall with a million answers that were learned from upstream, beside one with a thousand: memory per "
        f"entry (growth of the resident size), hits on random ones of them, and latency at {_OFFERED} queries a "
        f"second while expired entries are looked for every {_PURGE_SECONDS:g} s.",
        run=_million,
        rounds=2,
        shown=("entries", "bytes_per_entry", "rate", "cpu_us", "p50_us", "p99_us", "max_us", "lost"),
    ),
)
