"""Redis on loopback, and the few commands that the benchmark asks of it."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.bench import Bench
from benchmarks.dns import free_port, wait_until_accepted
from benchmarks.errors import BenchmarkError, NotSupportedError
from benchmarks.peers import on_path

_PROGRAM = "redis-server"
_PINGS = 101
_SECONDS = 10.0
_POLL_SECONDS = 0.05


def start(bench: Bench) -> int:
    """Start an empty Redis that keeps nothing on disk; return its port."""
    if not on_path(_PROGRAM):
        raise NotSupportedError(f"{_PROGRAM} is not installed")
    port = free_port()
    argv = [_PROGRAM, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    child = bench.nursery.start("redis", [*argv, "--dir", str(bench.directory)], cores=bench.cores.backend)
    wait_until_accepted(port, seconds=_SECONDS, alive=child.check)
    return port


def round_trip_seconds(port: int) -> float:
    """Return the median time of a PING."""
    times = []
    with _connect(port) as connection:
        for _ in range(_PINGS):
            start_at = time.perf_counter()
            _command(connection, "PING")
            times.append(time.perf_counter() - start_at)
    return median(times)


def entries(port: int) -> int:
    """Return how many keys Redis has."""
    with _connect(port) as connection:
        return int(_command(connection, "DBSIZE")[1:])


def forget(port: int) -> None:
    """Remove every key."""
    with _connect(port) as connection:
        _command(connection, "FLUSHALL")


@contextmanager
def hung(port: int) -> Iterator[None]:
    """Stop Redis meanwhile: its connections stay open, and nothing is answered."""
    with _connect(port) as connection:
        connection.sendall(b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n")
        pid = int(connection.recv(65536).partition(b"process_id:")[2].split(maxsplit=1)[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_for_entries(port: int, wanted: int) -> int:
    """Wait until Redis has ``wanted`` keys, or until no more arrive; return how many it has."""
    have, since = entries(port), time.monotonic()
    while have < wanted and time.monotonic() - since < 1.0:
        time.sleep(_POLL_SECONDS)
        if (now := entries(port)) != have:
            have, since = now, time.monotonic()
    return have


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _command(connection: socket.socket, word: str) -> str:
    connection.sendall(f"*1\r\n${len(word)}\r\n{word}\r\n".encode())
    reply = connection.recv(4096).decode()
    if not reply.startswith(("+", ":")):
        raise BenchmarkError(f"Redis answered {word} with {reply.strip()!r}")
    return reply.strip()
