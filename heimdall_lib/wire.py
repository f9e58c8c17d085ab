"""DNS messages as bytes: where things are, and how to change them in place.

Rules: no objects for records that nobody looks at; nothing here knows a clock, a cache or a socket; what reads a
message raises ``WireError`` and nothing else, whatever the bytes; a compression pointer may only point backwards.
"""

import re
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from heimdall_lib.errors import WireError

HEADER_SIZE = 12
MAX_MESSAGE_SIZE = 65535
MAX_NAME_SIZE = 255  # RFC 1035, section 3.1
_MAX_HOPS = 16  # from pointer to pointer in one name, as BIND has it; 64 KiB of long ways would hold up the loop
CLASSIC_UDP_SIZE = 512  # RFC 1035, section 4.2.1

# Header flags (RFC 1035, section 4.1.1; AD and CD: RFC 4035, section 3), first and second octet apart.
QR, OPCODE_MASK, AA, TC, RD = 0x80, 0x78, 0x04, 0x02, 0x01
RA, AD, CD, RCODE_MASK = 0x80, 0x20, 0x10, 0x0F

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
BADVERS, BADCOOKIE = 16, 23  # RFC 6891, section 9; RFC 7873, section 8

TYPE_A, TYPE_NS, TYPE_CNAME, TYPE_SOA, TYPE_PTR, TYPE_MX, TYPE_TXT = 1, 2, 5, 6, 12, 15, 16
TYPE_AAAA, TYPE_SRV, TYPE_DNAME, TYPE_OPT = 28, 33, 39, 41
TYPE_IXFR, TYPE_AXFR, TYPE_ANY = 251, 252, 255
CLASS_IN, CLASS_CH = 1, 3

ANSWER, AUTHORITY, ADDITIONAL = 1, 2, 3

EDNS_DO = 0x8000  # RFC 3225, section 3
OPTION_COOKIE, OPTION_KEEPALIVE, OPTION_EXTENDED_ERROR = 10, 11, 15  # RFC 7873, RFC 7828, RFC 8914

TO_QUESTION = b"\xc0\x0c"
"""A compression pointer to the question's name: how the owners of most answers are written."""

COUNTS = Struct("!HHHH")
UINT16 = Struct("!H")
UINT32 = Struct("!I")
_RECORD = Struct("!HHIH")
_TEXT_PART = re.compile(r"\\([0-9]{3})|\\[!-/:-~]|\.|[!-,\-/-\[\]-~]+")
_TOO_LONG, _MAX_TEXT = "longer than 255 octets", 4 * MAX_NAME_SIZE
_PLAIN_LABEL = re.compile(rb"[A-Za-z0-9_-]+").fullmatch


class Record(NamedTuple):
    """Where one resource record lies in its message, and its fixed fields; ``section`` is 1, 2 or 3."""

    section: int
    start: int
    type: int
    rclass: int
    ttl: int
    ttl_offset: int
    rdata: int
    end: int


_new = tuple.__new__  # half the time of a call of the class


def name_end(message: bytes, offset: int) -> int:
    """Return the offset just past the name at ``offset``, following no pointer.

    Raises WireError when the name runs out of the message, has a label type that is not in use, or a pointer that
    does not point backwards to a place after the header (RFC 1035, section 4.1.4).
    """
    start = offset
    try:
        while length := message[offset]:
            if length >= 0xC0:
                if not HEADER_SIZE <= ((length & 0x3F) << 8 | message[offset + 1]) < start:
                    raise WireError("compression pointer into the header or not backwards")
                return offset + 2
            if length > 63:
                raise WireError("unknown label type")
            offset += length + 1
    except IndexError:
        raise WireError("name runs out of the message") from None
    return offset + 1


def name(message: bytes, offset: int) -> bytes:
    """Return the name at ``offset`` without compression and in lower case.

    Raises WireError as ``name_end`` does, for a name that is longer than 255 octets or compressed again and again, and
    for a pointer to what is no prior name: one that does not end before the place that it is pointed to from.
    """
    labels = bytearray()
    start, end, hops = offset, len(message), 0
    try:
        while length := message[offset]:
            if length >= 0xC0:
                offset, end, hops = (length & 0x3F) << 8 | message[offset + 1], start, hops + 1
                if not HEADER_SIZE <= offset < start or hops > _MAX_HOPS:
                    raise WireError("compression pointer into the header, not backwards, or one of too many")
                start = offset
            elif length > 63:
                raise WireError("unknown label type")
            else:
                labels += message[offset : offset + length + 1]
                offset += length + 1
            if len(labels) >= MAX_NAME_SIZE or offset >= end:
                raise WireError("name longer than 255 octets, or not over where it is pointed to from")
    except IndexError:
        raise WireError("name runs out of the message") from None
    return bytes(labels.lower()) + b"\0"


def question_end(message: bytes) -> int:
    """Return the offset just past the first question; its name cannot be compressed, as nothing stands before it.

    Raises WireError when there is no whole question, or its name is longer than 255 octets.
    """
    end = name_end(message, HEADER_SIZE)
    if end - HEADER_SIZE > MAX_NAME_SIZE:
        raise WireError("name longer than 255 octets")
    if end + 4 > len(message):
        raise WireError("question runs out of the message")
    return end + 4


def records(message: bytes, offset: int) -> list[Record]:
    """Return the resource records that start at ``offset`` (just past the question), in order.

    Raises WireError when the header or a record is cut short, or bytes follow the last one.
    """
    size = len(message)
    if size < HEADER_SIZE:
        raise WireError("header cut short")
    found: list[Record] = []
    for section, count in enumerate(COUNTS.unpack_from(message, 4)[1:], ANSWER):
        for _ in range(count):
            start = offset
            fixed = name_end(message, offset)
            if fixed + 10 > size:
                raise WireError("record runs out of the message")
            rtype, rclass, ttl, length = _RECORD.unpack_from(message, fixed)
            offset = fixed + 10 + length
            if offset > size:
                raise WireError("record data runs out of the message")
            found.append(_new(Record, (section, start, rtype, rclass, ttl, fixed + 4, fixed + 10, offset)))
    if offset != size:
        raise WireError("bytes after the last record")
    return found


def options(rdata: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the EDNS options (code, data) of an OPT record's data (RFC 6891, section 6.1.2).

    Raises WireError when an option is cut short.
    """
    offset = 0
    while offset < len(rdata):
        if offset + 4 > len(rdata):
            raise WireError("EDNS option cut short")
        code, length = UINT16.unpack_from(rdata, offset)[0], UINT16.unpack_from(rdata, offset + 2)[0]
        data = rdata[offset + 4 : offset + 4 + length]
        if len(data) != length:
            raise WireError("EDNS option cut short")
        yield code, data
        offset += 4 + length


def opt_record(udp_size: int, *, dnssec_ok: bool, extended_rcode: int = 0, data: bytes = b"") -> bytes:
    """Return an OPT record of version 0 (RFC 6891, section 6.1.2); ``data`` is its options, already encoded."""
    flags = EDNS_DO if dnssec_ok else 0
    return b"\0" + _RECORD.pack(TYPE_OPT, udp_size, extended_rcode << 24 | flags, len(data)) + data


def option(code: int, data: bytes) -> bytes:
    """Return an EDNS option (RFC 6891, section 6.1.2)."""
    return UINT16.pack(code) + UINT16.pack(len(data)) + data


def keepalive(idle_seconds: float) -> bytes:
    """Return an edns-tcp-keepalive option, whose unit is a tenth of a second (RFC 7828, section 3.1)."""
    return option(OPTION_KEEPALIVE, UINT16.pack(min(int(idle_seconds * 10), 0xFFFF)))


def extended_error(code: int, text: str = "") -> bytes:
    """Return an Extended DNS Error option (RFC 8914, section 2)."""
    return option(OPTION_EXTENDED_ERROR, UINT16.pack(code) + text.encode())


def is_reply_to(reply: bytes, question: bytes) -> bool:
    """Say whether ``reply`` answers a query for ``question``, its id apart (RFC 5452, section 9.1).

    QR is set, the opcode is QUERY, and the question is the same: the name without regard to case (RFC 4343). A server
    that could not read the query may say so in a header alone.
    """
    if len(reply) == HEADER_SIZE:
        return is_header_alone(reply)
    end = HEADER_SIZE + len(question)
    if len(reply) < end or reply[2] & (QR | OPCODE_MASK) != QR or reply[4:6] != b"\0\1":
        return False
    echoed = reply[HEADER_SIZE:end]
    return echoed == question or (echoed[-4:] == question[-4:] and echoed[:-4].lower() == question[:-4].lower())


def is_header_alone(reply: bytes) -> bool:
    """Say whether ``reply`` is FORMERR or NOTIMP and no more: what servers older than EDNS say to a query with OPT."""
    return reply[4:] == bytes(8) and reply[2] & (QR | OPCODE_MASK) == QR and reply[3] & RCODE_MASK in (FORMERR, NOTIMP)


def truncate(message: bytes | bytearray, limit: int) -> bytearray:
    """Return ``message`` with whole records dropped from its end until it has at most ``limit`` bytes.

    TC is set unless only additional records went; those go all together, as part of a set without TC would pass for
    the whole set (RFC 2181, section 9). ``message`` is a well-formed reply without OPT; the header and the question
    stay whatever the limit.
    """
    whole = bytes(message)
    end = required_end = question_end(whole)
    kept = [0, 0, 0, 0]
    complete = True
    for record in records(whole, end):
        if record.end > limit:
            complete = record.section == ADDITIONAL
            end, kept[ADDITIONAL] = required_end, 0
            break
        kept[record.section] += 1
        end = record.end
        if record.section != ADDITIONAL:
            required_end = end
    shorter = bytearray(whole[:end])
    COUNTS.pack_into(shorter, 4, 1, *kept[1:])
    if not complete:
        shorter[2] |= TC
    return shorter


def presentation(name: bytes) -> str:
    r"""Return an uncompressed wire-format name as text without the final dot; the root is ``.``.

    Octets other than letters, digits, ``-`` and ``_`` are written ``\DDD`` (RFC 1035, section 5.1), so that the text
    holds no separator, glob character, space or control character whatever the name.
    """
    labels: list[str] = []
    offset = 0
    while length := name[offset]:
        label = name[offset + 1 : offset + 1 + length]
        labels.append(label.decode() if _PLAIN_LABEL(label) else _escape(label))
        offset += length + 1
    return ".".join(labels) or "."


def _escape(label: bytes) -> str:
    return "".join(chr(octet) if _PLAIN_LABEL(bytes((octet,))) else f"\\{octet:03d}" for octet in label)


def from_presentation(text: str) -> bytes:
    r"""Return the name that ``text`` writes, with or without the final dot, in wire format and lower case.

    ``\DDD`` and ``\X`` stand for one octet (RFC 1035, section 5.1). Raises WireError, in words for who wrote it.
    """
    if len(text) > _MAX_TEXT:
        raise WireError(_TOO_LONG)
    labels = [bytearray()]
    offset = 0
    while offset < len(text):
        part = _TEXT_PART.match(text, offset)
        if part is None or int(part[1] or 0) > 255:
            raise WireError("other characters than visible ASCII, or a backslash without \\DDD or \\X")
        if part[0] == ".":
            labels.append(bytearray())
        else:
            labels[-1] += bytes((int(part[1]),)) if part[1] else part[0].removeprefix("\\").encode()
        offset = part.end()
    if not labels[-1]:
        labels.pop()
    if text == ".":
        return b"\0"
    if not labels or not all(0 < len(label) < 64 for label in labels):
        raise WireError("a label is empty or longer than 63 octets")
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(name) > MAX_NAME_SIZE:
        raise WireError(_TOO_LONG)
    return name.lower()
