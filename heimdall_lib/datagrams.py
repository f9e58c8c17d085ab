"""Datagrams in batches: one system call for up to 64 of them where the platform can, one each elsewhere.

Both ways give the same: ``receive`` returns what waits, ``send`` says how many the socket took, and neither ever
waits. A bound socket's datagrams come and go with their peers: a peer is whatever the same object made of a sender,
``host`` tells its address as text. A connected socket has one peer; as such sockets come and go, they share buffers.

Rules: nothing raises but ``OSError``; buffers are allocated once.
"""

import socket
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from lru import LRU

from heimdall_lib.mmsg import AVAILABLE, BATCH, MAX_MESSAGE, NAME_SIZE, Inbox, Outbox

_MAX_QUERY = 4096  # bytes: one question and all its EDNS options fit; the rest of anything larger is cut off
_REMEMBERED_HOSTS = 65536
_CROWD_SECONDS = 0.00005  # a datagram that comes so soon after another was perhaps waiting with more
_NAME_STARTS = range(0, BATCH * NAME_SIZE, NAME_SIZE)

Peer = Any


class Datagrams(Protocol):
    """Reads and writes the datagrams of one bound, non-blocking socket."""

    name: str
    """How it does so, for the log."""

    def receive(self) -> Sequence[tuple[bytes, Peer]]:
        """Return at most ``BATCH`` datagrams with their senders; empty when none waits. Raises OSError."""

    def send(self, datagrams: Sequence[tuple[bytes, Peer]]) -> int:
        """Send at most ``BATCH`` datagrams; return how many the socket took before it was full.

        Raises OSError when the first one cannot be sent at all.
        """

    def host(self, peer: Peer) -> str:
        """Return a peer's address as text."""


def datagrams(sock: socket.socket) -> Datagrams:
    """Return the best way of reading and writing ``sock`` that the platform has."""
    return Batched(sock) if AVAILABLE else OneByOne(sock)


class ConnectedDatagrams(Protocol):
    """Reads and writes the datagrams of connected sockets, which never block."""

    def receive(self, sock: socket.socket) -> list[bytes]:
        """Return at most ``BATCH`` datagrams; empty when none waits. Raises OSError."""

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        """Send at most ``BATCH`` datagrams; return how many the socket took before it was full.

        Raises OSError when the first one cannot be sent at all.
        """


def connected_datagrams() -> ConnectedDatagrams:
    """Return the best way of reading and writing connected sockets that the platform has."""
    return ConnectedBatched() if AVAILABLE else ConnectedOneByOne()


class OneByOne:
    """``recvfrom`` and ``sendto``, on every platform."""

    name = "recvfrom and sendto"

    def __init__(self, sock: socket.socket) -> None:
        """Use a bound socket that is not in blocking mode."""
        self._sock = sock

    def receive(self) -> list[tuple[bytes, Peer]]:
        """See ``Datagrams``."""
        received: list[tuple[bytes, Peer]] = []
        try:
            while len(received) < BATCH:
                received.append(self._sock.recvfrom(_MAX_QUERY))
        except BlockingIOError:
            pass
        return received

    def send(self, datagrams: Sequence[tuple[bytes, Peer]]) -> int:
        """See ``Datagrams``."""
        sent = 0
        try:
            for data, peer in datagrams:
                self._sock.sendto(data, peer)
                sent += 1
        except OSError as error:
            if not sent and not isinstance(error, BlockingIOError):
                raise
        return sent

    def host(self, peer: Peer) -> str:
        """See ``Datagrams``."""
        text: str = peer[0]
        return text


class ConnectedOneByOne:
    """``recv`` and ``send``, on every platform."""

    def receive(self, sock: socket.socket) -> list[bytes]:
        """See ``ConnectedDatagrams``."""
        received: list[bytes] = []
        try:
            while len(received) < BATCH:
                received.append(sock.recv(MAX_MESSAGE, socket.MSG_DONTWAIT))
        except OSError as error:
            if not received and not isinstance(error, BlockingIOError):
                raise
        return received

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        """See ``ConnectedDatagrams``."""
        sent = 0
        try:
            for message in messages:
                sock.send(message, socket.MSG_DONTWAIT)
                sent += 1
        except OSError as error:
            if not sent and not isinstance(error, BlockingIOError):
                raise
        return sent


class Batched:
    """``recvmmsg`` and ``sendmmsg`` (Linux), called through the C library, when there is more than one datagram.

    A datagram on its own is received and answered some microseconds sooner by the socket's own methods; its peer is
    then what those make of it, a tuple, and else a ``struct sockaddr``.
    """

    name = "recvmmsg and sendmmsg"

    def __init__(self, sock: socket.socket) -> None:
        """Use a bound socket that is not in blocking mode."""
        self._sock = sock
        self._fd = sock.fileno()
        self._in = Inbox(_MAX_QUERY, named=True)
        self._out = Outbox(named=True)
        self._hosts: LRU[bytes, str] = LRU(_REMEMBERED_HOSTS)
        # Where the address is in struct sockaddr_in6 and struct sockaddr_in.
        self._address = slice(8, 24) if sock.family == socket.AF_INET6 else slice(4, 8)
        self._alone_since = 0.0  # when the last one was received that came alone; 0 after several

    def receive(self) -> list[tuple[bytes, Peer]]:
        """See ``Datagrams``."""
        now = time.monotonic()
        if now - self._alone_since > _CROWD_SECONDS and self._alone_since:
            self._alone_since = now
            try:
                return [self._sock.recvfrom(_MAX_QUERY)]
            except BlockingIOError:
                return []
        messages = self._in.receive(self._fd)
        self._alone_since = now if len(messages) < 2 else 0.0
        names = bytes(self._in.names[: len(messages) * NAME_SIZE])
        peers = [names[start : start + NAME_SIZE] for start in _NAME_STARTS[: len(messages)]]
        return list(zip(messages, peers, strict=True))

    def send(self, datagrams: Sequence[tuple[bytes, Peer]]) -> int:
        """See ``Datagrams``."""
        message, peer = datagrams[0]
        if isinstance(peer, tuple):
            try:
                self._sock.sendto(message, peer)
            except BlockingIOError:
                return 0
            return 1
        messages, peers = zip(*datagrams, strict=True)
        try:
            names = b"".join(peers)
        except TypeError:  # some came alone: up to the first of them
            count = next(index for index, one in enumerate(peers) if isinstance(one, tuple))
            return self._out.send(self._fd, messages[:count], b"".join(peers[:count]))
        return self._out.send(self._fd, messages, names)

    def host(self, peer: Peer) -> str:
        """See ``Datagrams``."""
        text: str | None
        if isinstance(peer, tuple):
            text = peer[0]
            return text
        address: bytes = peer[self._address]
        text = self._hosts.get(address)
        if text is None:
            text = self._hosts[address] = str(ip_address(address))
        return text


class ConnectedBatched:
    """``recvmmsg`` and ``sendmmsg`` (Linux), called through the C library."""

    def __init__(self) -> None:
        """Allocate the buffers; the pages that no message touches cost nothing."""
        self._in = Inbox(MAX_MESSAGE, named=False)
        self._out = Outbox(named=False)

    def receive(self, sock: socket.socket) -> list[bytes]:
        """See ``ConnectedDatagrams``."""
        return self._in.receive(sock.fileno())

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        """See ``ConnectedDatagrams``."""
        return self._out.send(sock.fileno(), messages)
