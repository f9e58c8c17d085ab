"""What L1 holds while queries are tried: every kind of answer that makes a difference to who reads or renders it."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from tests.support.messages import (
    AAAA,
    AD,
    ANY,
    CNAME,
    HTTPS,
    NS,
    QR,
    RA,
    SOA,
    TO_QUESTION,
    TXT,
    A,
    assemble,
    question,
    record,
    soa_data,
    wire_name,
)

DO, CD = 1, 2
LONG = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]) + "."
"""The longest name there is: 255 octets."""
ODD = "\\000\\255.\\192\\012.x\\.y.@[`{.example."
_OWN, _OPAQUE, _SRV, _RRSIG = TO_QUESTION, 65280, 33, 46


class Held(NamedTuple):
    """One answer for one cache key: ``bits`` are DO and CD, ``age`` of ``lifetime`` seconds have passed."""

    name: str
    type: int
    message: bytes
    rclass: int = 1
    bits: int = 0
    age: float = 10.5
    lifetime: float = 86400.0


def _addresses(count: int, ttl: int = 300) -> list[bytes]:
    return [record(_OWN, A, ttl, bytes((192, 0, 2, number % 256))) for number in range(count)]


def _message(
    name: str,
    rtype: int,
    *answer: bytes,
    rclass: int = 1,
    rcode: int = 0,
    flags: int = 0,
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
) -> bytes:
    return assemble(
        question(name.lower(), rtype, rclass),
        answer=answer,
        authority=authority,
        additional=additional,
        flags=QR | RA | flags,
        rcode=rcode,
        message_id=0,
    )


def _made(
    name: str,
    rtype: int,
    *answer: bytes,
    bits: int = 0,
    age: float = 10.5,
    lifetime: float = 86400.0,
    rcode: int = 0,
    flags: int = 0,
    authority: Sequence[bytes] = (),
    additional: Sequence[bytes] = (),
) -> Held:
    message = _message(name, rtype, *answer, rcode=rcode, flags=flags, authority=authority, additional=additional)
    return Held(name, rtype, message, bits=bits, age=age, lifetime=lifetime)


_soa = record(_OWN, SOA, 300, soa_data(60, primary=wire_name("ns.example.com"), mailbox=b"\1h\xc0\x0c"))
_alias = wire_name("target.example.com")
_glue = [record(wire_name(f"ns{number}.example.com"), A, 3600, bytes(4)) for number in range(20)]
_signature = record(_OWN, _RRSIG, 300, struct.pack("!HBBIIIH", 1, 8, 3, 300, 2**31, 0, 7) + wire_name("example.com"))

HELD = [
    _made("www.example.com.", A, *_addresses(1)),
    _made("www.example.com.", A, *_addresses(1), _signature, bits=DO, flags=AD),
    _made("www.example.com.", A, *_addresses(2), bits=CD),
    _made("www.example.com.", A, *_addresses(2), _signature, bits=DO | CD),
    _made("www.example.com.", AAAA, record(_OWN, AAAA, 5, bytes(range(16))), flags=AD),
    _made("www.example.com.", HTTPS, record(_OWN, HTTPS, 300, b"\0\1\0")),
    _made("www.example.com.", 97, record(_OWN, 97, 300, b"not HTTPS, but its type in another case")),
    _made("www.example.com.", ANY, *_addresses(1), record(_OWN, TXT, 1, b"\3any")),
    _made("alias.example.com.", A, record(_OWN, CNAME, 30, _alias), record(_alias, A, 0x7FFFFFFF, bytes(4))),
    _made("missing.example.com.", A, rcode=3, authority=[_soa]),
    _made("empty.example.com.", TXT, authority=[_soa]),
    _made("bare.example.com.", A),
    _made("half.example.com.", A, *_addresses(40)),
    _made("large.example.com.", A, *_addresses(90)),
    _made("glue.example.com.", NS, record(_OWN, NS, 60, wire_name("ns1.example.com")), additional=_glue),
    _made("srv.example.com.", _SRV, record(_OWN, _SRV, 60, bytes(6) + _alias), additional=_glue[:1] * 255),
    _made("text.example.com.", TXT, record(_OWN, TXT, 60, b"\xff" + b"t" * 255), record(_OWN, TXT, 0, b"\0")),
    _made("opaque.example.com.", _OPAQUE, record(_OWN, _OPAQUE, 60, bytes(1300)), record(_OWN, _OPAQUE, 1, b"")),
    _made(".", NS, record(_OWN, NS, 518400, wire_name("a.root-servers.net"))),
    _made(LONG, A, *_addresses(1)),
    _made(ODD, A, *_addresses(1)),
    _made("due.example.com.", A, *_addresses(1), age=95000.5, lifetime=100000.0),
    _made("stale.example.com.", A, *_addresses(1), age=500.5, lifetime=300.0),
    _made("stale.example.com.", AAAA, rcode=3, authority=[_soa], age=5000.5, lifetime=60.0),
    Held("www.example.com.", A, _message("www.example.com.", A, *_addresses(3), rclass=4), rclass=4),
]
