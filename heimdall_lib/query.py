"""What a client asked: the checks on a query's bytes, and the key under which its answer is cached.

Rules: no clock, no socket; ``parse`` is total over arbitrary bytes; different (name, type, class, DO, CD) never share
a key, and case alone never separates two keys.
"""

from heimdall_lib import cookies, wire
from heimdall_lib.errors import WireError

DO_BIT, CD_BIT = 1, 2
KEY_FLAGS = tuple(bytes((bits,)) for bits in range(4))
"""The key's last octet by its DO and CD bits."""


class Query:
    """One query as it was asked. ``problem`` is the response code that answers it at once, or None.

    ``question`` keeps the client's own case and is empty when it could not be read; ``udp_size`` is how large an
    answer the client takes over UDP (bytes); ``cookie`` is the client's half of a DNS cookie; ``keepalive`` asks how
    long its connection may be idle.
    """

    __slots__ = (
        "authentic_data",
        "checking_disabled",
        "client",
        "cookie",
        "dnssec_ok",
        "edns",
        "id",
        "keepalive",
        "key",
        "opcode",
        "problem",
        "qclass",
        "qtype",
        "question",
        "received_at",
        "recursion_desired",
        "transport",
        "udp_size",
    )

    def __init__(self, data: bytes) -> None:
        """Read the header of ``data``, which has at least 12 octets; ``parse`` does the rest."""
        self.id = data[:2]
        self.opcode = data[2] & wire.OPCODE_MASK
        self.recursion_desired = data[2] & wire.RD
        self.authentic_data = data[3] & wire.AD
        self.checking_disabled = data[3] & wire.CD
        self.question = b""
        self.key = self.cookie = b""
        self.qtype = self.qclass = 0
        self.edns = self.dnssec_ok = self.keepalive = False
        self.udp_size = wire.CLASSIC_UDP_SIZE
        self.problem: int | None = None
        self.client = ""
        self.transport = ""
        self.received_at = 0.0


def parse(data: bytes) -> Query | None:
    """Read a query; None is what deserves silence: no whole header, or a response (RFC 1035, section 7.3).

    The Z bit, AA, TC and RA are ignored (RFC 8906, section 3.1.4); records other than OPT in the additional section
    are too.
    """
    if len(data) < wire.HEADER_SIZE or data[2] & wire.QR:
        return None
    query = Query(data)
    if query.opcode:
        query.problem = wire.NOTIMP
        return query
    try:
        if data[4:10] != b"\0\1\0\0\0\0":
            _read_without_question(query, data)
            return query
        end = wire.question_end(data)
        query.question = data[wire.HEADER_SIZE : end]
        query.qtype = data[end - 4] << 8 | data[end - 3]
        query.qclass = data[end - 2] << 8 | data[end - 1]
        if data[10:12] != b"\0\0" or len(data) != end:
            _read_additional(query, data, end)
    except WireError:
        query.problem = wire.FORMERR
        return query
    query.key = cache_key(query.question, dnssec_ok=query.dnssec_ok, checking_disabled=bool(query.checking_disabled))
    return query


def _read_without_question(query: Query, data: bytes) -> None:
    """Take a query that asks for nothing but a cookie (RFC 7873, section 5.4)."""
    if data[4:10] != bytes(6):
        raise WireError("not one question alone")
    _read_additional(query, data, wire.HEADER_SIZE)
    if not query.cookie:
        raise WireError("no question")
    if query.problem is None:
        query.problem = wire.NOERROR


def _read_additional(query: Query, data: bytes, offset: int) -> None:
    """Take the OPT record's word (RFC 6891, sections 6.1.1 and 6.1.3)."""
    for record in wire.records(data, offset):
        if record.type != wire.TYPE_OPT:
            continue
        if query.edns or data[record.start]:
            raise WireError("OPT twice, or not at the root")
        query.edns = True
        query.udp_size = max(wire.CLASSIC_UDP_SIZE, record.rclass)
        query.dnssec_ok = bool(record.ttl & wire.EDNS_DO)
        if record.ttl >> 16 & 0xFF:
            query.problem = wire.BADVERS
        for code, value in wire.options(data[record.rdata : record.end]):
            if code == wire.OPTION_COOKIE:
                query.cookie = query.cookie or cookies.client_half(value)
            elif code == wire.OPTION_KEEPALIVE:
                query.keepalive = True


def cache_key(question: bytes, *, dnssec_ok: bool, checking_disabled: bool) -> bytes:
    """Return the cache key of a question: name in lower case, type, class, and the DO and CD bits.

    Only the name is lowered: the octets of a type may look like letters (HTTPS is 0x0041).
    """
    bits = (DO_BIT if dnssec_ok else 0) | (CD_BIT if checking_disabled else 0)
    return question[:-4].lower() + question[-4:] + KEY_FLAGS[bits]


def question_of(key: bytes) -> bytes:
    """Return the question inside a cache key, its name in lower case."""
    return key[:-1]
