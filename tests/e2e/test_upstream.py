"""How Heimdall asks its upstreams: what it believes, which way it goes, and what it does when they fail."""

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trustme

from tests.support.client import addresses, extended_errors, flags, query, rcode, ttl, udp_socket
from tests.support.processes import Launcher, eventually, free_port
from tests.support.upstream import (
    HOST,
    Asked,
    Reaction,
    Sending,
    Upstream,
    altered,
    answering,
    failing,
    hanging_up,
    in_turn,
    late,
    sending,
    silent,
    wire_of,
)

NAME = "www.example.com"
TLS_NAME = "dns.example"
BRISK = ("--upstream-timeout", "0.4", "--upstream-policy", "sequential", "--failure-ttl", "0")


@pytest.fixture
def second() -> Iterator[Upstream]:
    with Upstream() as server:
        server.add(NAME, "A", "192.0.2.2")
        yield server


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_upstream(authority: trustme.CA) -> Iterator[Upstream]:
    """An upstream whose certificate is for ``TLS_NAME``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(TLS_NAME).configure_cert(context)
    with Upstream(tls=context) as server:
        server.add(NAME, "A", "192.0.2.3")
        yield server


@pytest.fixture
def trust(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """The environment in which the authority is trusted."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}


def forged(answer: dns.message.Message, change: Callable[[dns.message.Message], object]) -> bytes:
    """Return an answer with another address in which ``change`` was made."""

    def alter(message: dns.message.Message) -> None:
        owner = message.question[0].name.to_text()
        message.answer = [dns.rrset.from_text(owner, 300, "IN", "A", "192.0.2.66")]
        change(message)

    return altered(answer, alter)


def asks_something_else(name: str, rdtype: str) -> Callable[[dns.message.Message], object]:
    def change(message: dns.message.Message) -> None:
        message.question = query(name, rdtype).question

    return change


def unchanged(_message: dns.message.Message) -> None:
    pass


FORGERIES: dict[str, Callable[[dns.message.Message], Sending]] = {
    "wrong id": lambda answer: Sending(forged(answer, lambda one: setattr(one, "id", one.id ^ 1))),
    "wrong name": lambda answer: Sending(forged(answer, asks_something_else("wwx.example.com", "A"))),
    "wrong type": lambda answer: Sending(forged(answer, asks_something_else(NAME, "AAAA"))),
    "no question": lambda answer: Sending(forged(answer, lambda one: one.question.clear())),
    "not a response": lambda answer: Sending(
        forged(answer, lambda one: setattr(one, "flags", one.flags & ~dns.flags.QR))
    ),
    "wrong port": lambda answer: Sending(forged(answer, unchanged), elsewhere=HOST),
    "wrong address": lambda answer: Sending(forged(answer, unchanged), elsewhere="127.0.0.2"),
    "too short": lambda answer: Sending(wire_of(answer)[:11]),
    "empty": lambda _: Sending(b""),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_what_is_no_reply_to_the_query_is_ignored_until_the_reply_comes(
    heimdall: Launcher, upstream: Upstream, forge: Callable[[dns.message.Message], Sending]
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    upstream.on(NAME, lambda _, answer: [forge(answer), forge(answer), Sending(wire_of(answer), after=0.1)])
    server = heimdall("--upstream-timeout", "4")
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    assert upstream.count(NAME) == 1


def test_a_reply_that_comes_twice_does_no_harm(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    upstream.reaction = lambda _, answer: [Sending(wire_of(answer)), Sending(wire_of(answer))]
    server = heimdall()
    for number in range(5):
        assert rcode(server.ask(f"n{number}.example.com")) == "NXDOMAIN"
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]


def test_a_truncated_reply_is_asked_again_over_tcp(heimdall: Launcher, upstream: Upstream) -> None:
    wanted = sorted(f"198.51.100.{number}" for number in range(200))
    upstream.add(NAME, "A", *wanted)
    server = heimdall()
    assert addresses(server.ask(NAME, transport="tcp")) == wanted
    assert [asked.transport for asked in upstream.questions(NAME)] == ["udp", "tcp"]


def test_over_tcp_one_connection_carries_many_queries_and_answers_as_they_come(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add("slow.example.com", "A", "192.0.2.1")
    upstream.add("fast.example.com", "A", "192.0.2.2")
    gate = upstream.hold("slow.example.com")
    server = heimdall("--upstream-servers", f"tcp://{upstream.address}", "--upstream-timeout", "4")
    with udp_socket(server.address) as client:
        client.send(query("slow.example.com", id=1).to_wire())
        eventually(lambda: upstream.count("slow.example.com"))
        for number in range(20):
            assert rcode(server.ask(f"n{number}.example.com")) == "NXDOMAIN"
        assert addresses(server.ask("fast.example.com")) == ["192.0.2.2"]
        gate.set()
        assert addresses(dns.message.from_wire(client.recv(65535))) == ["192.0.2.1"]
    assert upstream.connections == 1
    assert {asked.transport for asked in upstream.asked} == {"tcp"}


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_connection_that_the_upstream_closed_costs_no_query(
    heimdall: Launcher, tls_upstream: Upstream, trust: dict[str, str], scheme: str
) -> None:
    port = tls_upstream.tls_port if scheme == "tls" else tls_upstream.port
    name = f"#{TLS_NAME}" if scheme == "tls" else ""
    server = heimdall("--upstream-servers", f"{scheme}://{HOST}:{port}{name}", env=trust)
    for number in range(4):
        assert rcode(server.ask(f"n{number}.example.com")) == "NXDOMAIN"
        tls_upstream.drop_connections()
    assert 2 <= tls_upstream.connections <= 4
    assert server.metric("responses_total", rcode="SERVFAIL") == 0


def test_a_connection_that_dies_under_a_query_is_not_the_end_of_it(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--upstream-servers", f"tcp://{upstream.address}")
    server.ask("first.example.com")
    upstream.on(NAME, in_turn(hanging_up))
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]


def test_over_tls_the_certificate_is_checked_and_the_connection_kept(
    heimdall: Launcher, tls_upstream: Upstream, trust: dict[str, str]
) -> None:
    server = heimdall("--upstream-servers", f"tls://{HOST}:{tls_upstream.tls_port}#{TLS_NAME}", env=trust)
    assert addresses(server.ask(NAME)) == ["192.0.2.3"]
    for number in range(20):
        assert rcode(server.ask(f"n{number}.example.com")) == "NXDOMAIN"
    assert tls_upstream.connections == 1
    assert {asked.transport for asked in tls_upstream.asked} == {"tls"}


def test_over_tls_queries_are_pipelined(heimdall: Launcher, tls_upstream: Upstream, trust: dict[str, str]) -> None:
    tls_upstream.add("slow.example.com", "A", "192.0.2.1")
    gate = tls_upstream.hold("slow.example.com")
    server = heimdall("--upstream-servers", f"tls://{HOST}:{tls_upstream.tls_port}#{TLS_NAME}", env=trust)
    server.ask("first.example.com")
    with udp_socket(server.address) as client:
        client.send(query("slow.example.com").to_wire())
        eventually(lambda: tls_upstream.count("slow.example.com"))
        assert addresses(server.ask(NAME)) == ["192.0.2.3"]
        gate.set()
        assert addresses(dns.message.from_wire(client.recv(65535))) == ["192.0.2.1"]
    assert tls_upstream.connections == 1


@pytest.mark.parametrize(
    ("tls_name", "trusted"),
    [("other.example", True), (HOST, True), (TLS_NAME, False)],
    ids=["name", "address", "issuer"],
)
def test_a_certificate_that_does_not_prove_the_name_is_worth_nothing(
    heimdall: Launcher, tls_upstream: Upstream, trust: dict[str, str], tls_name: str, trusted: bool
) -> None:
    server = heimdall(
        "--upstream-servers", f"tls://{HOST}:{tls_upstream.tls_port}#{tls_name}", env=trust if trusted else None
    )
    answer = server.ask(NAME)
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [23])
    assert tls_upstream.asked == []
    assert server.metric("upstream_failures_total", reason="tls") >= 1


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        (silent, "timeout"),
        (failing("SERVFAIL"), "rcode"),
        (failing("REFUSED"), "rcode"),
        (failing("NOTIMP"), "rcode"),
        (sending(b"\0" * 400), "timeout"),
        (lambda _, answer: [Sending(wire_of(answer) + b"trailing")], "malformed"),
    ],
    ids=["silence", "SERVFAIL", "REFUSED", "NOTIMP", "noise", "malformed"],
)
def test_the_next_server_is_asked_when_one_fails(
    heimdall: Launcher, upstream: Upstream, second: Upstream, reaction: Reaction, reason: str
) -> None:
    upstream.on(NAME, reaction)
    server = heimdall("--upstream-servers", f"{upstream.address},{second.address}", *BRISK)
    assert addresses(server.ask(NAME)) == ["192.0.2.2"]
    assert upstream.count(NAME) >= 1
    assert server.metric("upstream_failures_total", server=f"udp://{upstream.address}", reason=reason) >= 1
    assert server.metric("upstream_failures_total", server=f"udp://{second.address}") == 0


@pytest.mark.parametrize("scheme", ["udp", "tcp", "tls"])
def test_the_next_server_is_asked_when_a_port_is_closed(heimdall: Launcher, second: Upstream, scheme: str) -> None:
    server = heimdall("--upstream-servers", f"{scheme}://{HOST}:{free_port()},{second.address}", *BRISK)
    started = time.monotonic()
    assert addresses(server.ask(NAME)) == ["192.0.2.2"]
    assert time.monotonic() - started < 2
    assert server.metric("upstream_failures_total", reason="network") == 1


def test_nxdomain_is_an_answer_and_nobody_else_is_asked(
    heimdall: Launcher, upstream: Upstream, second: Upstream
) -> None:
    server = heimdall("--upstream-servers", f"{upstream.address},{second.address}", *BRISK)
    assert rcode(server.ask(NAME)) == "NXDOMAIN"
    assert second.asked == []


def test_a_lost_datagram_is_sent_again(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    upstream.on(NAME, in_turn(silent))
    server = heimdall(*BRISK)
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    first, again = upstream.questions(NAME)
    assert first.message.id != again.message.id or first.source != again.source


def test_a_server_that_knows_no_edns_is_asked_without(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")

    def without_edns(asked: Asked, answer: dns.message.Message) -> list[Sending]:
        if asked.message.edns < 0:
            return [Sending(wire_of(answer))]
        answer.use_edns(False)
        answer.answer.clear()
        answer.set_rcode(dns.rcode.FORMERR)
        return [Sending(wire_of(answer))]

    upstream.reaction = without_edns
    server = heimdall()
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    server.ask("other.example.com")
    assert [asked.message.edns for asked in upstream.asked] == [0, 0, -1, -1]


def test_aliases_pass_and_the_shortest_ttl_bounds_the_answer(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add("alias.example.com", "CNAME", "www.example.net.", ttl=300)
    upstream.add("www.example.net", "A", "192.0.2.1", ttl=1)
    server = heimdall("--prefetch", "false")
    answer = server.ask("alias.example.com")
    assert [rrset.ttl for rrset in answer.answer] == [300, 1]
    # A second later the whole answer has expired, however long its first record would live.
    eventually(lambda: ttl(server.ask("alias.example.com")) == 300 and upstream.count("alias.example.com") == 2)


def test_a_zone_goes_to_its_own_servers_and_the_longest_suffix_wins(
    heimdall: Launcher, upstream: Upstream, second: Upstream
) -> None:
    with Upstream() as third:
        for server, address in ((upstream, "192.0.2.1"), (second, "192.0.2.2"), (third, "192.0.2.3")):
            server.reaction = answer_with(address)
        zones = f"corp.example={second.address},eu.corp.example={third.address}"
        asking = heimdall("--forward-zones", zones)
        expected = {
            "www.example": "192.0.2.1",
            "example": "192.0.2.1",
            "corp.example": "192.0.2.2",
            "www.corp.example": "192.0.2.2",
            "WWW.Corp.Example": "192.0.2.2",
            "notcorp.example": "192.0.2.1",
            "corp.example.com": "192.0.2.1",
            "eu.corp.example": "192.0.2.3",
            "a.b.c.eu.corp.example": "192.0.2.3",
            "neu.corp.example": "192.0.2.2",
        }
        assert {name: addresses(asking.ask(name)) for name in expected} == {n: [a] for n, a in expected.items()}


def answer_with(address: str) -> Reaction:
    def react(asked: Asked, _answer: dns.message.Message) -> list[Sending]:
        response = dns.message.make_response(asked.message)
        response.answer.append(dns.rrset.from_text(asked.name + ".", 300, "IN", "A", address))
        return [Sending(wire_of(response))]

    return react


def test_a_zone_with_dead_servers_does_not_fall_back_to_the_others(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add("www.corp.example", "A", "192.0.2.66")
    server = heimdall("--forward-zones", f"corp.example={HOST}:{free_port()}")
    assert rcode(server.ask("www.corp.example")) == "SERVFAIL"
    assert upstream.count("www.corp.example") == 0


def test_a_server_that_fails_again_and_again_rests_until_it_answers_a_probe(
    heimdall: Launcher, upstream: Upstream, second: Upstream
) -> None:
    label = f"udp://{upstream.address}"
    server = heimdall("--upstream-servers", f"{upstream.address},{second.address}", *BRISK)
    upstream.reaction = silent
    assert server.metric("upstream_up", server=label) == 1
    for number in range(3):
        assert rcode(server.ask(f"n{number}.example.com")) == "NXDOMAIN"
    assert server.metric("upstream_up", server=label) == 0
    server.wait_for_line(f"upstream {label} rests")
    started = time.monotonic()
    for number in range(5):
        server.ask(f"resting{number}.example.com")
        assert upstream.count(f"resting{number}.example.com") == 0
    assert time.monotonic() - started < 2
    assert server.get("/readyz").status == 200

    upstream.reaction = answering
    server.wait_for_metric("upstream_up", 1, server=label)
    server.wait_for_line(f"upstream {label} answers again")
    server.ask("back.example.com")
    assert upstream.count("back.example.com") == 1


def test_a_fast_server_is_preferred_to_a_slow_one(heimdall: Launcher, upstream: Upstream, second: Upstream) -> None:
    upstream.reaction = late(0.15)
    server = heimdall("--upstream-servers", f"{upstream.address},{second.address}")
    for number in range(30):
        server.ask(f"n{number}.example.com")
    assert len(second.asked) > 20
    assert len(upstream.asked) >= 1  # it must be tried to know


@pytest.mark.parametrize("policy", ["sequential", "random"])
def test_the_policy_decides_who_is_asked_first(
    heimdall: Launcher, upstream: Upstream, second: Upstream, policy: str
) -> None:
    server = heimdall("--upstream-servers", f"{upstream.address},{second.address}", "--upstream-policy", policy)
    for number in range(40):
        server.ask(f"n{number}.example.com")
    assert bool(second.asked) == (policy == "random")
    assert upstream.asked
    assert len(upstream.asked) + len(second.asked) == 40


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_with_every_server_silent_servfail_comes_within_the_query_timeout(
    heimdall: Launcher, upstream: Upstream, second: Upstream, transport: str
) -> None:
    upstream.reaction = second.reaction = silent
    limits = ("--query-timeout", "1", "--upstream-timeout", "0.4", "--serve-stale", "0")
    server = heimdall("--upstream-servers", f"{upstream.address},{second.address}", *limits)
    started = time.monotonic()
    answer = server.ask(NAME, transport=transport)
    assert time.monotonic() - started < 2
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22])
    assert "RA" in flags(answer)
    assert upstream.count(NAME) >= 1
    assert second.count(NAME) >= 1


def test_with_every_port_closed_servfail_comes_at_once(heimdall: Launcher) -> None:
    servers = f"{HOST}:{free_port()},tcp://{HOST}:{free_port()}"
    server = heimdall("--upstream-servers", servers)
    started = time.monotonic()
    answer = server.ask(NAME)
    assert time.monotonic() - started < 2
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [23])


def assert_unforeseen(values: Sequence[int]) -> None:
    """Assert what numbers drawn at random fail to have once in 1e9 runs, if there are 40 of them or more."""
    assert len(set(values)) > 0.9 * len(values)
    steps = [after - before for before, after in pairwise(values)]
    assert len(set(steps)) > 0.9 * len(steps)
    assert max(values) - min(values) > 30000


def test_ids_cannot_be_guessed(heimdall: Launcher, upstream: Upstream) -> None:
    server = heimdall()
    for number in range(200):
        server.ask(f"n{number}.example.com")
    assert len(upstream.asked) >= 200
    assert_unforeseen([asked.message.id for asked in upstream.asked])


def test_source_ports_cannot_be_guessed(heimdall: Launcher, upstream: Upstream) -> None:
    server = heimdall()
    for number in range(40):
        server.ask(f"n{number}.example.com")
        time.sleep(0.06)  # queries of one moment, 50 ms, share a port
    ports = [asked.source[1] for asked in upstream.asked]
    assert len(ports) >= 40
    assert min(ports) >= 1024
    assert_unforeseen(ports)
