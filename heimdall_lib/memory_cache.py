"""L1: the answers that this process holds in memory, least recently used first out.

Rules: no clock (``now`` is an argument, in seconds), no socket; bounded by entries and by bytes, whichever is met
first; an entry stays past its expiry for as long as it may serve stale, and ``purge`` takes it out after that.
"""

from collections.abc import Callable, Generator

from lru import LRU

from heimdall_lib.entry import Entry, stale_until
from heimdall_lib.stats import Stats

OVERHEAD = 300
"""Bytes that an entry costs beside its key and its own length: object headers, the LRU's node, its place in the
dictionary and in the purge index."""


class MemoryCache:
    """A bounded map of cache keys to entries."""

    def __init__(self, *, max_entries: int, max_bytes: int, purge_interval: float, stats: Stats) -> None:
        """Start empty; ``purge_interval`` (seconds) is how often ``purge`` will be called."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._interval = purge_interval
        self._stats = stats
        self._entries: LRU[bytes, Entry] = LRU(max_entries)
        # What is to be purged in which interval: dictionaries, for one of bytes and None is nothing to the garbage
        # collector, while it would go through a set, key by key.
        self._due: dict[int, dict[bytes, None]] = {}
        self._unswept: dict[bytes, None] = {}  # an interval's keys that a sweep has not yet looked at
        self.bytes = 0
        self.get = self._entries.get
        """``get(key)`` → the entry, fresh or not, or None; it becomes the most recently used."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep ``entry``, in place of what was under ``key``; one that alone exceeds the bound in bytes is not kept."""
        if key in self._entries:
            self.remove(key)
        cost = len(key) + len(entry) + OVERHEAD
        if cost > self._max_bytes:
            return
        while len(self._entries) >= self._max_entries or self.bytes + cost > self._max_bytes:
            self._evict()
        self._entries[key] = entry
        slot = self._slot(entry)
        due = self._due.get(slot)
        if due is None:
            due = self._due[slot] = {}
        due[key] = None
        self.bytes += cost

    def remove(self, key: bytes) -> bool:
        """Forget ``key``; say whether it was there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        self._forget(key, entry)
        return True

    def purge(self, now: float, most: int) -> bool:
        """Take out at most ``most`` entries of no more use at ``now``; say whether some may be left to take."""
        current = int(now / self._interval)
        for slot in [slot for slot in self._due if slot < current]:
            keys = self._due[slot]
            while keys:
                if most <= 0:
                    return True
                most -= 1
                self.remove(keys.popitem()[0])
                self._stats.cache_expired += 1
        return False

    def sweep(self, wanted: Callable[[bytes], bool], step: int) -> Generator[int]:
        """Take out every entry that is there now and whose key is ``wanted``; one sweep at a time.

        Yields after ``step`` keys how many of them went: others may have their turn, and change what they like.
        """
        for slot in list(self._due):
            self._unswept = self._due.pop(slot, {})
            try:
                while self._unswept:
                    removed = 0
                    for _ in range(min(step, len(self._unswept))):
                        key, _ = self._unswept.popitem()
                        if wanted(key):
                            removed += self.remove(key)
                        else:
                            self._due.setdefault(slot, {})[key] = None
                    yield removed
            finally:
                if self._unswept:  # nobody wants the rest of the sweep
                    self._due.setdefault(slot, {}).update(self._unswept)
                    self._unswept = {}

    def _evict(self) -> None:
        """Let the least recently used entry go. Not by ``popitem``: lru-dict 1.4.1 never frees what that returns."""
        oldest, _ = self._entries.peek_last_item() or (b"", b"")
        self._stats.cache_evictions += self.remove(oldest)

    def _slot(self, entry: Entry) -> int:
        return int(stale_until(entry) / self._interval)

    def _forget(self, key: bytes, entry: Entry) -> None:
        self.bytes -= len(key) + len(entry) + OVERHEAD
        slot = self._slot(entry)
        self._unswept.pop(key, None)
        keys = self._due.get(slot, {})
        keys.pop(key, None)
        if not keys:
            self._due.pop(slot, None)


Failure = tuple[int, str]
"""An Extended DNS Error (RFC 8914) that says why there is no answer: code and text."""

_MAX_FAILURES = 10000


class FailureCache:
    """What could not be answered of late (RFC 9520), apart from the answers, so that no failure displaces one."""

    def __init__(self) -> None:
        """Start empty; bounded by entries."""
        self._failures: LRU[bytes, tuple[float, Failure]] = LRU(_MAX_FAILURES)

    def get(self, key: bytes, now: float) -> Failure | None:
        """Return the failure remembered under ``key``, unless its time is over."""
        until, failure = self._failures.get(key, _NEVER)
        return failure if now < until else None

    def put(self, key: bytes, failure: Failure, until: float) -> None:
        """Remember a failure until an instant."""
        self._failures[key] = until, failure

    def remove(self, key: bytes) -> None:
        """Forget what is under ``key``, if anything."""
        self._failures.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._failures.clear()


_NEVER: tuple[float, Failure] = (0.0, (0, ""))
