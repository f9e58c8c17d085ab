"""Asks Heimdall one real DNS question and says by the exit status whether it answered.

``python -m heimdall_lib.healthcheck [host:port]`` is what the container image's HEALTHCHECK runs every few seconds, so
this imports a handful of standard modules and nothing else of Heimdall. The question, ``id.server CH TXT`` (RFC 4892),
needs neither upstream nor Redis: their outages never restart a container. ``/healthz`` and ``/readyz`` ask the same
through ``trouble``.
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Mapping, Sequence

DEFAULT_ADDRESS = "127.0.0.1:1053"
TIMEOUT_SECONDS = 2.0

HEADER = struct.Struct("!HHHHHH")
LENGTH = struct.Struct("!H")  # before each message over TCP (RFC 1035, section 4.2.2)
QUESTION = b"\x02id\x06server\x00" + struct.pack("!HH", 16, 3)  # TXT, CHAOS
RESPONSE_FLAG = 0x8000
RCODE_MASK = 0x000F
NOERROR = 0
REFUSED = 5
LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses to translate, not to bind


class Unhealthy(Exception):  # noqa: N818 - a verdict, not a fault
    """The reason why the server counts as unhealthy."""


def parse_address(text: str) -> tuple[str, int]:
    """Return where to ask, given a list of listening addresses: the first one, loopback for a wildcard."""
    host, colon, port = text.split(",", maxsplit=1)[0].strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise Unhealthy(f"not an address of the form host:port or [host]:port: {text!r}")
    return LOOPBACK_OF_WILDCARD.get(host, host), int(port)


def verify(answer: bytes, query_id: int) -> None:
    """Raise ``Unhealthy`` unless ``answer`` is an answer to our question from a server that is in order."""
    if len(answer) < HEADER.size:
        raise Unhealthy(f"the answer has only {len(answer)} bytes")
    answer_id, flags, questions = HEADER.unpack_from(answer)[:3]
    if answer_id != query_id:
        raise Unhealthy("the answer has another query's id")
    if not flags & RESPONSE_FLAG:
        raise Unhealthy("the answer is not marked as a response")
    if questions != 1 or answer[HEADER.size : HEADER.size + len(QUESTION)].lower() != QUESTION:
        raise Unhealthy("the answer is to another question")
    rcode = flags & RCODE_MASK
    if rcode not in {NOERROR, REFUSED}:
        raise Unhealthy(f"the answer has response code {rcode}")


def ask(host: str, port: int, timeout_seconds: float = TIMEOUT_SECONDS, *, transport: str = "udp") -> None:
    """Ask over ``udp`` or ``tcp`` and wait for the answer; raise ``Unhealthy`` when it is missing or wrong."""
    query_id = int.from_bytes(os.urandom(2), "big")
    query = HEADER.pack(query_id, 0, 1, 0, 0, 0) + QUESTION
    deadline = time.monotonic() + timeout_seconds
    where = f"{host} port {port}" + (" over TCP" if transport == "tcp" else "")
    try:
        wanted = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=wanted)[0]
        with socket.socket(family, kind, protocol) as sock:
            _allow(sock, deadline)
            sock.connect(address)
            if transport == "tcp":
                sock.sendall(LENGTH.pack(len(query)) + query)
                (length,) = LENGTH.unpack(_receive(sock, LENGTH.size, deadline))
                verify(_receive(sock, length, deadline), query_id)
            else:
                sock.send(query)
                _allow(sock, deadline)
                verify(sock.recv(65535), query_id)
    except TimeoutError:
        raise Unhealthy(f"no answer from {where} within {timeout_seconds:g} s") from None
    except (OSError, UnicodeError) as error:
        raise Unhealthy(f"{where}: {getattr(error, 'strerror', None) or error}") from None


def trouble(host: str, port: int, timeout_seconds: float, *, transport: str = "udp") -> str:
    """Ask the server that listens on an address; return why it counts as unhealthy, empty when it does not."""
    try:
        ask(LOOPBACK_OF_WILDCARD.get(host, host), port, timeout_seconds, transport=transport)
    except Unhealthy as reason:
        return str(reason)
    return ""


def _allow(sock: socket.socket, deadline: float) -> None:
    """Let the socket's next operation take until ``deadline``."""
    sock.settimeout(max(deadline - time.monotonic(), 0.001))


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Return ``size`` octets of a stream; raise ``Unhealthy`` when it ends before them."""
    data = b""
    while len(data) < size:
        _allow(sock, deadline)
        more = sock.recv(size - len(data))
        if not more:
            raise Unhealthy("the connection was closed before the answer")
        data += more
    return data


def where(arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[str, int]:
    """Return where to ask: the argument's address, else where the environment says the server listens."""
    if len(arguments) > 1:
        raise Unhealthy("usage: python -m heimdall_lib.healthcheck [host:port]")
    return parse_address(arguments[0] if arguments else environ.get("HEIMDALL_BIND_ADDR") or DEFAULT_ADDRESS)


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Return the exit status: 0 when the server answers, 1 with the reason on stderr when it does not."""
    try:
        ask(*where(arguments, environ))
    except Unhealthy as reason:
        sys.stderr.write(f"unhealthy: {reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
