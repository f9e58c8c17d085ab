"""A way to a server that can be cut and mended, and on which what the server says is late, spoiled or broken off."""

import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from tests.fakes import PATIENCE, unused_port

Spoil = Callable[[bytes], bytes]


class Proxy:
    """One port in front of another. ``spoil`` makes of what the server sends what arrives: nothing ends that way."""

    def __init__(self, to: int) -> None:
        """Lead to a loopback port, once it is mended."""
        self.port = unused_port()
        self.spoil: Spoil = bytes
        self._to = to
        self._open: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._listener: socket.socket | None = None

    def mend(self) -> None:
        """Take connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """End all connections, and take none."""
        sockets = [*([self._listener] if self._listener else []), *self._open]
        for sock in sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in [*sockets, *self._open]:
            sock.close()
        self._open, self._threads, self._listener = [], [], None

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = listener.accept()
                self._open.append(here)
                there = socket.create_connection(("127.0.0.1", self._to))
                self._open.append(there)
                self._start(self._pass_on, here, there)
                self._start(self._pass_back, there, here)

    def _start(self, target: Callable[..., None], *sockets: socket.socket) -> None:
        thread = Thread(target=target, args=sockets, daemon=True)
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _pass_on(here: socket.socket, there: socket.socket) -> None:
        with suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)

    def _pass_back(self, there: socket.socket, here: socket.socket) -> None:
        with suppress(OSError):
            while (data := there.recv(65536)) and (passed := self.spoil(data)):
                here.sendall(passed)
        with suppress(OSError):
            here.shutdown(socket.SHUT_WR)
