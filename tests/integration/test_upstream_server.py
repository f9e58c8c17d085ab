"""One upstream server: how it is asked, what its replies say of it, and how it is taken for down and up again."""

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest
import trustme

from heimdall_lib.errors import UpstreamError
from heimdall_lib.reply import Kind
from heimdall_lib.settings import Transport, UpstreamServer
from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.server import Upstream
from tests.fakes import (
    DatagramServer,
    Lines,
    Peer,
    StreamServer,
    address_in,
    ask,
    eventually,
    parsed,
    reply_to,
    unused_port,
)

KEY = parsed().key
SECONDS = 5.0

Reply = Callable[[bytes], bytes | None]


def good(query: bytes) -> bytes:
    return reply_to(query, "@ 300 A 192.0.2.1", edns=is_edns(query))


def is_edns(query: bytes) -> bool:
    return dns.message.from_wire(query).edns >= 0


@dataclass
class Net:
    """Name servers that reply as told, and what an ``Upstream`` makes of them."""

    stack: ExitStack
    stats: UpstreamStats = field(default_factory=UpstreamStats)

    def udp(self, reply: Reply) -> tuple[DatagramServer, Upstream]:
        def datagrams(query: bytes) -> Sequence[bytes]:
            data = reply(query)
            return [] if data is None else [data]

        server = self.stack.enter_context(DatagramServer(datagrams))
        return server, self.upstream(server.port)

    def tcp(self, reply: Callable[[bytes], bytes], port: int = 0, tls: ssl.SSLContext | None = None) -> StreamServer:
        def serve(peer: Peer) -> None:
            while query := peer.receive():
                server.queries.append(query)
                peer.send(reply(query))

        server = StreamServer(serve, port=port, tls=tls)
        return self.stack.enter_context(server)

    def upstream(self, port: int, transport: Transport = "udp", name: str = "") -> Upstream:
        made = Upstream(UpstreamServer(transport, "127.0.0.1", port, name), udp_size=1232, stats=self.stats)
        self.stack.callback(made.close)
        return made


@pytest.fixture
def net() -> Iterator[Net]:
    with ExitStack() as stack:
        yield Net(stack)


def refusal(upstream: Upstream, timeout: float = SECONDS) -> str:
    with pytest.raises(UpstreamError) as caught:
        upstream.ask(KEY, timeout)
    return caught.value.reason


class TestQueries:
    def sent(self, net: Net, data: bytes) -> dns.message.Message:
        server, upstream = net.udp(good)
        upstream.ask(parsed(data).key, SECONDS)
        return dns.message.from_wire(server.queries[0])

    def test_they_ask_for_recursion_and_for_ad_and_say_what_heimdall_takes(self, net: Net) -> None:
        query = self.sent(net, ask("WWW.example.com."))
        assert query.flags == dns.flags.RD | dns.flags.AD
        assert (query.edns, query.payload, query.ednsflags, query.options) == (0, 1232, 0, ())
        assert [question.to_text() for question in query.question] == ["www.example.com. IN A"]

    def test_do_is_handed_on(self, net: Net) -> None:
        query = self.sent(net, ask(do=True))
        assert query.ednsflags == dns.flags.DO
        assert not query.flags & dns.flags.CD

    def test_cd_is_handed_on(self, net: Net) -> None:
        query = self.sent(net, ask(flags=dns.flags.RD | dns.flags.CD))
        assert query.ednsflags == 0
        assert query.flags & dns.flags.CD

    def test_ids_cannot_be_foretold(self, net: Net) -> None:
        server, upstream = net.udp(good)
        for _ in range(20):
            upstream.ask(KEY, SECONDS)
        ids = [int.from_bytes(query[:2]) for query in server.queries]
        assert len(set(ids)) > 17
        assert len({after - before for before, after in pairwise(ids)}) > 15


class TestReplies:
    def test_an_answer(self, net: Net) -> None:
        _, upstream = net.udp(good)
        reply = upstream.ask(KEY, SECONDS)
        assert (reply.kind, reply.ttl, address_in(reply.message)) == (Kind.ANSWER, 300, "192.0.2.1")
        assert (net.stats.queries, sum(net.stats.duration.counts)) == (1, 1)

    def test_a_failure_is_counted_and_yet_a_sign_of_life(self, net: Net) -> None:
        _, upstream = net.udp(lambda query: reply_to(query, rcode=2, edns=True, ede=(9, "no DNSKEY")))
        for _ in range(5):
            reply = upstream.ask(KEY, SECONDS)
            assert (reply.kind, reply.rcode, reply.error) == (Kind.FAILURE, 2, (9, "no DNSKEY"))
        assert net.stats.failures == {"rcode": 5}
        assert not upstream.resting

    def test_nxdomain_is_no_failure(self, net: Net) -> None:
        _, upstream = net.udp(lambda query: reply_to(query, rcode=3))
        assert upstream.ask(KEY, SECONDS).kind is Kind.NXDOMAIN
        assert net.stats.failures == {}

    def test_a_message_that_is_not_well_formed(self, net: Net) -> None:
        _, upstream = net.udp(lambda query: good(query) + b"\0")
        assert refusal(upstream) == "malformed"
        assert net.stats.failures == {"malformed": 1}

    def test_silence(self, net: Net) -> None:
        _, upstream = net.udp(lambda _: None)
        assert refusal(upstream, 0.05) == "timeout"
        assert net.stats.failures == {"timeout": 1}

    def test_a_closed_port(self, net: Net) -> None:
        upstream = net.upstream(unused_port())
        assert refusal(upstream) == "network"
        assert net.stats.failures == {"network": 1}


class TestTruncation:
    def truncated(self, query: bytes) -> bytes:
        return reply_to(query, flags=dns.flags.TC)

    def test_a_truncated_reply_is_asked_for_again_over_tcp(self, net: Net) -> None:
        server, upstream = net.udp(self.truncated)
        stream = net.tcp(good, server.port)
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [query[2:] for query in stream.queries] == [query[2:] for query in server.queries]
        assert (net.stats.queries, sum(net.stats.duration.counts)) == (1, 1)

    def test_a_server_without_tcp_is_a_network_error(self, net: Net) -> None:
        _, upstream = net.udp(self.truncated)
        assert refusal(upstream) == "network"

    def test_both_tries_have_one_timeout(self, net: Net) -> None:
        server, upstream = net.udp(self.truncated)

        def silent(peer: Peer) -> None:
            while peer.receive():
                pass

        net.stack.enter_context(StreamServer(silent, port=server.port))
        started = time.monotonic()
        assert refusal(upstream, 0.2) == "timeout"
        assert 0.2 <= time.monotonic() - started < 2

    def test_a_reply_that_is_not_truncated_opens_no_connection(self, net: Net) -> None:
        server, upstream = net.udp(good)
        stream = net.tcp(good, server.port)
        upstream.ask(KEY, SECONDS)
        assert stream.connections == 0


class TestServersWithoutEdns:
    def without_edns(self, rcode: int) -> Reply:
        return lambda query: reply_to(query, rcode=rcode) if is_edns(query) else good(query)

    @pytest.mark.parametrize("rcode", [1, 4])
    def test_they_are_asked_again_without_it(self, net: Net, rcode: int) -> None:
        server, upstream = net.udp(self.without_edns(rcode))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [is_edns(query) for query in server.queries] == [True, False]
        assert net.stats.queries == 2
        assert net.stats.failures == {}

    def test_they_are_spared_it_from_then_on(self, net: Net) -> None:
        server, upstream = net.udp(self.without_edns(1))
        upstream.ask(KEY, SECONDS)
        upstream.ask(KEY, SECONDS)
        assert [is_edns(query) for query in server.queries] == [True, False, False]

    def test_a_server_that_knows_it_and_says_formerr_means_it(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=1, edns=True))
        assert upstream.ask(KEY, SECONDS).rcode == 1
        assert len(server.queries) == 1

    @pytest.mark.parametrize("rcode", [2, 5])
    def test_other_errors_have_nothing_to_do_with_it(self, net: Net, rcode: int) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=rcode))
        assert upstream.ask(KEY, SECONDS).rcode == rcode
        assert len(server.queries) == 1

    def test_a_server_that_says_formerr_either_way_is_asked_twice_at_most(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=1))
        assert upstream.ask(KEY, SECONDS).rcode == 1
        assert [is_edns(query) for query in server.queries] == [True, False]
        assert net.stats.failures == {"rcode": 1}

    def test_a_formerr_that_has_nothing_to_do_with_edns_costs_no_other_query_its_edns(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=1))
        upstream.ask(KEY, SECONDS)
        upstream.ask(KEY, SECONDS)
        assert [is_edns(query) for query in server.queries] == [True, False, True, False]

    @pytest.mark.parametrize("rcode", [1, 4])
    def test_servers_that_answer_with_a_header_alone_are_asked_again_without_it(self, net: Net, rcode: int) -> None:
        def header_alone(query: bytes) -> bytes:
            return query[:2] + bytes((0x80, rcode)) + bytes(8)

        server, upstream = net.udp(lambda query: header_alone(query) if is_edns(query) else good(query))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [is_edns(query) for query in server.queries] == [True, False]

    def test_both_tries_have_one_timeout(self, net: Net) -> None:
        _, upstream = net.udp(lambda query: reply_to(query, rcode=1) if is_edns(query) else None)
        started = time.monotonic()
        assert refusal(upstream, 0.2) == "timeout"
        assert 0.2 <= time.monotonic() - started < 2


class TestHealth:
    def flaky(self, net: Net) -> tuple[list[bool], DatagramServer, Upstream]:
        """A server that answers once the list has something in it."""
        well: list[bool] = []
        server, upstream = net.udp(lambda query: good(query) if well else None)
        return well, server, upstream

    def test_three_failures_in_a_row_and_it_rests_which_is_logged_once(self, net: Net) -> None:
        _, server, upstream = self.flaky(net)
        with Lines("heimdall.upstream") as lines:
            for rests in (False, False, True, True):
                refusal(upstream, 0.01)
                assert upstream.resting is rests
        assert list(lines) == [f"WARNING upstream udp://127.0.0.1:{server.port} rests after 3 failures (timeout)"]
        assert not net.stats.up

    def test_any_answer_and_it_is_up_again_which_is_logged_once(self, net: Net) -> None:
        well, server, upstream = self.flaky(net)
        for _ in range(3):
            refusal(upstream, 0.01)
        well.append(True)
        with Lines("heimdall.upstream") as lines:
            upstream.ask(KEY, SECONDS)
            upstream.ask(KEY, SECONDS)
        assert list(lines) == [f"INFO upstream udp://127.0.0.1:{server.port} answers again"]
        assert (upstream.resting, net.stats.up) == (False, True)

    def test_an_answer_in_between_starts_the_count_anew(self, net: Net) -> None:
        well, _, upstream = self.flaky(net)
        for _ in range(3):
            refusal(upstream, 0.01)
            refusal(upstream, 0.01)
            well.append(True)
            upstream.ask(KEY, SECONDS)
            well.clear()
        assert not upstream.resting

    def test_a_probe_asks_for_the_roots_name_servers(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=5))
        assert upstream.probe(SECONDS)
        assert dns.message.from_wire(server.queries[0]).question[0].to_text() == ". IN NS"

    def test_a_probe_that_is_not_answered_says_so(self, net: Net) -> None:
        assert not net.upstream(unused_port()).probe(SECONDS)

    def test_a_probe_is_due_only_while_it_rests(self, net: Net) -> None:
        upstream = net.upstream(unused_port())
        assert not upstream.probe_due(time.monotonic() + 3600)
        for _ in range(3):
            refusal(upstream)
        now = time.monotonic()
        due = [upstream.probe_due(now + seconds) for seconds in (0.5, 1.1, 1.2, 60.0)]
        assert due == [False, True, False, True]

    def test_the_round_trip_is_smoothed(self, net: Net) -> None:
        _, upstream = net.udp(good)
        assert upstream.round_trip == 0
        upstream.ask(KEY, SECONDS)
        first = upstream.round_trip
        assert 0 < first < 1
        upstream.round_trip = 1.0
        upstream.ask(KEY, SECONDS)
        assert 0.7 < upstream.round_trip < 0.9

    def test_failures_make_it_slower_within_bounds(self, net: Net) -> None:
        upstream = net.upstream(unused_port())
        round_trips = []
        for _ in range(9):
            refusal(upstream)
            round_trips.append(upstream.round_trip)
        assert round_trips[:3] == [0.1, 0.2, 0.4]
        assert max(round_trips) == 10.0

    def test_being_passed_over_makes_it_look_faster(self, net: Net) -> None:
        upstream = net.upstream(unused_port())
        upstream.round_trip = 1.0
        upstream.passed_over()
        assert upstream.round_trip == pytest.approx(0.98)

    def test_how_it_does_in_words(self, net: Net) -> None:
        upstream = net.upstream(port := unused_port())
        for _ in range(3):
            refusal(upstream)
        assert upstream.describe() == {
            "server": f"udp://127.0.0.1:{port}",
            "up": False,
            "round_trip_ms": 400.0,
            "queries": 3,
            "failures": {"network": 3},
        }


class TestStreams:
    def test_a_server_that_is_asked_over_tcp(self, net: Net) -> None:
        server = net.tcp(good)
        upstream = net.upstream(server.port, "tcp")
        for _ in range(3):
            assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert (server.connections, len(server.queries)) == (1, 3)

    def test_closing_ends_its_connections(self, net: Net) -> None:
        ended: list[int] = []

        def serve(peer: Peer) -> None:
            while query := peer.receive():
                peer.send(good(query))
            ended.append(peer.number)

        server = net.stack.enter_context(StreamServer(serve))
        upstream = net.upstream(server.port, "tcp")
        upstream.ask(KEY, SECONDS)
        upstream.close()
        eventually(lambda: ended == [1])


class TestTls:
    @pytest.fixture
    def ca(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
        """An authority that the system trusts."""
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        return ca

    def server(self, net: Net, ca: trustme.CA) -> StreamServer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # nothing to be read while the client writes its first query
        ca.issue_cert("dns.example", "127.0.0.1").configure_cert(context)
        return net.tcp(good, tls=context)

    @pytest.mark.parametrize("name", ["127.0.0.1", "dns.example"])
    def test_the_systems_authorities_are_trusted(self, net: Net, ca: trustme.CA, name: str) -> None:
        upstream = net.upstream(self.server(net, ca).port, "tls", name)
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"

    def test_a_wrong_name_is_a_failure_like_any_other(self, net: Net, ca: trustme.CA) -> None:
        server = self.server(net, ca)
        upstream = net.upstream(server.port, "tls", "other.example")
        for _ in range(3):
            assert refusal(upstream) == "tls"
        assert net.stats.failures == {"tls": 3}
        assert upstream.resting
        assert server.queries == []

    def test_other_authorities_are_not(self, net: Net, ca: trustme.CA) -> None:
        upstream = net.upstream(self.server(net, trustme.CA()).port, "tls", "127.0.0.1")
        assert refusal(upstream) == "tls"


def test_an_unknown_error_of_the_reply_is_not_swallowed(net: Net) -> None:
    """A bug while a reply is read is no upstream's fault: it shows."""
    upstream: Any = net.udp(good)[1]
    upstream._send = lambda _question, _query, _timeout: None
    with pytest.raises(TypeError):
        upstream.ask(KEY, SECONDS)
