"""One exchange over UDP, on a socket of its own.

Rules (RFC 5452, section 9): the source port is random, the socket is connected, so that the kernel lets nothing in but
what the server's own address and port sent; what does not match the query is ignored until the time is over.
"""

import secrets
import socket
import time

from heimdall_lib.errors import UpstreamError
from heimdall_lib.settings import UpstreamServer
from heimdall_lib.wire import MAX_MESSAGE_SIZE, is_reply_to

_FIRST_PORT = 1024
_PORT_TRIES = 8


def exchange(server: UpstreamServer, query: bytes, timeout: float) -> bytes:
    """Send ``query`` and return the reply that matches it.

    Raises UpstreamError ``timeout`` after ``timeout`` seconds, or ``network`` when a socket call fails.
    """
    deadline = time.monotonic() + timeout
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            _bind_random_port(sock)
            sock.connect((server.host, server.port))
            sock.send(query)
            while (remaining := deadline - time.monotonic()) > 0:
                sock.settimeout(remaining)
                reply = sock.recv(MAX_MESSAGE_SIZE)
                if is_reply_to(reply, query):
                    return reply
    except TimeoutError:
        pass
    except OSError as error:
        raise UpstreamError("network", f"{server}: {error.strerror or error}") from error
    raise UpstreamError("timeout", f"{server}: no answer within {timeout:g} s")


def _bind_random_port(sock: socket.socket) -> None:
    """Bind to a port drawn from 1024..65535; where those drawn are taken, leave the choice to the kernel."""
    for _ in range(_PORT_TRIES):
        try:
            sock.bind(("", _FIRST_PORT + secrets.randbelow(65536 - _FIRST_PORT)))
        except OSError:
            continue
        return
