"""What an upstream's reply is, and the form in which it is kept: its own bytes without the hop-by-hop parts.

Rules: no clock, no socket; bytes pass through, so that unknown types survive (RFC 3597); what belongs to one hop (id,
OPT with its options, AA, RA, RD, CD) is taken off here and put back for each client.
"""

import re
from enum import Enum
from struct import Struct
from typing import NamedTuple

from heimdall_lib import chain, rdata, spelling, wire
from heimdall_lib.errors import WireError

_BROKEN = frozenset((wire.FORMERR, wire.SERVFAIL, wire.NOTIMP, wire.REFUSED))
_MAX_ERROR_TEXT = 120
_MAX_TTL = 0x7FFFFFFF  # RFC 2181, section 8: a TTL with the top bit set counts as zero

_TTL_AND_LENGTH = Struct("!IH")
_ADDRESS_SIZES = {wire.UINT16.pack(wire.TYPE_A): 4, wire.UINT16.pack(wire.TYPE_AAAA): 16}
_NO_OR_PLAIN_OPT = re.compile(rb"(\0\0\x29..\0...\0\0)?", re.DOTALL).fullmatch  # no extended rcode, no options
_OPT_WITH_COOKIE = re.compile(rb"\0\0\x29..\0...\0(.)\0\x0a\0(.)", re.DOTALL).match  # and one option, perhaps
_PLAIN_HEAD = bytes((0, 0, wire.QR, wire.RA, 0, 1))
_PLAIN_AUTHENTIC = bytes((0, 0, wire.QR, wire.RA | wire.AD, 0, 1))


class Kind(Enum):
    """What a reply says about the name and type that were asked for (RFC 2308, section 2)."""

    ANSWER = "answer"
    NODATA = "nodata"
    NXDOMAIN = "nxdomain"
    FAILURE = "failure"
    OTHER = "other"


class Reply(NamedTuple):
    """One examined reply.

    ``message`` has id 0, no OPT and the question in lower case; ``ttl_offsets`` says where its TTLs are; ``ttl`` is
    the least of those that bound its life (seconds), or None when nothing in it may be cached; ``error`` is the
    upstream's own Extended DNS Error (code, text), if any.
    """

    kind: Kind
    rcode: int
    message: bytes
    ttl_offsets: tuple[int, ...]
    ttl: int | None
    error: tuple[int, str] | None = None


def is_truncated(data: bytes) -> bool:
    """Say whether TC is set, so that the question wants asking again over TCP (RFC 1035, section 4.2.1)."""
    return bool(data[2] & wire.TC)


def has_opt(data: bytes) -> bool:
    """Say whether a reply speaks EDNS; one that cannot be read does not."""
    try:
        return any(record.type == wire.TYPE_OPT for record in wire.records(data, wire.question_end(data)))
    except WireError:
        return False


def examine(data: bytes, question: bytes) -> Reply:
    """Read the reply ``data`` to ``question`` (lower case), already matched to its query.

    Raises WireError when the reply is not a well-formed message.
    """
    return _plain(data, question) or _any(data, question)


def _plain(data: bytes, question: bytes) -> Reply | None:
    """Read the reply that most queries get, in a fraction of the time: nothing but addresses of the name asked for.

    None is any other reply; what is returned is what ``_any`` returns.
    """
    size = _ADDRESS_SIZES.get(question[-4:-2])
    offset = first = wire.HEADER_SIZE + len(question)
    asked = wire.TO_QUESTION + question[-4:]
    if size is None or data[offset : offset + 6] != asked or data[2] & wire.TC or data[3] & wire.RCODE_MASK:
        return None
    end = len(data)
    least = _MAX_TTL
    offsets: list[int] = []
    while data[offset : offset + 6] == asked and offset + 12 <= end:
        ttl, length = _TTL_AND_LENGTH.unpack_from(data, offset + 6)
        if length != size:
            return None
        if ttl < least:
            least = ttl
        elif ttl > _MAX_TTL:
            least = 0
        offsets.append(offset + 6)
        offset += 12 + length
    rest = data[offset:]
    answers = wire.UINT16.pack(len(offsets))
    if offset > end or data[6:12] != answers + (b"\0\0\0\1" if rest else b"\0\0\0\0"):
        return None
    if not (_NO_OR_PLAIN_OPT(rest) or _is_opt_with_cookie(rest)):
        return None
    head = _PLAIN_AUTHENTIC if data[3] & wire.AD else _PLAIN_HEAD
    message = b"".join((head, answers, b"\0\0\0\0", question, data[first:offset]))
    return Reply(Kind.ANSWER, wire.NOERROR, message, tuple(offsets), least)


def _is_opt_with_cookie(rest: bytes) -> bool:
    """Say whether ``rest`` is an OPT without an extended rcode that has a cookie and nothing else."""
    found = _OPT_WITH_COOKIE(rest)
    return found is not None and found[1][0] == len(rest) - 11 and found[2][0] == len(rest) - 15


def _any(data: bytes, question: bytes) -> Reply:
    if len(data) == wire.HEADER_SIZE and wire.is_header_alone(data):
        return Reply(Kind.FAILURE, data[3] & wire.RCODE_MASK, b"", (), None)
    end = wire.question_end(data)
    kept: list[wire.Record] = []
    rcode, error, opt = data[3] & wire.RCODE_MASK, None, None
    for record in wire.records(data, end):
        if record.type == wire.TYPE_OPT:
            if opt or record.section != wire.ADDITIONAL:
                raise WireError("OPT twice, or outside the additional section")
            opt = record
            rcode |= record.ttl >> 24 << 4
            error = _extended_error(data[record.rdata : record.end])
        elif opt is None:
            kept.append(record)
        # What follows an OPT goes with it: it is additional, and its compression pointers would lose their targets.
    if rcode in _BROKEN or rcode > wire.RCODE_MASK:
        return Reply(Kind.FAILURE, rcode, b"", (), None, error)
    message = _normalise(data[: opt.start if opt else len(data)], question, rcode, kept)
    kind, ttl = _classify(data, question, rcode, kept)
    return Reply(kind, rcode, message, tuple(record.ttl_offset for record in kept), ttl, error)


def _normalise(data: bytes, question: bytes, rcode: int, kept: list[wire.Record]) -> bytes:
    message = bytearray(data)
    message[0:4] = bytes((0, 0, wire.QR, wire.RA | data[3] & wire.AD | rcode))
    additional = sum(record.section == wire.ADDITIONAL for record in kept)
    wire.UINT16.pack_into(message, 10, additional)
    message[wire.HEADER_SIZE : wire.HEADER_SIZE + len(question)] = question
    spelling.forget(message, data, question[:-4], kept)
    return bytes(message)


def _classify(data: bytes, question: bytes, rcode: int, kept: list[wire.Record]) -> tuple[Kind, int | None]:
    """Return what the reply is and the TTL that bounds it (RFC 2308, sections 2 and 5).

    Who answers in part, or what was not asked, or only knows others to ask, has failed: a client could do nothing good
    with it.
    """
    for record in kept:
        if record.section != wire.ANSWER:
            wire.name(data, record.start)  # raises where a client could not read it either; `belongs` reads the others
        rdata.check(data, record)
    qtype = wire.UINT16.unpack_from(question, len(question) - 4)[0]
    if is_truncated(data):
        return Kind.FAILURE, None
    answers = [record for record in kept if record.section == wire.ANSWER]
    belong = chain.belongs(data, question[:-4], answers)
    if rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return Kind.OTHER, None
    if not belong:
        return Kind.FAILURE, None
    if rcode == wire.NOERROR and _is_referral(kept):
        return Kind.FAILURE, None
    if rcode == wire.NOERROR and any(qtype in (record.type, wire.TYPE_ANY) for record in answers):
        return Kind.ANSWER, min(_ttl(record) for record in kept)
    kind = Kind.NXDOMAIN if rcode == wire.NXDOMAIN else Kind.NODATA
    negative = [
        min(_ttl(record), _soa_minimum(data, record))
        for record in kept
        if record.section == wire.AUTHORITY and record.type == wire.TYPE_SOA
    ]
    if not negative:
        return kind, None
    return kind, min(negative + [_ttl(record) for record in answers])


def _is_referral(kept: list[wire.Record]) -> bool:
    """Say whether a reply has name servers instead of an answer (RFC 2308, section 2.2)."""
    found = {(record.section, record.type) for record in kept if record.section != wire.ADDITIONAL}
    authority = {rtype for section, rtype in found if section == wire.AUTHORITY}
    return len(found) == len(authority) and wire.TYPE_NS in authority and wire.TYPE_SOA not in authority


def _ttl(record: wire.Record) -> int:
    return record.ttl if record.ttl <= _MAX_TTL else 0


def _soa_minimum(data: bytes, record: wire.Record) -> int:
    """Return the last field of a SOA record: how long its zone's negative answers live (RFC 2308, section 4)."""
    minimum: int = wire.UINT32.unpack_from(data, record.end - 4)[0]
    return minimum if minimum <= _MAX_TTL else 0


def _extended_error(rdata: bytes) -> tuple[int, str] | None:
    for code, data in wire.options(rdata):
        if code == wire.OPTION_EXTENDED_ERROR and len(data) >= 2:
            return wire.UINT16.unpack_from(data)[0], _printable(data[2:])
    return None


def _printable(text: bytes) -> str:
    """Return an upstream's free text cut to a size and to characters that no log or terminal can trip over."""
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "?" for octet in text[:_MAX_ERROR_TEXT])
