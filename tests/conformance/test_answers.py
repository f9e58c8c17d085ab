"""What Heimdall makes of its upstream's answers: aliases, wildcards, denials, lifetimes, and what was not asked for."""

import struct

import dns.message
import pytest

from tests.conformance.replies import SOA, assembled, replying
from tests.support import messages
from tests.support.client import addresses, exchange_bytes, rcode, ttl
from tests.support.messages import TO_QUESTION, record, soa_data, wire_name
from tests.support.processes import Heimdall, Launcher, eventually
from tests.support.upstream import Reaction, Upstream

ADDRESS = "@ 300 IN A 192.0.2.1"
CHAIN = (
    "@ 300 IN CNAME a.example.net.",
    "a.example.net. 200 IN CNAME b.example.org.",
    "b.example.org. 250 IN A 192.0.2.7",
)


def times_asked(server: Heimdall, upstream: Upstream, name: str, reaction: Reaction, rdtype: str = "A") -> int:
    """Return how often upstream is asked when a client asks three times."""
    upstream.on(name, reaction)
    for _ in range(3):
        server.ask(name, rdtype)
    return upstream.count(name)


def asked_again(server: Heimdall, upstream: Upstream, name: str) -> bool:
    """Have a client ask, and say whether upstream was asked more than once by now."""
    server.ask(name)
    return upstream.count(name) > 1


@pytest.mark.parametrize("order", [CHAIN, CHAIN[::-1]], ids=["in order", "in disorder"])
def test_a_chain_of_aliases_is_an_answer(
    server: Heimdall, upstream: Upstream, name: str, order: tuple[str, ...]
) -> None:
    """RFC 1034, section 3.6.2: an alias is followed to its end, and the whole chain is the answer."""
    assert times_asked(server, upstream, name, replying(*order)) == 1
    answer = server.ask(name)
    assert addresses(answer) == ["192.0.2.7"]
    assert len(answer.answer) == 3


def test_a_chain_lives_as_long_as_its_shortest_link(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1035, section 3.2.1: no record is kept for longer than its TTL, so that the least of a chain counts."""
    upstream.on(
        name, replying("@ 300 IN CNAME a.example.net.", "a.example.net. 1 IN CNAME b.test.", "b.test. 9 IN A 192.0.2.7")
    )
    server.ask(name)
    eventually(lambda: asked_again(server, upstream, name))


def test_an_alias_that_is_asked_for_is_not_followed(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1034, section 3.6.2: a query for CNAME is answered by the alias itself."""
    upstream.add(name, "CNAME", "a.example.net.")
    assert [rrset.rdtype for rrset in server.ask(name, "CNAME").answer] == [messages.CNAME]
    assert upstream.count("a.example.net") == 0


def test_the_target_of_an_alias_is_not_answered_from_the_alias(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 5.4.1: an answer is kept for the name that was asked for, not for those it passes by."""
    upstream.on(name, replying(f"@ 300 IN CNAME target.{name}.", f"target.{name}. 300 IN A 192.0.2.66"))
    upstream.on(f"target.{name}", replying(ADDRESS))
    server.ask(name)
    assert addresses(server.ask(f"target.{name}")) == ["192.0.2.1"]


def test_additional_and_authority_records_answer_nothing(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 5.4.1: additional data and authority data are never answers of their own."""
    authority, additional = [f"{name}. 300 IN NS ns.{name}."], [f"ns.{name}. 300 IN A 192.0.2.66"]
    upstream.on(name, replying(ADDRESS, authority=authority, additional=additional))
    upstream.on(f"ns.{name}", replying("@ 300 IN A 192.0.2.53"))
    answer = server.ask(name)
    assert len(answer.additional) == len(answer.authority) == 1
    assert addresses(server.ask(f"ns.{name}")) == ["192.0.2.53"]
    server.ask(name, "NS")
    assert upstream.count(name, "NS") == 1


@pytest.mark.parametrize(
    "answer",
    [
        ("other.example.com. 300 IN A 192.0.2.66",),
        (ADDRESS, "other.example.com. 300 IN A 192.0.2.66"),
        ("@ 300 IN CNAME a.example.net.", "b.example.net. 300 IN A 192.0.2.66"),
        (ADDRESS, SOA),
    ],
    ids=["nothing else", "beside the answer", "beside the chain", "a SOA"],
)
def test_what_was_not_asked_for_reaches_no_client(
    server: Heimdall, upstream: Upstream, name: str, answer: tuple[str, ...]
) -> None:
    """RFC 5452, section 6: an answer with records for another name is not believed, and the client gets SERVFAIL."""
    upstream.on(name, replying(*answer))
    found = server.ask(name)
    assert (rcode(found), found.answer) == ("SERVFAIL", [])


def test_the_next_server_is_asked_when_one_answers_what_was_not_asked(
    launch: Launcher, upstream: Upstream, name: str
) -> None:
    """RFC 5452, section 6: a server whose answer is not believed does not have the last word."""
    upstream.on(name, replying("other.example.com. 300 IN A 192.0.2.66"))
    with Upstream() as second:
        second.add(name, "A", "192.0.2.2")
        servers = f"{upstream.address},{second.address}"
        server = launch("--upstream-servers", servers, "--upstream-policy", "sequential")
        assert addresses(server.ask(name)) == ["192.0.2.2"]
        server.stop()


def test_a_redirection_of_a_subtree_is_passed_with_its_alias(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6672, section 3.1: DNAME comes with the CNAME made from it; both pass, for the one name that was asked."""
    for label in ("a", "b"):
        dname, cname = f"{name}. 300 IN DNAME example.net.", f"@ 300 IN CNAME {label}.example.net."
        upstream.on(f"{label}.{name}", replying(dname, cname, f"{label}.example.net. 300 IN A 192.0.2.7"))
        answer = server.ask(f"{label}.{name}")
        assert [rrset.rdtype for rrset in answer.answer] == [39, messages.CNAME, messages.A]
        server.ask(f"{label}.{name}")
        assert upstream.count(f"{label}.{name}") == 1


def test_a_name_grown_too_long_is_passed_and_not_kept(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6672, section 2.2: YXDOMAIN, for a name that a DNAME makes too long, reaches the client."""
    assert times_asked(server, upstream, name, replying(rcode="YXDOMAIN")) == 3
    assert rcode(server.ask(name)) == "YXDOMAIN"


def test_an_answer_made_from_a_wildcard_is_for_its_name_alone(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4592, section 3.3: what a wildcard answers is decided by its zone, name by name."""
    for label in ("a", "b", "*"):
        upstream.add(f"{label}.{name}", "A", "192.0.2.9")
        assert addresses(server.ask(f"{label}.{name}")) == ["192.0.2.9"]
        assert upstream.count(f"{label}.{name}") == 1
    assert rcode(server.ask(f"c.{name}")) == "NXDOMAIN"


def test_an_empty_non_terminal_denies_nothing_below_it(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8020, section 2: NODATA for a name without records says nothing of the names below it."""
    upstream.on(name, replying(authority=[SOA]))
    upstream.add(f"below.{name}", "A", "192.0.2.1")
    assert (rcode(server.ask(name)), server.ask(name).answer) == ("NOERROR", [])
    assert addresses(server.ask(f"below.{name}")) == ["192.0.2.1"]


@pytest.mark.parametrize("kind", ["NOERROR", "NXDOMAIN"])
def test_a_denial_is_kept_and_carries_its_soa(server: Heimdall, upstream: Upstream, name: str, kind: str) -> None:
    """RFC 2308, section 3: a denial's SOA is what it is kept by, and goes along in the authority section."""
    assert times_asked(server, upstream, name, replying(authority=[SOA], rcode=kind)) == 1
    answer = server.ask(name)
    assert (rcode(answer), answer.answer) == (kind, [])
    assert [rrset.rdtype for rrset in answer.authority] == [messages.SOA]


def test_nodata_is_for_one_type(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2308, section 2.2: NODATA denies one type and no other."""
    upstream.add(name, "A", "192.0.2.1")
    assert server.ask(name, "AAAA").answer == []
    assert addresses(server.ask(name, "A")) == ["192.0.2.1"]


@pytest.mark.parametrize("kind", ["NOERROR", "NXDOMAIN"])
def test_behind_an_alias_the_code_is_of_the_last_name(
    server: Heimdall, upstream: Upstream, name: str, kind: str
) -> None:
    """RFC 6604, section 3: the response code is of the last name of a chain, and the denial is kept with the chain."""
    reaction = replying("@ 300 IN CNAME a.example.com.", authority=[SOA], rcode=kind)
    assert times_asked(server, upstream, name, reaction) == 1
    answer = server.ask(name)
    assert (rcode(answer), [rrset.rdtype for rrset in answer.answer]) == (kind, [messages.CNAME])


def test_a_denial_behind_an_alias_lives_no_longer_than_the_alias(
    server: Heimdall, upstream: Upstream, name: str
) -> None:
    """RFC 2308, section 2.1: NXDOMAIN with an alias in the answer section is kept for the least of both."""
    upstream.on(name, replying("@ 1 IN CNAME a.example.com.", authority=[SOA], rcode="NXDOMAIN"))
    server.ask(name)
    eventually(lambda: asked_again(server, upstream, name))


@pytest.mark.parametrize(("soa_ttl", "minimum"), [(7, 300), (300, 7)])
def test_a_denial_lives_by_the_lesser_of_the_soas_ttl_and_minimum(
    server: Heimdall, upstream: Upstream, name: str, soa_ttl: int, minimum: int
) -> None:
    """RFC 2308, section 5: a denial's TTL is the lesser of its SOA's TTL and the SOA's minimum, and counts down."""
    soa = record(b"\0", messages.SOA, soa_ttl, soa_data(minimum))
    upstream.on(name, assembled(authority=[soa], rcode=3))
    assert ttl(server.ask(name)) == 7
    eventually(lambda: ttl(server.ask(name)) < 7)


def test_of_several_soas_the_least_counts(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2308, section 5: with several SOA records a denial lives by the shortest."""
    soas = [record(b"\0", messages.SOA, seconds, soa_data(seconds)) for seconds in (300, 5, 200)]
    upstream.on(name, assembled(authority=soas, rcode=3))
    assert {rrset.ttl for rrset in server.ask(name).authority} == {5}


@pytest.mark.parametrize("kind", ["NOERROR", "NXDOMAIN"])
def test_a_denial_without_a_soa_is_not_kept(server: Heimdall, upstream: Upstream, name: str, kind: str) -> None:
    """RFC 2308, section 5: a denial without a SOA in its authority section is not cached."""
    assert times_asked(server, upstream, name, replying(rcode=kind)) == 3


def test_a_soa_in_the_additional_section_keeps_no_denial(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2308, section 3: the SOA of a denial is in the authority section; elsewhere it denies nothing."""
    assert times_asked(server, upstream, name, replying(additional=[SOA], rcode="NXDOMAIN")) == 3


@pytest.mark.parametrize("zone", ["example.com.", "."], ids=["downward", "upward"])
def test_a_referral_is_no_answer(server: Heimdall, upstream: Upstream, name: str, zone: str) -> None:
    """RFC 2308, section 2.2: name servers without a SOA are a referral, not NODATA: a client gets SERVFAIL."""
    servers = [f"{zone} 300 IN NS ns.example.net."]
    upstream.on(name, replying(authority=servers, additional=["ns.example.net. 300 IN A 192.0.2.53"], flags="QR RD"))
    answer = server.ask(name)
    assert (rcode(answer), answer.authority) == ("SERVFAIL", [])


def test_ttls_count_down(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1035, section 6.1.3: a cached record's TTL is what is left of it."""
    upstream.add(name, "A", "192.0.2.1", ttl=300)
    assert ttl(server.ask(name)) == 300
    eventually(lambda: ttl(server.ask(name)) < 300)
    assert upstream.count(name) == 1


def test_an_answer_with_ttl_zero_is_for_this_query_alone(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1035, section 3.2.1: a record with TTL 0 is answered and not cached."""
    assert times_asked(server, upstream, name, replying("@ 0 IN A 192.0.2.1")) == 3
    assert ttl(server.ask(name)) == 0


@pytest.mark.parametrize("wire_ttl", [0x80000000, 0xFFFFFFFF])
def test_a_ttl_with_the_top_bit_set_is_zero(server: Heimdall, upstream: Upstream, name: str, wire_ttl: int) -> None:
    """RFC 2181, section 8: a TTL of 2^31 or more is taken as zero."""
    reaction = assembled(record(TO_QUESTION, messages.A, wire_ttl, bytes(4)))
    assert times_asked(server, upstream, name, reaction) == 3
    assert ttl(server.ask(name)) == 0


def test_the_longest_ttl_is_cut(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8767, section 4: a TTL that would outlive all sense is cut to the operator's bound."""
    upstream.on(name, assembled(record(TO_QUESTION, messages.A, 0x7FFFFFFF, bytes(4))))
    assert ttl(server.ask(name)) == 86400


def test_records_of_a_set_with_differing_ttls_expire_together(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2181, section 5.2: where the TTLs of a set differ, the set lives by the least."""
    upstream.on(name, assembled(*(record(TO_QUESTION, messages.A, ttl, bytes((192, 0, 2, ttl))) for ttl in (1, 9))))
    server.ask(name)
    eventually(lambda: asked_again(server, upstream, name))


def test_unknown_types_pass_octet_by_octet(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 3597, section 3: data of an unknown type is opaque, even where it looks like a compressed name."""
    data = bytes(range(256)) + b"\xc0\x0c\xc0\xff\x03www\x00"
    upstream.on(name, assembled(record(TO_QUESTION, 65280, 300, data)))
    for _ in ("miss", "hit"):
        assert exchange_bytes(server.address, messages.query(name, 65280)).endswith(struct.pack("!H", len(data)) + data)


def test_unknown_classes_pass_too(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 3597, section 3: an unknown class is a class like any other, with data of its own."""
    upstream.on(name, assembled(record(TO_QUESTION, 65280, 300, b"\xc0\xff", rclass=65280)))
    for _ in ("miss", "hit"):
        wire = exchange_bytes(server.address, messages.query(name, 65280, 65280))
        assert wire.endswith(b"\0\2\xc0\xff")
    assert upstream.count(name) == 1


def test_any_is_a_question_of_its_own(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8482, section 4: what ANY brings, be it one record, answers ANY and nothing else."""
    upstream.on(name, replying('@ 300 IN HINFO RFC8482 ""'))
    assert [rrset.rdtype for rrset in server.ask(name, "ANY").answer] == [13]
    upstream.on(name, replying(ADDRESS))
    assert addresses(server.ask(name)) == ["192.0.2.1"]
    assert [rrset.rdtype for rrset in server.ask(name, "ANY").answer] == [13]


def test_a_chain_without_an_end_is_passed_and_not_kept(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1034, section 4.3.2: a chain that upstream left open reaches the client, who may go on, and is not cached."""
    assert times_asked(server, upstream, name, replying("@ 300 IN CNAME a.example.net.")) == 3
    assert [rrset.rdtype for rrset in server.ask(name).answer] == [messages.CNAME]


def test_aliases_in_a_circle_do_no_harm(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1034, section 5.2.2: a circle of aliases is neither followed for ever nor kept."""
    circle = replying("@ 300 IN CNAME a.example.net.", "a.example.net. 300 IN CNAME @")
    assert times_asked(server, upstream, name, circle) == 3
    assert addresses(server.ask(name)) == []


def test_other_codes_are_passed_and_not_kept(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6895, section 2.3: a response code that denies nothing reaches the client and is not cached."""
    assert times_asked(server, upstream, name, replying(rcode="NOTAUTH")) == 3
    assert rcode(server.ask(name)) == "NOTAUTH"


def test_compression_holds_for_every_clients_spelling(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 1035, section 4.1.4: names that upstream compressed can be read in the answer to any spelling of the name."""
    zone = bytes((0xC0, 12 + wire_name(name)[0] + 1))
    soa = record(zone, messages.SOA, 300, soa_data(300, primary=b"\2ns" + zone, mailbox=TO_QUESTION))
    upstream.on(name, assembled(authority=[soa], rcode=3))
    for asked in (name, name.upper()):
        (rrset,) = dns.message.from_wire(exchange_bytes(server.address, messages.query(asked))).authority
        assert rrset.name.to_text().lower() == "example.com."
        assert rrset[0].mname.to_text().lower() == "ns.example.com."
        assert rrset[0].rname.to_text().lower() == f"{name}."
