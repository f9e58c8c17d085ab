"""Clients that ask all the time, so that a test can say how many queries something costs.

Every client waits for its answer before it asks again, from a new port each time: of each client at most one query is
under way at any moment, and workers that share a port all get their part.
"""

import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import dns.message
import dns.rcode

from tests.support.client import Address, query
from tests.support.processes import PATIENCE, eventually

LOST, REFUSED = "lost", "refused"
_ID_SIZE = 2
_PAUSE = 0.002  # seconds between a client's queries, so that the clients are not all that the machine does


class Load:
    """Asks for ``names`` in turn over UDP, from its start to its end."""

    def __init__(
        self, target: Callable[[], Address] | Address, names: Iterable[str], *, clients: int = 4, timeout: float = 10.0
    ) -> None:
        """Ask ``target``, or whatever it returns for each query, and wait for an answer ``timeout`` seconds at most."""
        self.outcomes: Counter[str] = Counter()
        """What came of the queries: response codes, ``lost`` (no answer) or ``refused`` (nobody listens)."""
        self._target = target if callable(target) else lambda: target
        self._wires = itertools.cycle([query(name).to_wire() for name in names])
        self._timeout = timeout
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def asked(self) -> int:
        """How many queries have come to an end."""
        with self._lock:
            return self.outcomes.total()

    def go_on(self, more: int = 200) -> None:
        """Wait until so many more queries have come to an end."""
        enough = self.asked + more
        eventually(lambda: self.asked >= enough)

    def end(self) -> None:
        """Ask no more, and wait for the answers that are due."""
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._ending.is_set():
            with self._lock:
                wire = next(self._wires)
            outcome = _outcome(self._target(), wire, self._timeout)
            with self._lock:
                self.outcomes[outcome] += 1
            self._ending.wait(_PAUSE)


def _outcome(address: Address, wire: bytes, timeout: float) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(address)
            sock.send(wire)
            while (answer := sock.recv(65535))[:_ID_SIZE] != wire[:_ID_SIZE]:
                pass
        except TimeoutError:
            return LOST
        except ConnectionRefusedError:
            return REFUSED
    return dns.rcode.to_text(dns.message.from_wire(answer).rcode())
