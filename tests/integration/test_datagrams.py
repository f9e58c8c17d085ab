"""Both ways of reading and writing datagrams give the same, on real sockets."""

import socket
from collections.abc import Callable, Iterator

import pytest

from heimdall_lib.datagrams import BATCH, Batched, Datagrams, OneByOne, datagrams

Make = Callable[[socket.socket], Datagrams]


@pytest.fixture(params=[OneByOne, Batched])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


@pytest.fixture(params=["127.0.0.1", "::1"])
def sockets(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours, socket.socket(family, socket.SOCK_DGRAM) as theirs:
        for sock in (ours, theirs):
            sock.bind((request.param, 0))
        ours.setblocking(False)
        theirs.settimeout(5)
        yield ours, theirs


def test_nothing_waits(make: Make, sockets: tuple[socket.socket, socket.socket]) -> None:
    assert list(make(sockets[0]).receive()) == []


def test_what_came_goes_back_to_who_sent_it(make: Make, sockets: tuple[socket.socket, socket.socket]) -> None:
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


def test_a_batch_has_a_bound_and_the_rest_comes_next(make: Make, sockets: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = sockets
    io = make(ours)
    for number in range(BATCH + 3):
        theirs.sendto(b"%d" % number, ours.getsockname())
    assert [len(io.receive()), len(io.receive()), len(io.receive())] == [BATCH, 3, 0]


def test_an_address_that_is_none_is_an_error_of_the_first(
    make: Make, sockets: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = sockets
    io = make(ours)
    theirs.sendto(b"query", ours.getsockname())
    [(_, peer)] = io.receive()
    too_large = b"x" * 65530
    with pytest.raises(OSError, match="Message too long"):
        io.send([(too_large, peer)])
    assert io.send([(b"fits", peer), (too_large, peer)]) == 1
    assert theirs.recv(100) == b"fits"


def test_the_best_way_is_chosen(sockets: tuple[socket.socket, socket.socket]) -> None:
    assert datagrams(sockets[0]).name in (OneByOne.name, Batched.name)


def test_a_closed_socket_is_an_error(make: Make, sockets: tuple[socket.socket, socket.socket]) -> None:
    io = make(sockets[0])
    sockets[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        io.receive()
