"""What Heimdall believes of what comes back from an upstream server, and what of it never reaches a client."""

from collections.abc import Callable, Iterable

import dns.flags
import dns.message
import pytest

from tests.conformance.replies import assembled, question_in, replying
from tests.support import messages
from tests.support.client import TcpClient, addresses, exchange_bytes, extended_errors, flags, query, rcode
from tests.support.messages import TO_QUESTION, opt, record, soa_data, wire_name
from tests.support.processes import Heimdall, Launcher
from tests.support.upstream import HOST, Asked, Reaction, Sending, Upstream, altered, answering, failing, wire_of

ADDRESS = record(TO_QUESTION, messages.A, 300, bytes((192, 0, 2, 1)))
FORGED = bytes((192, 0, 2, 66))
COOKIE = 10


def forged_first(change: Callable[[bytearray], object], *, elsewhere: str = "") -> Reaction:
    """Send a changed answer with another address, and then the true one."""

    def react(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        true = wire_of(answer)
        forged = bytearray(true.replace(bytes((192, 0, 2, 1)), FORGED))
        assert forged != true
        change(forged)
        return [Sending(bytes(forged), elsewhere=elsewhere), Sending(true)]

    return react


def put(offset: int, value: int) -> Callable[[bytearray], None]:
    return lambda forged: forged.__setitem__(offset, value ^ forged[offset])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(put(0, 0xFF), id="id"),
        pytest.param(put(2, 0x80), id="a query"),
        pytest.param(put(2, 0x10), id="opcode"),
        pytest.param(put(14, 0x01), id="name"),
        pytest.param(put(5, 0x02), id="questions"),
    ],
)
def test_a_reply_that_does_not_match_is_ignored(
    server: Heimdall, upstream: Upstream, name: str, change: Callable[[bytearray], object]
) -> None:
    """RFC 5452, section 9.1: id, question and kind of message match the query, or a reply is ignored."""
    upstream.add(name, "A", "192.0.2.1")
    upstream.on(name, forged_first(change))
    assert addresses(server.ask(name)) == ["192.0.2.1"]


@pytest.mark.parametrize(("offset", "bits"), [(1, 1), (3, 2)], ids=["type", "class"])
def test_a_reply_to_another_type_or_class_is_ignored(
    server: Heimdall, upstream: Upstream, name: str, offset: int, bits: int
) -> None:
    """RFC 5452, section 9.1: the type and the class of a reply's question match the query's."""
    upstream.add(name, "A", "192.0.2.1")
    upstream.on(name, forged_first(put(12 + len(wire_name(name)) + offset, bits)))
    assert addresses(server.ask(name)) == ["192.0.2.1"]


@pytest.mark.parametrize("elsewhere", [HOST, "127.0.0.2"], ids=["port", "address"])
def test_a_reply_from_elsewhere_is_ignored(server: Heimdall, upstream: Upstream, name: str, elsewhere: str) -> None:
    """RFC 5452, section 9.1: a reply comes from the address and port that were asked."""
    upstream.add(name, "A", "192.0.2.1")
    upstream.on(name, forged_first(lambda _: None, elsewhere=elsewhere))
    assert addresses(server.ask(name)) == ["192.0.2.1"]


def test_a_reply_may_spell_the_name_in_another_case(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4343, section 3: a server that spells the question in another case is understood, over TCP."""
    upstream.add(name, "A", "192.0.2.1")

    def shout(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        wire = bytearray(wire_of(answer))
        wire[12 : 12 + len(name)] = wire[12 : 12 + len(name)].upper()
        return [Sending(bytes(wire))]

    upstream.on(name, shout)
    assert addresses(server.ask(name)) == ["192.0.2.1"]


@pytest.mark.parametrize("target", [0, 11, 400, 13], ids=["header", "end of the header", "forward", "inside a label"])
@pytest.mark.parametrize("place", ["owner", "alias", "name server", "mail exchange", "SOA"])
def test_a_compression_pointer_that_cannot_be_followed_reaches_no_client(
    server: Heimdall, upstream: Upstream, name: str, target: int, place: str
) -> None:
    """RFC 1035, section 4.1.4: pointers are to a prior name; into the header, ahead or in circles, they are refused."""
    pointer = (0xC000 | target).to_bytes(2, "big")
    broken = {
        "owner": record(pointer, messages.TXT, 300, b"\1x"),
        "alias": record(TO_QUESTION, messages.CNAME, 300, pointer),
        "name server": record(TO_QUESTION, messages.NS, 300, b"\2ns" + pointer),
        "mail exchange": record(TO_QUESTION, messages.MX, 300, b"\0\1" + pointer),
        "SOA": record(TO_QUESTION, messages.SOA, 300, soa_data(1, mailbox=pointer)),
    }
    upstream.on(name, assembled(ADDRESS, additional=[broken[place]]))
    answer = server.ask(name)
    assert (rcode(answer), answer.answer) == ("SERVFAIL", [])


def test_pointers_in_a_circle_reach_no_client(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1035, section 4.1.4: a name whose pointers lead back to itself is refused, at once."""
    here = 12 + len(messages.question(name))
    upstream.on(name, assembled(record(b"\1a" + (0xC000 | here).to_bytes(2, "big"), messages.A, 300, bytes(4))))
    assert rcode(server.ask(name)) == "SERVFAIL"


def test_a_name_that_compression_makes_too_long_reaches_no_client(
    server: Heimdall, upstream: Upstream, name: str
) -> None:
    """RFC 1035, section 3.1: a name has 255 octets at most, compressed or not."""
    long = (b"\x3f" + b"x" * 63) * 3 + b"\x30" + b"y" * 48 + TO_QUESTION
    upstream.on(name, assembled(record(TO_QUESTION, messages.CNAME, 300, long)))
    assert rcode(server.ask(name)) == "SERVFAIL"


@pytest.mark.parametrize(
    ("rtype", "data"),
    [(messages.A, bytes(3)), (messages.AAAA, bytes(4)), (messages.CNAME, b"\0\0"), (messages.MX, b"\0")],
)
def test_data_of_the_wrong_size_reaches_no_client(
    server: Heimdall, upstream: Upstream, name: str, rtype: int, data: bytes
) -> None:
    """RFC 1035, section 3.3: an address has four octets; data that is not what its type says is refused."""
    upstream.on(name, assembled(record(TO_QUESTION, rtype, 300, data)))
    answer = server.ask(name)
    assert (rcode(answer), answer.answer) == ("SERVFAIL", [])


@pytest.mark.parametrize("rtype", [249, 250, 251, 255], ids=["TKEY", "TSIG", "IXFR", "ANY"])
def test_a_record_of_a_meta_type_reaches_no_client(server: Heimdall, upstream: Upstream, name: str, rtype: int) -> None:
    """RFC 6895, section 3.1: a record of a meta-type is about one message, so that none is kept or passed on."""
    upstream.on(name, assembled(ADDRESS, additional=[record(b"\0", rtype, 0, bytes(16), rclass=255)]))
    assert rcode(server.ask(name)) == "SERVFAIL"


@pytest.mark.parametrize(
    "reaction",
    [
        pytest.param(assembled(ADDRESS, tail=b"\0"), id="octets after the end"),
        pytest.param(assembled(ADDRESS[:-1]), id="record cut short"),
        pytest.param(assembled(ADDRESS, additional=[b""]), id="a record less than counted"),
    ],
)
def test_a_reply_that_is_not_whole_reaches_no_client(
    server: Heimdall, upstream: Upstream, name: str, reaction: Reaction
) -> None:
    """RFC 1035, section 4.1: a message is its header, its question and as many records as it counts, and ends there."""
    upstream.on(name, reaction)
    answer = server.ask(name)
    assert (rcode(answer), answer.answer) == ("SERVFAIL", [])


@pytest.mark.parametrize(
    "reaction",
    [
        pytest.param(assembled(ADDRESS, additional=[opt(), opt()]), id="twice"),
        pytest.param(assembled(ADDRESS, opt()), id="in the answer"),
        pytest.param(assembled(ADDRESS, authority=[opt()]), id="in the authority"),
    ],
)
def test_a_reply_with_opt_twice_or_misplaced_is_refused(
    server: Heimdall, upstream: Upstream, name: str, reaction: Reaction
) -> None:
    """RFC 6891, section 6.1.1: a message has one OPT at most, in its additional section."""
    upstream.on(name, reaction)
    assert rcode(server.ask(name)) == "SERVFAIL"


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_upstreams_opt_stays_with_it(server: Heimdall, upstream: Upstream, name: str, place: str) -> None:
    """RFC 6891, section 6.1.1: OPT is neither cached nor forwarded: nothing of upstream's reaches a client."""
    mine = opt(udp_size=4000, dnssec_ok=True, options=messages.option(10, bytes(16)) + messages.option(65001, b"x"))
    glue = record(TO_QUESTION, messages.TXT, 300, b"\1x")
    upstream.on(name, assembled(ADDRESS, additional=[mine, glue] if place == "first" else [glue, mine]))
    for _ in ("miss", "hit"):
        answer = server.ask(name)
        assert (addresses(answer), answer.options, answer.payload) == (["192.0.2.1"], (), 1232)
        assert not answer.ednsflags
        assert server.ask(name, use_edns=False).edns == -1


@pytest.mark.parametrize("rcode_text", ["FORMERR", "NOTIMP"])
def test_a_server_that_knows_no_edns_is_asked_without(launch: Launcher, name: str, rcode_text: str) -> None:
    """RFC 6891, section 6.2.2: a server that answers a query with OPT by an error without one is asked without."""

    def old(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if asked.message.edns < 0:
            return answering(asked, answer)
        return [Sending(altered(next(iter(failed(asked, answer))), lambda reply: reply.use_edns(False)))]

    def failed(asked: Asked, answer: dns.message.Message) -> list[dns.message.Message]:
        return [dns.message.from_wire(sending.wire) for sending in failing(rcode_text)(asked, answer)]

    with Upstream() as ancient:
        ancient.add(name, "A", "192.0.2.1")
        ancient.reaction = old
        server = launch("--upstream-servers", ancient.address)
        assert addresses(server.ask(name)) == ["192.0.2.1"]
        assert [asked.message.edns for asked in ancient.questions(name)] == [0, 0, -1]
        server.stop()


def test_a_truncated_reply_is_asked_for_again_over_tcp(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 9: what a reply with TC holds is ignored, and the question asked again over TCP."""
    upstream.add(name, "A", *(f"192.0.2.{number}" for number in range(200)))

    def cut(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if asked.transport == "tcp":
            return answering(asked, answer)
        return replying("@ 300 IN A 192.0.2.66", flags="QR TC RD RA")(asked, answer)

    upstream.on(name, cut)
    for _ in ("miss", "hit"):
        assert len(addresses(server.ask(name, transport="tcp"))) == 200
    assert (upstream.count(name, transport="udp"), upstream.count(name, transport="tcp")) == (1, 1)


def test_a_reply_truncated_over_tcp_is_no_answer(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 9: a reply with TC is not the whole answer, over TCP either: it is neither kept nor passed."""
    upstream.on(name, replying("@ 300 IN A 192.0.2.66", flags="QR TC RD RA"))
    answer = server.ask(name)
    assert (rcode(answer), answer.answer) == ("SERVFAIL", [])


@pytest.mark.parametrize("size", [65535, 65534, 60000])
def test_an_answer_of_64_kib_is_whole_over_tcp(server: Heimdall, upstream: Upstream, name: str, size: int) -> None:
    """RFC 1035, section 4.2.2: over TCP a message has up to 65,535 octets."""
    data = bytes(size - 12 - len(messages.question(name)) - 12)
    large = assembled(record(TO_QUESTION, 65280, 300, data))

    def react(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        return (large if asked.transport == "tcp" else replying(flags="QR TC RD RA"))(asked, answer)

    upstream.on(name, react)
    for _ in ("miss", "hit"):
        with TcpClient(server.address) as connection:
            connection.send(messages.query(name, 65280))
            answer = connection.receive()
            assert "TC" not in flags(answer)
            assert answer.answer[0][0].to_wire() == data
    assert "TC" in flags(server.ask(name, "TYPE65280"))


@pytest.mark.parametrize("code", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
def test_a_server_that_would_or_could_not_answer_is_servfail(
    server: Heimdall, upstream: Upstream, name: str, code: str
) -> None:
    """RFC 1035, section 4.1.1: to a client every failure upstream is SERVFAIL, a failure of its resolver."""
    upstream.on(name, failing(code))
    assert rcode(server.ask(name)) == "SERVFAIL"


@pytest.mark.parametrize("code", [16, 23], ids=["BADVERS", "BADCOOKIE"])
def test_an_extended_code_of_the_hop_stays_with_it(server: Heimdall, upstream: Upstream, name: str, code: int) -> None:
    """RFC 6891, section 6.1.3: an extended response code is about one hop's OPT, and is SERVFAIL on the next."""
    upstream.on(name, assembled(additional=[opt(extended_rcode=code >> 4)], rcode=code & 15))
    assert rcode(server.ask(name)) == "SERVFAIL"


def test_upstreams_extended_error_reaches_clients_that_speak_edns(
    server: Heimdall, upstream: Upstream, name: str
) -> None:
    """RFC 8914, section 3: the reason that upstream gives for a failure is passed on, to who sent OPT."""
    reason = messages.option(messages.EXTENDED_ERROR, b"\0\x07expired")
    upstream.on(name, assembled(additional=[opt(options=reason)], rcode=2))
    assert extended_errors(server.ask(name)) == [7]
    assert server.ask(name, use_edns=False).edns == -1


def test_queries_are_what_a_stub_sends(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1034, section 5.3.1: who forwards asks for recursion, with its client's question and nothing else of it."""
    server.ask(name.upper(), flags=dns.flags.RD | dns.flags.AA, id=7, payload=512)
    (asked,) = upstream.questions(name)
    assert {"RD"} <= flags(asked.message) <= {"RD", "AD"}
    assert question_in(asked.wire).lower() == messages.question(name)
    assert (asked.message.payload, [option.otype for option in asked.message.options]) == (1232, [COOKIE])


def test_one_connection_carries_queries_in_flight(launch: Launcher, name: str) -> None:
    """RFC 7766, section 6.2.1: queries to a server over TCP share a connection, and are answered as they finish."""
    with Upstream() as upstream:
        upstream.add(f"slow.{name}", "A", "192.0.2.1")
        upstream.add(f"fast.{name}", "A", "192.0.2.2")
        server = launch("--upstream-servers", f"tcp://{upstream.address}")
        server.ask(f"first.{name}")
        gate = upstream.hold(f"slow.{name}")
        with TcpClient(server.address) as client:
            slow, fast = query(f"slow.{name}"), query(f"fast.{name}")
            client.send(slow, fast)
            assert client.receive().id == fast.id
            gate.set()
            assert client.receive().id == slow.id
        assert {asked.connection for asked in upstream.asked} == {1}
        server.stop()


def test_what_upstream_sends_late_or_twice_harms_nobody(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 5452, section 9.1: a reply counts once, while its query is outstanding."""

    def twice(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        true = wire_of(answer)
        return [Sending(true), Sending(true.replace(bytes((192, 0, 2, 1)), FORGED))]

    upstream.add(name, "A", "192.0.2.1")
    upstream.on(name, twice)
    for _ in range(3):
        assert FORGED not in exchange_bytes(server.address, messages.query(name))
