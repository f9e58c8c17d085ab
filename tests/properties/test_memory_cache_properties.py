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
    """The model is a dict in order of use: the least recently used key is its first."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = Stats()
        self.cache = MemoryCache(max_entries=1, max_bytes=1, purge_interval=INTERVAL, stats=self.stats)
        self.model: dict[bytes, Entry] = {}
        self.max_entries = self.max_bytes = self.evictions = self.expired = 0
        self.now = 0.0
        self.sweep: Generator[int] = (0 for _ in ())
        self.swept_length, self.unswept = 0, set[bytes]()

    @initialize(max_entries=st.integers(1, 5), max_bytes=st.integers(0, 2500))
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
        self.model.pop(key, None)
        if cost(key, entry) <= self.max_bytes:
            while len(self.model) >= self.max_entries or self.bytes + cost(key, entry) > self.max_bytes:
                del self.model[next(iter(self.model))]
                self.evictions += 1
            self.model[key] = entry

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.cache.get(key) == self.model.get(key)
        if key in self.model:
            self.model[key] = self.model.pop(key)

    @rule(key=KEYS)
    def remove(self, key: bytes) -> None:
        assert self.cache.remove(key) is (self.model.pop(key, None) is not None)

    @rule(length=st.integers(1, 6), step=st.integers(1, 3))
    def begin_a_sweep(self, length: int, step: int) -> None:
        """Others come between the steps of a sweep; one that nobody goes on with loses no entry."""
        self.sweep.close()
        self.swept_length, self.unswept = length, {key for key in self.model if len(key) >= length}
        self.sweep = self.cache.sweep(lambda key: len(key) >= length, step)

    @rule()
    def go_on_with_the_sweep(self) -> None:
        removed = next(self.sweep, None)
        kept = {key: entry for key, entry in self.model.items() if self.cache.get(key) is not None}
        gone = self.model.keys() - kept.keys()
        assert all(len(key) >= self.swept_length for key in gone)
        assert len(gone) == (removed or 0)
        self.model = kept
        if removed is None:
            assert not self.unswept & kept.keys()

    @rule(elapsed=st.floats(0, 40), most=st.integers(0, 4))
    def purge(self, elapsed: float, most: int) -> None:
        self.now += elapsed
        more = self.cache.purge(self.now, most)
        # Asked from the least recently used to the most, so that asking changes nothing in the order of use.
        kept = {key: entry for key, entry in self.model.items() if self.cache.get(key) is not None}
        gone = [entry for key, entry in self.model.items() if key not in kept]
        assert len(gone) <= most
        assert all(entries.stale_until(entry) <= self.now for entry in gone)
        overdue = [entry for entry in kept.values() if entries.stale_until(entry) <= self.now - INTERVAL]
        assert more or not overdue or self.unswept  # which a sweep that is under way gives back
        assert not more or len(gone) == most
        self.expired += len(gone)
        self.model = kept

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert [self.cache.get(key) for key in self.model] == list(self.model.values())
        assert len(self.cache) == len(self.model) <= self.max_entries

    @invariant()
    def accounts_for_every_byte(self) -> None:
        assert self.cache.bytes == self.bytes <= self.max_bytes

    @invariant()
    def counts_what_left(self) -> None:
        assert self.stats.cache_evictions == self.evictions
        assert self.stats.cache_expired == self.expired

    @property
    def bytes(self) -> int:
        return sum(cost(key, entry) for key, entry in self.model.items())


def cost(key: bytes, entry: Entry) -> int:
    return len(key) + len(entry) + OVERHEAD


TestMemoryCache: Any = MemoryCacheModel.TestCase
TestMemoryCache.settings = settings(CHECKED, max_examples=40, stateful_step_count=40)
