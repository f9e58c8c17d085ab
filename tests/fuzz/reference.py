"""DNS messages read a second time, by code that shares nothing with Heimdall's: what targets judge it by.

Slow and plain on purpose: names are lists of labels, records are tuples, a fault is a ``ValueError``. Every so often
the targets hold it against dnspython.
"""

from struct import unpack_from
from typing import NamedTuple

QUERY_ROOM = 512
_MOST_HOPS = 16  # that BIND and Heimdall follow in one name
_ONE_NAME = {2, 5, 12, 39}
_BEFORE_NAME = {15: 2, 33: 6}
_SIZES = {1: 4, 28: 16}


class Record(NamedTuple):
    """One record: the section (1 to 3), its owner in lower case, fixed fields, data as it stands, and its place."""

    section: int
    owner: tuple[bytes, ...]
    type: int
    rclass: int
    ttl: int
    data: bytes
    start: int
    fixed: int
    end: int


class Message(NamedTuple):
    """A whole message with exactly one question."""

    flags: int
    question: bytes
    name: tuple[bytes, ...]
    type: int
    rclass: int
    records: tuple[Record, ...]

    def of(self, rtype: int) -> list[Record]:
        """Return the records of a type."""
        return [record for record in self.records if record.type == rtype]


class Asked(NamedTuple):
    """What a well-formed query asks: a cache key in words, and how large the answer may be over UDP."""

    name: tuple[bytes, ...]
    type: int
    rclass: int
    dnssec_ok: bool
    checking_disabled: bool
    edns: bool
    room: int
    version: int


def number(data: bytes, at: int, size: int) -> int:
    """Return a big-endian number; ValueError when it is not all there."""
    field = data[at : at + size]
    if len(field) != size:
        raise ValueError("cut short")
    return int.from_bytes(field, "big")


def read_name(data: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """Return a name's labels in lower case, and where what follows it begins."""
    labels: list[bytes] = []
    end, least, octets, hops, size = 0, at, 1, 0, len(data)  # `size` is before where a name is pointed to from
    while at < size:
        length = data[at]
        if length < 64:
            after = at + 1 + length
            if not length:
                return tuple(labels), end or after
            octets += length + 1
            if after > size or octets > 255:
                raise ValueError("label cut short, or name too long")
            labels.append(data[at + 1 : after].lower())
            at = after
        elif length >= 192:
            target = number(data, at, 2) - 0xC000
            end, hops = end or at + 2, hops + 1
            if not 12 <= target < least or hops > _MOST_HOPS:
                raise ValueError("pointer")
            size, at, least = least, target, target
        else:
            raise ValueError("label type")
    raise ValueError("name cut short")


def skip_name(data: bytes, at: int) -> int:
    """Return where what follows a name begins; of a pointer it matters only that it points backwards."""
    start, size = at, len(data)
    while at < size:
        length = data[at]
        if length >= 192:
            if not 12 <= number(data, at, 2) - 0xC000 < start:
                raise ValueError("pointer")
            return at + 2
        if length >= 64:
            raise ValueError("label type")
        at += length + 1
        if not length:
            return at
    raise ValueError("name cut short")


def read(data: bytes, *, owners: bool = True) -> Message:
    """Read a message; ValueError when it is not whole, has not one question, or goes on after its last record.

    Without ``owners`` those of records are skipped: who reads a query has no use for them.
    """
    if len(data) < 12:
        raise ValueError("header cut short")
    counts = unpack_from("!4H", data, 4)
    if counts[0] != 1:
        raise ValueError("not one question")
    name, at = read_name(data, 12)
    qtype, qclass = number(data, at, 2), number(data, at + 2, 2)
    at += 4
    question = data[12:at]
    records: list[Record] = []
    for section, count in enumerate(counts[1:], 1):
        for _ in range(count):
            record = _record(data, at, section, owners=owners)
            records.append(record)
            at = record.end
    if at != len(data):
        raise ValueError("goes on")
    return Message(number(data, 2, 2), question, name, qtype, qclass, tuple(records))


def _record(data: bytes, start: int, section: int, *, owners: bool) -> Record:
    owner, fixed = read_name(data, start) if owners else ((), skip_name(data, start))
    if fixed + 10 > len(data):
        raise ValueError("record cut short")
    rtype, rclass, ttl, size = unpack_from("!HHIH", data, fixed)
    end = fixed + 10 + size
    if end > len(data):
        raise ValueError("record data cut short")
    return Record(section, owner, rtype, rclass, ttl, data[fixed + 10 : end], start, fixed, end)


def places(data: bytes) -> list[int]:
    """Return the offsets in a message at which an octet means more than itself."""
    found = list(range(2, 12))
    try:
        message = read(data)
    except ValueError:
        return found
    end = 12 + len(message.question)
    found += [12, end - 4, end - 3, end - 2, end - 1, end]
    for record in message.records:
        found += [record.start, *range(record.fixed, record.fixed + 11), record.end - 4, record.end]
    return found


def asked(message: Message) -> Asked | None:
    """Return what a query asks; None when that is no query for the cache: another opcode, records, a bad OPT."""
    opts = message.of(41)
    if message.flags & 0xF800 or any(record.section != 3 for record in message.records):
        return None
    if len(opts) > 1 or any(opt.owner for opt in opts):
        return None
    ttl, room = (opts[0].ttl, max(QUERY_ROOM, opts[0].rclass)) if opts else (0, QUERY_ROOM)
    return Asked(
        name=message.name,
        type=message.type,
        rclass=message.rclass,
        dnssec_ok=bool(ttl & 0x8000),
        checking_disabled=bool(message.flags & 0x10),
        edns=bool(opts),
        room=room,
        version=ttl >> 16 & 0xFF,
    )


def options(data: bytes) -> list[tuple[int, bytes]]:
    """Return the EDNS options in an OPT record's data; ValueError when one is cut short."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        end = at + 4 + number(data, at + 2, 2)
        if end > len(data):
            raise ValueError("option cut short")
        found.append((number(data, at, 2), data[at + 4 : end]))
        at = end
    return found


def is_reply_to(data: bytes, question: bytes) -> bool:
    """Say whether a reply is one to ``question``, whose name is in lower case (RFC 5452, section 9.1)."""
    if len(data) < 12 or data[2] >> 7 != 1 or data[2] >> 3 & 15:
        return False
    if len(data) == 12:
        return data[4:] == bytes(8) and data[3] & 15 in (1, 4)
    there = data[12 : 12 + len(question)]
    name, rest = there[: len(question) - 4], there[len(question) - 4 :]
    return data[4:6] == b"\0\x01" and name.lower() == question[:-4] and rest == question[-4:]


def is_readable(data: bytes, record: Record) -> bool:
    """Say whether the data of a record of a well-known type is what every client takes it for."""
    at = record.fixed + 10
    if record.type in _SIZES:
        return len(record.data) == _SIZES[record.type]
    try:
        if record.type in _ONE_NAME or record.type in _BEFORE_NAME:
            return read_name(data, at + _BEFORE_NAME.get(record.type, 0))[1] == record.end
        if record.type == 6:
            return read_name(data, read_name(data, at)[1])[1] + 20 == record.end
    except ValueError:
        return False
    return True
