"""Answers from L1 as bytes, ready for whoever asks the same in the same words within the same second.

TTLs count down in whole seconds, so that until the next one the answer to a query is the same bytes but for the id. A
ready answer is used only while L1 still holds the very entry that it was made of: whatever changes L1, nothing here has
to be told. What is not ready is answered the short way of ``plain.py`` where that can be.

Rules: no clock (``now`` is an argument, in seconds), no socket; bounded; the bytes are those of the general path.
"""

from collections.abc import Callable, Container, Iterable
from typing import TypeVar

from lru import LRU

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.plain import PlainAnswers
from heimdall_lib.popularity import Popularity
from heimdall_lib.query import Query

_MAX_ANSWERS = 32768
_MAX_ENTRY = 2048  # bytes: with the entry that it was made of, which L1 may have let go, an answer takes twice as much
_MAX_ASKED = 65536
_PLAIN_OPT_SIZE = 11  # an OPT record without options: nothing in such a query is one client's own

P = TypeVar("P")

_Ready = tuple[float, bytes, Entry, bytes, int]


class ReadyAnswers:
    """One transport's answers by the query's bytes after the id; what is asked again within a second becomes ready."""

    def __init__(self, memory: MemoryCache, popularity: Popularity, *, truncates: bool) -> None:
        """Start empty; answers are made of ``memory``, and counted in ``popularity``. ``truncates`` is said of UDP."""
        self._memory = memory
        self._held = memory.get
        self._popularity = popularity
        self._truncates = truncates
        self._answers: LRU[bytes, _Ready] = LRU(_MAX_ANSWERS)
        self._find = self._answers.get
        self._asked = bytearray(_MAX_ASKED)  # by the query's hash: in which second (modulo 256) it was asked last
        self.configure(wire.CLASSIC_UDP_SIZE)

    def configure(self, udp_size: int) -> None:
        """Forget everything: what answers look like has changed. ``udp_size`` (bytes) is what their OPT says."""
        self._answers.clear()
        classic, limit = (wire.CLASSIC_UDP_SIZE, udp_size) if self._truncates else (wire.MAX_MESSAGE_SIZE,) * 2
        self._plain = PlainAnswers(self._memory, classic=classic, limit=limit, advertised=udp_size).find

    def split(
        self, batch: Iterable[tuple[bytes, P]], now: float, known: Container[P], admits: Callable[[P, float], bool]
    ) -> tuple[list[tuple[bytes, P]], list[int], list[tuple[bytes, P]]]:
        """Return the answers that L1 has at ``now`` with their peers, their response codes, and what has none here.

        ``admits(peer, now)`` says whether a peer may have an answer; ``known`` are peers that may have all of them.
        """
        answers: list[tuple[bytes, P]] = []
        rcodes: list[int] = []
        rest: list[tuple[bytes, P]] = []
        find, held, plain, popularity = self._find, self._held, self._plain, self._popularity
        asked, second = self._asked, int(now) & 0xFF
        for datagram in batch:
            data, peer = datagram
            words = data[2:]
            ready = find(words)
            if ready is not None and now < ready[0] and held(ready[1]) is ready[2]:
                answer, rcode, hit = data[:2] + ready[3], ready[4], None
            elif hit := plain(data, now):
                answer, rcode = hit[0], hit[0][3] & wire.RCODE_MASK
            else:
                rest.append(datagram)
                continue
            if peer not in known and not admits(peer, now):
                rest.append(datagram)
                continue
            answers.append((answer, peer))
            rcodes.append(rcode)
            if hit is None:
                continue
            _, key, entry = hit
            slot = hash(words) % _MAX_ASKED
            if asked[slot] == second and len(entry) <= _MAX_ENTRY:
                self._answers[words] = (entries.unchanged_until(entry, now), key, entry, answer[2:], rcode)
            else:  # popular is what is asked again and again: once a second is enough to know
                popularity[key] += 1
                asked[slot] = second
        return answers, rcodes, rest

    def keep(self, data: bytes, query: Query, entry: Entry, answer: bytes, now: float) -> None:
        """Keep the answer that was made of ``entry`` at ``now``, if others may ask in the same words."""
        plain = len(data) - wire.HEADER_SIZE - len(query.question) in (0, _PLAIN_OPT_SIZE)
        if plain and len(entry) <= _MAX_ENTRY:
            until = entries.unchanged_until(entry, now)
            self._answers[data[2:]] = (until, query.key, entry, answer[2:], answer[3] & wire.RCODE_MASK)
