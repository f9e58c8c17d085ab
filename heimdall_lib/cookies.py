"""DNS cookies towards clients (RFC 7873): what shows a client that an answer was not forged from off its path.

The client's half comes back to it; the server's half is a keyed hash of that half and the client's address (appendix
B.1), which costs no memory. Nobody is refused or favoured for a server's half: one that is missing, old or another
process's is answered with the right one, so that replicas need no common secret.

Rules: no clock, no socket.
"""

from hashlib import blake2b

from heimdall_lib import wire
from heimdall_lib.errors import WireError

_CLIENT_HALF = 8
_WHOLE = range(16, 41)
_SERVER_HALF = 8


def client_half(data: bytes) -> bytes:
    """Return the client's half of a COOKIE option's data; raises WireError for a size that it cannot have."""
    if len(data) != _CLIENT_HALF and len(data) not in _WHOLE:
        raise WireError("cookie of the wrong size")
    return data[:_CLIENT_HALF]


def option(secret: bytes, half: bytes, client: str) -> bytes:
    """Return the COOKIE option for the client at the address ``client`` that sent ``half``."""
    mine = blake2b(half + client.encode(), key=secret, digest_size=_SERVER_HALF).digest()
    return wire.option(wire.OPTION_COOKIE, half + mine)
