"""DNS cookies towards one upstream server (RFC 7873, the client's side): 64 bits that only it has seen.

The client's half is a random number for this one server, drawn anew with the process and every day, so that it tells
nobody who asks (RFC 9018, section 3; RFC 7873, section 7.1). The server's half is sent back as it came.

Rules: no clock, no socket; a cookie is for its server alone.
"""

import secrets

from heimdall_lib import wire
from heimdall_lib.errors import WireError
from heimdall_lib.query import DO_BIT

_CLIENT_HALF = 8
_SIZES = (_CLIENT_HALF, *range(16, 41))  # RFC 7873, section 4: the server's half has 8 to 32 octets
_MARK = wire.UINT16.pack(wire.OPTION_COOKIE) + b"\0"  # the code, and the length's upper octet
_SECONDS = 86400.0


class Cookie:
    """The cookie for one server, in OPT records without DO and with."""

    __slots__ = ("_client", "_option", "_opts", "_udp_size", "_until")

    def __init__(self, udp_size: int) -> None:
        """Draw the client's half at the first query; ``udp_size`` (bytes) is what OPT says that Heimdall takes."""
        self._udp_size = udp_size
        self._until = 0.0
        self._client = self._option = b""
        self._opts: tuple[bytes, ...] = ()

    def opt(self, bits: int, now: float) -> bytes:
        """Return the OPT record for a query at the instant ``now`` with the DO bit of a cache key's ``bits``."""
        if now >= self._until:
            self._until = now + _SECONDS
            self._client = secrets.token_bytes(_CLIENT_HALF)
            self._carry(self._client)
        return self._opts[bits & DO_BIT]

    def in_reply(self, reply: bytes) -> bool | None:
        """Say whether ``reply`` has the client's half, and keep the server's; None when it has no cookie at all.

        A cookie of a size that none has is a wrong one, as the client's half in it may be (RFC 7873, section 5.3).
        """
        if reply.endswith(self._option):
            return True  # the same as before, which most servers give for half an hour (RFC 9018, section 4.3)
        if _MARK not in reply:
            return None
        data = _cookie_in(reply)
        if data is None:
            return None
        if data[:_CLIENT_HALF] != self._client or len(data) not in _SIZES:
            return False
        self._carry(data)
        return True

    def _carry(self, data: bytes) -> None:
        self._option = wire.option(wire.OPTION_COOKIE, data)
        self._opts = tuple(
            wire.opt_record(self._udp_size, dnssec_ok=bool(bits), data=self._option) for bits in range(DO_BIT + 1)
        )


def _cookie_in(reply: bytes) -> bytes | None:
    """Return the data of the first cookie in a reply; None when there is none, or the reply cannot be read."""
    try:
        for record in wire.records(reply, wire.question_end(reply)):
            if record.type == wire.TYPE_OPT:
                for code, data in wire.options(reply[record.rdata : record.end]):
                    if code == wire.OPTION_COOKIE:
                        return data
    except WireError:
        pass
    return None
