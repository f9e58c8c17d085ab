"""How tests speak to Heimdall: DNS in messages and in bytes, HTTP, and metrics read as a scraper reads them."""

import contextlib
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from struct import Struct
from types import TracebackType
from typing import Any, Self

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

Address = tuple[str, int]

_LENGTH = Struct("!H")
_TIMEOUT = 15.0


def query(name: str, rdtype: str = "A", rdclass: str = "IN", **options: Any) -> dns.message.QueryMessage:
    """Return a query; with EDNS unless ``use_edns=False``, further options as in ``dns.message.make_query``."""
    return dns.message.make_query(name, rdtype, rdclass, **({"use_edns": 0} | options))


def ask(
    address: Address,
    name: str,
    rdtype: str = "A",
    rdclass: str = "IN",
    *,
    transport: str = "udp",
    timeout: float = _TIMEOUT,
    **options: Any,
) -> dns.message.Message:
    """Return the answer to one question; dnspython checks that it is one (id, question, source address)."""
    return exchange(address, query(name, rdtype, rdclass, **options), transport=transport, timeout=timeout)


def exchange(
    address: Address, message: dns.message.Message, *, transport: str = "udp", timeout: float = _TIMEOUT
) -> dns.message.Message:
    if transport == "tcp":
        return dns.query.tcp(message, address[0], timeout, address[1])
    return dns.query.udp(message, address[0], timeout, address[1])


def exchange_bytes(address: Address, *datagrams: bytes, timeout: float = _TIMEOUT) -> bytes:
    """Send datagrams from one socket and return the first that comes back."""
    with udp_socket(address, timeout) as sock:
        for datagram in datagrams:
            sock.send(datagram)
        return sock.recv(65535)


@contextlib.contextmanager
def udp_socket(address: Address, timeout: float = _TIMEOUT) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect(address)
        yield sock


def ask_all(address: Address, *names: str, timeout: float = _TIMEOUT) -> dict[str, dns.message.Message]:
    """Ask for the addresses of all names at once; return the answers that come within ``timeout`` seconds, by name."""
    queries = {number: query(name, id=number) for number, name in enumerate(names)}
    answers: dict[str, dns.message.Message] = {}
    deadline = time.monotonic() + timeout
    with udp_socket(address) as sock, contextlib.suppress(TimeoutError):
        for one in queries.values():
            sock.send(one.to_wire())
        while len(answers) < len(names) and (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            answer = dns.message.from_wire(sock.recv(65535))
            assert queries[answer.id].is_response(answer)
            answers[names[answer.id]] = answer
    return answers


class TcpClient:
    """One TCP connection, over which any number of messages go in both directions."""

    def __init__(self, address: Address, *, timeout: float = _TIMEOUT, source: str = "") -> None:
        """Connect, from the address ``source`` if there is one."""
        self.sock = socket.create_connection(address, timeout, (source, 0) if source else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, *messages: dns.message.Message | bytes) -> None:
        """Send messages in one segment."""
        wires = [each if isinstance(each, bytes) else each.to_wire() for each in messages]
        self.sock.sendall(b"".join(_LENGTH.pack(len(wire)) + wire for wire in wires))

    def receive(self) -> dns.message.Message:
        return dns.message.from_wire(self._exactly(_LENGTH.unpack(self._exactly(2))[0]))

    def finish(self) -> None:
        """Say that nothing more will be sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def closed_by_server(self) -> bool:
        """Wait for the server's next word; say whether it was that the connection is over."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            data = self.sock.recv(size - len(received))
            assert data, f"closed after {len(received)} of {size} bytes"
            received += data
        return received


def addresses(message: dns.message.Message) -> list[str]:
    """Return the addresses in the answer section, sorted."""
    wanted = (dns.rdatatype.A, dns.rdatatype.AAAA)
    return sorted(rdata.to_text() for rrset in message.answer if rrset.rdtype in wanted for rdata in rrset)


def ttl(message: dns.message.Message) -> int:
    """Return the TTL of the first record, wherever it is."""
    return (message.answer + message.authority)[0].ttl


def extended_errors(message: dns.message.Message) -> list[int]:
    """Return the codes of the Extended DNS Errors (RFC 8914)."""
    return [int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption)]


def rcode(message: dns.message.Message) -> str:
    return dns.rcode.to_text(message.rcode())


def flags(message: dns.message.Message) -> set[str]:
    return set(dns.flags.to_text(message.flags).split())


@dataclass(frozen=True)
class HttpAnswer:
    """What came back for an HTTP request; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def http(address: Address, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> HttpAnswer:
    with contextlib.closing(HTTPConnection(*address, timeout=_TIMEOUT)) as connection:
        # The side that closes first keeps the port for a minute: were it this one, ports would run short.
        connection.request(method, path, headers={"Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return HttpAnswer(answer.status, named, answer.read())


def metrics(address: Address) -> dict[str, Metric]:
    """Return what ``/metrics`` says, by family name; a counter's family is without ``_total``."""
    return {family.name: family for family in text_string_to_metric_families(http(address, "/metrics").text)}


def metric(address: Address, name: str, **labels: str) -> float:
    """Return the sum of the samples called ``name`` that carry ``labels``; 0 when there are none."""
    samples = [sample for family in metrics(address).values() for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
