"""L1: the answers that this process holds in memory, least recently used first out.

So that a flood of names that are asked for once empties nothing but its own corner, a full L1 keeps an answer on
probation until its name is asked for again. What is on probation is a part of L1 like the rest, but for ``get``: the
shortest ways to an answer look among the others only, and cost what they would cost without it.

Rules: no clock (``now`` is an argument, in seconds), no socket; bounded by entries and by bytes, whichever is met
first; an entry stays past its expiry for as long as it may serve stale, and ``purge`` takes it out after that.
"""

from collections.abc import Callable, Generator

from lru import LRU

from heimdall_lib.doorkeeper import Doorkeeper
from heimdall_lib.entry import Entry, stale_until
from heimdall_lib.stats import Stats

OVERHEAD = 300
"""Bytes that an entry costs beside its key and its own length: object headers, the LRU's node, its place in the
dictionary and in the purge index."""

_PROBATION_SHARE = 16
"""One of so many entries, and of so many bytes, is on probation at most while L1 is full."""


class MemoryCache:
    """A bounded map of cache keys to entries."""

    def __init__(self, *, max_entries: int, max_bytes: int, purge_interval: float, stats: Stats) -> None:
        """Start empty; ``purge_interval`` (seconds) is how often ``purge`` will be called."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._interval = purge_interval
        self._stats = stats
        self._entries: LRU[bytes, Entry] = LRU(max_entries)
        self._probation: LRU[bytes, Entry] = LRU(max_entries)
        self._probation_bytes = 0
        self._doorkeeper = Doorkeeper()
        # What is to be purged in which interval: dictionaries, for one of bytes and None is nothing to the garbage
        # collector, while it would go through a set, key by key.
        self._due: dict[int, dict[bytes, None]] = {}
        self._unswept: dict[bytes, None] = {}  # an interval's keys that a sweep has not yet looked at
        self.bytes = 0
        self.get = self._entries.get
        """``get(key)`` → the entry, fresh or not, unless it is on probation; it becomes the most recently used."""

    def __len__(self) -> int:
        return len(self._entries) + len(self._probation)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries or key in self._probation

    def held(self, key: bytes) -> Entry | None:
        """Return what is under ``key``, fresh or not, on probation or not; it becomes the most recently used there."""
        return self._entries.get(key) or self._probation.get(key)

    def admit(self, key: bytes) -> Entry | None:
        """Return what is on probation under ``key``, which was asked for again: it is one of the others now."""
        entry = self._probation.pop(key, None)
        if entry is not None:
            self._probation_bytes -= _cost(key, entry)
            self._entries[key] = entry
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep ``entry``, in place of what was under ``key``; one that alone exceeds the bound in bytes is not kept.

        While L1 is full, what comes by for the first time is kept on probation, if it is not too large for that.
        """
        on_probation, cost = key in self._probation, _cost(key, entry)
        if not self.remove(key):
            on_probation = self._lacks_room(cost) and not self._doorkeeper.knows(key)
        if cost > self._max_bytes // (_PROBATION_SHARE if on_probation else 1):
            return
        while self._lacks_room(cost):
            self._evict(self._probation if on_probation and self._is_crowded(cost) else self._entries)
        if on_probation:
            self._probation[key] = entry
            self._probation_bytes += cost
        else:
            self._entries[key] = entry
        slot = self._slot(entry)
        due = self._due.get(slot)
        if due is None:
            due = self._due[slot] = {}
        due[key] = None
        self.bytes += cost

    def remove(self, key: bytes) -> bool:
        """Forget ``key``; say whether it was there."""
        for part in (self._entries, self._probation):
            entry = part.pop(key, None)
            if entry is not None:
                self._forget(part, key, entry)
                return True
        return False

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

    def _lacks_room(self, cost: int) -> bool:
        return len(self) >= self._max_entries or self.bytes + cost > self._max_bytes

    def _is_crowded(self, cost: int) -> bool:
        """Say whether another, at a ``cost``, exceeds the share of probation, so that others there make room for it."""
        most = max(1, self._max_entries // _PROBATION_SHARE)
        return len(self._probation) >= most or self._probation_bytes + cost > self._max_bytes // _PROBATION_SHARE

    def _evict(self, part: "LRU[bytes, Entry]") -> None:
        """Let the least recently used entry go. Not by ``popitem``: lru-dict 1.4.1 never frees what that returns."""
        part = part or self._probation  # when there are no others, everything is on probation
        oldest, _ = part.peek_last_item() or (b"", b"")
        self._stats.cache_evictions += self.remove(oldest)

    def _slot(self, entry: Entry) -> int:
        return int(stale_until(entry) / self._interval)

    def _forget(self, part: "LRU[bytes, Entry]", key: bytes, entry: Entry) -> None:
        self.bytes -= _cost(key, entry)
        if part is self._probation:
            self._probation_bytes -= _cost(key, entry)
        slot = self._slot(entry)
        self._unswept.pop(key, None)
        keys = self._due.get(slot, {})
        keys.pop(key, None)
        if not keys:
            self._due.pop(slot, None)


def _cost(key: bytes, entry: Entry) -> int:
    return len(key) + len(entry) + OVERHEAD


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
