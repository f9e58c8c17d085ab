"""Answers from L1 as bytes, ready for whoever asks the same in the same words within the same second.

TTLs count down in whole seconds, so that until the next one the answer to a query is the same bytes but for the id. An
answer is used only while L1 still holds the very entry that it was made of: whatever changes L1, nothing here has to
be told.

Rules: no clock (``now`` is an argument, in seconds), no socket; bounded; the bytes are those of the general path.
"""

from collections.abc import Callable, Container, Iterable
from typing import TypeVar

from lru import LRU

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.query import Query

_MAX_ANSWERS = 32768
_PLAIN_OPT_SIZE = 11  # an OPT record without options: nothing in such a query is one client's own

P = TypeVar("P")

_Ready = tuple[float, bytes, Entry, bytes, int]


class ReadyAnswers:
    """One transport's answers by the query's bytes after the id."""

    def __init__(self, memory: MemoryCache) -> None:
        """Start empty; ``memory`` is the L1 that answers are made of."""
        self._held = memory.get
        self._answers: LRU[bytes, _Ready] = LRU(_MAX_ANSWERS)
        self._find = self._answers.get

    def split(
        self, batch: Iterable[tuple[bytes, P]], now: float, known: Container[P], admits: Callable[[P, float], bool]
    ) -> tuple[list[tuple[bytes, P]], list[int], list[tuple[bytes, P]]]:
        """Return the answers that are ready at ``now`` with their peers, their response codes, and what has none.

        ``admits(peer, now)`` says whether a peer may have an answer; ``known`` are peers that may have all of them.
        """
        answers: list[tuple[bytes, P]] = []
        rcodes: list[int] = []
        rest: list[tuple[bytes, P]] = []
        find, held = self._find, self._held
        for datagram in batch:
            data, peer = datagram
            ready = find(data[2:])
            if ready is None or now >= ready[0] or held(ready[1]) is not ready[2]:
                rest.append(datagram)
            elif peer in known or admits(peer, now):
                answers.append((data[:2] + ready[3], peer))
                rcodes.append(ready[4])
            else:
                rest.append(datagram)
        return answers, rcodes, rest

    def keep(self, data: bytes, query: Query, entry: Entry, answer: bytes, now: float) -> None:
        """Keep the answer that was made of ``entry`` at ``now``, if others may ask in the same words."""
        if len(data) - wire.HEADER_SIZE - len(query.question) in (0, _PLAIN_OPT_SIZE):
            until = entries.unchanged_until(entry, now)
            self._answers[data[2:]] = (until, query.key, entry, answer[2:], answer[3] & wire.RCODE_MASK)

    def clear(self) -> None:
        """Forget everything: what answers look like has changed."""
        self._answers.clear()
