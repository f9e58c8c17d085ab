"""Warming: when Redis is first there after the start, L1 takes over what L2 has, the most used first.

So that there is a first, each replica adds what its clients ask for to Redis's rankings now and then.

Rules: one thread that no query waits for; small steps with pauses between, so that neither Redis nor the event loop is
held up; what is found goes through the same checks as what a query reads; the first fault of Redis ends it.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from heapq import merge
from operator import itemgetter
from threading import Event, Thread
from typing import Protocol, TypeVar

from heimdall_lib.errors import HeimdallError, SharedCacheError
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.shared_cache import ranking
from heimdall_lib.shared_cache.cache import Found
from heimdall_lib.shared_cache.client import Client, multi_get, reason_of
from heimdall_lib.shared_cache.codec import SCHEMA, cache_key, redis_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.ranking import DAY_MILLISECONDS, PAGE, Place, ranking_key
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.redis")

T = TypeVar("T")

_BATCH = 64  # values that are read at once, and taken in 1 to 2 ms
_PAUSE_SECONDS = 0.004  # between steps
_LOOK_SECONDS = 0.05  # between looks whether Redis is there
_SHARE_SECONDS = 30.0
_SHARED_KEYS = 1000  # as many as a replica tells the others of at a time
_SHARED_AT_ONCE = 50
_REDIS_PATIENCE_SECONDS = 1.0
_READY_SECONDS = 5.0

_score_of = itemgetter(0)


class Tiers(Protocol):
    """What warming needs of the resolver."""

    def views(self) -> Collection[str]:
        """Return every view in which this replica shares answers."""

    def popular(self, most: int) -> list[tuple[bytes, str, int]]:
        """Return the cache keys found most since the last call, the highest first: key, view, count."""

    def wants(self, key: bytes, view: str) -> bool:
        """Say whether an answer that stands in L2 in ``view`` is ours to take, and L1 has none."""

    def keep(self, key: bytes, found: Found) -> bool:
        """Keep in L1 what L2 had, if it is to be believed; say whether it was kept."""


@dataclass(frozen=True, slots=True)
class WarmingBounds:
    """Where warming ends: entries taken over, entries and bytes in L1, and seconds."""

    entries: int
    l1_entries: int
    l1_bytes: int
    seconds: float = 30.0


class _EnoughError(HeimdallError):
    """Warming is over; the message says why."""


class NoWarming:
    """A replica that starts cold: there is no Redis, or the operator wants none of it."""

    cold = False

    def start(self) -> None:
        """Do nothing."""

    def stop(self, _timeout: float) -> None:
        """Do nothing."""

    def describe(self) -> dict[str, object]:
        """Say so."""
        return {"state": "off", "entries": 0, "seconds": 0.0, "ended": ""}


class Warming:
    """The one warming of a process, and what it tells other replicas for theirs."""

    def __init__(
        self,
        link: Link,
        shared: RedisCache,
        *,
        prefix: str,
        tiers: Tiers,
        memory: MemoryCache,
        bounds: WarmingBounds,
        stats: Stats,
        share_seconds: float = _SHARE_SECONDS,
    ) -> None:
        """Be ready to start; popular keys are shared every ``share_seconds``."""
        self._link = link
        self._shared = shared
        self._prefix = prefix
        self._tiers = tiers
        self._memory = memory
        self._bounds = bounds
        self._stats = stats
        self._share_seconds = share_seconds
        self._started_at = self._began_at = self._ended_at = 0.0
        self._state, self._entries, self._ended = "waiting", 0, ""
        self._refusal = ""
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="redis-warming", daemon=True)

    def start(self) -> None:
        """Begin as soon as Redis is there."""
        self._started_at = time.monotonic()
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Warm no more, and share what is popular a last time; returns after ``timeout`` seconds at most."""
        self._stopping.set()
        self._thread.join(timeout)

    @property
    def cold(self) -> bool:
        """Whether clients are better served elsewhere for a moment, if Redis was there soon enough to wait for."""
        age = time.monotonic() - self._started_at
        if self._state == "waiting":
            return age < _REDIS_PATIENCE_SECONDS
        return self._state == "running" and age < _READY_SECONDS and self._in_time()

    def describe(self) -> dict[str, object]:
        """Return how far it is, ready for JSON: off, waiting (for Redis), running or done, and what ended it."""
        now = time.monotonic() if self._state == "running" else self._ended_at
        seconds = round(now - self._began_at, 3)
        return {"state": self._state, "entries": self._entries, "seconds": seconds, "ended": self._ended}

    def _in_time(self) -> bool:
        return self._began_at - self._started_at < _REDIS_PATIENCE_SECONDS

    def _run(self) -> None:
        while self._link.open and not self._stopping.wait(_LOOK_SECONDS):
            pass
        if not self._stopping.is_set():
            self._warm()
        while not self._stopping.wait(self._share_seconds):
            self._share()
        self._share()

    def _warm(self) -> None:
        self._began_at, self._state = time.monotonic(), "running"
        log.info("L1 is warmed from Redis, up to %d entries, the most used first", self._bounds.entries)
        try:
            self._take_all()
        except SharedCacheError as error:
            self._ended = f"Redis failed, {error.reason}: {error}"
        except _EnoughError as enough:
            self._ended = str(enough)
        except Exception:
            log.exception("warming failed inside Heimdall")
            self._ended = "internal error"
        else:
            self._ended = "Redis has no more"
        self._ended_at, self._state = time.monotonic(), "done"
        log.info(
            "L1 has %d entries from Redis after %.3f s: %s", self._entries, self._ended_at - self._began_at, self._ended
        )

    def _take_all(self) -> None:
        """Take over what Redis has until there is no more; raises when there is another end."""
        batch: dict[str, bytes] = {}
        for name, view in self._names():
            key = cache_key(self._prefix, view, name)
            if key is not None and self._tiers.wants(key, view):
                batch[name] = key
            if len(batch) >= _BATCH:
                self._take(batch)
                batch = {}
        if batch:
            self._take(batch)

    def _names(self) -> Iterator[tuple[str, str]]:
        """Yield names of keys with their views: first those in the rankings of today and yesterday, then all."""
        views, today = sorted(self._tiers.views()), self._link.now() // DAY_MILLISECONDS
        ranked = [self._ranked(view, day) for view in views for day in (today, today - 1)]
        for _, name, view in merge(*ranked, key=_score_of, reverse=True):
            yield name, view
        for view in views:
            for name in self._present(view):
                yield name, view

    def _ranked(self, view: str, day: int) -> Iterator[tuple[float, str, str]]:
        key, start = ranking_key(self._prefix, view, day), 0
        while True:
            try:
                page = self._ask("rank", partial(ranking.page, ranking=key, start=start))
            except SharedCacheError as error:
                if error.reason != "response":
                    raise
                return  # what stands there is no ranking
            for score, name in page:
                yield score, name, view
            if len(page) < PAGE:
                return
            start += PAGE

    def _present(self, view: str) -> Iterator[str]:
        pattern = f"{self._prefix}:{SCHEMA}:{view}:*"
        place: Place | None = Place()
        while place is not None:
            names, place = self._ask("scan", partial(ranking.walk, pattern=pattern, place=place))
            yield from names

    def _take(self, batch: dict[str, bytes]) -> None:
        """Read the values of some keys, and keep in L1 what is to be believed."""
        names = list(batch)
        values = self._ask("warm", lambda client: multi_get(client, names))
        for (name, key), value in zip(batch.items(), values, strict=True):
            if value is None:
                continue
            self._check_bounds()
            found = self._shared.believed(name, key, value)
            if found.message and self._tiers.keep(key, found):
                self._entries += 1
                self._stats.redis_warmed_entries += 1

    def _ask(self, operation: str, call: Callable[[Client], T]) -> T:
        """Return ``call(client)`` after a pause for others; raises when it fails, or it is time to end."""
        self._stopping.wait(_PAUSE_SECONDS)
        self._check_bounds()
        if self._link.open:
            raise _EnoughError("Redis is not in use")
        return self._link.run(operation, call, bulk=True)

    def _check_bounds(self) -> None:
        bounds, memory = self._bounds, self._memory
        if self._stopping.is_set():
            raise _EnoughError("Heimdall stops")
        if self._entries >= bounds.entries:
            raise _EnoughError("--warm-cache-entries is reached")
        if len(memory) >= bounds.l1_entries or memory.bytes >= bounds.l1_bytes:
            raise _EnoughError("L1 is half full")
        if time.monotonic() - self._began_at >= bounds.seconds:
            raise _EnoughError(f"{bounds.seconds:g} s are over")

    def _share(self) -> None:
        """Add to Redis's rankings what was asked for since the last time; while Redis is down that is lost."""
        by_view: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for key, view, count in self._tiers.popular(_SHARED_KEYS):
            by_view[view].append((redis_key(self._prefix, view, key), count))
        for view, counts in by_view.items():
            name = ranking_key(self._prefix, view, self._link.now() // DAY_MILLISECONDS)
            for start in range(0, len(counts), _SHARED_AT_ONCE):
                if self._link.open or not self._add(name, counts[start : start + _SHARED_AT_ONCE]):
                    return

    def _add(self, name: str, counts: list[tuple[str, int]]) -> bool:
        try:
            refusal = self._link.run("popular", lambda client: ranking.add(client, name, counts), bulk=True)
        except SharedCacheError:
            return False  # counted by the link
        reason = reason_of(refusal) if refusal is not None else ""
        if reason:
            self._stats.redis_errors[reason] += 1
        if reason != self._refusal:
            self._refusal = reason
            if reason:
                log.warning("Redis does not take which names are popular (%s: %s)", reason, refusal)
        return not reason
