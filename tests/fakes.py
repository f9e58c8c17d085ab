"""Stand-ins for what the house talks to: clients, upstream servers, the shared cache; and ways to wait for things.

They speak the same protocols as the real ones. The shared cache passes the contract test of the one in Redis.
"""

import contextlib
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Self

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import gevent

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.errors import NoAnswerError
from heimdall_lib.flight import Flight
from heimdall_lib.query import Query, parse, question_of
from heimdall_lib.reply import Reply, examine
from heimdall_lib.shared_cache.cache import LEASE_SECONDS, Found
from heimdall_lib.stats import Stats

PATIENCE = 10.0
"""Seconds after which a test that waits for something has failed."""

NAME = "www.example.com."
ADDRESS = "192.0.2.1"
SOA = "ns.example.com. host.example.com. 1 7200 900 1209600 60"


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait until the condition holds; fail when it does not within ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.002)


class Lines(logging.Handler):
    """What a logger is told, as ``LEVEL message``; whatever the process has made of its loggers before."""

    def __init__(self, logger: str) -> None:
        super().__init__()
        self.logger = logging.getLogger(logger)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> Self:
        self._level, self._disabled = self.logger.level, self.logger.disabled
        self.logger.setLevel(logging.DEBUG)
        self.logger.disabled = False
        self.logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self._level)
        self.logger.disabled = self._disabled

    def __iter__(self) -> Iterator[str]:
        return (f"{record.levelname} {record.getMessage()}" for record in list(self.records))


# Messages.


def ask(
    name: str = NAME,
    rdtype: str = "A",
    *,
    rdclass: str = "IN",
    edns: bool = False,
    payload: int = 1232,
    do: bool = False,
    flags: int = dns.flags.RD,
    message_id: int = 0x1234,
) -> bytes:
    """A client's query."""
    query = dns.message.make_query(name, rdtype, rdclass, use_edns=False, id=message_id)
    query.flags = dns.flags.Flag(flags)
    if edns or do:
        query.use_edns(0, dns.flags.DO if do else 0, payload)
    return query.to_wire()


def parsed(data: bytes | None = None, *, client: str = "127.0.0.1", transport: str = "udp", age: float = 0.0) -> Query:
    """A query as the resolver gets it, received ``age`` seconds ago."""
    query = parse(ask() if data is None else data)
    assert query is not None
    query.client, query.transport, query.received_at = client, transport, time.monotonic() - age
    return query


def reply_to(
    query: bytes,
    *records: str,
    authority: Sequence[str] = (),
    rcode: int = 0,
    edns: bool = False,
    ede: tuple[int, str] | None = None,
    flags: int = 0,
) -> bytes:
    """A reply to a query; records are lines of a zone file, the question's own name being ``@``."""
    asked = dns.message.from_wire(query)
    reply = dns.message.make_response(asked, recursion_available=True)
    reply.flags |= flags
    for section, lines in ((reply.answer, records), (reply.authority, authority)):
        section.extend(_rrsets(asked.question[0].name.to_text(), lines))
    options: list[dns.edns.Option] = [dns.edns.EDEOption(dns.edns.EDECode(ede[0]), ede[1])] if ede else []
    reply.use_edns(0 if edns or ede else False, options=options)
    reply.set_rcode(dns.rcode.Rcode(rcode))
    return reply.to_wire(max_size=65535)


def _rrsets(origin: str, lines: Sequence[str]) -> Iterator[dns.rrset.RRset]:
    for line in lines:
        name, ttl, rdtype, data = line.split(maxsplit=3)
        yield dns.rrset.from_text(origin if name == "@" else name, int(ttl), "IN", rdtype, data)


def question(key: bytes) -> bytes:
    """The query that an upstream server gets for a cache key."""
    return struct.pack("!6H", 0x4321, 0x0100, 1, 0, 0, 0) + question_of(key)


def good_reply(key: bytes, ttl: int = 300, address: str = ADDRESS) -> Reply:
    """An examined reply with one address."""
    return examined(key, f"@ {ttl} A {address}")


def examined(key: bytes, *records: str, authority: Sequence[str] = (), rcode: int = 0) -> Reply:
    return examine(reply_to(question(key), *records, authority=authority, rcode=rcode), question_of(key))


def stored(key: bytes, *, age: float, lifetime: float, stale: float = 0.0, address: str = ADDRESS) -> Entry:
    """An entry as L1 holds it, stored ``age`` seconds ago."""
    reply = good_reply(key, ttl=int(lifetime), address=address)
    at = time.monotonic() - age
    return entries.make(reply.message, reply.ttl_offsets, stored_at=at, lifetime=lifetime, stale=stale)


def address_in(message: bytes) -> str:
    """The address that an answer holds."""
    return str(dns.message.from_wire(message).answer[0][0])


# Running things beside the test.


def with_a_loop_of_its_own(function: Callable[..., object], *args: object) -> None:
    """Run what a thread of a test runs; if it waits, gevent makes it a loop, which is gone with it."""
    try:
        function(*args)
    finally:
        gevent.get_hub().destroy(destroy_loop=True)


class ThreadWithALoop(Thread):
    """A thread of the server's in a test, whose loop is gone with it."""

    def run(self) -> None:
        with_a_loop_of_its_own(super().run)


class Threads:
    """``spawn`` for the resolver, with real threads; what they die of is kept."""

    def __init__(self) -> None:
        self._threads: list[Thread] = []
        self.deaths: list[BaseException] = []

    def __call__(self, function: Callable[..., object], *args: object) -> None:
        thread = Thread(target=self._run, args=(function, args), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, function: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            with_a_loop_of_its_own(function, *args)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.deaths.append(error)

    def join(self) -> None:
        """Wait for all of them."""
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive()


# The resolver's neighbours.

Script = Reply | NoAnswerError | BaseException | Callable[[bytes], Reply]


class ScriptedUpstreams:
    """Answers every question as ``script`` says: a reply, or what is raised, or a function of the cache key.

    With ``gate`` cleared, nobody is answered before it is set, whatever the deadline.
    """

    def __init__(self, script: Script = good_reply) -> None:
        self.script = script
        self.asked: list[bytes] = []
        self.deadlines: list[float] = []
        self.resting = False
        self.gate = Event()
        self.gate.set()

    def view(self, _key: bytes) -> str:
        return "upstreams-view"

    def views(self) -> set[str]:
        return {"upstreams-view"}

    def all_resting(self, _key: bytes) -> bool:
        return self.resting

    def ask(self, key: bytes, deadline: float) -> Reply:
        self.asked.append(key)
        self.deadlines.append(deadline)
        assert self.gate.wait(PATIENCE)
        if isinstance(self.script, BaseException):
            raise self.script
        return self.script if isinstance(self.script, Reply) else self.script(key)


@dataclass
class InMemorySharedCache:
    """The shared cache's twin in memory. With ``held``, reads are under way until ``land``."""

    stats: Stats = field(default_factory=Stats)
    changed: list[bytes] = field(default_factory=list)
    """The keys of answers that were said to differ from what was known before, in order."""
    new: list[bytes] = field(default_factory=list)
    """The keys of answers before which nothing was known, in order."""
    down: bool = False
    held: bool = False
    contents: dict[tuple[bytes, str], tuple[bytes, float, int, int]] = field(default_factory=dict)
    """By key and view: message, when it was stored, lifetime, and how long it stays after that."""
    leases: dict[tuple[bytes, str], float] = field(default_factory=dict)
    """By key and view: until when somebody is fetching."""
    max_ages: list[float] = field(default_factory=list)
    """What each read asked for."""
    under_way: list[tuple[Flight[Found], bytes, str, float]] = field(default_factory=list)

    def read(self, key: bytes, view: str, max_age: float) -> Flight[Found] | None:
        if self.down:
            return None
        self.max_ages.append(max_age)
        flight: Flight[Found] = Flight()
        self.under_way.append((flight, key, view, max_age))
        if not self.held:
            self.land()
        return flight

    def write(
        self,
        key: bytes,
        view: str,
        message: bytes,
        lifetime: int,
        stale: int,
        *,
        changed: bool = False,
        new: bool = False,
    ) -> None:
        if self.down:
            self.stats.redis_dropped_writes += 1
        else:
            self.changed += [key] * changed
            self.new += [key] * new
            self.put(key, view, message, lifetime, stale=stale)

    def release(self, key: bytes, view: str) -> None:
        self.leases.pop((key, view), None)

    def reject(self, reason: str) -> None:
        self.stats.redis_rejected[reason] += 1

    def put(
        self, key: bytes, view: str, message: bytes, lifetime: int, *, age: float = 0.0, stale: int = 86400
    ) -> None:
        """Have an answer that was stored ``age`` seconds ago."""
        self.contents[key, view] = message, time.monotonic() - age, lifetime, stale

    def lease(self, key: bytes, view: str, seconds: float = LEASE_SECONDS) -> None:
        """Have another replica fetch an answer."""
        self.leases[key, view] = time.monotonic() + seconds

    def land(self) -> None:
        """Let the reads that are under way land."""
        while self.under_way:
            flight, key, view, max_age = self.under_way.pop()
            flight.land(self._found(key, view, max_age))

    def _found(self, key: bytes, view: str, max_age: float) -> Found:
        message, at, lifetime, stale = self.contents.get((key, view), (b"", 0.0, 0, 0))
        now = time.monotonic()
        age = now - at
        if message and age < min(lifetime, max_age):
            self.stats.redis_hits += 1
            return Found(message, age, lifetime)
        elsewhere = now < self.leases.get((key, view), 0.0)
        if not elsewhere:
            self.stats.redis_misses += 1
            self.lease(key, view)
        kept = message and age < lifetime + stale
        return Found(message, age, lifetime, elsewhere) if kept else Found(elsewhere=elsewhere)


# Servers on loopback.


class DatagramServer:
    """A name server over UDP; ``reply(query)`` says what it sends: some datagrams, or none."""

    def __init__(self, reply: Callable[[bytes], Sequence[bytes]], host: str = "127.0.0.1", port: int = 0) -> None:
        self._reply = reply
        self._sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # a burst of queries waits, and is not lost
        self._sock.bind((host, port))
        self.port: int = self._sock.getsockname()[1]
        self.queries: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        self._closed = False
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, peer = self._sock.recvfrom(65535)
            if self._closed:
                return
            self.queries.append(query)
            self.peers.append(peer[:2])
            for datagram in self._reply(query):
                self._sock.sendto(datagram, peer)

    def close(self) -> None:
        self._closed = True
        address = self._sock.getsockname()
        with socket.socket(self._sock.family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", address)
        self._thread.join(PATIENCE)
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Peer:
    """The server's end of one TCP or TLS connection; ``number`` counts them from 1."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._stream = sock.makefile("rb")

    def receive(self) -> bytes:
        """Return the next query, empty when the client has closed."""
        prefix = self._stream.read(2)
        return self._stream.read(struct.unpack("!H", prefix)[0]) if len(prefix) == 2 else b""

    def send(self, reply: bytes) -> None:
        self.sock.sendall(struct.pack("!H", len(reply)) + reply)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self.sock.close()


class StreamServer:
    """A name server over TCP or TLS; ``serve(peer)`` talks on each connection, which is closed when it returns."""

    def __init__(self, serve: Callable[[Peer], None], *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._serve = serve
        self._tls = tls
        self._sock = socket.create_server(("127.0.0.1", port))
        self.port: int = self._sock.getsockname()[1]
        self.connections = 0
        self.handshakes_failed = 0
        self.queries: list[bytes] = []
        self._open: list[socket.socket] = []
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            thread = Thread(target=self._talk, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._open.append(sock)
        except OSError:
            self.handshakes_failed += 1
            sock.close()
            return
        peer = Peer(sock, number)
        try:
            self._serve(peer)
        except OSError:
            pass
        finally:
            peer.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in self._open:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def echo(query: bytes) -> bytes:
    """Any reply that matches the query."""
    return query[:2] + bytes((query[2] | 0x80, 0x80)) + query[4:]


def unused_port() -> int:
    """A loopback port that nobody has, over UDP and TCP."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
