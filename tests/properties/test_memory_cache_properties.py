"""L1 against a model of it, over any sequence of calls."""

from collections.abc import Generator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.memory_cache import OVERHEAD, MemoryCache
from heimdall_lib.stats import Stats
from tests.properties.strategies import CHECKED

KEYS = st.sampled_from([b"a", b"bb", b"ccc", b"dddd", b"eeeee", b"ffffff"])
INTERVAL = 10.0


class MemoryCacheModel(RuleBasedStateMachine):
    """The model is a dict in order of use, the least recently used key first, and a second one for probation.

    There is room for one entry on probation, or for none when a sixteenth of the bytes is too small for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stats = Stats()
        self.cache = MemoryCache(max_entries=1, max_bytes=1, purge_interval=INTERVAL, stats=self.stats)
        self.model: dict[bytes, Entry] = {}
        self.probation: dict[bytes, Entry] = {}
        self.seen: set[bytes] = set()
        self.max_entries = self.max_bytes = self.evictions = self.expired = 0
        self.now = 0.0
        self.sweep: Generator[int] = (0 for _ in ())
        self.sweeping, self.swept_length, self.unswept = False, 0, set[bytes]()

    @initialize(max_entries=st.integers(1, 5), max_bytes=st.integers(0, 2500) | st.integers(0, 16000))
    def start(self, max_entries: int, max_bytes: int) -> None:
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.cache = MemoryCache(
            max_entries=max_entries, max_bytes=max_bytes, purge_interval=INTERVAL, stats=self.stats
        )

    @rule(key=KEYS, size=st.integers(0, 800), lifetime=st.floats(0, 30), stale=st.sampled_from([0.0, 15.0]))
    def put(self, key: bytes, size: int, lifetime: float, stale: float) -> None:
        entry = entries.make(bytes(size), (), stored_at=self.now, lifetime=lifetime, stale=stale)
        self.cache.put(key, entry)
        self.unswept.discard(key)
        fits = len(self.whole) < self.max_entries and self.bytes + cost(key, entry) <= self.max_bytes
        waits = key in self.probation
        if key not in self.whole and not fits:
            waits = key not in self.seen
            self.seen.add(key)
        self.model.pop(key, None)
        self.probation.pop(key, None)
        share = self.max_bytes // 16 if waits else self.max_bytes
        if cost(key, entry) > share:
            return
        while len(self.whole) >= self.max_entries or self.bytes + cost(key, entry) > self.max_bytes:
            crowded = len(self.probation) >= 1 or size_of(self.probation) + cost(key, entry) > share
            part = self.probation if not self.model or (waits and crowded) else self.model
            del part[next(iter(part))]
            self.evictions += 1
        (self.probation if waits else self.model)[key] = entry

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.cache.get(key) == self.model.get(key)
        if key in self.model:
            self.model[key] = self.model.pop(key)

    @rule(key=KEYS)
    def hold(self, key: bytes) -> None:
        assert self.cache.held(key) == self.whole.get(key)
        for part in (self.model, self.probation):
            if key in part:
                part[key] = part.pop(key)

    @rule(key=KEYS)
    def admit(self, key: bytes) -> None:
        assert self.cache.admit(key) == self.probation.get(key)
        if key in self.probation:
            self.model[key] = self.probation.pop(key)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        assert self.cache.remove(key) is (key in self.whole)
        self.model.pop(key, None)
        self.probation.pop(key, None)

    @rule(length=st.integers(1, 6), step=st.integers(1, 3))
    def begin_a_sweep(self, length: int, step: int) -> None:
        """Others come between the steps of a sweep; one that nobody goes on with loses no entry."""
        self.sweep.close()
        self.swept_length, self.unswept = length, {key for key in self.whole if len(key) >= length}
        self.sweep = self.cache.sweep(lambda key: len(key) >= length, step)
        self.sweeping = True

    @rule()
    def go_on_with_the_sweep(self) -> None:
        removed = next(self.sweep, None)
        gone = self.take_out_what_is_gone().keys()
        assert all(len(key) >= self.swept_length for key in gone)
        assert len(gone) == (removed or 0)
        if removed is None:
            self.sweeping = False
            assert not self.unswept & self.whole.keys()

    @rule(elapsed=st.floats(0, 40), most=st.integers(0, 4))
    def purge(self, elapsed: float, most: int) -> None:
        self.now += elapsed
        more = self.cache.purge(self.now, most)
        gone = self.take_out_what_is_gone().values()
        assert len(gone) <= most
        assert all(entries.stale_until(entry) <= self.now for entry in gone)
        overdue = [entry for entry in self.whole.values() if entries.stale_until(entry) <= self.now - INTERVAL]
        assert more or not overdue or self.sweeping  # which a sweep that is under way gives back
        assert not more or len(gone) == most
        self.expired += len(gone)

    def take_out_what_is_gone(self) -> dict[bytes, Entry]:
        gone = {key: entry for key, entry in self.whole.items() if key not in self.cache}
        for key in gone:
            self.model.pop(key, None)
            self.probation.pop(key, None)
        return gone

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        # Asked from the least recently used to the most, so that asking changes nothing in the order of use.
        assert [self.cache.get(key) for key in self.model] == list(self.model.values())
        assert [self.cache.held(key) for key in self.probation] == list(self.probation.values())
        assert not any(self.cache.get(key) for key in self.probation)
        assert len(self.cache) == len(self.whole) <= self.max_entries

    @invariant()
    def accounts_for_every_byte(self) -> None:
        assert self.cache.bytes == self.bytes <= self.max_bytes

    @invariant()
    def counts_what_left(self) -> None:
        assert self.stats.cache_evictions == self.evictions
        assert self.stats.cache_expired == self.expired

    @property
    def whole(self) -> dict[bytes, Entry]:
        return self.model | self.probation

    @property
    def bytes(self) -> int:
        return size_of(self.whole)


def size_of(part: dict[bytes, Entry]) -> int:
    return sum(cost(key, entry) for key, entry in part.items())


def cost(key: bytes, entry: Entry) -> int:
    return len(key) + len(entry) + OVERHEAD


TestMemoryCache: Any = MemoryCacheModel.TestCase
TestMemoryCache.settings = settings(CHECKED, max_examples=40, stateful_step_count=40)
