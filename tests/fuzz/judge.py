"""What several targets ask of a message: that dnspython reads it, and that its bytes are those of another."""

import zlib
from collections.abc import Sequence

import dns.exception
import dns.message

from tests.fuzz import reference

_SAMPLE = 61
_READ = frozenset((1, 2, 5, 6, 12, 15, 28, 33, 39, 41))
_OPAQUE = (65280).to_bytes(2, "big")


def sampled(data: bytes) -> bool:
    """Say whether an input is one of the few that dnspython reads, too: it is twenty times slower than all else."""
    return zlib.crc32(data) % _SAMPLE == 0


def dnspython_reads(message: bytes, read: reference.Message) -> None:
    """Assert that dnspython reads a message as the reference has; types that Heimdall passes unread are opaque."""
    opaque = bytearray(message)
    for record in read.records:
        if record.type not in _READ or (record.rclass != 1 and record.type != 41):
            opaque[record.fixed : record.fixed + 2] = _OPAQUE
    try:
        reference.read(bytes(opaque))
    except ValueError:  # a name reaches into a type that was changed here
        return
    try:
        other = dns.message.from_wire(bytes(opaque), one_rr_per_rrset=True)
    except dns.exception.DNSException as error:
        raise AssertionError(f"dnspython does not read it: {type(error).__name__} {error}") from error
    records = [rrset for section in (other.answer, other.authority, other.additional) for rrset in section]
    assert len(records) == sum(record.type != 41 for record in read.records)
    asked = other.question[0]
    labels = tuple(label.lower() for label in asked.name.labels[:-1])
    assert (labels, asked.rdtype, asked.rdclass) == (read.name, read.type, read.rclass)


def count_down(message: bytes, ttl_offsets: Sequence[int], seconds: int) -> bytes:
    """Return a message whose TTLs have gone down by some seconds, at these offsets."""
    counted = bytearray(message)
    for at in ttl_offsets:
        ttl = int.from_bytes(message[at : at + 4], "big")
        counted[at : at + 4] = max(0, ttl - seconds).to_bytes(4, "big")
    return bytes(counted)
