"""Answers from L1 to the queries that most clients send: one question, recursion desired, OPT without options or none.

Such a query is its question between two pieces of which there are few, so that the cache key is cut out of it instead
of being parsed: what L1 holds is a question, and so is what equals it.

Rules: no clock (``now`` is an argument, in seconds), no socket; whatever is not plain, not fresh, or due to be
refreshed is left to the general path; the bytes are those of the general path.
"""

from lru import LRU

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.query import CD_BIT, DO_BIT, KEY_FLAGS

_OPT_SIZE = 11  # of an OPT record without options (RFC 6891, section 6.1.2)
_MAX_OPTS = 1024
_MAX_RECORDS = 0xFF  # of the additional section: the OPT is counted in its lower octet


# What a plain query's header may be, but for the id: AD and CD, CD's bit in the key, whether an OPT follows.
_HEADS = {
    bytes((wire.RD, ad | cd)) + wire.COUNTS.pack(1, 0, 0, edns): (ad | cd, CD_BIT if cd else 0, edns)
    for ad in (0, wire.AD)
    for cd in (0, wire.CD)
    for edns in (False, True)
}

Opt = tuple[int, int, bytes]
"""What a plain query's OPT says: its bit in the key, how large an answer may be (bytes), the OPT of the answer."""

Hit = tuple[bytes, bytes, Entry]
"""An answer, and the key and the entry that it was made of."""


class PlainAnswers:
    """One transport's answers; none is larger than ``limit`` (bytes), or ``classic`` without EDNS."""

    def __init__(self, memory: MemoryCache, *, classic: int, limit: int, advertised: int) -> None:
        """Answer from ``memory``; ``advertised`` (bytes) is what the answers' OPT says that Heimdall takes over UDP."""
        self._held = memory.get
        self._limit = limit
        self._advertised = advertised
        self._without = 0, classic, b""
        self._opts: LRU[bytes, Opt] = LRU(_MAX_OPTS)

    def find(self, data: bytes, now: float) -> Hit | None:
        """Return the answer to ``data``, if it is a plain query and L1 has a fresh one that is not to be refreshed."""
        head = _HEADS.get(data[2 : wire.HEADER_SIZE])
        if head is None:
            return None
        flags, bits, edns = head
        if edns:
            question, tail = data[wire.HEADER_SIZE : -_OPT_SIZE], data[-_OPT_SIZE:]
            opt = self._opts.get(tail) or self._read(tail)
            if opt is None:
                return None
        else:
            question, opt = data[wire.HEADER_SIZE :], self._without
        dnssec_ok, limit, record = opt
        key = question[:-4].lower() + question[-4:] + KEY_FLAGS[bits | dnssec_ok]
        entry = self._held(key)
        if entry is None:
            return None
        message = entries.render_fresh(entry, now, data, question, flags | wire.AD if dnssec_ok else flags)
        if message is None or len(message) + len(record) > limit:
            return None
        if record:
            if message[11] == _MAX_RECORDS:
                return None
            message[11] += 1
            message += record
        return bytes(message), key, entry

    def _read(self, tail: bytes) -> Opt | None:
        """Read what may be an OPT record without options, of version 0, and remember it."""
        if tail[:3] != b"\0\0\x29" or tail[5:7] != b"\0\0" or tail[7] & 0x7F or tail[8:] != b"\0\0\0":
            return None
        dnssec_ok = bool(tail[7])
        size = max(wire.CLASSIC_UDP_SIZE, tail[3] << 8 | tail[4])
        limit = self._limit if self._limit == wire.MAX_MESSAGE_SIZE else min(size, self._limit)
        answer = wire.opt_record(self._advertised, dnssec_ok=dnssec_ok)
        opt = self._opts[tail] = DO_BIT if dnssec_ok else 0, limit, answer
        return opt
