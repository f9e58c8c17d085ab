"""An upstream name server of the tests' own, which answers from a table, or misbehaves as it is told.

It speaks UDP and TCP on one port and, given a certificate, TLS on another. Every query is handled in a thread of its
own, so that a slow answer holds up no other. Rules: what was asked is recorded before it is answered; nothing is left
running after ``close``.
"""

import contextlib
import copy
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from struct import Struct
from types import TracebackType
from typing import Self, TypeVar

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

HOST = "127.0.0.1"
SERVERS_HALF = b"upstream's cookie"
_LENGTH = Struct("!H")
_CLASSIC_UDP_SIZE = 512
_MAX_CNAMES = 8
_BIND_TRIES = 50
_MAX_THREADS = 4096

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """One query as it came in; ``connection`` numbers the TCP or TLS connection, 0 over UDP."""

    name: str
    type: str
    transport: str
    wire: bytes
    message: dns.message.Message
    source: tuple[str, int]
    connection: int
    at: float


@dataclass(frozen=True)
class Sending:
    """Bytes to send back ``after`` seconds; over UDP from another address, or only another port, with ``elsewhere``."""

    wire: bytes
    after: float = 0.0
    elsewhere: str = ""


Reaction = Callable[[Asked, dns.message.Message], Iterable[Sending]]
"""What to send for a query, given the answer that the table has; ConnectionError hangs up."""


def answering(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
    """React as a good server does."""
    return [Sending(wire_of(answer))]


def silent(_asked: Asked, _answer: dns.message.Message) -> Iterable[Sending]:
    """Send nothing."""
    return []


def hanging_up(_asked: Asked, _answer: dns.message.Message) -> Iterable[Sending]:
    """Close the connection instead of answering."""
    raise ConnectionError


def late(seconds: float) -> Reaction:
    """Answer after a while."""
    return lambda _, answer: [Sending(wire_of(answer), after=seconds)]


def failing(rcode: str) -> Reaction:
    """Answer with a response code and no records."""

    def react(asked: Asked, _answer: dns.message.Message) -> Iterable[Sending]:
        response = dns.message.make_response(asked.message, recursion_available=True)
        response.set_rcode(dns.rcode.from_text(rcode))
        return [Sending(wire_of(response))]

    return react


def with_cookie(asked: Asked, answer: dns.message.Message, cookie: bytes, rcode: str = "") -> Sending:
    """Return the answer with a DNS cookie (RFC 7873), or with another response code and a cookie."""
    answer.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)])
    if rcode:
        answer.set_rcode(dns.rcode.from_text(rcode))
    return Sending(wire_of(answer))


def cookie_of(asked: Asked) -> bytes:
    """Return the cookie that a query has, empty when it has none."""
    return next(
        (bytes(each.to_wire()) for each in asked.message.options if each.otype == dns.edns.OptionType.COOKIE), b""
    )


def giving_cookies(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
    """React as a good server does that speaks DNS cookies over UDP."""
    if asked.transport != "udp" or not cookie_of(asked):
        return answering(asked, answer)
    return [with_cookie(asked, answer, cookie_of(asked)[:8] + SERVERS_HALF)]


def in_another_case(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
    """Answer with every letter of the question in the case that it was not sent in."""
    wire = wire_of(answer)
    end = wire.index(b"\0", 12)
    return [Sending(wire[:12] + wire[12:end].swapcase() + wire[end:])]


def in_lower_case(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
    """React as a good server does that does not repeat the case of a question."""
    wire = wire_of(answer)
    end = wire.index(b"\0", 12)
    return [Sending(wire[:12] + wire[12:end].lower() + wire[end:])]


def sending(*wires: bytes | Sending) -> Reaction:
    """Send these bytes, whatever was asked."""
    return lambda _asked, _answer: [each if isinstance(each, Sending) else Sending(each) for each in wires]


def in_turn(*reactions: Reaction) -> Reaction:
    """React in these ways to the first queries, and answer those after them."""
    turns = iter(reactions)

    def react(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        return next(turns, answering)(asked, answer)

    return react


def wire_of(message: dns.message.Message) -> bytes:
    """Return a message's bytes, however many they are."""
    return message.to_wire(max_size=65535)


def altered(message: dns.message.Message, change: Callable[[dns.message.Message], object]) -> bytes:
    """Return the bytes of a copy of ``message`` after ``change(copy)``."""
    other = copy.deepcopy(message)
    change(other)
    return wire_of(other)


class TlsStream:
    """TLS over a connected socket, one thread reading while others write: ``ssl.SSLSocket`` is not made for that."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Shake hands; raises OSError, of which ``ssl.SSLError`` is one."""
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()
        self._until_read(self._tls.do_handshake)

    def recv(self, size: int) -> bytes:
        return self._until_read(lambda: self._tls.read(size))

    def sendall(self, data: bytes) -> None:
        with self._lock:
            self._tls.write(data)
            self._sock.sendall(self._outgoing.read())

    def _until_read(self, step: Callable[[], T]) -> T:
        while True:
            with self._lock:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    pass
                finally:
                    self._sock.sendall(self._outgoing.read())
            if not (data := self._sock.recv(65535)):
                raise ConnectionError
            with self._lock:
                self._incoming.write(data)


Stream = socket.socket | TlsStream


def _exactly(stream: Stream, size: int) -> bytes:
    """Return ``size`` bytes; ConnectionError when the stream ends before."""
    received = b""
    while len(received) < size:
        data = stream.recv(size - len(received))
        if not data:
            raise ConnectionError
        received += data
    return received


class Upstream:
    """A name server on a loopback port."""

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None, tcp: bool = True) -> None:
        """Listen and answer at once; with ``tls``, a server-side context, on a port for TLS as well.

        Without ``tcp`` connections are refused.
        """
        self.asked: list[Asked] = []
        self.connections = 0
        self.reaction: Reaction = answering
        """What is done for every name that has no reaction of its own, probes of Heimdall's included."""
        self.hangs_up = False
        """Whether connections are closed as soon as they are there."""
        self.negative_ttl = 300
        self._reactions: dict[str, Reaction] = {}
        self._table: dict[tuple[str, str], dns.rrset.RRset] = {}
        self._gates: list[threading.Event] = []
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        # A thread that is done waits for the next query. Traced by coverage with gevent in mind, CPython 3.11 may never
        # come back from clearing up after a thread that ends in the same moment as another.
        self._threads = ThreadPoolExecutor(_MAX_THREADS)
        self._done: list[Future[None]] = []
        self._open: set[socket.socket] = set()
        self._udp, listener = _bound_pair(port)
        self._listeners = [listener] if tcp else []
        self.port: int = self._udp.getsockname()[1]
        self.tls_port = 0
        self._spawn(self._serve_udp)
        if tcp:
            self._spawn(self._serve_stream, listener, "tcp", None)
        else:
            listener.close()
        if tls is not None:
            listener = socket.create_server((HOST, 0))
            self._listeners.append(listener)
            self.tls_port = listener.getsockname()[1]
            self._spawn(self._serve_stream, listener, "tls", tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def add(self, name: str, rdtype: str, *rdatas: str, ttl: int = 300) -> None:
        """Put records into the table, in place of those of this name and type."""
        self._table[_plain(name), rdtype] = dns.rrset.from_text(name + ".", ttl, "IN", rdtype, *rdatas)

    def on(self, name: str, reaction: Reaction) -> None:
        """React to every query for ``name`` in this way from now on."""
        self._reactions[_plain(name)] = reaction

    def hold(self, name: str) -> threading.Event:
        """Answer queries for ``name`` no sooner than the event that is returned is set."""
        gate = threading.Event()
        self._gates.append(gate)

        def react(_asked: Asked, answer: dns.message.Message) -> Iterator[Sending]:
            gate.wait()
            yield Sending(wire_of(answer))

        self.on(name, react)
        return gate

    def release(self) -> None:
        """Answer everything that is held."""
        for gate in self._gates:
            gate.set()

    def questions(self, name: str) -> list[Asked]:
        """Return what was asked about ``name``, in any case, in order."""
        return [asked for asked in list(self.asked) if asked.name == _plain(name)]

    def count(self, name: str, rdtype: str = "", transport: str = "") -> int:
        """Return how many queries there were for ``name``, of one type and over one transport if these are given."""
        return sum(
            (not rdtype or asked.type == rdtype) and (not transport or asked.transport == transport)
            for asked in self.questions(name)
        )

    def drop_connections(self) -> None:
        """Close every TCP and TLS connection from this side."""
        with self._lock:
            for sock in self._open:
                _shut(sock)

    def close(self) -> None:
        """Stop listening, drop what is under way and wait for every thread."""
        self._stopping.set()
        self.release()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (HOST, self.port))
        for listener in self._listeners:
            _shut(listener)
        self.drop_connections()
        for future in wait(self._done, 10).done:
            future.result()
        self._threads.shutdown(wait=False)
        for sock in (self._udp, *self._listeners):
            sock.close()

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        with self._lock:
            self._done.append(self._threads.submit(target, *args))

    def _serve_udp(self) -> None:
        while True:
            wire, source = self._udp.recvfrom(65535)
            if self._stopping.is_set():
                return
            asked = self._take(wire, "udp", source, 0)
            self._spawn(self._react, asked, lambda sending, to=source: self._send_datagram(sending, to))

    def _send_datagram(self, sending: Sending, to: tuple[str, int]) -> None:
        if not sending.elsewhere:
            self._udp.sendto(sending.wire, to)
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((sending.elsewhere, 0))
            sock.sendto(sending.wire, to)

    def _serve_stream(self, listener: socket.socket, transport: str, tls: ssl.SSLContext | None) -> None:
        while True:
            try:
                sock, source = listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.hangs_up:
                sock.close()
                continue
            self._spawn(self._serve_connection, sock, transport, tls, source, self.connections)

    def _serve_connection(
        self, sock: socket.socket, transport: str, tls: ssl.SSLContext | None, source: tuple[str, int], number: int
    ) -> None:
        sock.settimeout(30)
        with self._lock:
            self._open.add(sock)
        # The client may be gone, or may not like the certificate.
        with sock, contextlib.suppress(OSError):
            stream = sock if tls is None else TlsStream(sock, tls)
            self._read_queries(stream, sock, transport, source, number)
        with self._lock:
            self._open.discard(sock)

    def _read_queries(
        self, stream: Stream, sock: socket.socket, transport: str, source: tuple[str, int], number: int
    ) -> None:
        writing = threading.Lock()

        def send(sending: Sending) -> None:
            with writing:
                stream.sendall(_LENGTH.pack(len(sending.wire)) + sending.wire)

        while not self._stopping.is_set():
            wire = _exactly(stream, _LENGTH.unpack(_exactly(stream, 2))[0])
            self._spawn(self._react, self._take(wire, transport, source, number), send, sock)

    def _take(self, wire: bytes, transport: str, source: tuple[str, int], connection: int) -> Asked:
        message = dns.message.from_wire(wire)
        question = message.question[0]
        name, rdtype = _plain(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        asked = Asked(name, rdtype, transport, wire, message, source, connection, time.monotonic())
        self.asked.append(asked)
        return asked

    def _react(self, asked: Asked, send: Callable[[Sending], None], sock: socket.socket | None = None) -> None:
        try:
            for sending in self._reactions.get(asked.name, self.reaction)(asked, self._answer(asked)):
                if self._stopping.wait(sending.after) if sending.after else self._stopping.is_set():
                    return
                send(sending)
        except OSError:  # hung up by one side or the other
            if sock is not None:
                _shut(sock)

    def _answer(self, asked: Asked) -> dns.message.Message:
        response = dns.message.make_response(asked.message, recursion_available=True)
        self._fill(response, asked)
        if asked.transport == "udp":
            limit = asked.message.payload if asked.message.edns >= 0 else _CLASSIC_UDP_SIZE
            if len(wire_of(response)) > limit:
                response.answer.clear()
                response.authority.clear()
                response.flags |= dns.flags.TC
        return response

    def _fill(self, response: dns.message.Message, asked: Asked) -> None:
        name = asked.name
        for _ in range(_MAX_CNAMES):
            records = self._table.get((name, asked.type))
            if records is not None:
                response.answer.append(records)
                return
            alias = self._table.get((name, "CNAME"))
            if alias is None:
                break
            response.answer.append(alias)
            name = _plain(alias[0].to_text())
        if name not in {known for known, _ in self._table} and name != ".":
            response.set_rcode(dns.rcode.NXDOMAIN)
        top = dns.name.from_text(name).labels[-3:]
        zone = dns.name.Name(top).to_text()
        soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {self.negative_ttl}"
        response.authority.append(dns.rrset.from_text(zone, self.negative_ttl, "IN", "SOA", soa))


def _plain(name: str) -> str:
    return name.lower().removesuffix(".") or "."


def _bound_pair(port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a listening TCP socket on one port: this one, or one that is free for both."""
    for _ in range(_BIND_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((HOST, port))
        try:
            return udp, socket.create_server((HOST, udp.getsockname()[1]))
        except OSError:
            udp.close()
            if port:
                raise
    raise AssertionError("no port is free for both UDP and TCP")


def _shut(sock: socket.socket) -> None:
    # Wakes whoever reads from it, or accepts on it, in another thread: closing alone would not.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
