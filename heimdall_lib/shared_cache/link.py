"""The link to Redis: whether it is well, what its clock says, and how long each operation takes.

Rules: it connects and reconnects by itself, off the query path; a change of state is logged once; an operation that
takes longer than ``slow_seconds`` counts as a fault even when it succeeds, and again and again while it is under way.
"""

import logging
import math
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from heimdall_lib.breaker import Breaker
from heimdall_lib.errors import SharedCacheError
from heimdall_lib.shared_cache.client import Client, clock, translation
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.redis")

T = TypeVar("T")

_FAULTS_TO_OPEN = 5
_FIRST_PROBE_SECONDS, _MAX_PROBE_SECONDS = 0.25, 2.0
_TICK_SECONDS = 0.1
_WATCH_SECONDS = 0.05
_CLOCK_SECONDS = 10.0
_DRIFT = 0.5  # milliseconds a second by which two clocks may part, while one of them is being corrected


class Link:
    """One Redis, its breaker and its clock."""

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        name: str,
        slow_seconds: float,
        expected: bool,
        stats: Stats,
        trial: Callable[[Client], object] = bool,
    ) -> None:
        """Be down until ``keep`` has reached Redis.

        ``name`` is what logs call it; with ``expected`` false, nothing is logged before Redis was there once. ``trial``
        is what must succeed, besides telling the time, before Redis is used: what queries will do there.
        """
        self._connect = connect
        self._trial = trial
        self._name = name
        self._slow_seconds = slow_seconds
        self._log_failures = expected
        self._stats = stats
        self._client: Client = None
        self._breaker = Breaker(
            threshold=_FAULTS_TO_OPEN,
            first_delay=_FIRST_PROBE_SECONDS,
            max_delay=_MAX_PROBE_SECONDS,
            open_at_start=True,
        )
        self._clock_offset = 0.0  # milliseconds from the monotonic clock to Redis's
        self._clock_error = math.inf  # by which the offset may be wrong: half a round trip
        self._clock_due = 0.0
        self._under_way: dict[object, tuple[str, float]] = {}  # what each operation is called and when it began
        self._looked_at = 0.0
        self._errands: list[Callable[[], None]] = []
        self._stopping = Event()
        stats.redis_breaker_open = True

    @property
    def open(self) -> bool:
        """Whether the breaker is open: no query is to touch Redis."""
        return self._breaker.open

    def ready(self) -> bool:
        """Say whether a query may ask Redis; what is there for too long already is not left to ``watch`` to find."""
        if not self._breaker.open:
            now = time.monotonic()
            for _, oldest in list(self._under_way.values())[:1]:
                if now - max(oldest, self._looked_at) > self._slow_seconds:
                    self._look(now)
        return not self._breaker.open

    def now(self) -> int:
        """Return the time on Redis's clock, in milliseconds since its epoch."""
        return int(time.monotonic() * 1000 + self._clock_offset)

    def instant(self, milliseconds: int) -> float:
        """Return when Redis's clock shows that time, on the monotonic clock (seconds)."""
        return (milliseconds - self._clock_offset) / 1000

    def run(self, operation: str, call: Callable[[Client], T], *, bulk: bool = False) -> T:
        """Return ``call(client)``, timed as ``operation``; one in ``bulk`` may take its time.

        Raises SharedCacheError when Redis fails; what that and slowness mean for the breaker is seen to.
        """
        started, token = time.monotonic(), object()
        if not bulk:
            self._under_way[token] = operation, started
        try:
            result = call(self._client)
        except Exception as error:  # whatever goes wrong in redis-py; a context manager costs as much as all else here
            failure = translation(error)
            self._stats.redis_errors[failure.reason] += 1
            self._fault(f"{failure.reason}: {failure}")
            raise failure from error
        finally:
            self._under_way.pop(token, None)
            seconds = time.monotonic() - started
            self._stats.redis_operations[operation].observe(seconds)
        if seconds > self._slow_seconds:
            if not bulk:
                self._fault(f"slow: {operation} took {seconds * 1000:.0f} ms")
        elif not self._breaker.open:  # what was under way when it opened closes nothing: a probe does
            self._breaker.succeeded()
        return result

    def attend(self, errand: Callable[[], None]) -> None:
        """Let ``keep`` do this as well, as often as it measures Redis's clock, and as soon as Redis is in use."""
        self._errands.append(errand)

    def keep(self) -> None:
        """Probe while the breaker is open, and measure Redis's clock now and then; returns after ``stop``."""
        while not self._stopping.is_set():
            now = time.monotonic()
            if self._breaker.probe_due(now) or (not self._breaker.open and now >= self._clock_due):
                self._probe()
            self._stopping.wait(_TICK_SECONDS)
        if self._client is not None:
            self._client.close()

    def watch(self) -> None:
        """Count what is under way for too long as a fault, each time that it is seen; returns after ``stop``.

        A name that is not resolved can hold an operation for many seconds, which no timeout of a socket ends, and
        queries would wait for their budget until it does.
        """
        while not self._stopping.wait(_WATCH_SECONDS):
            self._look(time.monotonic())

    def stop(self) -> None:
        """Let ``keep`` and ``watch`` return."""
        self._stopping.set()

    def _look(self, now: float) -> None:
        self._looked_at = now
        for operation, started in list(self._under_way.values()):
            if now - started > self._slow_seconds:
                self._fault(f"slow: {operation} is under way for {(now - started) * 1000:.0f} ms")

    def _probe(self) -> None:
        try:
            if self._client is None:
                self._client = self._connect()
            started = time.monotonic()
            redis_seconds = self.run("time", clock)
            seconds_taken = time.monotonic() - started
            if self._breaker.open:
                self.run("probe", self._trial)
        except SharedCacheError as error:
            if self._breaker.open:
                self._say_down(f"{error.reason}: {error}")
            return
        self._set_clock(redis_seconds, started + seconds_taken / 2, error=seconds_taken * 500)
        if self._breaker.open and seconds_taken <= self._slow_seconds:
            self._breaker.succeeded()
            self._log_failures = True
            self._stats.redis_up, self._stats.redis_breaker_open = True, False
            log.info("Redis at %s is in use", self._name)
        if not self._breaker.open:
            for errand in self._errands:
                errand()

    def _set_clock(self, redis_seconds: float, at: float, *, error: float) -> None:
        """Go by a measurement of Redis's clock, unless it is a worse one of the same clock than that before it."""
        offset = (redis_seconds - at) * 1000
        known = self._clock_error + _DRIFT * _CLOCK_SECONDS
        if error <= known or abs(offset - self._clock_offset) > error + known:
            self._clock_offset, self._clock_error = offset, error
        else:
            self._clock_error = known
        self._clock_due = at + _CLOCK_SECONDS

    def _fault(self, what: str) -> None:
        if self._breaker.failed(time.monotonic()):
            self._say_down(what)

    def _say_down(self, what: str) -> None:
        """Log that Redis cannot be used, once until it can again."""
        self._stats.redis_up, self._stats.redis_breaker_open = False, True
        if self._log_failures:
            self._log_failures = False
            log.warning("Redis at %s is not in use (%s); answering without it", self._name, what)
