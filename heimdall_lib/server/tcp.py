"""The TCP listener (RFC 7766).

Rules: queries of one connection are answered as they finish; a client that reads nothing, sends nothing, takes too long
over one query or opens too much is cut off; a client that has closed its side still gets what it asked for.
"""

import contextlib
import logging
import socket
import time
from typing import Any

from gevent.event import Event
from gevent.lock import Semaphore
from gevent.server import StreamServer
from gevent.socket import wait_read

from heimdall_lib.access import ConnectionLimit
from heimdall_lib.query import Query
from heimdall_lib.responder import Responder
from heimdall_lib.server.listen import BACKLOG
from heimdall_lib.server.misses import Misses
from heimdall_lib.stats import Stats
from heimdall_lib.wire import UINT16

log = logging.getLogger("heimdall.server")

_PREFIX = 2  # octets of length before each message (RFC 1035, section 4.2.2)
_READ_SIZE = 65536
_MAX_PENDING = 256  # queries of one connection that wait at once; it is read no further until one is answered
_REST_SECONDS = 0.25  # before connections are accepted again, after the system had no room for one
_SILENT_SECONDS = 10.0  # before the log says so again


class TcpServer(StreamServer):  # type: ignore[misc]
    """Answers the queries of the connections to one socket."""

    def __init__(
        self,
        sock: socket.socket,
        responder: Responder,
        misses: Misses,
        stats: Stats,
        *,
        limit: ConnectionLimit,
        idle_timeout: float,
    ) -> None:
        """Take over a listening socket; ``start`` begins to accept, within a ``limit`` that listeners share.

        ``idle_timeout`` (seconds) is how long a connection may be silent, or take over one query.
        """
        self._responder = responder
        self._misses = misses
        self._stats = stats
        self._limit = limit
        self._idle_timeout = idle_timeout
        self._connections: set[Connection] = set()
        self._silent_until = 0.0
        super().__init__(sock)

    def do_read(self) -> tuple[socket.socket, tuple[Any, ...]] | None:
        """Accept a connection, if one waits and the system has room for it (gevent would log each try at length)."""
        try:
            accepted: tuple[socket.socket, tuple[Any, ...]] | None = super().do_read()
        except OSError as error:
            if self.is_fatal_error(error):
                raise
            if (now := time.monotonic()) >= self._silent_until:
                log.warning("cannot accept connections for the moment: %s", error.strerror)
                self._silent_until = now + _SILENT_SECONDS
            self.stop_accepting()
            self._timer = self.loop.timer(_REST_SECONDS)  # gevent's own, which ends with the server
            self._timer.start(self.start_accepting)
            return None
        return accepted

    def do_handle(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        """Serve one connection, or close it: in the loop, since many are accepted before the first is served."""
        if not self._limit.enter(address[0]):
            self._stats.dropped["connection_limit"] += 1
            sock.close()
            return
        self._stats.tcp_connections = self._limit.open
        super().do_handle(sock, address)

    def handle(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        """Serve one connection until it ends; gevent closes the socket."""
        connection = Connection(sock, address[0], self._responder, self._misses, self._idle_timeout)
        self._connections.add(connection)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.closed:
                connection.stop_reading()
            connection.serve()
        finally:
            self._connections.discard(connection)
            self._limit.leave(address[0])
            self._stats.tcp_connections = self._limit.open

    def hang_up(self) -> None:
        """Take the connections that wait, and no more; from all of them read what has been sent, and no more."""
        for _ in range(BACKLOG):
            if not (accepted := self.do_read()):
                break
            self.do_handle(*accepted)
        self.close()
        for connection in list(self._connections):
            connection.stop_reading()


class Connection:
    """One client's connection."""

    def __init__(
        self, sock: socket.socket, client: str, responder: Responder, misses: Misses, idle_timeout: float
    ) -> None:
        """Serve a connected socket; ``idle_timeout`` (seconds) bounds silence, one query's arrival and each write."""
        sock.settimeout(idle_timeout)
        self._sock = sock
        self._idle_timeout = idle_timeout
        self._client = client
        self._responder = responder
        self._misses = misses
        self._writing = Semaphore()
        self._room = Semaphore(_MAX_PENDING)
        self._pending = 0
        self._broken = False
        self._idle = Event()
        self._idle.set()

    def serve(self) -> None:
        """Read queries until the client is done or too slow, then wait for the answers that are due."""
        buffer, begun_at = b"", 0.0
        while data := self._receive_rest(begun_at) if buffer else self._receive():
            received, begins = buffer + data, not buffer
            buffer = self._take(received)
            if begins or len(buffer) < len(received):
                begun_at = time.monotonic()
        self._idle.wait()  # bounded: every query has a deadline, every write a timeout

    def stop_reading(self) -> None:
        """End ``serve`` as if the client had closed its side."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def _receive(self) -> bytes:
        """Return what the client sent; empty when it is done, broken, or silent without waiting for an answer."""
        while True:
            try:
                return self._sock.recv(_READ_SIZE)
            except TimeoutError:
                if not self._pending:
                    return b""
            except OSError:
                return b""

    def _receive_rest(self, begun_at: float) -> bytes:
        """Return more of a query that began to arrive at ``begun_at``; empty as well when it takes too long."""
        remaining = begun_at + self._idle_timeout - time.monotonic()
        if remaining <= 0:
            return b""
        try:
            wait_read(self._sock.fileno(), remaining, TimeoutError())
            return self._sock.recv(_READ_SIZE)
        except OSError:
            return b""

    def _take(self, buffer: bytes) -> bytes:
        """Answer or open every whole query in ``buffer``; return the beginning of the next one."""
        queries: list[tuple[bytes, str]] = []
        offset = 0
        while len(buffer) - offset >= _PREFIX and (end := _frame_end(buffer, offset)) <= len(buffer):
            queries.append((buffer[offset + _PREFIX : end], self._client))
            offset = end
        answers, rest = self._responder.ready(queries, str, "tcp")
        ready = [_frame(answer) for answer, _ in answers]
        for data, _ in rest:
            answer = self._responder.begin(data, self._client, "tcp")
            if isinstance(answer, Query):
                self._open(answer, ready)
            elif answer:
                ready.append(_frame(answer))
        self._send(ready)
        return buffer[offset:]

    def _open(self, query: Query, ready: list[bytes]) -> None:
        if not self._room.acquire(blocking=False):
            self._send(ready)
            ready.clear()
            self._room.acquire()
        self._pending += 1
        self._idle.clear()
        if not self._misses.run(self._finish, query):
            ready.append(_frame(self._responder.shed(query)))
            self._done()

    def _finish(self, query: Query) -> None:
        try:
            self._send([_frame(self._responder.finish(query))])
        finally:
            self._done()

    def _done(self) -> None:
        self._pending -= 1
        self._room.release()
        if not self._pending:
            self._idle.set()

    def _send(self, frames: list[bytes]) -> None:
        if not frames:
            return
        try:
            with self._writing:
                if not self._broken:
                    self._sock.sendall(b"".join(frames))
        except OSError:  # gone, or reads nothing: no answer waits for it again, and it is read no more
            self._broken = True
            self.stop_reading()


def _frame(answer: bytes) -> bytes:
    return UINT16.pack(len(answer)) + answer


def _frame_end(buffer: bytes, offset: int) -> int:
    size: int = UINT16.unpack_from(buffer, offset)[0]
    return offset + _PREFIX + size
