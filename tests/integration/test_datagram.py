"""One exchange over UDP, with a name server on loopback."""

import socket
import time
from collections.abc import Callable, Sequence

import pytest

from heimdall_lib.errors import UpstreamError
from heimdall_lib.settings import UpstreamServer
from heimdall_lib.upstream.datagram import _bind_random_port, exchange
from tests.fakes import DatagramServer, ask, echo, unused_port

QUERY = ask()


def at(port: int, host: str = "127.0.0.1") -> UpstreamServer:
    return UpstreamServer("udp", host, port)


def refusal(server: UpstreamServer, timeout: float, query: bytes = QUERY) -> tuple[str, str]:
    with pytest.raises(UpstreamError) as caught:
        exchange(server, query, timeout)
    return caught.value.reason, str(caught.value)


def wrong_id(query: bytes) -> bytes:
    return bytes((query[0] ^ 1,)) + echo(query)[1:]


def wrong_name(query: bytes) -> bytes:
    return echo(query).replace(b"\3www", b"\3wwx")


def wrong_type(query: bytes) -> bytes:
    reply = bytearray(echo(query))
    reply[-3] ^= 1
    return bytes(reply)


def no_question(query: bytes) -> bytes:
    return echo(query)[:4] + bytes(8)


def a_query(query: bytes) -> bytes:
    return query


def garbage(_query: bytes) -> bytes:
    return b"\xff" * 40


def short(query: bytes) -> bytes:
    return echo(query)[:11]


def cut_in_the_question(query: bytes) -> bytes:
    return echo(query)[:20]


def empty(_query: bytes) -> bytes:
    return b""


NOT_THE_REPLY = [
    wrong_id,
    wrong_name,
    wrong_type,
    no_question,
    a_query,
    garbage,
    short,
    cut_in_the_question,
    empty,
]


def test_the_reply_comes_back_as_it_was_sent() -> None:
    with DatagramServer(lambda query: [echo(query)]) as server:
        assert exchange(at(server.port), QUERY, 5.0) == echo(QUERY)
        assert server.queries == [QUERY]


def test_the_largest_reply_comes_back_whole() -> None:
    with DatagramServer(lambda query: [echo(query) + bytes(60_000)]) as server:
        assert len(exchange(at(server.port), QUERY, 5.0)) == len(QUERY) + 60_000


def test_the_servers_spelling_of_the_name_does_not_matter() -> None:
    with DatagramServer(lambda query: [echo(query).replace(b"www", b"WwW")]) as server:
        assert b"WwW" in exchange(at(server.port), QUERY, 5.0)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_ipv6() -> None:
    with DatagramServer(lambda query: [echo(query)], "::1") as server:
        assert exchange(at(server.port, "::1"), QUERY, 5.0) == echo(QUERY)


@pytest.mark.parametrize("wrong", NOT_THE_REPLY)
def test_what_does_not_match_is_ignored_and_the_reply_after_it_taken(wrong: Callable[[bytes], bytes]) -> None:
    with DatagramServer(lambda query: [wrong(query), wrong(query), echo(query)]) as server:
        assert exchange(at(server.port), QUERY, 5.0) == echo(QUERY)


@pytest.mark.parametrize("wrong", NOT_THE_REPLY)
def test_what_does_not_match_is_ignored_until_the_time_is_over(wrong: Callable[[bytes], bytes]) -> None:
    with DatagramServer(lambda query: [wrong(query)]) as server:
        assert refusal(at(server.port), 0.05)[0] == "timeout"


def test_a_flood_of_what_does_not_match_does_not_extend_the_time() -> None:
    with DatagramServer(lambda query: [wrong_id(query)] * 2000) as server:
        started = time.monotonic()
        assert refusal(at(server.port), 0.1)[0] == "timeout"
        assert time.monotonic() - started < 2


def test_the_reply_of_another_source_is_not_let_in() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as stranger, DatagramServer(lambda _: []) as server:
        stranger.bind(("127.0.0.1", 0))

        def spoofed(query: bytes) -> Sequence[bytes]:
            stranger.sendto(echo(query), server.peers[-1])
            return []

        server._reply = spoofed
        assert refusal(at(server.port), 0.1)[0] == "timeout"
        assert len(server.queries) == 1


def test_silence_is_a_timeout_that_names_the_server() -> None:
    with DatagramServer(lambda _: []) as server:
        started = time.monotonic()
        assert refusal(at(server.port), 0.1) == (
            "timeout",
            f"udp://127.0.0.1:{server.port}: no answer within 0.1 s",
        )
        assert 0.1 <= time.monotonic() - started < 2


def test_no_time_left_is_a_timeout() -> None:
    with DatagramServer(lambda query: [echo(query)]) as server:
        assert refusal(at(server.port), 0.0)[0] == "timeout"


def test_a_closed_port_is_a_network_error_at_once() -> None:
    port = unused_port()
    started = time.monotonic()
    assert refusal(at(port), 30.0) == ("network", f"udp://127.0.0.1:{port}: Connection refused")
    assert time.monotonic() - started < 5


def test_a_query_that_cannot_be_sent_is_a_network_error() -> None:
    with DatagramServer(lambda _: []) as server:
        assert refusal(at(server.port), 1.0, bytes(65_536))[0] == "network"


def test_every_exchange_has_a_source_port_of_its_own() -> None:
    with DatagramServer(lambda query: [echo(query)]) as server:
        for _ in range(40):
            exchange(at(server.port), QUERY, 5.0)
        ports = [port for _, port in server.peers]
    assert len(set(ports)) > 30
    assert min(ports) >= 1024
    assert max(ports) - min(ports) > 20_000


def test_where_no_port_can_be_had_the_choice_is_left_to_the_kernel() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        before = sock.getsockname()
        _bind_random_port(sock)  # cannot: it has a port already
        assert sock.getsockname() == before


def test_no_socket_stays_open() -> None:
    with DatagramServer(lambda query: [echo(query)]) as server:
        exchange(at(server.port), QUERY, 5.0)
        _, port = server.peers[0]
    with socket.socket(type=socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", port))
