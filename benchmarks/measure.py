"""Measurements of one server: throughput with dnsperf, latency with the prober; and the rounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import dns, dnsperf
from benchmarks.bench import Bench
from benchmarks.dnsperf import Load, Outcome
from benchmarks.errors import BenchmarkError
from benchmarks.figures import percentile
from benchmarks.prober import Probe, probe
from benchmarks.results import Kind, Row
from benchmarks.server import Server

_FILL_ATTEMPTS = 3
_LOAD_SLACK_SECONDS = 30.0
_PASS_SECONDS = 120.0


@dataclass(frozen=True)
class Subject:
    """One row to be: who it is, and how it is measured in the round of a given number."""

    name: str
    kind: Kind
    measure: Callable[[int], Mapping[str, float]]


def send(bench: Bench, server: Server, load: Load) -> Outcome:
    """Run dnsperf against a server."""
    child = bench.nursery.start("dnsperf", load.argv(server.port), cores=bench.cores.load)
    limit = (load.seconds or _PASS_SECONDS) + load.timeout + _LOAD_SLACK_SECONDS
    status = child.wait(limit)
    bench.nursery.stop(child)
    server.child.check()
    if status is None:
        raise BenchmarkError(f"dnsperf did not finish with {server.name} within {limit:g} s")
    return dnsperf.parse(child.log.read_text(errors="replace"))


def throughput(bench: Bench, server: Server, load: Load) -> dict[str, float]:
    """Return answers per second and the server's CPU time per answer."""
    before = server.child.cpu_seconds()
    outcome = send(bench, server, load)
    used = server.child.cpu_seconds() - before
    if not outcome.completed:
        raise BenchmarkError(f"{server.name} answered nothing")
    return {
        "rate": outcome.rate,
        "cpu_us": used / outcome.completed * 1e6,
        "lost": outcome.lost,
        "errors": outcome.errors,
    }


def fill(bench: Bench, server: Server, names: Path, *, rate: int | None = None) -> None:
    """Have a server learn names; what is lost on the way is asked for again."""
    bench.progress.say(f"filling {server.name}")
    for _ in range(_FILL_ATTEMPTS):
        outcome = send(bench, server, Load(names=names, passes=1, rate=rate))
        if not outcome.lost and not outcome.errors:
            return
    bench.notes.append(f"{server.name} left {outcome.lost + outcome.errors} of {outcome.sent} names unanswered")


def latency(server: Server, names: Sequence[str], rate: float, *, edns: bool = False) -> dict[str, float]:
    """Return percentiles of the latency when ``names`` are asked for, one after the other, ``rate`` a second."""
    queries = [(0, dns.query(name, 0, edns=edns)) for name in names]
    try:
        found = probe([server.port], queries, rate)
    except OSError as error:
        raise BenchmarkError(f"{server.name} cannot be asked: {error}") from None
    server.child.check()
    return probe_sample(found)


def probe_sample(found: Probe) -> dict[str, float]:
    """Return what a probe found; raises when nothing was answered."""
    answered = [value / 1000 for value in found.nanoseconds if value >= 0]
    if not answered:
        raise BenchmarkError("nothing was answered")
    return {
        "p50_us": percentile(answered, 50),
        "p99_us": percentile(answered, 99),
        "max_us": max(answered),
        "offered": found.rate,
        "lost": found.lost,
    }


def interleave(bench: Bench, subjects: Sequence[Subject]) -> list[Row]:
    """Measure every subject once a round, one after the other; a peer that fails is left out and noted."""
    rows = {subject.name: Row(subject.name, subject.kind) for subject in subjects}
    for number in range(bench.rounds):
        for subject in subjects:
            if subject.name not in rows:
                continue
            bench.progress.say(f"round {number + 1} of {bench.rounds}, {subject.name}")
            try:
                rows[subject.name].samples.append(dict(subject.measure(number)))
            except BenchmarkError as error:
                if subject.kind in {"heimdall", "variant"}:
                    raise
                bench.notes.append(f"{subject.name} was left out: {error}")
                del rows[subject.name]
    return list(rows.values())


def each(servers: Sequence[Server], measure: Callable[[Server, int], Mapping[str, float]]) -> list[Subject]:
    """Return a subject for every server."""
    return [Subject(server.name, server.kind, partial(measure, server)) for server in servers]
