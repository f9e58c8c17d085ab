"""Exchanges over UDP on ports that nobody can foretell.

A port is a connected socket on a random number that takes the queries of one moment: a query on its own has a port of
its own, as RFC 5452 wants it, and under load a few hundred share one, and with it its system calls. docs/security.md
says what that means for who would forge a reply.

Rules (RFC 5452, section 9): the kernel lets nothing in but what the server's own address and port sent; a reply is
matched by port, id, and question, and what matches nothing is ignored.
"""

import os
import secrets
import socket
import time

from gevent import get_hub

from heimdall_lib.datagrams import ConnectedDatagrams, connected_datagrams
from heimdall_lib.errors import UpstreamError
from heimdall_lib.mmsg import BATCH
from heimdall_lib.pause import Pause
from heimdall_lib.settings import UpstreamServer
from heimdall_lib.wire import is_reply_to

_FIRST_PORT = 1024
_PORT_TRIES = 8
_PORT_SECONDS = 0.05  # for how long a port takes queries
_PORT_QUERIES = 256  # and how many at most; their ids are drawn at once, for each call costs more than the drawing
_READABLE, _WRITABLE = 1, 2
_LOST = b""


class Port:
    """One connected socket and the queries in flight on it."""

    def __init__(self, server: UpstreamServer, io: ConnectedDatagrams) -> None:
        """Open the socket; raises OSError."""
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            _bind_random_port(self._sock)
            self._sock.connect((server.host, server.port))
        except BaseException:
            self._sock.close()
            raise
        self._io = io
        self._loop = get_hub().loop
        self._ids = _distinct_ids()
        self._waiting: dict[bytes, tuple[bytes, Pause[bytes]]] = {}
        self._outbox: list[bytes] = []
        self._until = time.monotonic() + _PORT_SECONDS
        self._retired = False
        self._readable = self._loop.io(self._sock.fileno(), _READABLE)
        self._writable = self._loop.io(self._sock.fileno(), _WRITABLE)
        self._readable.start(self._read)

    def takes_more(self) -> bool:
        """Say whether one more query may be sent from here."""
        return bool(self._ids) and time.monotonic() < self._until and not self._retired

    def exchange(self, question: bytes, query: bytes, timeout: float) -> bytes | None:
        """Send a query (all but its id) and return the reply to its question.

        The reply is empty if the port was lost, None if there was none within ``timeout`` seconds.
        """
        reply: Pause[bytes] = Pause()
        message_id = self._ids.pop()
        self._waiting[message_id] = question, reply
        if not self._outbox:
            self._loop.run_callback(self._send)
        self._outbox.append(message_id + query)
        try:
            return reply.wait(timeout)
        finally:
            del self._waiting[message_id]
            if self._retired and not self._waiting:
                self._close()

    def retire(self) -> None:
        """Take no more queries; close when the last reply is there, or nobody waits for it any longer."""
        if not self._retired:
            self._retired = True
            if not self._waiting:
                self._close()

    def lose(self) -> None:
        """Let everybody who waits know that no reply will come."""
        self.retire()
        for _, reply in list(self._waiting.values()):
            reply.end(_LOST)

    def _send(self) -> None:
        """Send what this turn of the loop has brought, in as few calls as can be."""
        self._writable.stop()
        try:
            while self._outbox and self._waiting:
                sent = self._io.send(self._sock, self._outbox[:BATCH])
                del self._outbox[:sent]
                if not sent:
                    self._writable.start(self._send)
                    return
        except OSError:
            self.lose()
        self._outbox.clear()

    def _read(self) -> None:
        try:
            replies = self._io.receive(self._sock, len(self._waiting))
        except OSError:  # such as "connection refused", told by ICMP
            self.lose()
            return
        for data in replies:
            waiting = self._waiting.get(data[:2])
            if waiting is not None and is_reply_to(data, waiting[0]):
                waiting[1].end_now(data)

    def _close(self) -> None:
        for watcher in self._readable, self._writable:
            watcher.stop()
            watcher.close()
        self._sock.close()


class DatagramPool:
    """The ports from which one server is asked: one that takes queries, and those that wait for their last replies."""

    def __init__(self, server: UpstreamServer) -> None:
        """Open nothing yet."""
        self._server = server
        self._io = connected_datagrams()
        self._port: Port | None = None

    def exchange(self, question: bytes, query: bytes, timeout: float) -> bytes:
        """Send a query (all but its id) and return the reply to its question.

        Raises UpstreamError ``timeout`` after ``timeout`` seconds, or ``network`` when a socket call fails.
        """
        port = self._port
        if port is None or not port.takes_more():
            self.close()
            try:
                port = self._port = Port(self._server, self._io)
            except OSError as error:
                raise UpstreamError("network", f"{self._server}: {error.strerror or error}") from error
        reply = port.exchange(question, query, timeout)
        if reply:
            return reply
        if reply is None:
            raise UpstreamError("timeout", f"{self._server}: no answer within {timeout:g} s")
        raise UpstreamError("network", f"{self._server}: cannot be reached")

    def close(self) -> None:
        """Take no more queries on the port in use; those in flight keep it until they are answered."""
        if self._port is not None:
            self._port.retire()
            self._port = None


def _distinct_ids() -> list[bytes]:
    """Return ids in the order in which they were drawn: a set's order would always begin with the same few."""
    drawn = os.urandom(2 * _PORT_QUERIES)
    return list(dict.fromkeys(drawn[offset : offset + 2] for offset in range(0, len(drawn), 2)))


def _bind_random_port(sock: socket.socket) -> None:
    """Bind to a port drawn from 1024..65535; where those drawn are taken, leave the choice to the kernel."""
    for _ in range(_PORT_TRIES):
        try:
            sock.bind(("", _FIRST_PORT + secrets.randbelow(65536 - _FIRST_PORT)))
        except OSError:
            continue
        return
