"""Runs targets on all cores for a time or a number of inputs, and says what came of it."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context

from tests.fuzz import corpus
from tests.fuzz.target import Failure, Tally, Target, try_block
from tests.fuzz.targets import TARGETS

_MAX_KEPT = 20  # failures of a target
_SHOWN = 1024  # octets of an input that fails


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: until ``seconds`` are over, or each target has had ``count`` inputs if that is not 0."""

    targets: tuple[str, ...]
    seed: str
    seconds: float = 60.0
    count: int = 0
    first_block: int = 0
    processes: int = 0


@cache
def inputs(target: str) -> list[bytes]:
    """Return what a target's inputs are made of."""
    return [each.data for each in corpus.load(target)]


def run_block(name: str, seed: str, number: int, size: int) -> Tally:
    """Try one block in this process."""
    return try_block(TARGETS[name], inputs(name), seed, number, size)


class Run:
    """One run of a plan: the tallies by target, and how long it took."""

    def __init__(self, plan: Plan) -> None:
        """Have run nothing yet."""
        self.plan = plan
        self.tallies = {name: Tally() for name in plan.targets}
        self._asked = dict.fromkeys(plan.targets, 0)
        self._numbers = dict.fromkeys(plan.targets, plan.first_block)
        self._until = 0.0

    def run(self) -> Iterator[Tally]:
        """Run; yields the tally of each block when it is done."""
        self._until = time.monotonic() + self.plan.seconds
        workers = self.plan.processes or os.cpu_count() or 1
        under_way: dict[Future[Tally], str] = {}
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            while True:
                while len(under_way) < workers and (name := self._next(list(under_way.values()))):
                    size = self._size(TARGETS[name])
                    future = pool.submit(run_block, name, self.plan.seed, self._numbers[name], size)
                    under_way[future] = name
                    self._asked[name] += size
                    self._numbers[name] += 1
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    name, tally = under_way.pop(future), future.result()
                    self.tallies[name].add(tally)
                    yield tally

    def _size(self, target: type[Target]) -> int:
        left = self.plan.count - self._asked[target.name]
        return min(target.block, left) if self.plan.count else target.block

    def _next(self, under_way: list[str]) -> str | None:
        """Return the target that has had the least time, of those that are to have more."""
        wanted = [
            name
            for name, tally in self.tallies.items()
            if len(tally.failures) < _MAX_KEPT
            and (self._asked[name] < self.plan.count if self.plan.count else time.monotonic() < self._until)
        ]
        return min(wanted, key=lambda name: (self.tallies[name].seconds, under_way.count(name)), default=None)


def keep_failures(failures: Iterable[Failure], told: set[tuple[str, str]]) -> list[str]:
    """Keep what failed in the corpus, and return the lines that say how to repeat it; one of each fault is enough."""
    lines: list[str] = []
    for failure in failures:
        if (failure.target, failure.why) in told:
            continue
        told.add((failure.target, failure.why))
        where, again = "", failure.data.hex()
        with suppress(OSError):  # a corpus that cannot be written to is no reason to say nothing
            again = str(corpus.keep(failure.target, failure.data, failure.why))
            where = f"\n  kept: {again}"
        command = f"python -m tests.fuzz {failure.target}"
        lines.append(
            f"{told_of(failure)}{where}\n  again: {command} --input {again}\n  with all that came before it: {command} "
            f"--seed {failure.seed} --first-block {failure.block} --count {failure.number + 1} --processes 1"
        )
    return lines


def told_of(failure: Failure) -> str:
    """Return what is wrong and with which input, or how that begins."""
    digits, size = failure.data[:_SHOWN].hex(), len(failure.data)
    return f"FAILED {failure.target}: {failure.why}\n  input: {digits}{f'... {size} octets' if size > _SHOWN else ''}"


def table(tallies: Mapping[str, Tally], outcomes: int = 0) -> str:
    """Return the result as a table in Markdown, with the most frequent ``outcomes`` of each target if any."""
    lines = [
        "| target | inputs | inputs/s of one process | outcomes | slowest, ms | failures |",
        "|---|---|---|---|---|---|",
    ]
    for name, tally in tallies.items():
        rate = tally.inputs / tally.seconds if tally.seconds else 0
        cells = (name, f"{tally.inputs:,}", f"{rate:,.0f}", len(tally.outcomes), f"{tally.slowest * 1000:.1f}")
        lines.append("| " + " | ".join(map(str, cells)) + f" | {len(tally.failures)} |")
    for name, tally in tallies.items() if outcomes else ():
        most = tally.outcomes.most_common(outcomes)
        lines.append(f"\n{name}: " + ", ".join(f"{word} {count / tally.inputs:.1%}" for word, count in most))
    return "\n".join(lines)
