"""Exchanges over UDP with name servers on loopback: what is let in, on which ports, and what becomes of these."""

import contextlib
import resource
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import gevent
import gevent.socket
import pytest

from heimdall_lib.datagrams import ConnectedDatagrams, connected_datagrams
from heimdall_lib.errors import UpstreamError
from heimdall_lib.settings import UpstreamServer
from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.datagram import DatagramPool, Port, _bind_random_port
from heimdall_lib.upstream.server import Upstream
from tests.fakes import PATIENCE, DatagramServer, ask, echo, unused_port
from tests.support.chance import assert_rarely_repeated, assert_uniform

LONG = 30.0
"""Seconds that no test ever waits."""

QUERY = ask()[2:]
QUESTION = ask()[12:]
REPLY = echo(ask())[2:]
"""All but the id, which the port draws."""

IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6"))


def at(port: int, host: str = "127.0.0.1") -> UpstreamServer:
    return UpstreamServer("udp", host, port)


def sockets() -> int:
    """How many sockets this process has open."""
    links = (entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return sum(str(link.readlink()).startswith("socket:") for link in links)


class Pools:
    """Pools that are closed with the test, and exchanges in greenlets of their own."""

    def __init__(self) -> None:
        self._made: list[DatagramPool] = []
        self._asking: list[gevent.Greenlet] = []

    def __call__(self, port: int, host: str = "127.0.0.1") -> DatagramPool:
        self._made.append(DatagramPool(at(port, host)))
        return self._made[-1]

    def ask(self, pool: DatagramPool | Port, name: str = "www.example.com.", timeout: float = LONG) -> gevent.Greenlet:
        """Ask beside the test; the greenlet's value is the reply less its id, or why there is none."""
        asking = gevent.spawn(self._exchange, pool, ask(name), timeout)
        self._asking.append(asking)
        return asking

    def _exchange(self, pool: DatagramPool | Port, query: bytes, timeout: float) -> bytes | str | None:
        try:
            reply = pool.exchange(query[12:], query[2:], timeout)
        except UpstreamError as error:
            return error.reason
        return reply and reply[2:]

    def close(self) -> None:
        for pool in self._made:
            pool.close()
        gevent.joinall(self._asking, PATIENCE, raise_error=True)
        assert all(asking.dead for asking in self._asking)


@pytest.fixture
def pools() -> Iterator[Pools]:
    """And nothing of them stays open."""
    before = sockets()
    made = Pools()
    yield made
    made.close()
    assert sockets() <= before


@pytest.fixture
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port takes queries for longer than any test lasts, so that it does not matter how busy the machine is."""
    monkeypatch.setattr("heimdall_lib.upstream.datagram._PORT_SECONDS", 600.0)


@pytest.fixture
def ids_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """No two ports draw the same id by chance."""
    drawn = count()
    system = SimpleNamespace(urandom=lambda size: b"".join(next(drawn).to_bytes(2) for _ in range(size // 2)))
    monkeypatch.setattr("heimdall_lib.upstream.datagram.os", system)


def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        gevent.sleep(0.001)


class Desk:
    """A name server in this thread: the test itself receives what it is asked, and replies what and when it likes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._sock = gevent.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, 0))
        self._sock.settimeout(PATIENCE)
        self.port: int = self._sock.getsockname()[1]

    def take(self, count: int = 1) -> list[tuple[bytes, tuple[str, int]]]:
        """Return the next queries, each with where it came from."""
        return [self._sock.recvfrom(4096) for _ in range(count)]

    def send(self, data: bytes, peer: tuple[str, int]) -> None:
        self._sock.sendto(data, peer)

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as made:
        yield made


def results(asking: Sequence[gevent.Greenlet]) -> list[bytes | str | None]:
    gevent.joinall(asking, PATIENCE, raise_error=True)
    assert all(one.dead for one in asking)
    return [one.value for one in asking]


def refusal(pool: DatagramPool, timeout: float, query: bytes = QUERY) -> tuple[str, str]:
    with pytest.raises(UpstreamError) as caught:
        pool.exchange(QUESTION, query, timeout)
    return caught.value.reason, str(caught.value)


def answer(query: bytes) -> Sequence[bytes]:
    return [echo(query)]


# What is let in


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


class TestReplies:
    def test_the_reply_comes_back_as_it_was_sent(self, pools: Pools) -> None:
        with DatagramServer(answer) as server:
            reply = pools(server.port).exchange(QUESTION, QUERY, LONG)
            [query] = server.queries
        assert query[2:] == QUERY
        assert reply == echo(query)

    def test_the_largest_reply_comes_back_whole(self, pools: Pools) -> None:
        with DatagramServer(lambda query: [echo(query) + bytes(60_000)]) as server:
            assert pools(server.port).exchange(QUESTION, QUERY, LONG)[2:] == REPLY + bytes(60_000)

    def test_the_servers_spelling_of_the_name_does_not_matter(self, pools: Pools) -> None:
        with DatagramServer(lambda query: [echo(query).replace(b"www", b"WwW")]) as server:
            assert b"WwW" in pools(server.port).exchange(QUESTION, QUERY, LONG)

    @pytest.mark.parametrize("host", [IPV6])
    def test_ipv6(self, pools: Pools, host: str) -> None:
        with DatagramServer(answer, host) as server:
            assert pools(server.port, host).exchange(QUESTION, QUERY, LONG)[2:] == REPLY

    @pytest.mark.parametrize("wrong", NOT_THE_REPLY)
    def test_what_does_not_match_is_ignored_and_the_reply_after_it_taken(
        self, pools: Pools, wrong: Callable[[bytes], bytes]
    ) -> None:
        with DatagramServer(lambda query: [wrong(query), wrong(query), echo(query)]) as server:
            assert pools(server.port).exchange(QUESTION, QUERY, LONG)[2:] == REPLY

    @pytest.mark.parametrize("wrong", NOT_THE_REPLY)
    def test_what_does_not_match_is_ignored_until_the_time_is_over(
        self, pools: Pools, wrong: Callable[[bytes], bytes]
    ) -> None:
        with DatagramServer(lambda query: [wrong(query)]) as server:
            assert refusal(pools(server.port), 0.05)[0] == "timeout"

    def test_a_flood_of_what_does_not_match_does_not_extend_the_time(self, pools: Pools) -> None:
        with DatagramServer(lambda query: [wrong_id(query)] * 2000) as server:
            started = time.monotonic()
            assert refusal(pools(server.port), 0.1)[0] == "timeout"
            assert time.monotonic() - started < 2

    def test_the_reply_of_another_source_is_not_let_in(self, pools: Pools, desk: Desk) -> None:
        asking = pools.ask(pools(desk.port))
        [(query, peer)] = desk.take()
        with Desk() as stranger:
            stranger.send(echo(query) + b"forged", peer)
        desk.send(echo(query), peer)
        assert results([asking]) == [REPLY]

    @pytest.mark.usefixtures("ids_apart")
    def test_the_reply_to_another_ports_query_is_ignored(self, pools: Pools, desk: Desk) -> None:
        asking = [pools.ask(pools(desk.port)) for _ in range(2)]
        (query, peer), (other, other_peer) = desk.take(2)
        assert peer != other_peer
        desk.send(echo(other), peer)
        desk.send(echo(query), other_peer)
        desk.send(echo(query), peer)
        desk.send(echo(other), other_peer)
        assert results(asking) == [REPLY, REPLY]

    @pytest.mark.usefixtures("one_moment")
    def test_the_reply_to_another_query_of_the_port_is_ignored(self, pools: Pools, desk: Desk) -> None:
        pool = pools(desk.port)
        asking = [pools.ask(pool, name) for name in ("a.example.", "b.example.")]
        (query, peer), (other, _) = desk.take(2)
        desk.send(query[:2] + echo(other)[2:], peer)
        desk.send(echo(query), peer)
        desk.send(echo(other), peer)
        assert results(asking) == [echo(query)[2:], echo(other)[2:]]

    @pytest.mark.usefixtures("one_moment")
    @pytest.mark.parametrize("order", [list, reversed], ids=["in order", "reversed"])
    def test_replies_come_in_any_order(
        self, pools: Pools, desk: Desk, order: Callable[[list[object]], Sequence[tuple[bytes, tuple[str, int]]]]
    ) -> None:
        pool = pools(desk.port)
        names = [f"n{number}.example." for number in range(50)]
        asking = [pools.ask(pool, name) for name in names]
        for query, peer in order(list(desk.take(50))):
            desk.send(echo(query), peer)
        assert results(asking) == [echo(ask(name))[2:] for name in names]

    @pytest.mark.usefixtures("one_moment")
    def test_a_reply_that_comes_twice_disturbs_nobody(self, pools: Pools, desk: Desk) -> None:
        pool = pools(desk.port)
        for _ in range(3):
            asking = [pools.ask(pool, name) for name in ("a.example.", "b.example.")]
            (query, peer), (other, _) = desk.take(2)
            for data in (query, query, query, other, other):
                desk.send(echo(data), peer)
            assert results(asking) == [echo(query)[2:], echo(other)[2:]]

    @pytest.mark.usefixtures("one_moment")
    def test_a_reply_that_comes_too_late_disturbs_nobody(self, pools: Pools, desk: Desk) -> None:
        pool = pools(desk.port)
        assert refusal(pool, 0.2)[0] == "timeout"
        [(query, peer)] = desk.take()
        desk.send(echo(query), peer)
        asking = pools.ask(pool)
        [(again, same_peer)] = desk.take()
        assert same_peer == peer
        desk.send(echo(again), peer)
        assert results([asking]) == [REPLY]


# Failures


class TestFailures:
    def test_silence_is_a_timeout_that_names_the_server(self, pools: Pools, desk: Desk) -> None:
        started = time.monotonic()
        assert refusal(pools(desk.port), 0.1) == ("timeout", f"udp://127.0.0.1:{desk.port}: no answer within 0.1 s")
        assert 0.1 <= time.monotonic() - started < 2

    @pytest.mark.parametrize("timeout", [0.0, -1.0])
    def test_no_time_left_is_a_timeout_and_nothing_is_sent(self, pools: Pools, timeout: float) -> None:
        with DatagramServer(answer) as server:
            pool = pools(server.port)
            assert refusal(pool, timeout)[0] == "timeout"
            pool.close()
            assert pool.exchange(QUESTION, QUERY, LONG)[2:] == REPLY
            assert len(server.queries) == 1

    @pytest.mark.parametrize("host", ["127.0.0.1", IPV6])
    def test_a_closed_port_is_a_network_error_at_once(self, pools: Pools, host: str) -> None:
        port = unused_port()
        started = time.monotonic()
        reason, detail = refusal(pools(port, host), LONG)
        assert (reason, detail.endswith(f":{port}: cannot be reached")) == ("network", True)
        assert time.monotonic() - started < LONG / 2

    @pytest.mark.usefixtures("one_moment")
    def test_all_who_wait_on_a_port_learn_at_once_that_the_server_is_gone(self, pools: Pools, desk: Desk) -> None:
        pool = pools(desk.port)
        asking = [pools.ask(pool) for _ in range(20)]
        desk.take(20)
        desk.close()
        asking.append(pools.ask(pool))
        assert results(asking) == ["network"] * 21

    @pytest.mark.usefixtures("one_moment")
    def test_after_a_failure_the_next_query_has_a_new_port(self, pools: Pools) -> None:
        port = unused_port()
        pool = pools(port)
        assert refusal(pool, LONG)[0] == "network"
        with DatagramServer(answer, port=port):
            assert pool.exchange(QUESTION, QUERY, LONG)[2:] == REPLY

    def test_a_query_that_cannot_be_sent_is_a_network_error(self, pools: Pools, desk: Desk) -> None:
        assert refusal(pools(desk.port), LONG, bytes(65_534))[0] == "network"

    def test_a_server_that_no_socket_can_be_connected_to_is_a_network_error(self, pools: Pools) -> None:
        assert refusal(pools(53, "255.255.255.255"), LONG)[0] == "network"

    def test_too_many_open_files_are_a_network_error(self, pools: Pools, desk: Desk) -> None:
        pool = pools(desk.port)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            failure = refusal(pool, LONG)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert failure == ("network", f"udp://127.0.0.1:{desk.port}: Too many open files")

    def test_whoever_is_killed_leaves_nothing_behind(self, pools: Pools, desk: Desk) -> None:
        before = sockets()
        pool = pools(desk.port)
        asking = gevent.spawn(pool.exchange, QUESTION, QUERY, LONG)
        [(query, peer)] = desk.take()
        pool.close()
        assert sockets() == before + 1
        asking.kill()
        assert sockets() == before
        desk.send(echo(query), peer)


# Sockets that are full, or broken


class Scripted:
    """Takes as many datagrams as the script says at each call, or fails with it; when it is over, all.

    While it is ``full`` it takes none; once it is ``broken`` nothing can be received.
    """

    def __init__(self, *script: int | OSError) -> None:
        self.script = list(script)
        self.calls = 0
        self.full = False
        self.broken = False
        self._io: ConnectedDatagrams = connected_datagrams()

    def receive(self, sock: socket.socket, expected: int = 0) -> list[bytes]:
        if self.broken:
            raise OSError(113, "No route to host")
        return self._io.receive(sock, expected)

    def send(self, sock: socket.socket, messages: Sequence[bytes]) -> int:
        self.calls += 1
        if self.full:
            return 0
        step = self.script.pop(0) if self.script else len(messages)
        if isinstance(step, OSError):
            raise step
        return self._io.send(sock, messages[:step]) if step else 0


class TestSockets:
    @pytest.mark.parametrize("script", [(0,), (1, 2), (0, 0, 1, 0), (4, 0)])
    def test_a_socket_that_takes_no_more_is_tried_again(
        self, pools: Pools, desk: Desk, script: tuple[int, ...]
    ) -> None:
        port = Port(at(desk.port), Scripted(*script))
        names = [f"n{number}.example." for number in range(5)]
        asking = [pools.ask(port, name) for name in names]
        received = desk.take(5)
        assert [query[2:] for query, _ in received] == [ask(name)[2:] for name in names]
        for query, peer in received:
            desk.send(echo(query), peer)
        assert results(asking) == [echo(ask(name))[2:] for name in names]
        port.retire()

    def test_what_comes_while_the_socket_is_full_is_sent_after_what_waits(self, pools: Pools, desk: Desk) -> None:
        io = Scripted()
        io.full = True
        port = Port(at(desk.port), io)
        asking = [pools.ask(port, "a.example.")]
        until(lambda: io.calls > 1)
        asking.append(pools.ask(port, "b.example."))
        gevent.sleep(0.001)
        io.full = False
        received = desk.take(2)
        assert [query[2:] for query, _ in received] == [ask(name)[2:] for name in ("a.example.", "b.example.")]
        port.lose()
        assert results(asking) == [b"", b""]

    def test_more_than_a_batch_goes_out(self, pools: Pools, desk: Desk) -> None:
        port = Port(at(desk.port), connected_datagrams())
        asking = [pools.ask(port) for _ in range(100)]
        for query, peer in desk.take(100):
            desk.send(echo(query), peer)
        assert results(asking) == [REPLY] * 100
        port.retire()

    def test_what_nobody_waits_for_any_longer_is_not_sent(self, pools: Pools, desk: Desk) -> None:
        io = Scripted()
        io.full = True
        port = Port(at(desk.port), io)
        asking = pools.ask(port, "a.example.")
        until(lambda: io.calls > 1)
        asking.kill()
        for _ in range(2):  # turns of the loop, in the first of which the socket is found to be writable
            gevent.sleep(0.001)
        io.full = False
        asking = pools.ask(port, "b.example.")
        [(query, peer)] = desk.take()
        assert query[2:] == ask("b.example.")[2:]
        desk.send(echo(query), peer)
        results([asking])
        port.retire()

    def test_all_learn_at_once_that_nothing_can_be_sent(self, pools: Pools, desk: Desk) -> None:
        port = Port(at(desk.port), Scripted(1, OSError(101, "Network is unreachable")))
        asking = [pools.ask(port) for _ in range(5)]
        assert results(asking) == [b""] * 5
        assert not port.takes_more()

    @pytest.mark.usefixtures("one_moment")
    def test_an_error_while_nobody_waits_closes_the_port(self, pools: Pools, desk: Desk) -> None:
        before = sockets()
        io = Scripted()
        port = Port(at(desk.port), io)
        asking = pools.ask(port)
        [(query, peer)] = desk.take()
        desk.send(echo(query), peer)
        results([asking])
        io.broken = True
        assert port.takes_more()
        desk.send(b"wakes the port", peer)
        until(lambda: sockets() == before)
        assert not port.takes_more()

    def test_a_port_may_be_lost_before_its_first_query_is_sent(self, pools: Pools, desk: Desk) -> None:
        before = sockets()
        port = Port(at(desk.port), connected_datagrams())
        asking = pools.ask(port)
        gevent.spawn(port.lose)
        assert results([asking]) == [b""]
        gevent.idle()
        assert sockets() == before


# Ports and ids


class TestPorts:
    def test_a_query_on_its_own_has_a_port_of_its_own(self, pools: Pools) -> None:
        with DatagramServer(answer) as server:
            pool = pools(server.port)
            for _ in range(5):
                pool.exchange(QUESTION, QUERY, LONG)
                gevent.sleep(0.06)  # longer than a moment
            # That of five ports drawn at random no three differ happens once in 1e13 runs.
            assert len({port for _, port in server.peers}) >= 3

    @pytest.mark.usefixtures("one_moment")
    def test_queries_of_one_moment_share_a_port_and_their_ids_differ(self, pools: Pools, desk: Desk) -> None:
        before = sockets()
        pool = pools(desk.port)
        asking = [pools.ask(pool) for _ in range(100)]
        received = desk.take(100)
        assert len({peer for _, peer in received}) == 1
        assert len({query[:2] for query, _ in received}) == 100
        assert sockets() == before + 1
        for query, peer in received:
            desk.send(echo(query), peer)
        assert results(asking) == [REPLY] * 100

    @pytest.mark.usefixtures("one_moment")
    def test_a_port_takes_a_few_hundred_queries_at_most(self, pools: Pools, desk: Desk) -> None:
        pool = pools(desk.port)
        asking: list[gevent.Greenlet] = []
        received: list[tuple[bytes, tuple[str, int]]] = []
        for _ in range(6):
            asking += [pools.ask(pool) for _ in range(100)]
            received += desk.take(100)
        of_a_port = Counter(peer for _, peer in received)
        assert len(of_a_port) == 3
        assert max(of_a_port.values()) <= 256
        assert len({(query[:2], peer) for query, peer in received}) == 600
        for query, peer in received:
            desk.send(echo(query), peer)
        assert results(asking) == [REPLY] * 600

    def test_a_port_is_kept_until_its_last_reply(self, pools: Pools, desk: Desk) -> None:
        before = sockets()
        pool = pools(desk.port)
        asking = [pools.ask(pool, "a.example."), pools.ask(pool, "b.example.")]
        (first, peer), (second, second_peer) = desk.take(2)
        pool.close()
        asking.append(pools.ask(pool, "c.example."))
        [(third, third_peer)] = desk.take()
        assert third_peer not in (peer, second_peer)
        desk.send(echo(second), second_peer)
        assert results(asking[1:2]) == [echo(second)[2:]]
        desk.send(echo(first), peer)
        assert results(asking[:1]) == [echo(first)[2:]]
        assert sockets() == before + 1
        desk.send(echo(third), third_peer)
        assert results(asking[2:]) == [echo(third)[2:]]
        pool.close()
        assert sockets() == before

    def test_a_port_whose_queries_time_out_is_closed(self, pools: Pools, desk: Desk) -> None:
        before = sockets()
        pool = pools(desk.port)
        asking = [pools.ask(pool, timeout=0.2) for _ in range(10)]
        desk.take(10)
        pool.close()
        assert sockets() == before + 1
        assert results(asking) == ["timeout"] * 10
        assert sockets() == before

    def test_one_port_at_most_stays_open_without_queries(self, pools: Pools) -> None:
        before = sockets()
        with DatagramServer(answer) as server:
            pool = pools(server.port)
            for _ in range(5):
                pool.exchange(QUESTION, QUERY, LONG)
                assert sockets() == before + 2  # the server's and one of ours
                gevent.sleep(0.06)
        pool.close()
        assert sockets() == before
        pool.close()

    def test_a_thousand_queries_of_which_many_are_lost_leave_no_socket_behind(self, pools: Pools) -> None:
        before = sockets()

        def lossy(query: bytes) -> Sequence[bytes]:
            return [] if len(server.queries) % 3 == 0 else [echo(query)]

        with DatagramServer(lossy) as server:
            pool = pools(server.port)
            seen: Counter[bytes | str | None] = Counter()
            for _ in range(10):
                seen.update(results([pools.ask(pool, timeout=0.2) for _ in range(100)]))
        pool.close()
        assert sockets() == before
        assert set(seen) == {REPLY, "timeout"}
        assert seen["timeout"] >= 333

    def test_where_no_port_can_be_had_the_choice_is_left_to_the_kernel(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            before = sock.getsockname()
            _bind_random_port(sock)  # cannot: it has a port already
            assert sock.getsockname() == before

    def test_a_port_that_is_taken_is_drawn_again(self, pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
        with DatagramServer(answer) as server:
            free = unused_port()
            drawn = iter([server.port - 1024, free - 1024])
            monkeypatch.setattr(
                "heimdall_lib.upstream.datagram.secrets", SimpleNamespace(randbelow=lambda _: next(drawn))
            )
            pools(server.port).exchange(QUESTION, QUERY, LONG)
            assert [port for _, port in server.peers] == [free]


class TestChance:
    """Nobody can foretell a port, an id (RFC 5452, section 9.2), the case of a letter or a cookie."""

    QUERIES = 10_000
    PORTS = 65536 - 1024

    def test_of_queries_on_their_own(self, pools: Pools) -> None:
        with DatagramServer(answer) as server:
            pool = pools(server.port)
            for _ in range(self.QUERIES):
                pool.exchange(QUESTION, QUERY, LONG)
                pool.close()
            ports = [port for _, port in server.peers]
            ids = [id_of(query) for query in server.queries]
        assert min(ports) >= 1024
        assert_uniform([(port - 1024) // 1024 for port in ports], 63)
        assert_uniform([port % 256 for port in ports], 256)
        assert_uniform([(after - before) % self.PORTS // 1024 for before, after in pairwise(ports)], 63)
        assert_rarely_repeated(ports, self.PORTS)
        assert_ids_at_random(ids)

    def test_of_the_ids_of_queries_that_share_a_port(self, pools: Pools) -> None:
        with DatagramServer(answer) as server:
            pool = pools(server.port)
            for _ in range(self.QUERIES // 100):
                assert results([pools.ask(pool) for _ in range(100)]) == [REPLY] * 100
                pool.close()
            ids = [id_of(query) for query in server.queries]
        assert_ids_at_random(ids)

    def test_of_the_case_of_letters(self) -> None:
        question = ask("abcdefgh.ijklmnop.")[12:]
        with DatagramServer(answer) as server, contextlib.closing(upstream(server.port)) as asked:
            for _ in range(self.QUERIES // 100):
                gevent.joinall([gevent.spawn(asked.ask, question + b"\0", LONG) for _ in range(100)], raise_error=True)
            first = [case_of(query[13:21]) for query in server.queries]
            second = [case_of(query[22:30]) for query in server.queries]
        assert len(first) == self.QUERIES
        for drawn in first, second:
            assert_uniform(drawn, 256)
            assert_uniform([before ^ after for before, after in pairwise(drawn)], 256)
        assert_uniform([one ^ other for one, other in zip(first, second, strict=True)], 256)

    def test_of_the_cookies_of_servers(self) -> None:
        with DatagramServer(answer) as server:
            for _ in range(200):
                with contextlib.closing(upstream(server.port)) as asked:
                    asked.ask(QUESTION + b"\0", LONG)
            drawn = [query[-8:] for query in server.queries]
        assert len(set(drawn)) == 200
        assert_uniform([octet >> 4 for cookie in drawn for octet in cookie], 16)
        assert_uniform([octet & 15 for cookie in drawn for octet in cookie], 16)


def upstream(port: int) -> Upstream:
    return Upstream(at(port), udp_size=1232, stats=UpstreamStats())


def case_of(letters: bytes) -> int:
    """The bits that tell the case of eight letters."""
    return sum((octet >> 5 & 1) << place for place, octet in enumerate(letters))


def id_of(query: bytes) -> int:
    number: int = struct.unpack_from("!H", query)[0]
    return number


def assert_ids_at_random(ids: Sequence[int]) -> None:
    assert len(ids) == TestChance.QUERIES
    assert_uniform([one >> 8 for one in ids], 256)
    assert_uniform([one & 0xFF for one in ids], 256)
    assert_uniform([(after - before) % 65536 >> 8 for before, after in pairwise(ids)], 256)
    assert_rarely_repeated(ids, 65536)
