"""The choice among upstream servers, with name servers of its own on loopback."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import dns.message
import pytest

from heimdall_lib.errors import NoAnswerError
from heimdall_lib.reply import Kind
from heimdall_lib.settings import ForwardZone, UpstreamServer
from heimdall_lib.stats import Stats
from heimdall_lib.upstream.forwarder import Forwarder, ForwardingPlan
from heimdall_lib.upstream.server import Upstream
from tests.fakes import DatagramServer, address_in, ask, eventually, parsed, reply_to, unused_port

KEY = parsed().key
SECONDS = 15.0  # for a whole query, where a test does not say otherwise

Reply = Callable[[bytes], Sequence[bytes]]


def answering(address: str) -> Reply:
    return lambda query: [reply_to(query, f"@ 300 A {address}")]


def failing(rcode: int, ede: tuple[int, str] | None = None) -> Reply:
    return lambda query: [reply_to(query, rcode=rcode, edns=True, ede=ede)]


def silent(_query: bytes) -> Sequence[bytes]:
    return []


def malformed(query: bytes) -> Sequence[bytes]:
    return [reply_to(query, "@ 300 A 192.0.2.1")[:-1]]


def udp(port: int, host: str = "127.0.0.1") -> UpstreamServer:
    return UpstreamServer("udp", host, port)


def key(name: str) -> bytes:
    return parsed(ask(name)).key


_PATIENT = 1.5
"""Seconds after which a server that is well has answered, however busy the machine is."""


class Net:
    """Name servers and a forwarder to them."""

    def __init__(self) -> None:
        self.stats = Stats()
        self.servers: list[DatagramServer] = []
        self.forwarder = Forwarder(ForwardingPlan(()), self.stats)
        self.plan = ForwardingPlan((), policy="sequential", timeout=_PATIENT)

    def start(self, *replies: Reply, **changes: object) -> Sequence[DatagramServer]:
        """Start a server for each reply and make the forwarder go by all of them, in this order."""
        started = [DatagramServer(reply) for reply in replies]
        self.servers += started
        self.go_by(servers=tuple(udp(server.port) for server in started), **changes)
        return started

    def go_by(self, **changes: object) -> None:
        self.plan = replace(self.plan, **changes)  # type: ignore[arg-type]
        self.forwarder.configure(self.plan)

    def ask(self, question: bytes = KEY, seconds: float = SECONDS) -> str:
        """The address that is answered."""
        return address_in(self.forwarder.ask(question, time.monotonic() + seconds).message)

    def refusal(self, seconds: float = SECONDS) -> tuple[int, str]:
        with pytest.raises(NoAnswerError) as caught:
            self.forwarder.ask(KEY, time.monotonic() + seconds)
        return caught.value.code, caught.value.text

    def upstreams(self, question: bytes = KEY) -> Sequence[Upstream]:
        return self.forwarder.group(question).upstreams


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.forwarder.close()
    for server in made.servers:
        server.close()


class TestZones:
    ZONES = (
        ForwardZone("example", (udp(1),)),
        ForwardZone("corp.example", (udp(2),)),
        ForwardZone("deep.corp.example", (udp(3), udp(1))),
        ForwardZone("10.in-addr.arpa", (udp(4),)),
    )

    @pytest.fixture(autouse=True)
    def _zones(self, net: Net) -> None:
        net.go_by(servers=(udp(9),), zones=self.ZONES)

    @pytest.mark.parametrize(
        ("name", "ports"),
        [
            (".", [9]),
            ("com.", [9]),
            ("example.", [1]),
            ("EXAMPLE.", [1]),
            ("www.example.", [1]),
            ("corp.example.", [2]),
            ("www.corp.example.", [2]),
            ("wwwcorp.example.", [1]),
            ("corp.example.com.", [9]),
            ("a.b.deep.corp.example.", [3, 1]),
            ("deep.corp.example.", [3, 1]),
            ("notexample.", [9]),
            (r"corp\.example.", [9]),
            (r"a\007example.", [9]),
            ("1.0.0.10.in-addr.arpa.", [4]),
            ("1.0.0.110.in-addr.arpa.", [9]),
        ],
    )
    def test_the_longest_suffix_of_whole_labels_decides(self, net: Net, name: str, ports: list[int]) -> None:
        assert [upstream.server.port for upstream in net.upstreams(key(name))] == ports

    def test_type_do_and_cd_do_not_matter(self, net: Net) -> None:
        question = parsed(ask("www.corp.example.", "TYPE65280", do=True, flags=0x0110)).key
        assert [upstream.server.port for upstream in net.upstreams(question)] == [2]

    def test_without_zones_all_names_go_to_the_same_servers(self, net: Net) -> None:
        net.go_by(zones=())
        assert [upstream.server.port for upstream in net.upstreams(key("www.corp.example."))] == [9]

    def test_a_server_in_several_zones_is_one_server(self, net: Net) -> None:
        assert net.upstreams(key("example."))[0] is net.upstreams(key("deep.corp.example."))[1]

    def test_names_with_other_servers_have_other_views(self, net: Net) -> None:
        names = ("com.", "example.", "corp.example.", "deep.corp.example.")
        assert len({net.forwarder.view(key(name)) for name in names}) == 4

    def test_the_views_are_those_that_names_may_have(self, net: Net) -> None:
        names = ("com.", "example.", "corp.example.", "deep.corp.example.", "1.0.0.10.in-addr.arpa.")
        assert net.forwarder.views() == {net.forwarder.view(key(name)) for name in names}
        net.go_by(zones=())
        assert net.forwarder.views() == {net.forwarder.view(KEY)}

    def test_names_with_the_same_servers_share_a_view(self, net: Net) -> None:
        assert net.forwarder.view(key("a.example.")) == net.forwarder.view(key("b.example."))

    def test_a_view_tells_who_the_servers_are_not_their_order_or_policy(self, net: Net) -> None:
        before = net.forwarder.view(key("deep.corp.example."))
        net.go_by(zones=(ForwardZone("deep.corp.example", (udp(1), udp(3))),), policy="random", timeout=9.0)
        assert net.forwarder.view(key("deep.corp.example.")) == before
        net.go_by(zones=(ForwardZone("deep.corp.example", (udp(1), udp(3), udp(5))),))
        assert net.forwarder.view(key("deep.corp.example.")) != before

    def test_transport_and_tls_name_are_part_of_the_view(self, net: Net) -> None:
        views = set()
        for server in (
            udp(1),
            UpstreamServer("tcp", "127.0.0.1", 1),
            UpstreamServer("tls", "127.0.0.1", 1, "a.example"),
            UpstreamServer("tls", "127.0.0.1", 1, "b.example"),
        ):
            net.go_by(servers=(server,), zones=())
            views.add(net.forwarder.view(KEY))
        assert len(views) == 4


class TestPolicies:
    def test_sequential_asks_in_the_order_given(self, net: Net) -> None:
        first, second = net.start(answering("192.0.2.1"), answering("192.0.2.2"))
        net.upstreams()[0].round_trip = 1.0
        assert [net.ask() for _ in range(5)] == ["192.0.2.1"] * 5
        assert (len(first.queries), len(second.queries)) == (5, 0)

    def test_fastest_asks_the_quickest(self, net: Net) -> None:
        net.start(answering("192.0.2.1"), answering("192.0.2.2"), policy="fastest")
        net.upstreams()[0].round_trip = 1.0
        net.upstreams()[1].round_trip = 0.5
        assert net.ask() == "192.0.2.2"

    def test_fastest_tries_those_that_it_knows_nothing_of(self, net: Net) -> None:
        net.start(answering("192.0.2.1"), answering("192.0.2.2"), policy="fastest")
        assert {net.ask(), net.ask()} == {"192.0.2.1", "192.0.2.2"}

    def test_fastest_comes_back_to_a_slow_one_in_the_end(self, net: Net) -> None:
        net.start(answering("192.0.2.1"), answering("192.0.2.2"), policy="fastest")
        net.ask()
        net.ask()
        net.upstreams()[0].round_trip = 0.2
        eventually(lambda: net.ask() == "192.0.2.1")

    def test_random_asks_all(self, net: Net) -> None:
        net.start(answering("192.0.2.1"), answering("192.0.2.2"), policy="random")
        for wanted in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
            eventually(lambda wanted=wanted: net.ask() == wanted)  # type: ignore[misc]


class TestFailover:
    @pytest.mark.parametrize("rcode", [1, 2, 4, 5, 16, 23])
    def test_the_next_server_is_asked_after_an_error(self, net: Net, rcode: int) -> None:
        net.start(failing(rcode), answering("192.0.2.2"))
        assert net.ask() == "192.0.2.2"

    @pytest.mark.parametrize("bad", [silent, malformed])
    def test_the_next_server_is_asked_after_no_usable_answer(self, net: Net, bad: Reply) -> None:
        net.start(bad, answering("192.0.2.2"))
        assert net.ask() == "192.0.2.2"

    def test_the_next_server_is_asked_when_one_cannot_be_reached(self, net: Net) -> None:
        [good] = net.start(answering("192.0.2.2"))
        net.go_by(servers=(udp(unused_port()), udp(good.port)))
        assert net.ask() == "192.0.2.2"

    def test_a_server_that_refuses_is_not_asked_again(self, net: Net) -> None:
        first, second = net.start(failing(5), failing(2))
        assert net.refusal() == (22, "upstream rcode 2")
        assert (len(first.queries), len(second.queries)) == (1, 1)

    def test_a_server_that_does_not_answer_is_asked_three_times(self, net: Net) -> None:
        first, second = net.start(silent, failing(5), timeout=0.03)
        assert net.refusal() == (22, "upstream rcode 5")
        assert (len(first.queries), len(second.queries)) == (3, 1)

    def test_a_lost_datagram_costs_a_round_not_the_answer(self, net: Net) -> None:
        lost: list[bytes] = []

        def lossy(query: bytes) -> Sequence[bytes]:
            lost.append(query)
            return answering("192.0.2.1")(query) if len(lost) > 2 else []

        net.start(lossy, timeout=0.03)
        assert net.ask() == "192.0.2.1"

    @pytest.mark.parametrize("rcode", [0, 3])
    def test_a_negative_answer_is_an_answer(self, net: Net, rcode: int) -> None:
        _, second = net.start(lambda query: [reply_to(query, rcode=rcode)], answering("192.0.2.2"))
        reply = net.forwarder.ask(KEY, time.monotonic() + SECONDS)
        assert reply.kind is (Kind.NXDOMAIN if rcode else Kind.NODATA)
        assert second.queries == []

    def test_the_servers_own_explanation_is_handed_on(self, net: Net) -> None:
        net.start(failing(2, (9, "no DNSKEY")))
        assert net.refusal() == (9, "no DNSKEY")

    def test_the_last_explanation_counts(self, net: Net) -> None:
        net.start(failing(2, (9, "no DNSKEY")), failing(5))
        assert net.refusal() == (22, "upstream rcode 5")

    def test_nobody_reachable(self, net: Net) -> None:
        net.go_by(servers=(udp(unused_port()),))
        assert net.refusal() == (23, "upstream network")

    def test_nothing_that_can_be_read(self, net: Net) -> None:
        [server] = net.start(malformed)
        assert net.refusal() == (23, "upstream malformed")
        assert len(server.queries) == 1

    def test_nobody_answers(self, net: Net) -> None:
        net.start(silent, timeout=0.02)
        assert net.refusal() == (22, "no upstream server answered in time")


class TestDeadline:
    def test_it_is_kept_when_nobody_answers(self, net: Net) -> None:
        net.start(silent, silent, timeout=30.0)
        started = time.monotonic()
        assert net.refusal(seconds=0.2) == (22, "no upstream server answered in time")
        assert 0.2 <= time.monotonic() - started < 2

    def test_the_second_server_gets_what_is_left(self, net: Net) -> None:
        first, second = net.start(silent, silent, timeout=0.15)
        started = time.monotonic()
        net.refusal(seconds=0.25)
        assert 0.25 <= time.monotonic() - started < 2
        assert (len(first.queries), len(second.queries)) == (1, 1)

    def test_past_it_nobody_is_asked(self, net: Net) -> None:
        [server] = net.start(answering("192.0.2.1"))
        net.refusal(seconds=-1)
        assert net.stats.upstream(str(udp(server.port))).queries == 0


class TestResting:
    def let_rest(self, net: Net, server: DatagramServer, *others: DatagramServer) -> None:
        """Make a server fail until it rests."""
        net.go_by(servers=(udp(server.port),), timeout=0.02)
        net.refusal()
        assert net.upstreams()[0].resting
        eventually(lambda: len(server.queries) == net.upstreams()[0].describe()["queries"])
        net.go_by(servers=tuple(udp(each.port) for each in (server, *others)), timeout=_PATIENT)

    @pytest.mark.parametrize("policy", ["sequential", "fastest", "random"])
    def test_a_server_that_rests_is_asked_last(self, net: Net, policy: str) -> None:
        bad, good = net.start(silent, answering("192.0.2.2"))
        self.let_rest(net, bad, good)
        net.go_by(policy=policy)
        net.upstreams()[0].round_trip = 0.0
        asked = len(bad.queries)
        assert {net.ask() for _ in range(5)} == {"192.0.2.2"}
        assert len(bad.queries) == asked

    def test_it_is_asked_all_the_same_when_the_others_fail(self, net: Net) -> None:
        well: list[bool] = []
        bad, other = net.start(lambda query: answering("192.0.2.1")(query) if well else [], failing(5))
        self.let_rest(net, bad, other)
        well.append(True)
        assert net.ask() == "192.0.2.1"
        assert not net.upstreams()[0].resting

    def test_all_resting_says_whether_there_is_anyone_left(self, net: Net) -> None:
        bad, good = net.start(silent, answering("192.0.2.2"))
        assert not net.forwarder.all_resting(KEY)
        self.let_rest(net, bad, good)
        assert not net.forwarder.all_resting(KEY)
        net.go_by(servers=(udp(bad.port),))
        assert net.forwarder.all_resting(KEY)

    def test_a_zones_servers_may_rest_while_others_are_well(self, net: Net) -> None:
        bad, good = net.start(silent, answering("192.0.2.2"))
        self.let_rest(net, bad)
        net.go_by(servers=(udp(good.port),), zones=(ForwardZone("corp.example", (udp(bad.port),)),))
        assert net.forwarder.all_resting(key("www.corp.example."))
        assert not net.forwarder.all_resting(KEY)

    def test_a_probe_brings_it_back(self, net: Net) -> None:
        well: list[bool] = []
        [server] = net.start(lambda query: [reply_to(query, rcode=5)] if well else [])
        self.let_rest(net, server)
        well.append(True)
        asked = len(server.queries)

        def back() -> bool:
            net.forwarder.probe()
            return not net.upstreams()[0].resting

        eventually(back)
        assert len(server.queries) == asked + 1
        assert dns.message.from_wire(server.queries[-1]).question[0].to_text() == ". IN NS"

    def test_only_servers_that_rest_are_probed(self, net: Net) -> None:
        [server] = net.start(answering("192.0.2.1"))
        net.forwarder.probe()
        assert server.queries == []

    def test_a_probe_that_fails_waits_for_the_next_one(self, net: Net) -> None:
        [server] = net.start(silent)
        self.let_rest(net, server)
        asked = len(server.queries)

        def probed() -> bool:
            net.forwarder.probe()
            return len(server.queries) > asked

        eventually(probed)
        net.forwarder.probe()
        assert len(server.queries) == asked + 1
        assert net.upstreams()[0].resting


class TestConfigure:
    def test_a_server_that_stays_keeps_its_health(self, net: Net) -> None:
        first, second = net.start(answering("192.0.2.1"), answering("192.0.2.2"))
        net.ask()
        stays = net.upstreams()[0]
        net.go_by(servers=(udp(second.port),), zones=(ForwardZone("example", (udp(first.port),)),))
        assert net.upstreams(key("www.example."))[0] is stays
        assert stays.round_trip > 0
        assert net.stats.upstream(str(udp(first.port))).queries == 1

    def test_a_server_that_goes_takes_its_counters_with_it(self, net: Net) -> None:
        first, second = net.start(answering("192.0.2.1"), answering("192.0.2.2"))
        net.go_by(servers=(udp(second.port),))
        assert set(net.stats.upstreams) == {str(udp(second.port))}
        assert [each["server"] for each in net.forwarder.describe()] == [str(udp(second.port))]
        net.go_by(servers=(udp(first.port), udp(second.port)))
        assert net.stats.upstream(str(udp(first.port))).queries == 0

    def test_the_new_plan_counts_from_the_next_question_on(self, net: Net) -> None:
        first, second = net.start(answering("192.0.2.1"), answering("192.0.2.2"))
        assert net.ask() == "192.0.2.1"
        net.go_by(servers=(udp(second.port), udp(first.port)))
        assert net.ask() == "192.0.2.2"

    def test_zones_that_go_are_forgotten(self, net: Net) -> None:
        first, second = net.start(answering("192.0.2.1"), answering("192.0.2.2"))
        net.go_by(servers=(udp(first.port),), zones=(ForwardZone("com", (udp(second.port),)),))
        assert net.ask() == "192.0.2.2"
        net.go_by(zones=())
        assert net.ask() == "192.0.2.1"

    def test_a_question_under_way_is_not_disturbed_when_its_server_goes(self, net: Net) -> None:
        def reconfigures(query: bytes) -> Sequence[bytes]:
            net.go_by(servers=(udp(1),))
            return answering("192.0.2.1")(query)

        net.start(reconfigures, timeout=5.0)
        assert net.ask() == "192.0.2.1"

    def test_the_plans_udp_size_is_advertised(self, net: Net) -> None:
        [server] = net.start(answering("192.0.2.1"), udp_size=1400)
        net.ask()
        assert dns.message.from_wire(server.queries[0]).payload == 1400

    def test_what_the_servers_do_is_described_for_people(self, net: Net) -> None:
        net.start(silent, answering("192.0.2.2"))
        net.ask()
        first, second = sorted(net.forwarder.describe(), key=lambda each: bool(each["failures"]), reverse=True)
        assert (first["up"], first["queries"], first["failures"]) == (True, 1, {"timeout": 1})
        assert (second["up"], second["queries"], second["failures"]) == (True, 1, {})
        assert isinstance(second["round_trip_ms"], float)
        assert second["round_trip_ms"] > 0
