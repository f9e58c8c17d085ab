"""What a target is, and how one of them tries a block of inputs."""

import logging
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from types import FrameType
from typing import ClassVar

_HANG_SECONDS = 5.0  # of the processor's time
_TRACED = 10  # times as long, at most, does anything take while coverage follows every line
_MAX_FAILURES = 5  # of one block: a fault shows again and again


class Target(ABC):
    """Tries one input after the other; made anew for each block, so that a block can be repeated on its own."""

    name: ClassVar[str]
    block: ClassVar[int] = 5000
    """How many inputs a block has: a second's worth or two."""
    seconds: ClassVar[float] = 0.05
    """How long one input may take, of the processor's time."""

    def __init__(self, inputs: Sequence[bytes]) -> None:
        """Make inputs of these."""
        self.inputs = list(inputs)

    @abstractmethod
    def vary(self, random: Random) -> bytes:
        """Return the next input."""

    @abstractmethod
    def check(self, data: bytes) -> str:
        """Try an input and say in a word or two what came of it; raises, anything, when that is wrong."""

    def close(self) -> None:  # noqa: B027 - most open nothing
        """Let go of what was opened."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input whose outcome is wrong, and how it came up: it is number ``number`` of its block."""

    target: str
    data: bytes
    why: str
    seed: str = ""
    block: int = 0
    number: int = 0


@dataclass(slots=True)
class Tally:
    """What came of some inputs."""

    inputs: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add what came of others."""
        self.inputs += other.inputs
        self.seconds += other.seconds
        self.slowest = max(self.slowest, other.slowest)
        self.outcomes.update(other.outcomes)
        self.failures += other.failures


class Hang(BaseException):
    """An input that keeps the processor busy for seconds; no code under test may catch this."""


class _Alarms(logging.Handler):
    """What Heimdall logs as an error, for it catches its own faults; and an input that is under way for too long."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []
        self.under_way = -1
        self._rang_at = -1

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))

    def take(self) -> None:
        """Raise what was told, if anything."""
        if self.told:
            told, self.told = self.told, []
            raise AssertionError(f"logged as an error: {told[0]}")

    def ring(self, _number: int, _frame: FrameType | None) -> None:
        """Raise when the input has not changed since the last ring."""
        before, self._rang_at = self._rang_at, self.under_way
        if before == self.under_way:
            raise Hang(f"busy for {_HANG_SECONDS:g} s")


def try_block(make: type[Target], corpus: Sequence[bytes], seed: str, number: int, size: int) -> Tally:
    """Try ``size`` inputs made of ``corpus``; the same arguments make the same inputs."""
    random = Random(f"{seed}/{make.name}/{number}")
    target = make(corpus)
    try:
        return try_all(target, islice(iter(lambda: target.vary(random), None), size), seed=seed, block=number)
    finally:
        target.close()


def try_all(target: Target, inputs: Iterator[bytes], *, seed: str = "", block: int = 0) -> Tally:
    """Try inputs one after the other; the rest of a block that fails again and again is left out."""
    tally = Tally()
    began = time.perf_counter()
    with _watched() as alarms:
        for number, data in enumerate(inputs):
            tally.inputs += 1
            alarms.under_way = number
            try:
                outcome, seconds = _timed(target, data, alarms)
            except (Exception, Hang) as error:  # noqa: BLE001 - whatever it is, it is the result
                alarms.told.clear()
                tally.failures.append(Failure(target.name, data, _told(error), seed, block, number))
                if len(tally.failures) >= _MAX_FAILURES:
                    break
            else:
                tally.outcomes[outcome] += 1
                tally.slowest = max(tally.slowest, seconds)
    tally.seconds = time.perf_counter() - began
    return tally


def _timed(target: Target, data: bytes, alarms: _Alarms) -> tuple[str, float]:
    """Return the outcome of an input and its time; one that seems slow has two tries to be fast."""
    limit = target.seconds * (_TRACED if sys.gettrace() else 1)
    began = time.perf_counter()
    outcome = target.check(data)
    seconds = time.perf_counter() - began
    alarms.take()
    if seconds <= limit:
        return outcome, seconds
    tries = []
    for _ in range(2):  # by the processor's clock, which takes longer to read, but does not count others' work
        began = time.thread_time()
        outcome = target.check(data)
        tries.append(time.thread_time() - began)
        alarms.take()
    if min(tries) <= limit:
        return outcome, min(tries)
    raise AssertionError(f"takes {min(tries):.3f} s")


@contextmanager
def _watched() -> Iterator[_Alarms]:
    """Notice what is logged as an error, and what does not come back."""
    logger, alarms = logging.getLogger("heimdall"), _Alarms()
    level, propagates, handler = logger.level, logger.propagate, signal.signal(signal.SIGVTALRM, alarms.ring)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    logger.addHandler(alarms)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HANG_SECONDS, _HANG_SECONDS)
    try:
        yield alarms
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        logger.removeHandler(alarms)
        logger.setLevel(level)
        logger.propagate = propagates


def _told(error: BaseException) -> str:
    """Return what went wrong and where, in one line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split()) or where.line
    return f"{type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"
