"""Distance on one machine: a TCP relay that delays both directions, and a DNS server that answers late.

``python -m benchmarks.delay tcp PORT TARGET SECONDS`` puts a round trip of SECONDS between PORT and TARGET;
``python -m benchmarks.delay dns PORT SECONDS`` answers every query with an address after SECONDS.

Rules: nothing is lost, reordered or merged; one thread; select(2), because its timeout counts in microseconds where
asyncio's and epoll's count in milliseconds.
"""

import argparse
import ctypes
import heapq
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

_PR_SET_TIMERSLACK = 29
_CHUNK = 1 << 18
_IDLE_SECONDS = 0.2
_ANSWER_FLAGS = b"\x81\x80"
_ADDRESS = b"\xc0\x0c\0\1\0\1\0\1\x51\x80\0\4\xc0\0\2\3"  # the question's name, A, IN, a day, 192.0.2.3


class Loop:
    """Sockets with their readers, and what is to be done later."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._readers: dict[socket.socket, Callable[[], None]] = {}
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def watch(self, sock: socket.socket, reader: Callable[[], None]) -> None:
        """Call ``reader`` whenever ``sock`` is readable."""
        self._readers[sock] = reader

    def forget(self, sock: socket.socket) -> None:
        """Watch ``sock`` no longer."""
        self._readers.pop(sock, None)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Call ``action`` in ``seconds``; actions of the same instant run in the order given."""
        self._number += 1
        heapq.heappush(self._later, (time.perf_counter() + seconds, self._number, action))

    def run_once(self) -> None:
        """Wait for the next thing to do, and do what is due."""
        patience = max(0.0, self._later[0][0] - time.perf_counter()) if self._later else _IDLE_SECONDS
        for sock in select.select(list(self._readers), [], [], patience)[0]:
            if sock in self._readers:
                self._readers[sock]()
        while self._later and self._later[0][0] <= time.perf_counter():
            heapq.heappop(self._later)[2]()


class TcpRelay:
    """Carries connections to ``target``, each direction late by half of ``seconds``."""

    def __init__(self, loop: Loop, port: int, target: int, seconds: float) -> None:
        """Listen on a loopback port; 0 is a free one."""
        self._loop, self._target, self._delay = loop, target, seconds / 2
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        loop.watch(self.listener, self._accept)

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # as from afar: refused
            client.close()
            return
        for here, there in ((client, server), (server, client)):
            here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._loop.watch(here, partial(self._read, here, there))

    def _read(self, here: socket.socket, there: socket.socket) -> None:
        try:
            data = here.recv(_CHUNK)
        except OSError:
            data = b""
        if data:
            self._loop.after(self._delay, partial(_send, there, data))
            return
        for sock in (here, there):
            self._loop.forget(sock)
            self._loop.after(self._delay, sock.close)


class LateAnswers:
    """A DNS server that has an address for every name, late by ``seconds``."""

    def __init__(self, loop: Loop, port: int, seconds: float) -> None:
        """Bind a loopback port; 0 is a free one."""
        self._loop, self._delay = loop, seconds
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", port))
        loop.watch(self.sock, self._read)

    def _read(self) -> None:
        query, client = self.sock.recvfrom(4096)
        reply = answer(query)
        self._loop.after(self._delay, partial(_send_to, self.sock, reply, client))


def answer(query: bytes) -> bytes:
    """Return the answer to ``query``: its question, and one address."""
    end = 12
    while query[end]:
        end += query[end] + 1
    return query[:2] + _ANSWER_FLAGS + b"\0\1\0\1\0\0\0\0" + query[12 : end + 5] + _ADDRESS


def _send(sock: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # that side has gone; reading from it says so as well
        sock.sendall(data)


def _send_to(sock: socket.socket, data: bytes, client: tuple[str, int]) -> None:
    with suppress(OSError):  # the asker has closed its socket
        sock.sendto(data, client)


def main() -> None:
    """Relay or answer until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delay", description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, arguments in (("tcp", ("port", "target")), ("dns", ("port",))):
        command = kinds.add_parser(kind)
        for argument in arguments:
            command.add_argument(argument, type=int)
        command.add_argument("seconds", type=float)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    loop = Loop()
    if options.kind == "tcp":
        TcpRelay(loop, options.port, options.target, options.seconds)
    else:
        LateAnswers(loop, options.port, options.seconds)
    while True:
        loop.run_once()


if __name__ == "__main__":
    main()
