"""The clients of a soak: what they ask, over which transport, and how they leave."""

import itertools
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from benchmarks import dns

_ZONE = "soak.example"
_PATIENCE = 7.0  # seconds: longer than a query may take (--query-timeout)
_PREFIX = struct.Struct("!H")
_POPULAR = 200
_PIPELINED = 5
_RCODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN"}
_LINGER_RESET = struct.pack("ii", 1, 0)


class Clients:
    """A few clients of each kind that ask without pause until they are stopped."""

    def __init__(self, port: int, rate: float) -> None:
        """Ask the server on a loopback port, some ``rate`` queries a second over all."""
        self.outcomes: Counter[str] = Counter()
        """What came of the queries whose clients waited: response codes, and ``unanswered``."""
        self.asked = 0
        self._address = ("127.0.0.1", port)
        self._chance = random.Random(5)
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        kinds: list[tuple[Callable[[], None], float, int]] = [
            (self._over_udp, 0.85 * rate, 8),
            (self._over_tcp, 0.12 * rate / _PIPELINED, 3),
            (self._vanishing, 0.03 * rate, 1),
        ]
        self._threads = [
            threading.Thread(target=self._repeat, args=(kind, number / share), daemon=True)
            for kind, share, number in kinds
            for _ in range(number)
        ]

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more, and wait for the answers that are due."""
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * _PATIENCE)

    def _repeat(self, client: Callable[[], None], interval: float) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            client()
            due = max(due + interval, time.monotonic() - interval)  # what was missed is not made up for
            self._ending.wait(max(0.0, due - time.monotonic()))

    def _name(self) -> str:
        """Draw a name: mostly popular ones that live long or briefly, else one that nobody has asked for."""
        kind = self._chance.random()
        if kind < 0.5:
            return f"kept-{self._chance.randrange(_POPULAR)}.{_ZONE}"
        if kind < 0.7:
            return f"brief-{self._chance.randrange(_POPULAR)}.{_ZONE}"
        word = "new" if kind < 0.85 else "nx" if kind < 0.97 else "big"
        return f"{word}-{next(self._numbers)}.{_ZONE}"

    def _query(self) -> bytes:
        with self._lock:
            self.asked += 1
            return dns.query(self._name(), self._chance.randrange(65536), edns=self._chance.random() < 0.5)

    def _came(self, answer: bytes) -> None:
        with self._lock:
            self.outcomes[_RCODES.get(answer[3] & 0x0F, "other") if answer else "unanswered"] += 1

    def _over_udp(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(self._address)
            sock.send(self._query())
            try:
                self._came(sock.recv(65535))
            except OSError:
                self._came(b"")

    def _over_tcp(self) -> None:
        """Ask several at once; half of the clients say that this was all before they read."""
        left = _PIPELINED
        try:
            with socket.create_connection(self._address, _PATIENCE) as sock, sock.makefile("rb") as stream:
                queries = [self._query() for _ in range(_PIPELINED)]
                sock.sendall(b"".join(_PREFIX.pack(len(query)) + query for query in queries))
                if self._chance.random() < 0.5:
                    sock.shutdown(socket.SHUT_WR)
                while left and (prefix := stream.read(_PREFIX.size)):
                    self._came(stream.read(*_PREFIX.unpack(prefix)))
                    left -= 1
        except (OSError, struct.error):
            pass
        for _ in range(left):
            self._came(b"")

    def _vanishing(self) -> None:
        """Ask, and be gone before the answer: a closed port, or a connection that is reset."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(self._address)
            sock.send(self._query())
        try:
            with socket.create_connection(self._address, _PATIENCE) as stream:
                query = self._query()
                stream.sendall(_PREFIX.pack(len(query)) + query)
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        except OSError:
            pass
