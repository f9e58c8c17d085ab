"""What becomes of answers that the socket does not take, and of a socket that cannot be read."""

import socket
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from heimdall_lib.responder import Responder
from heimdall_lib.server.misses import Misses
from heimdall_lib.server.udp import UdpServer
from heimdall_lib.stats import Stats

Datagram = tuple[bytes, str]


class ScriptedIo:
    """Takes as many answers as the script says at each call, or fails with it."""

    name = "scripted"

    def __init__(self, *script: int | OSError) -> None:
        self.script = list(script)
        self.sent: list[bytes] = []

    def receive(self) -> Sequence[Datagram]:
        raise OSError(9, "Bad file descriptor")

    def send(self, datagrams: Sequence[Datagram]) -> int:
        step = self.script.pop(0) if self.script else len(datagrams)
        if isinstance(step, OSError):
            raise step
        self.sent += [data for data, _ in datagrams[:step]]
        return step

    def crowded(self) -> bool:
        return False

    def host(self, peer: str) -> str:
        return peer


class Room:
    """Runs what blocks at once, if there is room."""

    def __init__(self, *, free: bool = True) -> None:
        self.free = free

    def run(self, function: Callable[..., None], *args: Any) -> bool:
        if self.free:
            function(*args)
        return self.free


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def flushed(sock: socket.socket, io: ScriptedIo, room: Room) -> Stats:
    """Let three answers go out through ``io``; return what was counted."""
    stats = Stats()
    server = UdpServer(sock, cast(Responder, None), cast(Misses, room), stats)
    server.io = io
    server._outbox = [(b"a", "peer"), (b"b", "peer"), (b"c", "peer")]
    server.flush()
    return stats


def test_all_go_out_however_few_the_socket_takes_at_a_time(sock: socket.socket) -> None:
    io = ScriptedIo(1, 2)
    assert flushed(sock, io, Room()).dropped["send"] == 0
    assert io.sent == [b"a", b"b", b"c"]


def test_an_answer_that_cannot_be_sent_holds_up_no_other(sock: socket.socket) -> None:
    io = ScriptedIo(1, OSError(101, "Network is unreachable"))
    assert flushed(sock, io, Room()).dropped["send"] == 1
    assert io.sent == [b"a", b"c"]


def test_what_a_full_socket_does_not_take_waits_for_it(sock: socket.socket) -> None:
    io = ScriptedIo(1, 0)
    assert flushed(sock, io, Room()).dropped["send"] == 0
    assert io.sent == [b"a", b"b", b"c"]


def test_with_no_room_to_wait_it_is_dropped_and_counted(sock: socket.socket) -> None:
    io = ScriptedIo(1, 0)
    assert flushed(sock, io, Room(free=False)).dropped["send"] == 2
    assert io.sent == [b"a"]


def test_a_socket_that_cannot_be_read_raises_nothing_into_the_loop(sock: socket.socket) -> None:
    server = UdpServer(sock, cast(Responder, SimpleNamespace(begin=None)), cast(Misses, Room()), Stats())
    server.io = ScriptedIo()
    assert server.do_read() is None  # type: ignore[func-returns-value]
