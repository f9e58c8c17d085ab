"""Warming: when Redis is first there after the start, L1 takes over what L2 has, the most used first.

So that there is a first, each replica adds what its clients ask for to Redis's rankings now and then.

Rules: one thread that no query waits for; small steps with pauses between, so that neither Redis nor the event loop is
held up; what is found goes through the same checks as what a query reads; the first fault of Redis ends it.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import Event, Thread
from typing import Protocol, TypeVar

from heimdall_lib.errors import HeimdallError, SharedCacheError
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.shared_cache.cache import Found
from heimdall_lib.shared_cache.client import Client, multi_get
from heimdall_lib.shared_cache.codec import RejectedValueError, cache_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.popular import PopularKeys
from heimdall_lib.shared_cache.ranking import names_by_rank
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.stats import Stats
from heimdall_lib.tally import WarmingState

log = logging.getLogger("heimdall.redis")

T = TypeVar("T")

_BATCH = 64  # values that are read at once, and taken in 1 to 2 ms
_PAUSE_SECONDS = 0.004  # between steps
_LOOK_SECONDS = 0.05  # between looks whether Redis is there
_SHARE_SECONDS = 30.0
_REDIS_PATIENCE_SECONDS = 1.0
_READY_SECONDS = 5.0


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

    def start(self) -> None:
        """Do nothing."""

    def stop(self, _timeout: float) -> None:
        """Do nothing."""

    def describe(self) -> WarmingState:
        """Say so."""
        return WarmingState()


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
        self._popular = PopularKeys(link, prefix=prefix, take=tiers.popular, stats=stats)
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

    def describe(self) -> WarmingState:
        """Return how far it is."""
        now = time.monotonic() if self._state == "running" else self._ended_at
        seconds = round(now - self._began_at, 3)
        return WarmingState(self._state, self._cold(), self._entries, seconds, self._ended)

    def _cold(self) -> bool:
        """Say whether clients should go elsewhere for a moment; for a Redis that is late nobody waits."""
        age = time.monotonic() - self._started_at
        if self._state == "waiting":
            return age < _REDIS_PATIENCE_SECONDS
        in_time = self._began_at - self._started_at < _REDIS_PATIENCE_SECONDS
        return self._state == "running" and in_time and age < _READY_SECONDS

    def _run(self) -> None:
        while self._link.open and not self._stopping.wait(_LOOK_SECONDS):
            pass
        if not self._stopping.is_set():
            self._warm()
        while not self._stopping.wait(self._share_seconds):
            self._popular.share()
        self._popular.share()

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
        for name, view in names_by_rank(self._ask, self._prefix, sorted(self._tiers.views()), self._link.now()):
            key = cache_key(self._prefix, view, name)
            if key is not None and self._tiers.wants(key, view):
                batch[name] = key
            if len(batch) >= _BATCH:
                self._take(batch)
                batch = {}
        if batch:
            self._take(batch)

    def _take(self, batch: dict[str, bytes]) -> None:
        """Read the values of some keys, and keep in L1 what is to be believed."""
        names = list(batch)
        values = self._ask("warm", lambda client: multi_get(client, names))
        for (name, key), value in zip(batch.items(), values, strict=True):
            if value is None:
                continue
            self._check_bounds()
            if self._keep(name, key, value):
                self._entries += 1
                self._stats.redis_warmed_entries += 1

    def _keep(self, name: str, key: bytes, value: bytes) -> bool:
        try:
            found = self._shared.believed(name, key, value)
        except RejectedValueError as error:
            self._shared.reject(error.reason)
            return False
        return found.age < found.lifetime and self._tiers.keep(key, found)

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
