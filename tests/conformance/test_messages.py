"""Header, question, names and sizes of messages between a client and Heimdall."""

import struct

import dns.message
import dns.name
import pytest

from tests.conformance.replies import replying
from tests.support import messages
from tests.support.client import TcpClient, addresses, exchange, exchange_bytes, extended_errors, flags, query, rcode
from tests.support.messages import TO_QUESTION
from tests.support.processes import Heimdall, Launcher
from tests.support.upstream import Upstream

LABEL = b"\x3f" + b"x" * 63
LONGEST = LABEL * 3 + b"\x3d" + b"y" * 61 + b"\0"
"""A name of 255 octets."""

SILENCE = "silence"


def code_of(server: Heimdall, wire: bytes) -> str:
    """Return the response code of the answer to ``wire``; ``SILENCE`` when a query sent after it is answered first."""
    good = messages.query(".", messages.NS, messages.CH, message_id=0xBEEF)  # refused at once
    answer = exchange_bytes(server.address, wire, good)
    return SILENCE if answer[:2] == b"\xbe\xef" else rcode(dns.message.from_wire(answer, ignore_trailing=True))


def test_the_answer_comes_from_the_address_that_was_asked(launch: Launcher, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 4.1: a UDP answer leaves by the address that its query came to."""
    upstream.on(name, replying("@ 300 IN A 192.0.2.1"))
    everywhere = launch("--bind-addr", "0.0.0.0:0")
    asked = ("127.0.0.2", everywhere.address[1])
    assert addresses(exchange(asked, query(name))) == ["192.0.2.1"]  # a miss, whose answer comes later, and a hit
    assert addresses(exchange(asked, query(name))) == ["192.0.2.1"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_id_and_rd_come_back_and_flags_are_a_caching_resolvers(
    server: Heimdall, upstream: Upstream, name: str, transport: str
) -> None:
    """RFC 1035, section 4.1.1: id and RD are the query's; QR and RA are set; AA and TC are not."""
    upstream.on(name, replying("@ 300 IN A 192.0.2.1", flags="QR AA RD RA"))
    for number in (0, 1, 65535):
        answer = server.ask(name, id=number, transport=transport)
        assert (answer.id, flags(answer)) == (number, {"QR", "RD", "RA"})
    assert flags(server.ask(name, flags=0, transport=transport)) == {"QR", "RA"}


def test_the_question_comes_back_to_the_octet(server: Heimdall, name: str) -> None:
    """RFC 1035, section 4.1.2: the question of the answer is the question of the query."""
    for asked in (name, name.upper(), name.title()):
        wire = messages.query(asked, messages.AAAA)
        answer = exchange_bytes(server.address, wire)
        assert answer[12 : len(wire)] == wire[12:]


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_an_opcode_other_than_query_is_notimp(server: Heimdall, upstream: Upstream, name: str, opcode: int) -> None:
    """RFC 1035, section 4.1.1: a kind of query that is not supported is answered NOTIMP with its own opcode."""
    answer = exchange_bytes(server.address, messages.query(name, flags=opcode << 11))
    assert (answer[3] & 0x0F, answer[2] >> 3 & 0x0F) == (4, opcode)
    assert upstream.count(name) == 0


def test_a_response_is_not_answered(server: Heimdall, name: str) -> None:
    """RFC 1035, section 7.3: what is not a query gets no answer, or two servers would answer each other for ever."""
    assert code_of(server, messages.query(name, flags=messages.QR | messages.RD)) == SILENCE


@pytest.mark.parametrize("size", [0, 2, 11])
def test_less_than_a_header_is_not_answered(server: Heimdall, name: str, size: int) -> None:
    """RFC 1035, section 4.1: without a whole header there is nothing to answer."""
    assert code_of(server, messages.query(name)[:size]) == SILENCE


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(messages.query("example.com")[:-1], id="question cut short"),
        pytest.param(messages.query("example.com") + b"\0", id="an octet after the end"),
        pytest.param(messages.assemble(messages.question("example.com"), flags=0, questions=0), id="no question"),
        pytest.param(messages.query("example.com", additional=[b"\0\0\x29"]), id="record cut short"),
    ],
)
def test_a_message_that_is_not_whole_is_a_format_error(server: Heimdall, wire: bytes) -> None:
    """RFC 1035, section 4.1.1: a query that cannot be interpreted is answered FORMERR."""
    assert code_of(server, wire) == "FORMERR"


@pytest.mark.parametrize("section", ["answer", "authority"])
def test_records_in_a_querys_answer_or_authority_are_a_format_error(server: Heimdall, name: str, section: str) -> None:
    """RFC 1035, section 4.1: a standard query has no answer and no authority."""
    record = messages.record(TO_QUESTION, messages.A, 0, bytes(4))
    sections = {section: [record]}
    wire = messages.assemble(messages.question(name), flags=messages.RD, **sections)  # type: ignore[arg-type]
    assert code_of(server, wire) == "FORMERR"


def test_two_questions_are_a_format_error(server: Heimdall) -> None:
    """RFC 9619, section 4: a query has one question at most; more are FORMERR."""
    asked = messages.question("example.com") * 2
    assert code_of(server, messages.assemble(asked, flags=messages.RD, questions=2)) == "FORMERR"


@pytest.mark.parametrize("target", [0, 12, 14], ids=["into the header", "to itself", "forward"])
def test_a_compressed_question_is_a_format_error(server: Heimdall, target: int) -> None:
    """RFC 1035, section 4.1.4: a pointer is to a prior name, and nothing is prior to the question."""
    asked = bytes((0xC0, target)) + b"\0\1\0\1"
    assert code_of(server, messages.assemble(asked, flags=messages.RD)) == "FORMERR"


@pytest.mark.parametrize("first", [0x40, 0x80, 0xBF])
def test_a_label_type_that_is_not_in_use_is_a_format_error(server: Heimdall, first: int) -> None:
    """RFC 6891, section 5: the label types 01 and 10 are not in use."""
    asked = bytes((first,)) + bytes(70)
    assert code_of(server, messages.assemble(asked, flags=messages.RD)) == "FORMERR"


def test_the_longest_name_is_answered(server: Heimdall, upstream: Upstream) -> None:
    """RFC 1035, section 2.3.4: names have up to 255 octets, labels up to 63."""
    wire = messages.assemble(LONGEST + b"\0\1\0\1", flags=messages.RD)
    for _ in ("miss", "hit"):
        assert rcode(dns.message.from_wire(exchange_bytes(server.address, wire))) == "NXDOMAIN"
    asked = [one for one in upstream.asked if LONGEST.lower() in one.wire.lower()]
    assert len(asked) == 1


def test_a_longer_name_is_a_format_error(server: Heimdall) -> None:
    """RFC 1035, section 3.1: a name has 255 octets at most."""
    asked = LABEL * 3 + b"\x3e" + b"y" * 62 + b"\0"
    assert code_of(server, messages.assemble(asked + b"\0\1\0\1", flags=messages.RD)) == "FORMERR"


def test_the_root_is_a_name(server: Heimdall) -> None:
    """RFC 1034, section 3.1: the root's name is the empty label alone."""
    answer = server.ask(".", "NS")
    assert rcode(answer) == "NOERROR"
    assert answer.question[0].name.to_text() == "."


def test_a_name_is_any_octets(server: Heimdall, upstream: Upstream) -> None:
    """RFC 2181, section 11: any octets are a label, and names are told apart by all of them."""
    for number, label in enumerate((r"a\.b", r"\000", r"\255\032", "a_b", "-", r"\001\192\012")):
        name = f"{label}.octets.example.com"
        upstream.add(name, "A", f"192.0.2.{number}")
        for _ in ("miss", "hit"):
            assert addresses(server.ask(name)) == [f"192.0.2.{number}"]
        assert upstream.count(name) == 1


def test_case_makes_no_difference(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4343, section 3: names that differ in the case of ASCII letters are one name."""
    upstream.add(name, "A", "192.0.2.1")
    for asked in (name, name.upper(), name.title()):
        assert addresses(server.ask(asked)) == ["192.0.2.1"]
    assert upstream.count(name) == 1


def test_only_the_case_of_letters_is_folded(server: Heimdall, upstream: Upstream) -> None:
    """RFC 4343, section 3: octets other than ASCII letters have no case."""
    for pair in ((0xC1, 0xE1), (0x5B, 0x7B), (0x40, 0x60), (0x00, 0x20)):
        for octet in pair:
            name = dns.name.Name([bytes((octet,)), b"folding", b"example", b""]).to_text()
            upstream.add(name.removesuffix("."), "A", f"192.0.2.{octet}")
            assert addresses(server.ask(name)) == [f"192.0.2.{octet}"]


def test_types_and_classes_are_told_apart(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1035, section 3.2.4: an answer is for the type and class that were asked for."""
    upstream.add(name, "A", "192.0.2.1")
    upstream.add(name, "CAA", '0 issue "ca.example"')  # 257: A with another first octet
    assert addresses(server.ask(name)) == ["192.0.2.1"]
    assert [rrset.rdtype for rrset in server.ask(name, "CAA").answer] == [257]
    assert server.ask(name, "TXT").answer == []
    for rdclass in ("HS", "CLASS257"):
        server.ask(name, "A", rdclass=rdclass)
    assert len(upstream.questions(name)) == 5


@pytest.mark.parametrize("state", ["miss", "hit"])
def test_without_edns_an_answer_has_512_octets_at_most(
    server: Heimdall, upstream: Upstream, name: str, state: str
) -> None:
    """RFC 1035, section 4.2.1: over UDP a message has 512 octets at most; a longer one is cut and TC says so."""
    upstream.add(name, "A", *(f"192.0.2.{number}" for number in range(100)))
    if state == "hit":
        server.ask(name, transport="tcp")
    wire = exchange_bytes(server.address, messages.query(name))
    assert len(wire) <= 512
    assert "TC" in flags(dns.message.from_wire(wire))


def test_what_a_truncated_answer_holds_is_whole_records(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 9: an answer with TC holds no more than it says, and TCP has the rest."""
    upstream.add(name, "A", *(f"192.0.2.{number}" for number in range(100)))
    cut, whole = server.ask(name, use_edns=False), server.ask(name, use_edns=False, transport="tcp")
    assert set(addresses(cut)) < set(addresses(whole))
    assert len(addresses(whole)) == 100
    assert "TC" not in flags(whole)


def test_a_set_of_additional_records_is_whole_or_absent_and_no_truncation(
    server: Heimdall, upstream: Upstream, name: str
) -> None:
    """RFC 2181, section 9: TC is not set for additional records, of which no part of a set may be sent."""
    glue = [f"mail.example.com. 300 IN A 192.0.2.{number}" for number in range(50)]
    upstream.on(name, replying("@ 300 IN MX 10 mail.example.com.", additional=glue))
    answer = server.ask(name, "MX", payload=700)
    assert "TC" not in flags(answer)
    assert len(answer.answer) == 1
    assert answer.additional == []
    assert [len(rrset) for rrset in server.ask(name, "MX", payload=1232).additional] == [50]


def test_without_rd_the_cache_answers_and_nobody_is_asked(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1034, section 4.3.1: without RD the answer is local data; a miss is REFUSED."""
    upstream.add(name, "A", "192.0.2.1")
    assert rcode(server.ask(name, flags=0)) == "REFUSED"
    assert upstream.count(name) == 0
    server.ask(name)
    answer = server.ask(name, flags=0)
    assert (addresses(answer), flags(answer)) == (["192.0.2.1"], {"QR", "RA"})


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_zone_transfers_are_notimp(
    server: Heimdall, upstream: Upstream, name: str, rdtype: str, transport: str
) -> None:
    """RFC 5936, section 2.2.1: who serves no zone answers a transfer with an error."""
    assert rcode(server.ask(name, rdtype, transport=transport)) == "NOTIMP"
    assert upstream.count(name) == 0


def test_opt_is_no_type_to_ask_for(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6895, section 3.1: OPT is a meta-type and cannot be asked for."""
    assert rcode(server.ask(name, "OPT")) == "FORMERR"
    assert upstream.count(name) == 0


@pytest.mark.parametrize("asked", ["version.bind", "VERSION.SERVER", "id.server", "hostname.bind"])
def test_a_server_says_who_it_is_in_class_chaos(server: Heimdall, asked: str) -> None:
    """RFC 4892, section 2: ID.SERVER and the like are answered in class CH, with TTL 0."""
    (rrset,) = server.ask(asked, "TXT", rdclass="CH").answer
    assert rrset.ttl == 0
    assert rrset[0].strings[0]


def test_other_chaos_questions_are_refused(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4892, section 2: questions in class CH are for the server asked, and never passed on."""
    answer = server.ask(name, "TXT", rdclass="CH")
    assert rcode(answer) == "REFUSED"
    assert upstream.count(name) == 0


def test_who_may_not_ask_is_refused(launch: Launcher, name: str) -> None:
    """RFC 1035, section 4.1.1: who may not ask is told REFUSED, in no more octets than the query had."""
    server = launch("--allow-from", "192.0.2.0/24")
    wire = query(name, use_edns=0).to_wire()
    answer = exchange_bytes(server.address, wire)
    assert len(answer) <= len(wire)
    assert rcode(dns.message.from_wire(answer)) == "REFUSED"


def test_reserved_header_bits_are_ignored_and_not_copied(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8906, section 8.1.3: the reserved bit, AA, TC and RA in a query change nothing in its answer."""
    upstream.add(name, "A", "192.0.2.1")
    for bits in (0x0040, messages.AA, messages.TC, messages.RA):
        wire = exchange_bytes(server.address, messages.query(name, flags=messages.RD | bits))
        assert struct.unpack_from("!H", wire, 2)[0] == messages.QR | messages.RD | messages.RA
        assert addresses(dns.message.from_wire(wire)) == ["192.0.2.1"]


@pytest.mark.parametrize("rdtype", ["TYPE0", "TYPE666", "TYPE65280", "NULL", "TKEY"])
def test_a_query_for_any_type_is_answered(server: Heimdall, name: str, rdtype: str) -> None:
    """RFC 8906, section 8.1.2: a type that a server does not know is a type like any other."""
    assert rcode(server.ask(name, rdtype)) == "NXDOMAIN"


def test_every_kind_of_query_is_answered_over_tcp_as_over_udp(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7766, section 5: TCP answers what UDP answers."""
    upstream.add(name, "A", "192.0.2.1")
    for message in (
        query(name),
        query(name, use_edns=False),
        query(f"x.{name}", "AAAA", want_dnssec=True),
        query(name, "AXFR"),
        query(name, use_edns=1),
        query(f"y.{name}", flags=0),
        query("version.bind", "TXT", "CH"),
    ):
        with TcpClient(server.address) as connection:
            connection.send(message)
            over_tcp = connection.receive()
        over_udp = dns.message.from_wire(exchange_bytes(server.address, message.to_wire()))
        assert over_tcp == over_udp
        assert (over_tcp.flags, extended_errors(over_tcp)) == (over_udp.flags, extended_errors(over_udp))
