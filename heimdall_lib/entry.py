"""A cached answer, and how it is made into an answer to one client.

An entry is one ``bytes`` object (times, TTL offsets, message): half the memory of a tuple, and invisible to the
garbage collector, so that a million of them cost no pause. Only this module knows the layout.

Rules: no clock (instants are arguments, in seconds of one monotonic clock), no socket.
"""

from struct import Struct
from typing import NewType

from heimdall_lib import wire
from heimdall_lib.query import Query

Entry = NewType("Entry", bytes)

_HEADER = Struct("<dddH")
_EXPIRES = Struct("<d")
_OFFSETS = tuple(Struct(f"<{count}H") for count in range(64))
_PREFETCH_SHARE = 0.1  # of the lifetime: a name asked for in that last part is popular enough to be refreshed


def make(message: bytes, ttl_offsets: tuple[int, ...], *, stored_at: float, lifetime: float, stale: float) -> Entry:
    """Return an entry for a message whose TTLs were true at ``stored_at``.

    It is fresh for ``lifetime`` seconds from then on, and may serve stale for ``stale`` seconds after that.
    """
    expires_at = stored_at + lifetime
    header = _HEADER.pack(stored_at, expires_at, expires_at + stale, len(ttl_offsets))
    return Entry(header + _offsets(len(ttl_offsets)).pack(*ttl_offsets) + message)


def _offsets(count: int) -> Struct:
    return _OFFSETS[count] if count < len(_OFFSETS) else Struct(f"<{count}H")


def stored_at(entry: Entry) -> float:
    """Return when the entry's TTLs were true."""
    at: float = _EXPIRES.unpack_from(entry)[0]
    return at


def expires_at(entry: Entry) -> float:
    """Return the instant from which on the entry is stale."""
    at: float = _EXPIRES.unpack_from(entry, 8)[0]
    return at


def stale_until(entry: Entry) -> float:
    """Return the instant from which on the entry is of no use at all."""
    at: float = _EXPIRES.unpack_from(entry, 16)[0]
    return at


def wants_refresh(entry: Entry, now: float) -> bool:
    """Say whether a fresh entry is in the last part of its life."""
    stored, expires, _, _ = _HEADER.unpack_from(entry)
    return bool(now >= expires - (expires - stored) * _PREFETCH_SHARE)


def unchanged_until(entry: Entry, now: float) -> float:
    """Return when a fresh entry next means another answer or act: a TTL changes, a refresh is due, it expires."""
    stored, expires, _, _ = _HEADER.unpack_from(entry)
    refresh_at = expires - (expires - stored) * _PREFETCH_SHARE
    next_second = stored + int(now - stored) + 1.0
    return float(min(next_second, refresh_at) if now < refresh_at else min(next_second, expires))


def message_of(entry: Entry) -> bytes:
    """Return the entry's message, its TTLs as they were when it was stored."""
    return entry[_HEADER.size + 2 * _HEADER.unpack_from(entry)[3] :]


def same_answer(one: Entry, other: Entry) -> bool:
    """Say whether two answers to one question tell a client the same.

    That is the response code and the answer section, whatever the TTLs and the order of records.
    """
    first, second = message_of(one), message_of(other)
    return first == second or _told(first) == _told(second)


def _told(message: bytes) -> tuple[int, frozenset[tuple[bytes, bytes, bytes]]]:
    """Return the response code, and owner, type with class, and data of each record of the answer section.

    A name in the data that is compressed in two ways makes equal answers seem to differ: rarely, for a server
    compresses the same answer in the same way.
    """
    answers = frozenset(
        (
            wire.name(message, record.start),
            message[record.ttl_offset - 4 : record.ttl_offset],
            message[record.rdata : record.end],
        )
        for record in wire.records(message, wire.question_end(message))
        if record.section == wire.ANSWER
    )
    return message[3] & wire.RCODE_MASK, answers


def render(entry: Entry, query: Query, now: float, *, stale_ttl: int | None = None) -> bytearray:
    """Return the answer to ``query``, without OPT and of any size: id, flags, question and TTLs are this client's.

    TTLs have counted down to ``now``, or all say ``stale_ttl`` (RFC 8767, section 4). ``query`` asks what the entry
    answers, so that the client's question fits over the stored one to the octet.
    """
    stored, _, _, count = _HEADER.unpack_from(entry)
    message = bytearray(entry[_HEADER.size + 2 * count :])
    message[0:2] = query.id
    message[2] |= query.recursion_desired
    message[3] |= query.checking_disabled
    if not (query.dnssec_ok or query.authentic_data):  # RFC 6840, section 5.8
        message[3] &= ~wire.AD
    message[wire.HEADER_SIZE : wire.HEADER_SIZE + len(query.question)] = query.question
    if stale_ttl is None:
        _count_down(message, entry, count, int(now - stored))
    else:
        for offset in _offsets(count).unpack_from(entry, _HEADER.size):
            wire.UINT32.pack_into(message, offset, stale_ttl)
    return message


def render_fresh(entry: Entry, now: float, data: bytes, question: bytes, flags: int) -> bytearray | None:
    """Return what ``render`` does for the query ``data`` with RD; None when the entry is to be refreshed, or past.

    ``flags`` has AD when the client may see it, and CD when the query has.
    """
    stored, expires, _, count = _HEADER.unpack_from(entry)
    if now >= expires - (expires - stored) * _PREFETCH_SHARE:
        return None
    message = bytearray(entry[_HEADER.size + 2 * count :])
    message[0:2] = data[0:2]
    message[2] |= wire.RD
    if flags != wire.AD:
        message[3] = message[3] & (~wire.AD | flags) | flags & wire.CD
    message[wire.HEADER_SIZE : wire.HEADER_SIZE + len(question)] = question
    _count_down(message, entry, count, int(now - stored))
    return message


def _count_down(message: bytearray, entry: Entry, count: int, age: int) -> None:
    """Take ``age`` seconds off the TTLs."""
    if age:
        read, write = wire.UINT32.unpack_from, wire.UINT32.pack_into
        for offset in _offsets(count).unpack_from(entry, _HEADER.size):
            ttl = read(message, offset)[0] - age
            write(message, offset, ttl if ttl > 0 else 0)
