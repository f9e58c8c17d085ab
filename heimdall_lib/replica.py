"""What this process holds of the answers, as a flush and a look at an entry see it.

Rules: whatever is forgotten is outdated first, so that no query that is under way brings it back; the loop is never
held for longer than a step of a sweep takes.
"""

import time
from threading import Lock

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.invalidations import Flush, Invalidations
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.resolver import Resolver

_STEP = 200  # keys looked at before others get their turn: less than a millisecond, with a million entries


class Replica:
    """The answers in L1, and what is believed of those in L2."""

    def __init__(self, memory: MemoryCache, invalidations: Invalidations, resolver: Resolver) -> None:
        """Answer for these."""
        self._memory = memory
        self._invalidations = invalidations
        self._resolver = resolver
        self._sweeping = Lock()

    def forget(self, flush: Flush, until: float) -> int:
        """Forget what was kept of a flush up to an instant; return how many answers there were."""
        self._invalidations.flushed(flush, until)
        self._resolver.forget()
        removed = 0
        with self._sweeping:
            for gone in self._memory.sweep(flush.covers, _STEP):
                removed += gone
                time.sleep(0)
        return removed

    def outdate(self, key: bytes, until: float) -> None:
        """Forget what was kept under a cache key up to an instant."""
        self._invalidations.changed(key, until)
        entry = self._memory.held(key)
        if entry is not None and entries.stored_at(entry) <= until:
            self._memory.remove(key)

    def held(self, key: bytes) -> Entry | None:
        """Return what L1 has under a cache key, fresh or stale."""
        return self._memory.held(key)

    def believes(self, key: bytes, stored_at: float) -> bool:
        """Say whether what was stored under a cache key at an instant has not been flushed since."""
        return stored_at > self._invalidations.floor(key)

    def failed(self, key: bytes) -> bool:
        """Say whether a cache key's last query failed, and that is remembered."""
        return self._resolver.failed(key)

    def view(self, key: bytes) -> str:
        """Return the view in which L2 has the answers for a cache key."""
        return self._resolver.view(key)
