"""DNS messages for tests, made without Heimdall: by dnspython, or by hand where dnspython would refuse to.

Names are text; what is put together by hand is bytes, field by field, as RFC 1035, section 4.1 draws it.
"""

import io
import struct
from collections.abc import Sequence

import dns.message
import dns.name

A, NS, CNAME, SOA, MX, TXT, AAAA, DNAME, OPT, HTTPS, ANY = 1, 2, 5, 6, 15, 16, 28, 39, 41, 65, 255
IN, CH = 1, 3

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
"""Header flags as bits of the second 16-bit word."""

EXTENDED_ERROR = 15
TO_QUESTION = b"\xc0\x0c"
"""A compression pointer to the question's name."""


def wire_name(text: str) -> bytes:
    r"""Return a name in wire format, its case as it is; ``\DDD`` stands for an octet."""
    stream = io.BytesIO()
    dns.name.from_text(text).to_wire(stream)
    return stream.getvalue()


def question(name: str, qtype: int = A, qclass: int = IN) -> bytes:
    """Return a question: name, type, class."""
    return wire_name(name) + struct.pack("!HH", qtype, qclass)


def record(owner: bytes, rtype: int, ttl: int, rdata: bytes, rclass: int = IN) -> bytes:
    """Return a resource record; ``owner`` is in wire format, compressed or not."""
    return owner + struct.pack("!HHIH", rtype, rclass, ttl, len(rdata)) + rdata


def soa_data(minimum: int, *, primary: bytes = b"\0", mailbox: bytes = b"\0") -> bytes:
    """Return the data of a SOA record; the names are in wire format."""
    return primary + mailbox + struct.pack("!IIIII", 1, 7200, 3600, 1209600, minimum)


def option(code: int, data: bytes) -> bytes:
    """Return an EDNS option."""
    return struct.pack("!HH", code, len(data)) + data


def opt(
    *,
    udp_size: int = 1232,
    dnssec_ok: bool = False,
    version: int = 0,
    extended_rcode: int = 0,
    options: bytes = b"",
    owner: bytes = b"\0",
) -> bytes:
    """Return an OPT record; ``extended_rcode`` is the upper eight bits of the response code."""
    ttl = extended_rcode << 24 | version << 16 | (0x8000 if dnssec_ok else 0)
    return record(owner, OPT, ttl, options, rclass=udp_size)


def assemble(
    asked: bytes,
    *,
    answer: Sequence[bytes] = (),
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
    flags: int = QR | RD | RA,
    rcode: int = 0,
    message_id: int = 0x1234,
    questions: int = 1,
) -> bytes:
    """Return a message put together as it is told, sensible or not."""
    counts = (questions, len(answer), len(authority), len(additional))
    header = struct.pack("!6H", message_id, flags | rcode, *counts)
    return header + asked + b"".join([*answer, *authority, *additional])


def query(
    name: str,
    qtype: int = A,
    qclass: int = IN,
    *,
    flags: int = RD,
    message_id: int = 0x1234,
    additional: Sequence[bytes] = (),
) -> bytes:
    """Return a query; ``additional`` is where its OPT goes."""
    return assemble(question(name, qtype, qclass), additional=additional, flags=flags, message_id=message_id)


def reply(
    name: str,
    qtype: str = "A",
    *,
    answer: Sequence[str] = (),
    authority: Sequence[str] = (),
    additional: Sequence[str] = (),
    rcode: str = "NOERROR",
    flags: str = "QR RD RA",
    edns: bool = False,
) -> bytes:
    """Return a reply as a real server would send it, names compressed; records are lines of a zone file."""
    lines = ["id 4660", "opcode QUERY", f"rcode {rcode}", f"flags {flags}"]
    if edns:
        lines += ["edns 0", "payload 1232"]
    lines += [";QUESTION", f"{name}. IN {qtype}", ";ANSWER", *answer, ";AUTHORITY", *authority]
    lines += [";ADDITIONAL", *additional]
    return dns.message.from_text("\n".join(lines) + "\n").to_wire()


def flags_of(message: bytes | bytearray) -> int:
    """Return the header's second 16-bit word without the response code."""
    word: int = struct.unpack_from("!H", message, 2)[0]
    return word & ~0x000F


def counts_of(message: bytes | bytearray) -> tuple[int, ...]:
    """Return the number of questions, answers, authority and additional records that the header tells."""
    return struct.unpack_from("!4H", message, 4)


def ttls_of(message: bytes | bytearray) -> list[int]:
    """Return the TTL of every record set, as dnspython reads the message."""
    read = dns.message.from_wire(bytes(message))
    return [rrset.ttl for section in (read.answer, read.authority, read.additional) for rrset in section]
