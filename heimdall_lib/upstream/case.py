"""The case of a question's letters, drawn at random for each query: what only who has seen the query can give back.

The DNS takes no notice of case (RFC 4343), and a server copies the question into its reply (RFC 1035, section 4.1.2):
each letter of the name is a bit that a forger must guess (draft-vixie-dnsext-dns0x20).

Rules: no clock, no socket.
"""

import os

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
