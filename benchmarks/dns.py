"""The little DNS that the benchmark speaks itself: a query, and whether somebody answers it."""

import random
import socket
import struct
import time
from collections.abc import Callable

from benchmarks.errors import BenchmarkError

ZONE = "bench.example"
READY_NAME = f"ready.{ZONE}"
_POLL_SECONDS = 0.05
_ANSWER_SECONDS = 1.0
_OPT = struct.pack("!BHHIH", 0, 41, 1232, 0, 0)
_NOERROR_MASK = 0x800F  # QR and the response code


def query(name: str, number: int, *, edns: bool = False) -> bytes:
    """Return a query for the address of ``name`` with the id ``number``."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.rstrip(".").split("."))
    header = struct.pack("!6H", number, 0x0100, 1, 0, 0, int(edns))
    return header + labels + b"\0\0\1\0\1" + (_OPT if edns else b"")


def is_answer(message: bytes) -> bool:
    """Say whether ``message`` is a response without an error and with at least one record."""
    flags, _, answers = struct.unpack_from("!HHH", message, 2)
    return bool(flags & _NOERROR_MASK == 0x8000 and answers)


def mixed_case(name: str, chance: random.Random) -> str:
    """Return ``name`` with letters in random case, as clients send it that use the case as a nonce."""
    return "".join(letter.upper() if chance.random() < 0.5 else letter for letter in name)


def free_port() -> int:
    """Return a loopback port that is free for UDP and for TCP at this moment."""
    for _ in range(50):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BenchmarkError("no loopback port is free for both UDP and TCP")


def wait_until_answered(port: int, *, seconds: float, alive: Callable[[], None], name: str = READY_NAME) -> None:
    """Return when the server on ``port`` answers; ``alive`` raises when it has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive()
        if _answers(port, name):
            return
        time.sleep(_POLL_SECONDS)
    raise BenchmarkError(f"the server on port {port} gave no answer for {name} within {seconds:g} s")


def wait_until_accepted(port: int, *, seconds: float, alive: Callable[[], None]) -> None:
    """Return when ``port`` takes TCP connections; ``alive`` raises when its server has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS).close()
        except OSError:
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise BenchmarkError(f"nothing took a connection on port {port} within {seconds:g} s")


def _answers(port: int, name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(_ANSWER_SECONDS)
        try:
            sock.send(query(name, random.randrange(65536)))
            return is_answer(sock.recv(4096))
        except OSError:  # nobody listens yet, or nobody answers
            return False
