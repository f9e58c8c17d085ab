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


_NAME_SIZE = 28  # struct sockaddr_in6, the larger of the two
_INTS = ctypes.sizeof(_Mmsghdr) // 4  # a message header counted in 32-bit integers
_SIZE_AT = _Mmsghdr.size.offset // 4
_LONGS = ctypes.sizeof(_Iovec) // 8
_LIBC = ctypes.CDLL(None, use_errno=True)
_MMSG = sys.platform == "linux" and hasattr(_LIBC, "recvmmsg") and ctypes.sizeof(ctypes.c_void_p) == 8


class _Vector:
    """Room for one batch: the messages, their peers, and what the kernel wants to know of them."""

    def __init__(self, room: int, *, named: bool = True) -> None:
        """Allocate ``room`` bytes for each message, and room for its peer's address if they are ``named``."""
        self.headers = (_Mmsghdr * BATCH)()
        iovecs = (_Iovec * BATCH)()
        data = ctypes.create_string_buffer(room * BATCH)
        names = ctypes.create_string_buffer(_NAME_SIZE * BATCH)
        for index in range(BATCH):
            iovecs[index].base = ctypes.addressof(data) + index * room
            iovecs[index].size = room
            header = self.headers[index].header
            if named:
                header.name = ctypes.addressof(names) + index * _NAME_SIZE
                header.name_size = _NAME_SIZE
            header.iovec = ctypes.addressof(iovecs) + index * ctypes.sizeof(_Iovec)
            header.iovecs = 1
        self.ints = memoryview(self.headers).cast("B").cast("I")
        self.sizes = memoryview(iovecs).cast("B").cast("Q")
        self.data = memoryview(data).cast("B")
        self.names = memoryview(names).cast("B")


class Batched:
    """``recvmmsg`` and ``sendmmsg`` (Linux), called through the C library."""

    name = "recvmmsg and sendmmsg"

    def __init__(self, sock: socket.socket) -> None:
        """Use a bound socket."""
        self._fd = sock.fileno()
        self._in = _Vector(_MAX_QUERY)
        self._out = _Vector(_MAX_MESSAGE)
        self._hosts: LRU[bytes, str] = LRU(_REMEMBERED_HOSTS)
        # struct sockaddr_in and struct sockaddr_in6, and where in them the address is
        inet6 = sock.family == socket.AF_INET6
        self._peer_size, self._address = (28, slice(8, 24)) if inet6 else (16, slice(4, 8))

    def receive(self) -> list[tuple[bytes, Peer]]:
        """See ``Datagrams``."""
        vector, size = self._in, self._peer_size
        count: int = _LIBC.recvmmsg(self._fd, vector.headers, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            _raise_unless_full()
            return []
        data, names, ints = vector.data, bytes(vector.names[: count * _NAME_SIZE]), vector.ints
        return [
            (
                bytes(data[index * _MAX_QUERY : index * _MAX_QUERY + ints[index * _INTS + _SIZE_AT]]),
                names[index * _NAME_SIZE : index * _NAME_SIZE + size],
            )
            for index in range(count)
        ]

    def send(self, datagrams: Sequence[tuple[bytes, Peer]]) -> int:
        """See ``Datagrams``."""
        vector, peer_size = self._out, self._peer_size
        data, names, sizes = vector.data, vector.names, vector.sizes
        for index, (message, peer) in enumerate(datagrams):
            size = len(message)
            start = index * _MAX_MESSAGE
            data[start : start + size] = message
            sizes[index * _LONGS + 1] = size
            names[index * _NAME_SIZE : index * _NAME_SIZE + peer_size] = peer
        count: int = _LIBC.sendmmsg(self._fd, vector.headers, len(datagrams), socket.MSG_DONTWAIT)
        if count < 0:
            _raise_unless_full()
            return 0
        return count

    def host(self, peer: Peer) -> str:
        """See ``Datagrams``."""
        address: bytes = peer[self._address]
        text = self._hosts.get(address)
        if text is None:
            text = self._hosts[address] = str(ip_address(address))
        return text


class ConnectedBatched:
    """``recvmmsg`` and ``sendmmsg`` (Linux), called through the C library."""

    def __init__(self) -> None:
        """Allocate the buffers; the pages that no message touches cost nothing."""
        self._in = _Vector(_MAX_MESSAGE, named=False)
        self._out = _Vector(_MAX_MESSAGE, named=False)

    def receive(self, sock: socket.socket) -> list[bytes]:
        """See ``ConnectedDatagrams``."""
        vector = self._in
        count: int = _LIBC.recvmmsg(sock.fileno(), vector.headers, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            _raise_unless_full()
            return []
        data, ints = vector.data, vector.ints
        return [
            bytes(data[index * _MAX_MESSAGE : index * _MAX_MESSAGE + ints[index * _INTS + _SIZE_AT]])
            for index in range(count)
        ]

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        """See ``ConnectedDatagrams``."""
        vector = self._out
        data, sizes = vector.data, vector.sizes
        for index, message in enumerate(messages):
            size = len(message)
            start = index * _MAX_MESSAGE
            data[start : start + size] = message
            sizes[index * _LONGS + 1] = size
        count: int = _LIBC.sendmmsg(sock.fileno(), vector.headers, len(messages), socket.MSG_DONTWAIT)
        if count < 0:
            _raise_unless_full()
            return 0
        return count


def _raise_unless_full() -> None:
    """Raise what the last call failed with, unless it was only that it would have had to wait."""
    number = ctypes.get_errno()
    if number not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        raise OSError(number, os.strerror(number))
