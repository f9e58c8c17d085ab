"""What the data of the oldest record types must look like: those that every client reads, often without a second look.

Rules: no clock, no socket; any other type is opaque, and so are its octets (RFC 3597, section 3).
"""

from heimdall_lib import wire
from heimdall_lib.errors import WireError

_META_TYPES = range(128, 256)  # RFC 6895, section 3.1

_SHAPES = {
    wire.TYPE_A: (4, 0, 0),
    wire.TYPE_NS: (0, 1, 0),
    wire.TYPE_CNAME: (0, 1, 0),
    wire.TYPE_SOA: (0, 2, 20),
    wire.TYPE_PTR: (0, 1, 0),
    wire.TYPE_MX: (2, 1, 0),
    wire.TYPE_AAAA: (16, 0, 0),
    wire.TYPE_SRV: (6, 1, 0),
    wire.TYPE_DNAME: (0, 1, 0),
}
"""Octets before the names, names, octets after them (RFC 1035, section 3.3; RFC 2782, RFC 3596, RFC 6672)."""


def check(message: bytes, record: wire.Record) -> None:
    """Raise WireError when the data of ``record`` is not what its type says (RFC 9267, sections 2 and 5).

    A record of a meta-type is refused, too: like OPT it is about one message, and no part of an answer.
    """
    shape = _SHAPES.get(record.type)
    if shape is None:
        if record.type in _META_TYPES:
            raise WireError("a record that is no data")
        return
    before, names, after = shape
    offset = record.rdata + before
    for _ in range(names):
        wire.name(message, offset)
        offset = wire.name_end(message, offset)
    if offset + after != record.end:
        raise WireError("record data of the wrong size")
