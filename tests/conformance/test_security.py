"""DNSSEC and signed messages, as far as they concern a forwarder that does not validate."""

from collections.abc import Iterable

import dns.flags
import dns.message
import pytest

from tests.conformance.replies import SOA, assembled, replying
from tests.support import messages
from tests.support.client import addresses, exchange_bytes, flags, rcode
from tests.support.messages import TO_QUESTION, opt, record, wire_name
from tests.support.processes import Heimdall
from tests.support.upstream import Asked, Sending, Upstream, wire_of

ADDRESS = record(TO_QUESTION, messages.A, 300, bytes((192, 0, 2, 1)))
RRSIG, SIG, TSIG, ANY_CLASS = 46, 24, 250, 255
SIGNATURE = bytes(18) + wire_name("example.com") + b"signature"


def validated(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
    answer.flags |= dns.flags.AD
    return [Sending(wire_of(answer))]


def test_do_goes_both_ways(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 3225, section 3: DO in a query is DO in its answer, and in the query upstream."""
    for dnssec_ok in (True, False, True, False):
        answer = server.ask(name, want_dnssec=dnssec_ok)
        assert bool(answer.ednsflags & dns.flags.DO) is dnssec_ok
    assert [bool(one.message.ednsflags & dns.flags.DO) for one in upstream.questions(name)] == [True, False]


def test_who_wants_signatures_gets_them_and_nobody_else(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4035, section 3.2.1: signatures are for who sets DO; the two kinds of answer are kept apart."""
    signed = assembled(ADDRESS, record(TO_QUESTION, RRSIG, 300, SIGNATURE), additional=[opt(dnssec_ok=True)])
    plain = replying("@ 300 IN A 192.0.2.1")

    def react(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        return (signed if asked.message.ednsflags & dns.flags.DO else plain)(asked, answer)

    upstream.on(name, react)
    for _ in ("miss", "hit"):
        with_do = exchange_bytes(server.address, messages.query(name, additional=[opt(dnssec_ok=True)]))
        assert SIGNATURE in with_do
        assert SIGNATURE not in exchange_bytes(server.address, messages.query(name, additional=[opt()]))
        assert SIGNATURE not in exchange_bytes(server.address, messages.query(name))
    assert len(upstream.questions(name)) == 2


def test_proofs_of_denial_pass_whole(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4035, section 3.2.1: what proves a denial to who validates passes octet by octet."""
    proof = f"{name}. 300 IN NSEC z.example.com. A RRSIG NSEC"
    upstream.on(name, replying(authority=[SOA, proof]))
    for _ in ("miss", "hit"):
        assert {rrset.rdtype for rrset in server.ask(name, "TXT", want_dnssec=True).authority} == {6, 47}


def test_cd_goes_both_ways(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4035, section 3.2.2: CD is copied to the answer and to the query upstream, whose answers are kept apart."""
    for bits in (dns.flags.CD, 0, dns.flags.CD, 0):
        assert ("CD" in flags(server.ask(name, flags=dns.flags.RD | bits))) is bool(bits)
    assert ["CD" in flags(one.message) for one in upstream.questions(name)] == [True, False]


def test_ad_is_upstreams_word(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4035, section 3.2.3: AD is never set by who does not validate: it is upstream's, or absent."""
    upstream.add(name, "A", "192.0.2.1")
    for _ in ("miss", "hit"):
        assert "AD" not in flags(server.ask(name, want_dnssec=True, flags=dns.flags.RD | dns.flags.AD))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_ad_is_shown_to_who_asks_for_it(server: Heimdall, upstream: Upstream, name: str, transport: str) -> None:
    """RFC 6840, section 5.8: AD is set only in answers to queries with DO or AD."""
    upstream.add(name, "A", "192.0.2.1")
    upstream.on(name, validated)
    for _ in ("miss", "hit"):
        assert "AD" not in flags(server.ask(name, transport=transport))
        assert "AD" in flags(server.ask(name, transport=transport, want_dnssec=True))
        assert "AD" in flags(server.ask(name, transport=transport, flags=dns.flags.RD | dns.flags.AD))


def test_upstream_is_asked_for_ad(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6840, section 5.7: AD in a query says that AD in the answer is understood."""
    server.ask(name)
    assert [flags(one.message) for one in upstream.questions(name)] == [{"RD", "AD"}]


def test_a_bogus_answer_is_servfail_and_not_without_checking(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 4035, section 3.2.2: what upstream refuses as bogus it gives to who sets CD, and each is its own answer."""
    bad, good = replying(rcode="SERVFAIL"), replying("@ 300 IN A 192.0.2.1")

    def react(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        return (good if asked.message.flags & dns.flags.CD else bad)(asked, answer)

    upstream.on(name, react)
    for _ in ("miss", "hit"):
        assert rcode(server.ask(name)) == "SERVFAIL"
        assert addresses(server.ask(name, flags=dns.flags.RD | dns.flags.CD)) == ["192.0.2.1"]


def test_a_transaction_signature_is_passed_over(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8945, section 5: TSIG is not supported: it is neither passed on nor answered, and harms nothing."""
    data = wire_name("hmac-sha256") + bytes(6) + b"\x01\x2c\0\x20" + bytes(32) + b"\x12\x34" + bytes(4)
    upstream.add(name, "A", "192.0.2.1")
    signed = messages.query(name, additional=[opt(), record(wire_name("key"), TSIG, 0, data, rclass=ANY_CLASS)])
    for _ in ("miss", "hit"):
        answer = dns.message.from_wire(exchange_bytes(server.address, signed))
        assert (addresses(answer), answer.had_tsig) == (["192.0.2.1"], False)
    assert [one.message.had_tsig for one in upstream.questions(name)] == [False]


def test_a_public_key_signature_is_passed_over(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 2931, section 3: SIG(0) is not supported: it is neither passed on nor answered, and harms nothing."""
    upstream.add(name, "A", "192.0.2.1")
    signed = messages.query(name, additional=[opt(), record(b"\0", SIG, 0, SIGNATURE, rclass=ANY_CLASS)])
    for _ in ("miss", "hit"):
        answer = dns.message.from_wire(exchange_bytes(server.address, signed))
        assert (addresses(answer), answer.additional) == (["192.0.2.1"], [])
    assert [SIGNATURE in one.wire for one in upstream.questions(name)] == [False]
