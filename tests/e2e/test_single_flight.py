"""Many who ask the same thing at the same moment cost the upstream one query."""

from contextlib import ExitStack

import dns.message

from tests.support.client import TcpClient, addresses, ask, extended_errors, query, rcode, udp_socket
from tests.support.processes import Heimdall, Launcher, eventually
from tests.support.upstream import Upstream, silent

NAME = "cold.example.com"
CLIENTS = 300


def wait_for_waiting(server: Heimdall, number: int) -> None:
    """Wait until ``number`` queries wait for one answer: a query in flight may not have come so far yet."""
    server.wait_for_metric("coalesced_queries_total", number - 1)
    assert server.metric("inflight_queries") == number


def test_hundreds_of_clients_at_once_are_one_query_and_all_are_answered(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    gate = upstream.hold(NAME)
    server = heimdall("--upstream-timeout", "4")
    spellings = ("cold.example.com", "COLD.example.com", "cold.EXAMPLE.com")
    with ExitStack() as stack:
        sockets = [stack.enter_context(udp_socket(server.address)) for _ in range(CLIENTS)]
        for number, sock in enumerate(sockets):
            sock.send(query(spellings[number % 3], id=number).to_wire())
        wait_for_waiting(server, CLIENTS)
        gate.set()
        answers = [dns.message.from_wire(sock.recv(65535)) for sock in sockets]
    assert [answer.id for answer in answers] == list(range(CLIENTS))
    assert [each.question[0].name.to_text() for each in answers[:3]] == [f"{name}." for name in spellings]
    assert all(addresses(answer) == ["192.0.2.1"] for answer in answers)
    assert upstream.count(NAME) == 1


def test_different_questions_do_not_wait_for_each_other(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    upstream.add(NAME, "AAAA", "2001:db8::1")
    gate = upstream.hold(NAME)
    server = heimdall("--upstream-timeout", "4")
    questions = [query(NAME), query(NAME, "AAAA"), query(NAME, want_dnssec=True), query(NAME, rdclass="HS")]
    with udp_socket(server.address) as sock:
        for question in questions:
            sock.send(question.to_wire())
        eventually(lambda: upstream.count(NAME) == len(questions))
        gate.set()
        answered = {dns.message.from_wire(sock.recv(65535)).id for _ in questions}
    assert answered == {question.id for question in questions}
    assert server.metric("coalesced_queries_total") == 0


def test_waiters_that_vanish_disturb_nobody(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    gate = upstream.hold(NAME)
    server = heimdall("--upstream-timeout", "4")
    with udp_socket(server.address) as leader:
        leader.send(query(NAME).to_wire())
        eventually(lambda: upstream.count(NAME) == 1)
    with TcpClient(server.address) as impatient:
        impatient.send(query(NAME), query(NAME, id=7))
        wait_for_waiting(server, 3)
    with udp_socket(server.address) as waiter, udp_socket(server.address) as patient:
        waiter.send(query(NAME).to_wire())
        patient.send(query(NAME).to_wire())
        wait_for_waiting(server, 5)
        waiter.close()
        gate.set()
        assert addresses(dns.message.from_wire(patient.recv(65535))) == ["192.0.2.1"]
    server.wait_for_metric("inflight_queries", 0)
    assert upstream.count(NAME) == 1
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]


def test_a_failure_reaches_everybody_who_waits(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.on(NAME, silent)
    limits = ("--query-timeout", "1", "--upstream-timeout", "0.8", "--serve-stale", "0")
    server = heimdall(*limits)
    with udp_socket(server.address) as sock:
        for number in range(20):
            sock.send(query(NAME, id=number).to_wire())
        answers = [dns.message.from_wire(sock.recv(65535)) for _ in range(20)]
    assert {answer.id for answer in answers} == set(range(20))
    assert {rcode(answer) for answer in answers} == {"SERVFAIL"}
    assert upstream.count(NAME) <= 2  # the attempts of one flight


def test_an_uncacheable_answer_is_shared_by_those_who_waited_and_by_nobody_after(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=0)
    gate = upstream.hold(NAME)
    server = heimdall("--upstream-timeout", "4")
    with udp_socket(server.address) as sock:
        for number in range(10):
            sock.send(query(NAME, id=number).to_wire())
        wait_for_waiting(server, 10)
        gate.set()
        answers = [dns.message.from_wire(sock.recv(65535)) for _ in range(10)]
    assert all(addresses(answer) == ["192.0.2.1"] for answer in answers)
    assert upstream.count(NAME) == 1
    answer = ask(server.address, NAME)
    assert (addresses(answer), extended_errors(answer)) == (["192.0.2.1"], [])
    assert upstream.count(NAME) == 2
