"""The sockets that clients reach Heimdall on."""

import contextlib
import logging
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from heimdall_lib.errors import ListenError
from heimdall_lib.settings import Endpoint

log = logging.getLogger("heimdall.server")

BACKLOG = 1024  # connections that may wait to be accepted
# Bytes, of which the kernel may grant less and takes twice for its own account: some 1250 queries, which are answered
# in 15 ms when they are hits. More room would have queries wait for longer when there are too many for good.
_RECEIVE_BUFFER = 512 * 1024

_OWN_FILES = 256  # descriptors for all else: upstream servers (dozens at most), Redis, HTTP, the event loop


def room_for(connections: int) -> int:
    """Let the process have the files that so many connections need; return how many connections there is room for.

    The soft limit of open files is raised as far as the hard one allows. Where that is not enough, some are left for
    everything else: without a socket to an upstream server, nothing that is not in memory could be answered.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = connections + _OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < allowed:
        allowed = allowed if hard == resource.RLIM_INFINITY else max(soft, min(allowed, hard))
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    room = min(connections, max(allowed - _OWN_FILES, allowed // 2))
    if room < connections:
        log.warning(
            "%d TCP connections at most instead of %d: the limit of open files is %d", room, connections, allowed
        )
    return room


class Sockets:
    """Binds sockets and remembers them."""

    def __init__(self) -> None:
        """Have none yet."""
        self.bound: list[socket.socket] = []

    def tcp(self, endpoint: Endpoint) -> socket.socket:
        """Return a TCP socket that listens on ``endpoint``; raises ListenError."""
        sock = self._bind(endpoint, socket.SOCK_STREAM)
        sock.listen(BACKLOG)
        return sock

    def dns(self, endpoint: Endpoint, *, shared: bool = False) -> tuple[socket.socket, socket.socket]:
        """Return a UDP and a TCP socket for ``endpoint``; raises ListenError.

        Port 0 means one that is free for TCP, the scarcer of the two: its ports stay taken for a while after use.
        With ``shared``, other processes of the same user may have the address at the same time (SO_REUSEPORT).
        """
        datagrams, stream = self._pair(endpoint, shared=shared)
        stream.listen(BACKLOG)
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        return datagrams, stream

    def reserve(self, endpoint: Endpoint) -> Endpoint:
        """Take ``endpoint``, which nobody else may have, for sockets yet to be ``shared``; raises ListenError.

        Returns it with the port that 0 became. Queries that reach the reservation are lost: ``release`` it soon.
        """
        pair = self._pair(endpoint)
        for sock in pair:  # after the exclusive bind, which another Heimdall's shared socket would have refused
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return _with_port_of(pair[0], endpoint)

    def release(self) -> None:
        """Close what was bound."""
        for sock in self.bound:
            sock.close()
        self.bound.clear()

    def _pair(self, endpoint: Endpoint, *, shared: bool = False) -> tuple[socket.socket, socket.socket]:
        stream = self._bind(endpoint, socket.SOCK_STREAM, shared=shared)
        return self._bind(_with_port_of(stream, endpoint), socket.SOCK_DGRAM, shared=shared), stream

    def _bind(self, endpoint: Endpoint, kind: socket.SocketKind, *, shared: bool = False) -> socket.socket:
        sock = _bound(endpoint, kind, shared=shared)
        self.bound.append(sock)
        return sock


@contextmanager
def all_or_none() -> Iterator[Sockets]:
    """Give something to bind sockets with; when one cannot be bound, close those that were."""
    sockets = Sockets()
    try:
        yield sockets
    except ListenError:
        sockets.release()
        raise


def _with_port_of(sock: socket.socket, endpoint: Endpoint) -> Endpoint:
    return Endpoint(endpoint.host, sock.getsockname()[1])


def _bound(endpoint: Endpoint, kind: socket.SocketKind, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    transport = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
    try:
        sock = socket.socket(family, kind)
    except OSError as error:
        raise ListenError(f"cannot listen on {endpoint} ({transport}): {error.strerror}") from error
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 may be bound beside [::]
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((endpoint.host, endpoint.port))
    except OSError as error:
        sock.close()
        hint = ""
        if isinstance(error, PermissionError) and endpoint.port < 1024:
            hint = " (ports below 1024 need CAP_NET_BIND_SERVICE or root)"
        why = os.strerror(error.errno or 0) + hint
        raise ListenError(f"cannot listen on {endpoint} ({transport}): {why}") from error
    return sock
