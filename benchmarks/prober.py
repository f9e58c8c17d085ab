"""The latency prober: queries at fixed instants, each timed from its sending to the kernel's receipt of the answer.

An open loop: a slow answer does not delay the next query, so that a pause of the server shows in every query that fell
into it. The answer's time is the kernel's receive timestamp; how late this process gets to read it does not matter.
"""

import ctypes
import gc
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from benchmarks.dns import is_answer

_SO_TIMESTAMPNS = 35  # socket(7); the module socket does not name it
_TIMESPEC = struct.Struct("@ll")
_RECEIVE_BUFFER = 4 << 20
_PR_SET_TIMERSLACK = 29
_GRACE_SECONDS = 1.0
_LOST = -1

Target = tuple[int, bytes]
"""Which server is asked (an index), and the query; its first two octets, the id, are written by the prober."""


@dataclass(frozen=True)
class Probe:
    """What became of the queries, in the order of sending."""

    nanoseconds: list[int]
    """Each query's latency; negative when no answer, or an error, came back in time."""
    seconds: float
    """How long the sending took."""
    sent_at: list[int] = field(default_factory=list)
    """When each query was sent, in nanoseconds since the epoch."""

    @property
    def lost(self) -> int:
        """How many queries had no good answer."""
        return sum(value < 0 for value in self.nanoseconds)

    @property
    def rate(self) -> float:
        """Queries per second that were really sent."""
        return len(self.nanoseconds) / self.seconds


def probe(ports: Sequence[int], targets: Sequence[Target], rate: float, *, grace: float = _GRACE_SECONDS) -> Probe:
    """Send ``targets`` to loopback ``ports``, ``rate`` a second, and wait ``grace`` seconds for the last answers."""
    sockets = [_socket(port) for port in ports]
    try:
        with _undisturbed():
            return _Run(sockets, targets).run(1 / rate, grace)
    finally:
        for sock in sockets:
            sock.close()


class _Run:
    def __init__(self, sockets: list[socket.socket], targets: Sequence[Target]) -> None:
        self._sockets = sockets
        self._messages = [
            (sockets[server], struct.pack("!H", number & 0xFFFF) + query[2:])
            for number, (server, query) in enumerate(targets)
        ]
        self._latencies = [_LOST] * len(self._messages)
        self._sent_at = [0] * len(self._messages)
        self._newest = [0] * 65536  # id → the latest query that has it
        self._answered = 0

    def run(self, interval: float, grace: float) -> Probe:
        sent, total = 0, len(self._messages)
        start = time.perf_counter()
        while sent < total:
            due = min(total, int((time.perf_counter() - start) / interval) + 1)
            while sent < due:
                self._send(sent)
                sent += 1
            self._receive(start + sent * interval - time.perf_counter())
        seconds = time.perf_counter() - start
        deadline = time.perf_counter() + grace
        while self._answered < total and (left := deadline - time.perf_counter()) > 0:
            self._receive(left)
        return Probe(self._latencies, seconds, self._sent_at)

    def _send(self, number: int) -> None:
        sock, message = self._messages[number]
        self._newest[number & 0xFFFF] = number
        self._sent_at[number] = time.time_ns()
        sock.send(message)

    def _receive(self, patience: float) -> None:
        for sock in select.select(self._sockets, [], [], max(0.0, patience))[0]:
            with suppress(BlockingIOError):
                while True:
                    message, ancillary, _, _ = sock.recvmsg(4096, 64, socket.MSG_DONTWAIT)
                    self._account(message, ancillary)

    def _account(self, message: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        number = self._newest[int.from_bytes(message[:2], "big")]
        if self._latencies[number] == _LOST and is_answer(message):
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2][: _TIMESPEC.size])
            self._latencies[number] = seconds * 1_000_000_000 + nanoseconds - self._sent_at[number]
            self._answered += 1


def _socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.connect(("127.0.0.1", port))
    return sock


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep our own pauses out of the schedule: no garbage collection, and sleeps that end when they should."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
