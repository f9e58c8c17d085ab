"""Both ways of reading and writing datagrams give the same, on real sockets."""

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from heimdall_lib.datagrams import (
    Batched,
    ConnectedBatched,
    ConnectedDatagrams,
    ConnectedOneByOne,
    Datagrams,
    OneByOne,
    Peer,
    connected_datagrams,
    datagrams,
)
from heimdall_lib.mmsg import BATCH
from tests.fakes import unused_port

Pair = tuple[socket.socket, socket.socket]
Make = Callable[[socket.socket], Datagrams]


@pytest.fixture(params=[OneByOne, Batched])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


@pytest.fixture(params=["127.0.0.1", "::1", "0.0.0.0", "::"])
def sockets(request: pytest.FixtureRequest) -> Iterator[Pair]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours, socket.socket(family, socket.SOCK_DGRAM) as theirs:
        ours.bind((request.param, 0))
        theirs.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        ours.setblocking(False)
        theirs.settimeout(5)
        yield ours, theirs


def test_nothing_waits(make: Make, sockets: Pair) -> None:
    assert list(make(sockets[0]).receive()) == []


def test_a_socket_is_crowded_from_half_of_its_room_on_until_it_is_read(sockets: Pair) -> None:
    ours, theirs = sockets
    io = Batched(ours)
    assert not io.crowded()
    for _ in range(1000):
        theirs.sendto(bytes(1000), ours.getsockname())
        if crowded := io.crowded():
            break
    assert crowded
    while io.receive():
        pass
    assert not io.crowded()


def test_where_it_cannot_be_told_a_socket_is_never_crowded(sockets: Pair) -> None:
    ours, theirs = sockets
    for _ in range(1000):
        theirs.sendto(bytes(1000), ours.getsockname())
    assert not OneByOne(ours).crowded()


def test_what_came_goes_back_to_who_sent_it(make: Make, sockets: Pair) -> None:
    ours, theirs = sockets
    io = make(ours)
    sent = [bytes((number,)) * number for number in range(1, 6)]
    for data in sent:
        theirs.sendto(data, ours.getsockname())
    received = list(io.receive())
    assert [data for data, _ in received] == sent
    assert {io.host(peer) for _, peer in received} == {theirs.getsockname()[0]}
    assert io.send([(data[::-1] + b"!", peer) for data, peer in received]) == 5
    assert [theirs.recv(100) for _ in sent] == [data + b"!" for data in sent]


def test_a_batch_has_a_bound_and_the_rest_comes_next(make: Make, sockets: Pair) -> None:
    ours, theirs = sockets
    io = make(ours)
    for number in range(BATCH + 3):
        theirs.sendto(b"%d" % number, ours.getsockname())
    assert [len(io.receive()), len(io.receive()), len(io.receive())] == [BATCH, 3, 0]


def test_what_cannot_be_sent_is_an_error_of_the_first(make: Make, sockets: Pair) -> None:
    ours, theirs = sockets
    io = make(ours)
    theirs.sendto(b"query", ours.getsockname())
    [(_, peer)] = io.receive()
    too_large = b"x" * 65530
    with pytest.raises(OSError, match="Message too long"):
        io.send([(too_large, peer)])
    assert io.send([(b"fits", peer), (too_large, peer)]) == 1
    assert theirs.recv(100) == b"fits"


def test_the_best_way_is_chosen(sockets: Pair) -> None:
    assert datagrams(sockets[0]).name in (OneByOne.name, Batched.name)


def test_a_closed_socket_is_an_error(make: Make, sockets: Pair) -> None:
    io = make(sockets[0])
    sockets[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        io.receive()


def alone(io: Datagrams, ours: socket.socket, theirs: socket.socket, data: bytes) -> tuple[bytes, Peer]:
    """Send one datagram, and receive it as one that comes alone."""
    list(io.receive())
    time.sleep(0.001)
    theirs.sendto(data, ours.getsockname())
    [received] = io.receive()
    return received


def test_one_that_comes_alone_is_told_and_answered_like_others(make: Make, sockets: Pair) -> None:
    ours, theirs = sockets
    io = make(ours)
    data, peer = alone(io, ours, theirs, b"alone")
    assert (data, io.host(peer)) == (b"alone", theirs.getsockname()[0])
    assert io.send([(b"answer", peer)]) == 1
    assert theirs.recv(100) == b"answer"
    time.sleep(0.001)
    assert list(io.receive()) == []


def test_answers_to_several_and_to_those_who_came_alone_go_out_in_order(make: Make, sockets: Pair) -> None:
    ours, theirs = sockets
    io = make(ours)
    for data in (b"1", b"2"):
        theirs.sendto(data, ours.getsockname())
    several = list(io.receive())
    answers = [*several, alone(io, ours, theirs, b"3"), *several]
    while answers:
        answers = answers[io.send(answers) :]
    assert [theirs.recv(100) for _ in range(5)] == [b"1", b"2", b"3", b"1", b"2"]


@pytest.mark.parametrize("sockets", ["0.0.0.0"], indirect=True)
def test_a_socket_for_every_address_answers_from_the_one_that_was_asked(sockets: Pair) -> None:
    ours, _ = sockets
    io = Batched(ours)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.settimeout(5)
        theirs.connect(("127.0.0.2", ours.getsockname()[1]))  # takes answers from this address alone
        for count in (3, 1):
            for number in range(count):
                theirs.send(b"%d" % number)
            received = list(io.receive())
            assert {io.host(peer) for _, peer in received} == {"127.0.0.1"}
            assert io.send(received) == len(received)
            assert [theirs.recv(100) for _ in received] == [b"%d" % number for number in range(count)]
            list(io.receive())  # of what comes next the first is alone
            time.sleep(0.001)


class Full(socket.socket):
    """A socket that takes no more: on loopback, none is."""

    def sendto(self, *_: object) -> int:
        raise BlockingIOError


def test_a_full_socket_takes_none_for_one_that_came_alone(make: Make) -> None:
    with Full(socket.AF_INET, socket.SOCK_DGRAM) as full:
        full.bind(("127.0.0.1", 0))
        assert make(full).send([(b"answer", ("127.0.0.1", 53))]) == 0


def filled(send: Callable[[int], int]) -> int:
    """Send until the socket takes no more, and return how many it took."""
    taken = 0
    while sent := send(BATCH):
        assert sent <= BATCH
        taken += sent
    return taken


def test_a_full_socket_takes_what_it_can_and_then_none(make: Make) -> None:
    # Loopback never fills up; local sockets do. Of a peer's address, Batched knows 16 bytes, and sends all 28.
    name = f"\0{os.getpid():08}".encode()
    with local() as ours, local() as theirs:
        theirs.bind(name.ljust(26, b"\0"))
        ours.bind(b"\0ours" + name.ljust(21, b"\0"))
        theirs.sendto(b"query", ours.getsockname())
        io = make(ours)
        [(_, peer)] = io.receive()
        taken = filled(lambda count: io.send([(b"answer", peer)] * count))
        assert taken > 0
        assert [theirs.recv(100) for _ in range(taken)] == [b"answer"] * taken
        assert io.send([(b"again", peer)]) == 1


def local() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


# Connected sockets


@pytest.fixture(params=[ConnectedOneByOne, ConnectedBatched])
def io(request: pytest.FixtureRequest) -> ConnectedDatagrams:
    made: ConnectedDatagrams = request.param()
    return made


@pytest.fixture
def connected(sockets: Pair) -> Pair:
    ours, theirs = sockets
    ours.connect(theirs.getsockname())
    theirs.connect(ours.getsockname())
    return sockets


class TestConnected:
    def test_nothing_waits(self, io: ConnectedDatagrams, connected: Pair) -> None:
        assert io.receive(connected[0]) == []

    def test_it_never_waits_even_if_the_socket_would(self, io: ConnectedDatagrams, connected: Pair) -> None:
        connected[0].setblocking(True)
        assert io.receive(connected[0]) == []

    def test_what_is_sent_arrives_as_it_is_and_in_order(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        messages = [b"", *(bytes((number,)) * number for number in range(1, 6)), bytes(60_000)]
        assert io.send(ours, messages) == len(messages)
        assert [theirs.recv(65535) for _ in messages] == messages
        for message in messages:
            theirs.send(message)
        assert io.receive(ours) == messages

    def test_a_message_is_not_what_was_left_of_a_longer_one(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        for message in (b"a longer one", b"short"):
            theirs.send(message)
            assert io.receive(ours) == [message]
            assert io.send(ours, [message]) == 1
            assert theirs.recv(100) == message

    def test_sockets_share_it(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        theirs.setblocking(False)
        assert (io.send(ours, [b"one way"]), io.send(theirs, [b"and back"])) == (1, 1)
        assert (io.receive(ours), io.receive(theirs)) == ([b"and back"], [b"one way"])

    def test_nobody_else_is_heard(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        with socket.socket(ours.family, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"forged", ours.getsockname())
        theirs.send(b"real")
        assert io.receive(ours) == [b"real"]

    def test_a_batch_has_a_bound_and_the_rest_comes_next(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        messages = [b"%d" % number for number in range(BATCH + 3)]
        for message in messages:
            theirs.send(message)
        assert [io.receive(ours), io.receive(ours), io.receive(ours)] == [messages[:BATCH], messages[BATCH:], []]

    def test_what_cannot_be_sent_is_an_error_of_the_first(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        too_large = bytes(65_530)
        with pytest.raises(OSError, match="Message too long"):
            io.send(ours, [too_large, b"fits"])
        assert io.send(ours, [b"fits", too_large]) == 1
        assert theirs.recv(100) == b"fits"

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_a_closed_port_is_an_error_of_what_comes_next(self, io: ConnectedDatagrams, host: str) -> None:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.connect((host, unused_port()))
            io.send(ours, [b"query"])
            with pytest.raises(ConnectionRefusedError):
                io.receive(ours)
            assert io.receive(ours) == []

    def test_what_came_before_an_error_is_not_lost(self, io: ConnectedDatagrams, connected: Pair) -> None:
        ours, theirs = connected
        theirs.send(b"reply")
        theirs.close()
        io.send(ours, [b"query"])
        with pytest.raises(ConnectionRefusedError):
            io.receive(ours)
        assert io.receive(ours) == [b"reply"]

    def test_a_full_socket_takes_what_it_can_and_then_none(self, io: ConnectedDatagrams) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours, theirs:
            taken = filled(lambda count: io.send(ours, [b"query"] * count))
            assert taken > 0
            assert io.send(ours, [b"alone"]) == 0
            assert [theirs.recv(100) for _ in range(taken)] == [b"query"] * taken
            assert io.send(ours, [b"again"]) == 1

    def test_a_closed_socket_is_an_error(self, io: ConnectedDatagrams, connected: Pair) -> None:
        connected[0].close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            io.receive(connected[0])
        with pytest.raises(OSError, match="Bad file descriptor"):
            io.send(connected[0], [b"query"])

    def test_one_that_is_expected_is_received_and_the_others_come_next(
        self, io: ConnectedDatagrams, connected: Pair
    ) -> None:
        ours, theirs = connected
        ours.setblocking(True)
        assert io.receive(ours, 1) == []
        messages = [b"expected", b"", bytes(60_000)]
        for message in messages:
            theirs.send(message)
        assert [message for _ in messages for message in io.receive(ours, 1)] == messages
        assert io.receive(ours, 1) == []

    def test_a_closed_port_is_an_error_where_one_is_expected(self, io: ConnectedDatagrams) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
            ours.connect(("127.0.0.1", unused_port()))
            io.send(ours, [b"query"])
            with pytest.raises(ConnectionRefusedError):
                io.receive(ours, 1)

    def test_the_best_way_is_chosen(self) -> None:
        assert isinstance(connected_datagrams(), ConnectedOneByOne | ConnectedBatched)
