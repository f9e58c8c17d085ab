"""``recvmmsg`` and ``sendmmsg`` (Linux), called through the C library: one system call for a batch of datagrams.

Rules: nothing raises but ``OSError``, and nothing waits; buffers are allocated once, and the pages that no message
touches cost nothing.
"""

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

BATCH = 64
MAX_MESSAGE = 65535


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


class PeerForm(NamedTuple):
    """What is kept of a datagram's peer: its address and, where a socket has several, which of them it wrote to.

    The latter is a control message at ``_CONTROL``, whose number of an interface is at ``interface``: it goes back with
    the answer, less the interface, which the route to the client decides.
    """

    size: int
    control_size: int = 0
    interface: int = 0

    def routed(self, info: bytes) -> bytes:
        """Return what a control message holds (struct in_pktinfo or in6_pktinfo) without its interface."""
        start = self.interface - _CONTROL - _CONTROL_HEADER
        return info[:start] + bytes(_INTERFACE_SIZE) + info[start + _INTERFACE_SIZE :]


_NAME_SIZE = 28  # struct sockaddr_in6; a struct sockaddr_in fits, and what follows it does no harm
_CONTROL, _CONTROL_HEADER, _INTERFACE_SIZE = 32, 16, 4  # behind the name, aligned; struct cmsghdr; int
NO_PEER = PeerForm(0)
ADDRESS = PeerForm(_NAME_SIZE)
WITH_PKTINFO = PeerForm(_CONTROL + 32, 32, _CONTROL + _CONTROL_HEADER)  # struct in_pktinfo begins with the interface
WITH_PKTINFO6 = PeerForm(_CONTROL + 40, 40, _CONTROL + _CONTROL_HEADER + 16)  # struct in6_pktinfo ends with it
_NO_INTERFACES = memoryview(bytes(_INTERFACE_SIZE * BATCH)).cast("I")
_HEADER_SIZE = ctypes.sizeof(_Mmsghdr)
_LIBC = ctypes.CDLL(None, use_errno=True)
AVAILABLE = sys.platform == "linux" and hasattr(_LIBC, "recvmmsg") and ctypes.sizeof(ctypes.c_void_p) == 8
_SMALL = 512  # bytes of a message that are received next to those of the others; few have more
_SMALL_STARTS = range(0, BATCH * _SMALL, _SMALL)


class Inbox:
    """Room for one batch to be received: the beginnings of all messages are in one piece, so that one copy has them."""

    def __init__(self, room: int, form: PeerForm) -> None:
        """Allocate ``room`` bytes for each message, and room for its peer."""
        self._room = room - _SMALL
        self._headers = (_Mmsghdr * BATCH)()
        self._iovecs = (_Iovec * (2 * BATCH))()
        small = ctypes.create_string_buffer(BATCH * _SMALL)
        rest = ctypes.create_string_buffer(BATCH * self._room)
        peers = ctypes.create_string_buffer(BATCH * form.size)
        for index in range(BATCH):
            first, second = self._iovecs[2 * index], self._iovecs[2 * index + 1]
            first.base, first.size = ctypes.addressof(small) + index * _SMALL, _SMALL
            second.base, second.size = ctypes.addressof(rest) + index * self._room, self._room
            header = self._headers[index].header
            header.iovec, header.iovecs = ctypes.addressof(first), 2
            _place(header, form, ctypes.addressof(peers) + index * form.size)
        self._small, self._rest, self.peers = memoryview(small).cast("B"), memoryview(rest).cast("B"), memoryview(peers)
        interfaces = memoryview(peers).cast("B").cast("I") if form.interface else None
        self._interfaces = interfaces and interfaces[form.interface // 4 :: form.size // 4]
        self._sizes = memoryview(self._headers).cast("B").cast("I")[_Mmsghdr.size.offset // 4 :: _HEADER_SIZE // 4]

    def receive(self, fd: int) -> list[bytes]:
        """Return the messages that wait, a batch at most; ``peers`` tells from whom, one after the other."""
        count: int = _LIBC.recvmmsg(fd, self._headers, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            _raise_unless_full()
            return []
        if self._interfaces is not None:
            self._interfaces[:count] = _NO_INTERFACES[:count]
        sizes = self._sizes[:count].tolist()
        small = bytes(self._small[: count * _SMALL])
        messages = [small[start : start + size] for start, size in zip(_SMALL_STARTS, sizes, strict=False)]
        if max(sizes, default=0) > _SMALL:
            for index, size in enumerate(sizes):
                if size > _SMALL:
                    start = index * self._room
                    messages[index] = messages[index][:_SMALL] + self._rest[start : start + size - _SMALL]
        return messages


class Outbox:
    """Room for one batch to be sent: all messages in one piece, so that one copy places them all."""

    def __init__(self, form: PeerForm) -> None:
        """Allocate room for the largest messages, and for their peers."""
        self._headers = (_Mmsghdr * BATCH)()
        self._iovecs = (_Iovec * BATCH)()
        data = ctypes.create_string_buffer(BATCH * MAX_MESSAGE)
        peers = ctypes.create_string_buffer(BATCH * form.size)
        for index in range(BATCH):
            header = self._headers[index].header
            header.iovec, header.iovecs = ctypes.addressof(self._iovecs[index]), 1
            _place(header, form, ctypes.addressof(peers) + index * form.size)
        self._start = ctypes.addressof(data)
        self._data, self._peers = memoryview(data).cast("B"), memoryview(peers).cast("B")
        self._places = memoryview(self._iovecs).cast("B").cast("Q")

    def send(self, fd: int, messages: Sequence[bytes], peers: bytes = b"") -> int:
        """Send a batch at most; ``peers`` tells to whom, one after the other. Return how many were taken."""
        joined = b"".join(messages)
        self._data[: len(joined)] = joined
        self._peers[: len(peers)] = peers
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


def _place(header: _Msghdr, form: PeerForm, address: int) -> None:
    """Let a message's header point at the place of its peer."""
    if form.size:
        header.name, header.name_size = address, _NAME_SIZE
    if form.control_size:
        header.control, header.control_size = address + _CONTROL, form.control_size


def _raise_unless_full() -> None:
    """Raise what the last call failed with, unless it was only that it would have had to wait."""
    number = ctypes.get_errno()
    if number not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR):
        raise OSError(number, os.strerror(number))
