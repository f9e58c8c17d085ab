"""What a query upstream has that nobody can foretell, and what a reply must give back of it."""

from collections.abc import Iterable, Iterator

import dns.message
import dns.rcode
import pytest

from tests.conformance.replies import question_in
from tests.support.client import addresses
from tests.support.processes import Heimdall, Launcher
from tests.support.upstream import (
    SERVERS_HALF,
    Asked,
    Reaction,
    Sending,
    Upstream,
    answering,
    cookie_of,
    giving_cookies,
    in_another_case,
    wire_of,
    with_cookie,
)

TRUE, FORGED = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 66))


@pytest.fixture
def baker() -> Iterator[Upstream]:
    """An upstream that speaks DNS cookies, and is another one for every test, as it is remembered what one does."""
    with Upstream() as server:
        server.reaction = giving_cookies
        yield server


@pytest.fixture
def asking(launch: Launcher, baker: Upstream) -> Iterator[Heimdall]:
    server = launch("--upstream-servers", baker.address)
    yield server
    server.stop()


def over_udp(forge: Reaction) -> Reaction:
    """React so over UDP, with another address than the true one, and well over TCP."""

    def react(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if asked.transport == "tcp":
            return answering(asked, answer)
        return [Sending(sending.wire.replace(TRUE, FORGED)) for sending in forge(asked, answer)]

    return react


def test_nobody_can_foretell_a_query(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 5452, section 9.2: id, port and the case of letters are drawn at random for every query."""
    for number in range(20):
        server.ask(f"n{number}.{name}")
    asked = [one for one in upstream.asked if one.name.endswith(f".{name}")]
    assert len(asked) == 20
    assert len({one.message.id for one in asked}) > 17
    assert len({question_in(one.wire)[-17:] for one in asked}) > 15


def test_a_reply_that_looks_forged_is_asked_for_over_tcp(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 5452, section 9.3: a reply with the question in another case is dropped, and the question asked over TCP."""
    upstream.add(name, "A", "192.0.2.1")
    upstream.on(name, over_udp(in_another_case))
    for _ in ("miss", "hit"):
        assert addresses(server.ask(name)) == ["192.0.2.1"]
    assert [one.transport for one in upstream.questions(name)] == ["udp", "tcp"]


def test_a_query_has_a_cookie(asking: Heimdall, baker: Upstream, name: str) -> None:
    """RFC 7873, section 5.1: a query over UDP has a client cookie, and the server's as soon as there is one."""
    for number in range(3):
        asking.ask(f"n{number}.{name}")
    first, *others = [cookie_of(one) for one in baker.asked]
    assert len(first) == 8
    assert others == [first + SERVERS_HALF] * len(others)


@pytest.mark.parametrize("size", [16, 9], ids=["half", "size"])
def test_a_wrong_cookie_is_not_believed(asking: Heimdall, baker: Upstream, name: str, size: int) -> None:
    """RFC 7873, section 5.3: a reply with a wrong client cookie, or one of a wrong size, is discarded."""
    baker.add(name, "A", "192.0.2.1")
    baker.on(name, over_udp(lambda asked, answer: [with_cookie(asked, answer, bytes(size))]))
    assert addresses(asking.ask(name)) == ["192.0.2.1"]
    assert [one.transport for one in baker.questions(name)] == ["udp", "tcp"]


def test_a_missing_cookie_is_not_believed(asking: Heimdall, baker: Upstream, name: str) -> None:
    """RFC 7873, section 5.3: from a server that has given cookies, a reply without one is discarded."""
    asking.ask(f"first.{name}")
    baker.add(name, "A", "192.0.2.1")
    baker.on(name, over_udp(answering))
    assert addresses(asking.ask(name)) == ["192.0.2.1"]
    assert [one.transport for one in baker.questions(name)] == ["udp", "tcp"]


def test_a_bad_cookie_is_replaced(asking: Heimdall, baker: Upstream, name: str) -> None:
    """RFC 7873, section 5.3: after BADCOOKIE the new cookie is tried once, and then TCP."""

    def strict(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        cookie = cookie_of(asked)[:8] + b"the good"
        return [with_cookie(asked, answer, cookie, "" if cookie_of(asked) == cookie else "BADCOOKIE")]

    def never_content(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if asked.transport == "tcp":
            return answering(asked, answer)
        return [with_cookie(asked, answer, cookie_of(asked)[:8] + bytes(8), "BADCOOKIE")]

    for reaction, transports in ((strict, ["udp", "udp"]), (never_content, ["udp", "udp", "tcp"])):
        asked = f"n{len(transports)}.{name}"
        baker.add(asked, "A", "192.0.2.1")
        baker.on(asked, reaction)
        assert addresses(asking.ask(asked)) == ["192.0.2.1"]
        assert [one.transport for one in baker.questions(asked)] == transports


def test_a_server_that_cannot_read_cookies_is_asked_without(asking: Heimdall, baker: Upstream, name: str) -> None:
    """RFC 7873, section 4: to a server that calls the option a format error, the query goes without it."""

    def old(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if cookie_of(asked):
            answer.set_rcode(dns.rcode.FORMERR)
        return [Sending(wire_of(answer))]

    baker.reaction = old
    baker.add(name, "A", "192.0.2.1")
    assert addresses(asking.ask(name)) == ["192.0.2.1"]
    asking.ask(f"other.{name}")
    assert [len(cookie_of(one)) for one in baker.asked] == [8, 0, 0]
    assert {one.message.edns for one in baker.asked} == {0}


def test_no_two_servers_get_the_same_cookie(launch: Launcher, baker: Upstream, name: str) -> None:
    """RFC 9018, section 3: a client cookie is for one server, so that no two can tell by it that one client asks."""
    with Upstream() as other:
        zone = f"--forward-zones=other.test={other.address}"
        server = launch("--upstream-servers", baker.address, zone)
        server.ask(name)
        server.ask("www.other.test")
        assert cookie_of(baker.asked[0])[:8] != cookie_of(other.asked[0])[:8]
        server.stop()
