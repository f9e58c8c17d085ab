"""A balancer as Kubernetes has them: it knows who is ready by asking ``/readyz``, and tries nothing twice."""

import itertools
import selectors
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.client import Address, http
from tests.support.processes import PATIENCE, eventually

_HOST = "127.0.0.1"
_PROBE_SECONDS = 0.05
_LONGEST = 65535


@dataclass(frozen=True)
class Backend:
    """Where a replica answers DNS and HTTP, whether it runs or not."""

    dns: Address
    http: Address


class Balancer:
    """Hands each datagram to the next replica that is ready, and its answer back to whoever sent it."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        """Listen; nobody is ready yet."""
        self.ready: frozenset[Backend] = frozenset()
        self.handed = dict.fromkeys(backends, 0)
        """How many queries each has been handed."""
        self._sock = _udp()
        self._sock.bind((_HOST, 0))
        self.address: Address = self._sock.getsockname()
        self._links = {backend: _udp() for backend in backends}
        for backend, link in self._links.items():
            link.connect(backend.dns)
        self._clients: dict[tuple[Backend, bytes], tuple[Address, bytes]] = {}
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._probe, self._forward)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in (self._sock, *self._links.values()):
            sock.close()

    def wait_until_ready(self, backends: Collection[Backend]) -> None:
        """Wait until just these are ready."""
        eventually(lambda: self.ready == set(backends))

    def _probe(self) -> None:
        while not self._ending.wait(_PROBE_SECONDS):
            self.ready = frozenset(backend for backend in self._links if _is_ready(backend))

    def _forward(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ, None)
            for backend, link in self._links.items():
                selector.register(link, selectors.EVENT_READ, backend)
            while not self._ending.is_set():
                for key, _ in selector.select(_PROBE_SECONDS):
                    if key.data is None:
                        self._hand_out(*self._sock.recvfrom(_LONGEST))
                    else:
                        self._hand_back(key.data)

    def _hand_out(self, query: bytes, client: Address) -> None:
        number = next(self._numbers)
        ready = [backend for backend in self._links if backend in self.ready]
        if not ready:
            return
        backend, message_id = ready[number % len(ready)], number.to_bytes(8, "big")[-2:]
        self._clients[backend, message_id] = client, query[:2]
        self.handed[backend] += 1
        self._links[backend].send(message_id + query[2:])

    def _hand_back(self, backend: Backend) -> None:
        try:
            answer = self._links[backend].recv(_LONGEST)
        except ConnectionRefusedError:  # told of a query that it will not answer: lost, and for its client to notice
            return
        client, message_id = self._clients.pop((backend, answer[:2]))
        self._sock.sendto(message_id + answer[2:], client)


def _udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _is_ready(backend: Backend) -> bool:
    try:
        return http(backend.http, "/readyz").status == 200
    except OSError:
        return False
