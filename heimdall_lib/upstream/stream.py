"""Exchanges over TCP and TLS: connections kept open, many queries in flight on each (RFC 7766, RFC 7858).

Rules: a reader thread a connection hands each reply to whoever waits for it, in whatever order they come; a connection
that was open and turns out closed costs its queries one more try on a new one; a certificate is always checked.
"""

import contextlib
import secrets
import socket
import ssl
import time
from threading import Lock, Thread

from heimdall_lib.errors import UpstreamError
from heimdall_lib.flight import Flight
from heimdall_lib.settings import UpstreamServer
from heimdall_lib.wire import UINT16, is_reply_to

_IDLE_SECONDS = 10.0
_MAX_CONNECTIONS = 4
_BUSY = 32  # queries in flight on every connection from which on another one is opened
_CLOSED = b""


class Connection:
    """One open connection and the queries in flight on it."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket and start to read from it."""
        self._sock = sock
        self._sock.settimeout(_IDLE_SECONDS)
        self._stream = sock.makefile("rb")
        self._writing = Lock()
        self._waiting: dict[bytes, tuple[bytes, Flight[bytes]]] = {}
        self.open = True
        Thread(target=self._read, name="upstream-stream", daemon=True).start()

    def __len__(self) -> int:
        return len(self._waiting)

    def takes(self, message_id: bytes) -> bool:
        """Say whether a query with this id may be sent: still open, and no other query in flight has the id."""
        return self.open and message_id not in self._waiting

    def exchange(self, message_id: bytes, question: bytes, query: bytes, timeout: float) -> bytes:
        """Send a query (all but its id) and return the reply to its question; empty when the connection was closed.

        Raises TimeoutError after ``timeout`` seconds.
        """
        flight: Flight[bytes] = Flight()
        self._waiting[message_id] = question, flight
        try:
            with self._writing:
                self._sock.sendall(UINT16.pack(2 + len(query)) + message_id + query)
            reply = flight.wait(timeout)
        except (OSError, ValueError):
            self.close()
            return _CLOSED
        finally:
            del self._waiting[message_id]
        if reply is None:
            raise TimeoutError
        return reply

    def close(self) -> None:
        """Close the connection; whoever waits on it learns so at once."""
        self.open = False
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        for _, flight in list(self._waiting.values()):
            flight.land(_CLOSED)

    def _read(self) -> None:
        try:
            while self._read_one():
                pass
        except (OSError, ValueError):
            pass  # reset, timed out in the middle of a reply, or closed under the reader: all the same to the queries
        finally:
            self.close()
            self._stream.close()
            self._sock.close()

    def _read_one(self) -> bool:
        """Hand out one reply; False at the end of the stream, or after a while without anything to wait for."""
        prefix = self._stream.read(2)
        if len(prefix) < 2:
            return False
        size = UINT16.unpack(prefix)[0]
        reply = self._stream.read(size)
        if len(reply) < size:
            return False
        question, flight = self._waiting.get(reply[:2], (b"", None))
        if flight is not None and is_reply_to(reply, question):
            flight.land(reply)
        return True


class StreamPool:
    """The open connections to one server."""

    def __init__(self, server: UpstreamServer, tls: ssl.SSLContext | None) -> None:
        """Open nothing yet; ``tls`` is None for plain TCP."""
        self._server = server
        self._tls = tls
        self._connections: list[Connection] = []
        self._connecting = Lock()

    def exchange(self, question: bytes, query: bytes, timeout: float) -> bytes:
        """Send a query (all but its id) and return the reply to its question.

        Raises UpstreamError: ``timeout`` after ``timeout`` seconds, ``tls`` when the server is not whom its
        certificate must name, ``network`` when it cannot be reached or closes the connection.
        """
        deadline = time.monotonic() + timeout
        message_id = secrets.token_bytes(2)
        try:
            while (remaining := deadline - time.monotonic()) > 0:
                connection, fresh = self._connection(message_id, remaining)
                reply = connection.exchange(message_id, question, query, deadline - time.monotonic())
                if reply:
                    return reply
                if fresh:
                    raise UpstreamError("network", f"{self._server}: connection closed without an answer")
        except TimeoutError:
            pass
        except ssl.SSLError as error:
            raise UpstreamError("tls", f"{self._server}: {error.reason or error}") from error
        except OSError as error:
            raise UpstreamError("network", f"{self._server}: {error.strerror or error}") from error
        raise UpstreamError("timeout", f"{self._server}: no answer within {timeout:g} s")

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            connection.close()

    def _connection(self, message_id: bytes, timeout: float) -> tuple[Connection, bool]:
        """Return a connection that takes a query with this id, and whether it was opened for it."""
        connection = self._idlest(message_id)
        if connection is not None and self._enough(connection):
            return connection, False
        deadline = time.monotonic() + timeout
        if not self._connecting.acquire(timeout=timeout):
            raise TimeoutError
        try:
            again = self._idlest(message_id)
            if again is not None and (again is not connection or self._enough(again)):
                return again, False  # another query has opened one, or the last one, while this one waited
            connection = Connection(self._connect(deadline - time.monotonic()))
            self._connections.append(connection)
            return connection, True
        finally:
            self._connecting.release()

    def _enough(self, idlest: Connection) -> bool:
        """Say whether no other connection is opened while this one has the fewest queries."""
        return len(idlest) < _BUSY or len(self._connections) >= _MAX_CONNECTIONS

    def _idlest(self, message_id: bytes) -> Connection | None:
        self._connections = [connection for connection in self._connections if connection.open]
        return min((one for one in self._connections if one.takes(message_id)), key=len, default=None)

    def _connect(self, timeout: float) -> socket.socket:
        if timeout <= 0:
            raise TimeoutError
        sock = socket.create_connection((self._server.host, self._server.port), timeout)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self._server.tls_name)
        except BaseException:
            sock.close()
            raise
        return sock
