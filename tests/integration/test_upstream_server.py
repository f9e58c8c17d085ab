"""One upstream server: how it is asked, what its replies say of it, and how it is taken for down and up again."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
import trustme

from heimdall_lib.errors import UpstreamError
from heimdall_lib.reply import Kind
from heimdall_lib.settings import Transport, UpstreamServer
from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.server import Upstream
from tests.fakes import (
    PATIENCE,
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
COOKIE = 10
GOOD, FORGED = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 66))
SECONDS = 5.0

Reply = Callable[[bytes], bytes | None]


def good(query: bytes) -> bytes:
    return reply_to(query, "@ 300 A 192.0.2.1", edns=is_edns(query))


def is_edns(query: bytes) -> bool:
    return dns.message.from_wire(query).edns >= 0


def edns_of(query: bytes) -> str:
    """What a query has of EDNS: a cookie, OPT alone, or nothing."""
    message = dns.message.from_wire(query)
    return "cookie" if message.options else "OPT" if message.edns >= 0 else ""


def bare(query: bytes) -> bytes:
    """The query as it would be without proofs: its name in lower case, and no cookie."""
    message = dns.message.from_wire(query)
    message.use_edns(0, message.ednsflags, message.payload)
    wire = message.to_wire()
    return wire[:12] + wire[12:].lower()


def shouting(query: bytes) -> bytes:
    """A good reply whose question is in another case."""
    reply = good(query)
    return reply[:12] + bytes(octet ^ 0x20 if chr(octet).isalpha() else octet for octet in reply[12:28]) + reply[28:]


def with_cookie(query: bytes, cookie: bytes, rcode: int = 0) -> bytes:
    """A good reply, or an error, with a cookie."""
    message = dns.message.from_wire(good(query))
    message.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)])
    message.set_rcode(dns.rcode.Rcode(rcode))
    return message.to_wire()


def cookie_in(query: bytes) -> bytes:
    (option,) = dns.message.from_wire(query).options
    data: bytes = option.to_wire()
    return data


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

    def both(
        self, reply: Reply, serve: Callable[[bytes], bytes] = good
    ) -> tuple[DatagramServer, StreamServer, Upstream]:
        """A server that replies in one way over UDP, and in another over TCP."""
        while True:
            server, upstream = self.udp(reply)
            with contextlib.suppress(OSError):  # the port is somebody else's over TCP
                return server, self.tcp(serve, server.port), upstream

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
        assert (query.edns, query.payload, query.ednsflags) == (0, 1232, 0)
        assert [option.otype for option in query.options] == [COOKIE]
        assert [question.to_text().lower() for question in query.question] == ["www.example.com. in a"]

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
        server, stream, upstream = net.both(self.truncated)
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert len(server.queries) == 1
        assert stream.queries[0][2:] == bare(server.queries[0])[2:]
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
        _, stream, upstream = net.both(good)
        upstream.ask(KEY, SECONDS)
        assert stream.connections == 0


class TestServersWithoutEdns:
    def without_edns(self, rcode: int) -> Reply:
        return lambda query: reply_to(query, rcode=rcode) if is_edns(query) else good(query)

    @pytest.mark.parametrize("rcode", [1, 4])
    def test_they_are_asked_again_without_it(self, net: Net, rcode: int) -> None:
        server, upstream = net.udp(self.without_edns(rcode))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT", ""]
        assert net.stats.queries == 3
        assert net.stats.failures == {}

    def test_they_are_spared_it_from_then_on(self, net: Net) -> None:
        server, upstream = net.udp(self.without_edns(1))
        upstream.ask(KEY, SECONDS)
        upstream.ask(KEY, SECONDS)
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT", "", ""]

    def test_a_server_that_knows_it_and_says_formerr_means_it(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=1, edns=True))
        assert upstream.ask(KEY, SECONDS).rcode == 1
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT"]

    @pytest.mark.parametrize("rcode", [2, 5])
    def test_other_errors_have_nothing_to_do_with_it(self, net: Net, rcode: int) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=rcode))
        assert upstream.ask(KEY, SECONDS).rcode == rcode
        assert len(server.queries) == 1

    def test_a_server_that_says_formerr_either_way_is_asked_three_times_at_most(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=1))
        assert upstream.ask(KEY, SECONDS).rcode == 1
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT", ""]
        assert net.stats.failures == {"rcode": 1}

    def test_a_formerr_that_has_nothing_to_do_with_edns_costs_no_other_query_its_edns(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: reply_to(query, rcode=1))
        upstream.ask(KEY, SECONDS)
        upstream.ask(KEY, SECONDS)
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT", ""] * 2

    @pytest.mark.parametrize("rcode", [1, 4])
    def test_servers_that_answer_with_a_header_alone_are_asked_again_without_it(self, net: Net, rcode: int) -> None:
        def header_alone(query: bytes) -> bytes:
            return query[:2] + bytes((0x80, rcode)) + bytes(8)

        server, upstream = net.udp(lambda query: header_alone(query) if is_edns(query) else good(query))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT", ""]

    def test_such_a_server_may_repeat_the_case_of_the_questions_that_it_can_read(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: query[:2] + b"\x80\1" + bytes(8) if is_edns(query) else good(query))
        for _ in range(10):
            assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        upstream._plain_until = 0.0
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [edns_of(query) for query in server.queries[-3:]] == ["cookie", "OPT", ""]
        assert net.stats.failures == {}

    def test_all_tries_have_one_timeout(self, net: Net) -> None:
        _, upstream = net.udp(lambda query: reply_to(query, rcode=1) if is_edns(query) else None)
        started = time.monotonic()
        assert refusal(upstream, 0.2) == "timeout"
        assert 0.2 <= time.monotonic() - started < 2


class TestCase:
    def test_a_reply_in_another_case_is_not_believed_and_tcp_is_asked(self, net: Net) -> None:
        server, stream, upstream = net.both(lambda query: shouting(query).replace(GOOD, FORGED))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [query[2:] for query in stream.queries] == [bare(query)[2:] for query in server.queries]
        assert net.stats.failures == {"case": 1}

    def test_a_server_that_never_repeats_it_is_asked_over_udp_again_soon(self, net: Net) -> None:
        server, stream, upstream = net.both(shouting)
        with Lines("heimdall.upstream") as lines:
            for _ in range(6):
                assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert (len(server.queries), len(stream.queries)) == (6, 2)
        assert server.queries[-1][12:28] == b"\3www\7example\3com"
        assert len(list(lines)) == 1
        assert upstream.describe()["lower_case"]

    def test_without_tcp_such_a_server_answers_at_the_third_attempt(self, net: Net) -> None:
        _, upstream = net.udp(shouting)
        assert [refusal(upstream), refusal(upstream)] == ["timeout", "timeout"]
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert not upstream.resting

    def test_where_tcp_is_silent_such_a_server_costs_no_whole_timeout(self, net: Net) -> None:
        over = Event()

        def late(query: bytes) -> bytes:
            over.wait(PATIENCE)
            return good(query)

        _, _, upstream = net.both(shouting, late)
        net.stack.callback(over.set)
        started = time.monotonic()
        assert [refusal(upstream, 4.5), refusal(upstream, 0.3)] == ["timeout", "timeout"]
        assert time.monotonic() - started < 4.5
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"

    def test_every_attempt_has_a_case_of_its_own(self, net: Net) -> None:
        server, _, upstream = net.both(good)
        for _ in range(20):
            upstream.ask(KEY, SECONDS)
        assert len({query[12:28] for query in server.queries}) > 15
        assert not upstream.describe()["lower_case"]

    def test_what_is_kept_does_not_show_it(self, net: Net) -> None:
        _, _, upstream = net.both(good)
        assert len({upstream.ask(KEY, SECONDS).message for _ in range(20)}) == 1

    def test_a_server_that_is_asked_over_tcp_is_asked_in_lower_case_and_without_a_cookie(self, net: Net) -> None:
        server = net.tcp(good)
        net.upstream(server.port, "tcp").ask(KEY, SECONDS)
        assert server.queries[0][2:] == bare(server.queries[0])[2:]
        assert is_edns(server.queries[0])


class TestCookies:
    def test_the_servers_half_is_sent_back(self, net: Net) -> None:
        halves = iter([bytes(8), b"another8", b"and a third, longer"])
        server, upstream = net.udp(lambda query: with_cookie(query, cookie_in(query)[:8] + next(halves)))
        for _ in range(3):
            assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        client = cookie_in(server.queries[0])
        assert [cookie_in(query) for query in server.queries] == [client, client + bytes(8), client + b"another8"]
        assert upstream.describe()["cookies"]

    def test_every_server_gets_another_clients_half(self, net: Net) -> None:
        servers = [net.udp(good) for _ in range(2)]
        for _, upstream in servers:
            upstream.ask(KEY, SECONDS)
        assert len({cookie_in(server.queries[0]) for server, _ in servers}) == 2

    def test_a_reply_with_a_wrong_one_is_not_believed(self, net: Net) -> None:
        _, _, upstream = net.both(lambda query: with_cookie(query, bytes(16)).replace(GOOD, FORGED))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert net.stats.failures == {"cookie": 1}

    def test_nor_is_one_without_from_a_server_that_gave_one_before(self, net: Net) -> None:
        gives = [True]
        _, stream, upstream = net.both(
            lambda query: with_cookie(query, cookie_in(query)[:8] + bytes(8)) if gives else good(query)
        )
        upstream.ask(KEY, SECONDS)
        gives.clear()
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert (len(stream.queries), net.stats.failures) == (1, {"cookie": 1})

    def test_with_a_bad_cookie_the_one_that_comes_with_the_error_is_sent(self, net: Net) -> None:
        def strict(query: bytes) -> bytes:
            cookie = cookie_in(query)[:8] + b"the good"
            return with_cookie(query, cookie, 0 if cookie_in(query) == cookie else 23)

        server, upstream = net.udp(strict)
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [len(cookie_in(query)) for query in server.queries] == [8, 16]
        assert net.stats.failures == {}

    def test_where_no_cookie_is_good_tcp_needs_none(self, net: Net) -> None:
        server, stream, upstream = net.both(lambda query: with_cookie(query, cookie_in(query)[:8] + bytes(8), 23))
        assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert (len(server.queries), [edns_of(query) for query in stream.queries]) == (2, ["OPT"])

    def test_a_server_that_cannot_read_one_is_spared_it(self, net: Net) -> None:
        server, upstream = net.udp(
            lambda query: reply_to(query, rcode=1, edns=True) if edns_of(query) == "cookie" else good(query)
        )
        for _ in range(2):
            assert address_in(upstream.ask(KEY, SECONDS).message) == "192.0.2.1"
        assert [edns_of(query) for query in server.queries] == ["cookie", "OPT", "OPT"]
        assert not upstream.describe()["cookies"]

    def test_a_server_that_gives_one_with_formerr_means_it(self, net: Net) -> None:
        server, upstream = net.udp(lambda query: with_cookie(query, cookie_in(query)[:8] + bytes(8), 1))
        assert upstream.ask(KEY, SECONDS).rcode == 1
        assert len(server.queries) == 1


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
            "cookies": False,
            "lower_case": False,
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
    upstream._send = lambda _question, _bits, _edns, _timeout: None
    with pytest.raises(TypeError):
        upstream.ask(KEY, SECONDS)
