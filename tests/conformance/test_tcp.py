"""TCP between clients and Heimdall: many queries on a connection, and clients that do not behave."""

import socket
import struct
import time

import pytest

from tests.support import messages
from tests.support.client import TcpClient, addresses, query
from tests.support.processes import Heimdall, eventually
from tests.support.upstream import Upstream

LARGE = [f"198.51.{number // 250}.{number % 250}" for number in range(3000)]


def framed(*wires: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)


def closed_within(connection: TcpClient, seconds: float) -> bool:
    """Say whether the server closes the connection within ``seconds``."""
    connection.sock.settimeout(seconds)
    try:
        return connection.closed_by_server()
    except TimeoutError:
        return False


def test_answers_come_as_they_are_ready(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 7: a slow answer holds up no other, whatever the order of the queries."""
    upstream.add(f"slow.{name}", "A", "192.0.2.1")
    gate = upstream.hold(f"slow.{name}")
    slow, others = query(f"slow.{name}", id=1), [query(f"n{number}.{name}", id=number) for number in range(2, 6)]
    with TcpClient(server.address) as connection:
        connection.send(slow, *others)
        assert {connection.receive().id for _ in others} == {2, 3, 4, 5}
        gate.set()
        assert addresses(connection.receive()) == ["192.0.2.1"]


def test_a_thousand_queries_may_be_sent_at_once(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 6.2.1.1: queries are pipelined without waiting for answers; each is answered, once."""
    upstream.add(name, "A", "192.0.2.1")
    asked = [query(name if number % 4 else f"n{number}.{name}", id=number) for number in range(1000)]
    with TcpClient(server.address) as connection:
        connection.send(*asked)
        answers = {answer.id: answer for answer in (connection.receive() for _ in asked)}
    assert len(answers) == 1000
    assert all(answers[message.id].question == message.question for message in asked)


def test_a_message_may_come_in_pieces_and_several_in_one(server: Heimdall, name: str) -> None:
    """RFC 7766, section 8: length and message come in any number of segments."""
    first, second, third = (query(name, id=number) for number in (1, 2, 3))
    with TcpClient(server.address) as connection:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in framed(first.to_wire()):
            connection.sock.send(bytes((octet,)))
        assert connection.receive().id == 1
        whole = framed(second.to_wire(), third.to_wire())
        connection.sock.sendall(whole[:-5])
        assert connection.receive().id == 2
        connection.sock.sendall(whole[-5:])
        assert connection.receive().id == 3


def test_what_is_no_query_does_not_end_a_connection(server: Heimdall, name: str) -> None:
    """RFC 7766, section 6.2.1: a connection carries further queries after one that was not answered, or was wrong."""
    with TcpClient(server.address) as connection:
        connection.send(
            b"", b"short", messages.query(name, flags=messages.QR), messages.query(name)[:-1], query(name, id=9)
        )
        assert {connection.receive().id for _ in range(2)} == {0x1234, 9}


def test_who_has_sent_all_still_gets_the_answers(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 6.2.4: a client that closed its side is answered before the connection ends."""
    upstream.add(name, "A", "192.0.2.1")
    gate = upstream.hold(name)
    with TcpClient(server.address) as connection:
        connection.send(query(name), query(f"x.{name}"))
        connection.finish()
        eventually(lambda: upstream.count(name))
        connection.receive()
        gate.set()
        assert addresses(connection.receive()) == ["192.0.2.1"]
        assert connection.closed_by_server()


@pytest.mark.parametrize("beginning", [b"", b"\0", b"\0\x20\0\7"], ids=["nothing", "half a length", "half a query"])
def test_a_silent_connection_is_closed(impatient: Heimdall, beginning: bytes) -> None:
    """RFC 7766, section 6.2.3: a connection that is idle for as long as the server allows is closed."""
    with TcpClient(impatient.address) as connection:
        connection.sock.sendall(beginning)
        assert closed_within(connection, 10)


def test_an_idle_connection_may_be_used_again(impatient: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 6.2.3: every query begins the idle time anew."""
    upstream.add(name, "A", "192.0.2.1")
    with TcpClient(impatient.address) as connection:
        for _ in range(4):
            connection.send(query(name))
            assert addresses(connection.receive()) == ["192.0.2.1"]
            assert not closed_within(connection, 0.15)
            connection.sock.settimeout(10)


def test_a_slow_writer_is_cut_off(impatient: Heimdall, name: str) -> None:
    """RFC 7766, section 11: one who sends a query octet by octet, for ever, holds no connection."""
    with TcpClient(impatient.address) as connection:
        connection.sock.sendall(b"\xff\xff" + messages.query(name))
        started = time.monotonic()
        while not (closed := closed_within(connection, 0.1)) and time.monotonic() < started + 10:
            connection.sock.sendall(b"x")
        assert closed


def test_a_slow_reader_is_cut_off_and_disturbs_nobody(impatient: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 11: one who reads no answers holds neither a connection nor anybody else's answers."""
    upstream.add(f"large.{name}", "A", *LARGE)
    upstream.add(name, "A", "192.0.2.1")
    with TcpClient(impatient.address) as greedy:
        greedy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.send(*[query(f"large.{name}").to_wire()] * 400)  # 19 MB of answers
        for transport in ("udp", "tcp"):
            assert addresses(impatient.ask(name, transport=transport)) == ["192.0.2.1"]
        impatient.wait_for_metric("tcp_connections", 0)


def test_a_connection_reset_in_mid_answer_harms_nobody(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 6.2.4: a client may go at any moment; its queries end with it, and no other's do."""
    upstream.add(f"large.{name}", "A", *LARGE)
    upstream.add(name, "A", "192.0.2.1")
    with TcpClient(server.address) as steady:
        for _ in range(3):
            with TcpClient(server.address) as leaving:
                leaving.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                leaving.send(*[query(f"large.{name}").to_wire()] * 20)
                assert leaving.sock.recv(1)
                # With a linger of no time, closing is a reset.
                leaving.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        steady.send(query(name))
        assert addresses(steady.receive()) == ["192.0.2.1"]
    server.wait_for_metric("tcp_connections", 0)


def test_a_client_may_have_several_connections(server: Heimdall, name: str) -> None:
    """RFC 7766, section 6.2.2: a client has as many connections as it needs, and each answer comes over its query's."""
    connections = [TcpClient(server.address) for _ in range(20)]
    try:
        for number, connection in enumerate(connections):
            connection.send(query(f"n{number}.{name}", id=number))
        assert [connection.receive().id for connection in reversed(connections)] == list(reversed(range(20)))
    finally:
        for connection in connections:
            connection.sock.close()
