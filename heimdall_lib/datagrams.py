"""Datagrams in batches: one system call for up to 64 of them where the platform can, one each elsewhere.

Both ways give the same: ``receive`` returns what waits, ``send`` says how many the socket took, and neither ever
waits. A bound socket's datagrams come and go with their peers: a peer is whatever the same object made of a sender,
``host`` tells its address as text. A connected socket has one peer; as such sockets come and go, they share buffers.

Rules: nothing raises but ``OSError``; buffers are allocated once.
"""

import ctypes
import errno
import os
import socket
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Protocol

from lru import LRU

BATCH = 64
_MAX_QUERY = 4096  # bytes: one question and all its EDNS options fit; the rest of anything larger is cut off
_MAX_MESSAGE = 65535
_REMEMBERED_HOSTS = 65536

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
    return Batched(sock) if _MMSG else OneByOne(sock)


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
    return ConnectedBatched() if _MMSG else ConnectedOneByOne()


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
                received.append(sock.recv(_MAX_MESSAGE, socket.MSG_DONTWAIT))
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


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint),
        ("iovec", ctypes.c_void_p),
        ("iovecs", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("size", ctypes.c_uint))


_NAME_SIZE = 28  # struct sockaddr_in6; a struct sockaddr_in fits, and what follows it does no harm
_HEADER_SIZE, _IOVEC_SIZE = ctypes.sizeof(_Mmsghdr), ctypes.sizeof(_Iovec)
_LIBC = ctypes.CDLL(None, use_errno=True)
_MMSG = sys.platform == "linux" and hasattr(_LIBC, "recvmmsg") and ctypes.sizeof(ctypes.c_void_p) == 8
_CROWD_SECONDS = 0.00005  # a datagram that comes so soon after another was perhaps waiting with more
_SMALL = 512  # bytes of a message that are received next to those of the others; few have more
_SMALL_STARTS = range(0, BATCH * _SMALL, _SMALL)
_NAME_STARTS = range(0, BATCH * _NAME_SIZE, _NAME_SIZE)


class _Inbox:
    """Room for one batch to be received: the beginnings of all messages are in one piece, so that one copy has them."""

    def __init__(self, room: int, *, named: bool) -> None:
        """Allocate ``room`` bytes for each message, and room for its peer's address if they are ``named``."""
        self._room = room - _SMALL
        self._headers = (_Mmsghdr * BATCH)()
        self._iovecs = (_Iovec * (2 * BATCH))()
        small = ctypes.create_string_buffer(BATCH * _SMALL)
        rest = ctypes.create_string_buffer(BATCH * self._room)
        names = ctypes.create_string_buffer(BATCH * _NAME_SIZE)
        for index in range(BATCH):
            first, second = self._iovecs[2 * index], self._iovecs[2 * index + 1]
            first.base, first.size = ctypes.addressof(small) + index * _SMALL, _SMALL
            second.base, second.size = ctypes.addressof(rest) + index * self._room, self._room
            header = self._headers[index].header
            header.iovec, header.iovecs = ctypes.addressof(first), 2
            if named:
                header.name, header.name_size = ctypes.addressof(names) + index * _NAME_SIZE, _NAME_SIZE
        self._small, self._rest, self.names = memoryview(small).cast("B"), memoryview(rest).cast("B"), memoryview(names)
        self._sizes = memoryview(self._headers).cast("B").cast("I")[_Mmsghdr.size.offset // 4 :: _HEADER_SIZE // 4]

    def receive(self, fd: int) -> list[bytes]:
        """Return the messages that wait, a batch at most; ``names`` tells their peers, one after the other."""
        count: int = _LIBC.recvmmsg(fd, self._headers, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            _raise_unless_full()
            return []
        sizes = self._sizes[:count].tolist()
        small = bytes(self._small[: count * _SMALL])
        messages = [small[start : start + size] for start, size in zip(_SMALL_STARTS, sizes, strict=False)]
        if max(sizes, default=0) > _SMALL:
            for index, size in enumerate(sizes):
                if size > _SMALL:
                    start = index * self._room
                    messages[index] = messages[index][:_SMALL] + self._rest[start : start + size - _SMALL]
        return messages


class _Outbox:
    """Room for one batch to be sent: all messages in one piece, so that one copy places them all."""

    def __init__(self, *, named: bool) -> None:
        """Allocate room for the largest messages, and for their peers' addresses if they are ``named``."""
        self._headers = (_Mmsghdr * BATCH)()
        self._iovecs = (_Iovec * BATCH)()
        data = ctypes.create_string_buffer(BATCH * _MAX_MESSAGE)
        names = ctypes.create_string_buffer(BATCH * _NAME_SIZE)
        for index in range(BATCH):
            header = self._headers[index].header
            header.iovec, header.iovecs = ctypes.addressof(self._iovecs[index]), 1
            if named:
                header.name, header.name_size = ctypes.addressof(names) + index * _NAME_SIZE, _NAME_SIZE
        self._start = ctypes.addressof(data)
        self._data, self._names = memoryview(data).cast("B"), memoryview(names).cast("B")
        self._places = memoryview(self._iovecs).cast("B").cast("Q")

    def send(self, fd: int, messages: Sequence[bytes], names: bytes = b"") -> int:
        """Send a batch at most; ``names`` tells their peers, one after the other. Return how many were taken."""
        joined = b"".join(messages)
        self._data[: len(joined)] = joined
        self._names[: len(names)] = names
        places, start, index = self._places, self._start, 0
        for message in messages:
            size = len(message)
            places[index], places[index + 1] = start, size
            start += size
            index += 2
        count: int = _LIBC.sendmmsg(fd, self._headers, len(messages), socket.MSG_DONTWAIT)
        if count < 0:
            _raise_unless_full()
            return 0
        return count


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
        self._in = _Inbox(_MAX_QUERY, named=True)
        self._out = _Outbox(named=True)
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
        names = bytes(self._in.names[: len(messages) * _NAME_SIZE])
        peers = [names[start : start + _NAME_SIZE] for start in _NAME_STARTS[: len(messages)]]
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
        self._in = _Inbox(_MAX_MESSAGE, named=False)
        self._out = _Outbox(named=False)

    def receive(self, sock: socket.socket) -> list[bytes]:
        """See ``ConnectedDatagrams``."""
        return self._in.receive(sock.fileno())

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        """See ``ConnectedDatagrams``."""
        return self._out.send(sock.fileno(), messages)


def _raise_unless_full() -> None:
    """Raise what the last call failed with, unless it was only that it would have had to wait."""
    number = ctypes.get_errno()
    if number not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        raise OSError(number, os.strerror(number))
