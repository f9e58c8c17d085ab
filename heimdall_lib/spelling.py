"""The case of letters in names: drawn at random for a query, and forgotten in what is kept of the reply.

The DNS takes no notice of case (RFC 4343), and a server copies the question into its reply (RFC 1035, section 4.1.2):
each letter of the name is a bit that only who has seen the query can give back (draft-vixie-dnsext-dns0x20).

Rules: no clock, no socket; of names, only the case is changed.
"""

import os
from collections.abc import Sequence

from heimdall_lib import wire

_TYPE_AND_CLASS = 4
_CASE_BITS = bytes(0x20 if octet in b"abcdefghijklmnopqrstuvwxyz" else 0 for octet in range(256))
_TELLING_CAPITALS = 4


def mixed(question: bytes) -> bytes:
    """Return ``question`` (lower case) with the case of every letter of its name drawn at random."""
    # As numbers, all octets at once: 1 µs for a name of 28 octets.
    name = question[:-_TYPE_AND_CLASS]
    size = len(name)
    letters = int.from_bytes(name.translate(_CASE_BITS))
    drawn = int.from_bytes(name) ^ letters & int.from_bytes(os.urandom(size))
    return drawn.to_bytes(size) + question[-_TYPE_AND_CLASS:]


def telling(question: bytes) -> bool:
    """Say whether a server that echoed ``question`` did so on purpose.

    One that answers in lower case, or in the case in which another has asked it, may hit upon a few letters.
    """
    return sum(0x41 <= octet <= 0x5A for octet in question[:-_TYPE_AND_CLASS]) >= _TELLING_CAPITALS


def forget(message: bytearray, data: bytes, asked: bytes, kept: Sequence[wire.Record]) -> None:
    """Lower those names in ``message``, a copy of the reply ``data``, that a server made of the question's.

    They are the owners of ``kept`` that are the name ``asked`` (lower case) or above it, where they are not compressed
    to it; and, where a DNAME made an alias (RFC 6672, section 3.1), the alias's target and the owners behind it. Raises
    WireError when such a name cannot be read.
    """
    redirected = any(record.type == wire.TYPE_DNAME for record in kept)
    for record in kept:
        if data[record.start] < 0xC0 and (redirected or asked.endswith(wire.name(data, record.start))):
            _lower(message, data, record.start)
        if redirected and record.type == wire.TYPE_CNAME:
            _lower(message, data, record.rdata)


def _lower(message: bytearray, data: bytes, offset: int) -> None:
    """Lower a name's own labels: up to its end, or where a pointer takes over."""
    end = wire.name_end(data, offset)
    if data[end - 1]:
        end -= 2
    message[offset:end] = data[offset:end].lower()
