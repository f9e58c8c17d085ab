"""Runs scenarios one after the other, each with servers and a directory of its own, and keeps what they found."""

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError, NotSupportedError
from benchmarks.machine import Cores
from benchmarks.neighbours import Neighbours
from benchmarks.peers import PEERS, UNBOUND_CACHEDB, on_path
from benchmarks.processes import Nursery
from benchmarks.progress import Progress
from benchmarks.results import FLOOR, Results, ScenarioResult
from benchmarks.scenario import Scenario

_REQUIRED = {"dnsperf": "dnsperf", "nsd": "nsd"}
_COMPILERS = ("gcc", "cc", "clang")
_MEMORY_DISK = Path("/dev/shm")
_ROOM_BYTES = 2 << 30
_QUICK_SECONDS = 1.0
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run; None: as the scenario wants it."""

    rounds: int | None = None
    seconds: float | None = None
    quick: bool = False
    peers: frozenset[str] | None = None


def run(
    scenarios: Sequence[Scenario], options: Options, path: Path, show: Callable[[Scenario, ScenarioResult], None]
) -> Results:
    """Measure ``scenarios``, add them to the results in ``path``, and show each when it is done."""
    check_programs()
    cores = Cores.choose(sorted(os.sched_getaffinity(0)))
    results = _known(path)
    results.machine, results.versions = machine.describe(cores), machine.versions()
    progress = Progress()
    with _workshop() as directory:
        floor = _compile_floor(directory)
        results.missing = missing(floor)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        os.sched_setaffinity(0, cores.load)  # the latency prober runs in this process
        for number, scenario in enumerate(scenarios):
            progress.scenario = f"{number + 1}/{len(scenarios)} {scenario.name}"
            result = ScenarioResult(
                name=scenario.name,
                measured_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                version=results.versions["heimdall"],
            )
            started, neighbours = time.monotonic(), Neighbours()
            (directory / scenario.name).mkdir()
            with Nursery(directory / scenario.name) as nursery:
                _measure(
                    scenario,
                    _bench(scenario, options, nursery=nursery, cores=cores, floor=floor, progress=progress),
                    result,
                )
            _reap_orphans()
            shutil.rmtree(directory / scenario.name, ignore_errors=True)
            result.seconds = round(time.monotonic() - started, 1)
            result.others_percent = round(neighbours.percent(), 1)
            results.scenarios[scenario.name] = result
            results.save(path)
            progress.done()
            show(scenario, result)
    return results


def check_programs() -> None:
    """Raise when a program is missing without which nothing can be measured."""
    absent = [package for program, package in _REQUIRED.items() if not on_path(program)]
    if absent:
        raise BenchmarkError(f"not installed, but needed: {', '.join(absent)} (Debian packages of these names)")


def missing(floor: Path | None) -> dict[str, str]:
    """Return what the report has to do without, and why."""
    absent = {peer.name: f"not installed (Debian package {peer.package})" for peer in PEERS if not peer.installed()}
    if not UNBOUND_CACHEDB.installed():
        absent[UNBOUND_CACHEDB.name] = "the installed Unbound has no cachedb module (unbound -V)"
    if not on_path("redis-server"):
        absent["Redis"] = "not installed (Debian package redis-server)"
    if floor is None:
        absent[FLOOR] = "no C compiler"
    return absent


def _measure(scenario: Scenario, bench: Bench, result: ScenarioResult) -> None:
    try:
        result.rows = scenario.run(bench)
    except NotSupportedError as error:
        result.not_measured = str(error)
    except BenchmarkError as error:
        result.not_measured = f"failed: {error}"
    result.notes = bench.notes


def _bench(
    scenario: Scenario,
    options: Options,
    *,
    nursery: Nursery,
    cores: Cores,
    floor: Path | None,
    progress: Progress,
) -> Bench:
    return Bench(
        nursery=nursery,
        directory=nursery.directory,
        cores=cores,
        progress=progress,
        rounds=options.rounds or (1 if options.quick else scenario.rounds),
        seconds=options.seconds or (_QUICK_SECONDS if options.quick else scenario.seconds),
        quick=options.quick,
        wanted=options.peers,
        floor_program=floor,
    )


def _known(path: Path) -> Results:
    """Return earlier results, to which this run's are added; a file that cannot be read is replaced."""
    try:
        return Results.load(path)
    except BenchmarkError:
        return Results({}, {}, {})


@contextmanager
def _workshop() -> Iterator[Path]:
    """Make a directory for configurations, names and logs: in memory where there is room, away from slow disks."""
    roomy = _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="heimdall-bench-", dir=_MEMORY_DISK if roomy else None) as directory:
        yield Path(directory)


def _reap_orphans() -> None:
    """Collect the children that ended children have left to us, as nsd does; their CPU time is accounted for then."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _compile_floor(directory: Path) -> Path | None:
    compiler = next(filter(on_path, _COMPILERS), None)
    if compiler is None:
        return None
    program = directory / "echo"
    source = Path(__file__).with_name("echo.c")
    done = subprocess.run([compiler, "-O2", "-o", program, source], check=False, capture_output=True)
    return program if done.returncode == 0 else None
