"""Answers from L1 as bytes, ready for whoever asks the same in the same words within the same second.

TTLs count down in whole seconds, so that until the next one the answer to a query is the same bytes but for the id. An
answer is used only while L1 still holds the very entry that it was made of: whatever changes L1, nothing here has to
be told.

Rules: no clock (``now`` is an argument, in seconds), no socket; bounded; the bytes are those of the general path.
"""

from lru import LRU

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.query import Query

_MAX_ANSWERS = 32768
_PLAIN_OPT_SIZE = 11  # an OPT record without options: nothing in such a query is one client's own

_Ready = tuple[float, bytes, Entry, bytes, int]


class ReadyAnswers:
    """One transport's answers by the query's bytes after the id."""

    def __init__(self, memory: MemoryCache) -> None:
        """Start empty; ``memory`` is the L1 that answers are made of."""
        self._held = memory.get
        self._answers: LRU[bytes, _Ready] = LRU(_MAX_ANSWERS)
        self._find = self._answers.get

    def find(self, data: bytes, now: float) -> tuple[bytes, int] | None:
        """Return the answer to the query ``data`` and its response code, if it is ready at ``now``."""
        ready = self._find(data[2:])
        if ready is None:
            return None
        until, key, entry, answer, rcode = ready
        if now >= until or self._held(key) is not entry:
            return None
        return data[:2] + answer, rcode

    def keep(self, data: bytes, query: Query, entry: Entry, answer: bytes, now: float) -> None:
        """Keep the answer that was made of ``entry`` at ``now``, if others may ask in the same words."""
        if len(data) - wire.HEADER_SIZE - len(query.question) in (0, _PLAIN_OPT_SIZE):
            until = entries.unchanged_until(entry, now)
            self._answers[data[2:]] = (until, query.key, entry, answer[2:], answer[3] & wire.RCODE_MASK)

    def clear(self) -> None:
        """Forget everything: what answers look like has changed."""
        self._answers.clear()
