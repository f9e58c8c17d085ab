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
from struct import Struct
from typing import Any, Protocol

from lru import LRU

from heimdall_lib.mmsg import (
    ADDRESS,
    AVAILABLE,
    BATCH,
    MAX_MESSAGE,
    NO_PEER,
    WITH_PKTINFO,
    WITH_PKTINFO6,
    Inbox,
    Outbox,
)

_MAX_QUERY = 4096  # bytes: one question and all its EDNS options fit; the rest of anything larger is cut off
_REMEMBERED_HOSTS = 65536
_CROWD_SECONDS = 0.00005  # a datagram that comes so soon after another was perhaps waiting with more
_IP_PKTINFO = 8  # ip(7); the socket module does not name it
# How a socket that is bound to every address is asked to say which of them a datagram was sent to.
_WILDCARDS = {
    "0.0.0.0": (socket.IPPROTO_IP, _IP_PKTINFO, WITH_PKTINFO),  # noqa: S104 - looked for, not bound
    "::": (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, WITH_PKTINFO6),
}
_SO_MEMINFO = 55  # socket(7) has it not: bytes that what was received takes, and may take (Linux 4.12)
_MEMORY = Struct("@II")

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

    def crowded(self) -> bool:
        """Say whether so many wait that the newest will wait long: more than half of what the socket has room for."""

    def host(self, peer: Peer) -> str:
        """Return a peer's address as text."""


def datagrams(sock: socket.socket) -> Datagrams:
    """Return the best way of reading and writing ``sock`` that the platform has."""
    return Batched(sock) if AVAILABLE else OneByOne(sock)


class ConnectedDatagrams(Protocol):
    """Reads and writes the datagrams of connected sockets, which never block."""

    def receive(self, sock: socket.socket, expected: int = 0, /) -> list[bytes]:
        """Return at most ``BATCH`` datagrams; empty when none waits. Raises OSError.

        Fewer or more may wait than are ``expected``: it is a hint.
        """

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

    def crowded(self) -> bool:
        """See ``Datagrams``; here it cannot be told."""
        return False

    def host(self, peer: Peer) -> str:
        """See ``Datagrams``."""
        text: str = peer[0]
        return text


class ConnectedOneByOne:
    """``recv`` and ``send``, on every platform."""

    def receive(self, sock: socket.socket, _expected: int = 0, /) -> list[bytes]:
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
    then a tuple of what those make of it, and else a ``struct sockaddr``. A socket that is bound to every address
    answers from the one that was asked (RFC 2181, section 4.1): the peer says which that is.
    """

    name = "recvmmsg and sendmmsg"

    def __init__(self, sock: socket.socket) -> None:
        """Use a bound socket that is not in blocking mode."""
        self._sock = sock
        self._fd = sock.fileno()
        level, option, form = _WILDCARDS.get(sock.getsockname()[0], (0, 0, ADDRESS))
        if form is not ADDRESS:
            sock.setsockopt(level, option, 1)
        self._form, self._anywhere = form, form is not ADDRESS
        self._in = Inbox(_MAX_QUERY, form)
        self._out = Outbox(form)
        self._starts = range(0, BATCH * form.size, form.size)
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
                return [self._receive_alone()]
            except BlockingIOError:
                return []
        messages = self._in.receive(self._fd)
        self._alone_since = now if len(messages) < 2 else 0.0
        size = self._form.size
        joined = bytes(self._in.peers[: len(messages) * size])
        peers = [joined[start : start + size] for start in self._starts[: len(messages)]]
        return list(zip(messages, peers, strict=True))

    def send(self, datagrams: Sequence[tuple[bytes, Peer]]) -> int:
        """See ``Datagrams``."""
        message, peer = datagrams[0]
        if isinstance(peer, tuple):
            try:
                self._send_alone(message, peer)
            except BlockingIOError:
                return 0
            return 1
        messages, peers = zip(*datagrams, strict=True)
        try:
            joined = b"".join(peers)
        except TypeError:  # some came alone: up to the first of them
            count = next(index for index, one in enumerate(peers) if isinstance(one, tuple))
            return self._out.send(self._fd, messages[:count], b"".join(peers[:count]))
        return self._out.send(self._fd, messages, joined)

    def crowded(self) -> bool:
        """See ``Datagrams``; half a microsecond."""
        waiting, room = _MEMORY.unpack(self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size))
        return bool(waiting > room // 2)

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

    def _receive_alone(self) -> tuple[bytes, Peer]:
        if not self._anywhere:
            return self._sock.recvfrom(_MAX_QUERY)
        data, told, _, address = self._sock.recvmsg(_MAX_QUERY, self._form.control_size)
        return data, (address[0], address, tuple((level, kind, self._form.routed(info)) for level, kind, info in told))

    def _send_alone(self, message: bytes, peer: Peer) -> None:
        if not self._anywhere:
            self._sock.sendto(message, peer)
            return
        _, address, told = peer
        self._sock.sendmsg((message,), told, 0, address)


class ConnectedBatched:
    """``recvmmsg`` and ``sendmmsg`` (Linux), called through the C library, when there is more than one datagram.

    For one, the socket's own methods take a fourth of the time.
    """

    def __init__(self) -> None:
        """Allocate the buffers; the pages that no message touches cost nothing."""
        self._in = Inbox(MAX_MESSAGE, NO_PEER)
        self._out = Outbox(NO_PEER)

    def receive(self, sock: socket.socket, expected: int = 0, /) -> list[bytes]:
        """See ``ConnectedDatagrams``."""
        if expected != 1:
            return self._in.receive(sock.fileno())
        try:
            return [sock.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return []

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        """See ``ConnectedDatagrams``."""
        if len(messages) != 1:
            return self._out.send(sock.fileno(), messages)
        try:
            sock.send(messages[0], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        return 1
