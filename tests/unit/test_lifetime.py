"""How long answers live, and the TTLs that they carry meanwhile."""

import pytest

from heimdall_lib.lifetime import TtlPolicy, bounded_message, lifetime
from heimdall_lib.reply import Kind, Reply, examine
from tests.support.messages import CNAME, SOA, TO_QUESTION, A, assemble, question, record, soa_data, ttls_of, wire_name

ASKED = question("www.example.com")
NEGATIVE = [Kind.NODATA, Kind.NXDOMAIN]


def of_kind(kind: Kind, ttl: int | None) -> Reply:
    return Reply(kind, 0, b"", (), ttl)


def answered(*ttls: int) -> Reply:
    aliases = [record(TO_QUESTION, CNAME, ttl, wire_name("a.example")) for ttl in ttls[:-1]]
    return examine(assemble(ASKED, answer=[*aliases, record(TO_QUESTION, A, ttls[-1], bytes(4))]), ASKED)


def denied(soa_ttl: int, minimum: int, *alias_ttls: int) -> Reply:
    aliases = [record(TO_QUESTION, CNAME, ttl, wire_name("a.example")) for ttl in alias_ttls]
    soa = record(b"\0", SOA, soa_ttl, soa_data(minimum))
    return examine(assemble(ASKED, answer=aliases, authority=[soa], rcode=3), ASKED)


def carried(reply: Reply, policy: TtlPolicy) -> list[int]:
    return ttls_of(bounded_message(reply, policy))


# Lifetimes


def test_the_default_bounds_are_the_documented_ones() -> None:
    assert TtlPolicy() == TtlPolicy(min_ttl=0, max_ttl=86400, max_negative_ttl=3600, serve_stale=86400)


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 60), (59, 60), (60, 60), (61, 61), (3600, 3600), (3601, 3600)])
def test_an_answers_lifetime_is_clamped_at_both_ends(ttl: int, seconds: int) -> None:
    assert lifetime(of_kind(Kind.ANSWER, ttl), TtlPolicy(min_ttl=60, max_ttl=3600)) == seconds


@pytest.mark.parametrize("kind", NEGATIVE)
@pytest.mark.parametrize(("ttl", "seconds"), [(0, 0), (5, 5), (900, 900), (901, 900)])
def test_a_negative_answers_lifetime_is_clamped_at_its_own_bound_and_no_minimum_pins_it(
    kind: Kind, ttl: int, seconds: int
) -> None:
    assert lifetime(of_kind(kind, ttl), TtlPolicy(min_ttl=60, max_negative_ttl=900)) == seconds


@pytest.mark.parametrize("kind", list(Kind))
def test_what_may_not_be_cached_has_no_lifetime_whatever_the_policy(kind: Kind) -> None:
    assert lifetime(of_kind(kind, None), TtlPolicy(min_ttl=60)) == 0


def test_a_ttl_of_zero_is_not_cached_by_default() -> None:
    assert lifetime(answered(0), TtlPolicy()) == 0


def test_an_answer_behind_aliases_lives_as_long_as_the_least_of_them() -> None:
    assert lifetime(answered(300, 20, 600), TtlPolicy()) == 20


def test_a_denial_lives_by_the_least_of_its_soa_and_its_aliases() -> None:
    assert lifetime(denied(300, 200), TtlPolicy()) == 200
    assert lifetime(denied(300, 200, 50), TtlPolicy()) == 50


def test_a_ttl_with_the_top_bit_set_is_zero() -> None:
    assert lifetime(answered(0x80000000), TtlPolicy()) == 0
    assert lifetime(answered(0xFFFFFFFF, 300), TtlPolicy(min_ttl=5)) == 5


# TTLs


def test_an_answers_ttls_are_clamped_one_by_one() -> None:
    policy = TtlPolicy(min_ttl=30, max_ttl=3600)
    assert carried(answered(5, 100000), policy) == [30, 3600]
    assert carried(answered(100, 5), policy) == [100, 30]


def test_a_ttl_with_the_top_bit_set_is_sent_as_zero_or_the_minimum() -> None:
    assert carried(answered(0x80000000), TtlPolicy()) == [0]
    assert carried(answered(0xFFFFFFFF), TtlPolicy(min_ttl=30)) == [30]


def test_a_denials_ttls_are_no_more_than_its_lifetime() -> None:
    assert carried(denied(3600, 900, 20), TtlPolicy()) == [20, 20]
    assert carried(denied(3600, 900), TtlPolicy()) == [900]
    assert carried(denied(3600, 3600), TtlPolicy(max_negative_ttl=60)) == [60]


def test_no_minimum_raises_a_denials_ttls() -> None:
    assert carried(denied(10, 900), TtlPolicy(min_ttl=300)) == [10]


def test_no_minimum_raises_the_ttls_of_what_may_not_be_cached() -> None:
    alias = record(TO_QUESTION, CNAME, 10, wire_name("a.example"))
    reply = examine(assemble(ASKED, answer=[alias]), ASKED)
    assert reply.ttl is None
    assert carried(reply, TtlPolicy(min_ttl=300)) == [10]
    assert carried(reply, TtlPolicy(max_ttl=4)) == [4]


def test_a_ttl_of_zero_stays_zero_where_no_minimum_holds() -> None:
    alias = record(TO_QUESTION, CNAME, 0, wire_name("a.example"))
    assert carried(examine(assemble(ASKED, answer=[alias]), ASKED), TtlPolicy(min_ttl=300)) == [0]
    soa, other = record(b"\0", SOA, 60, soa_data(60)), record(b"\0", A, 0, bytes(4))
    denial = examine(assemble(ASKED, authority=[soa, other], rcode=3), ASKED)
    assert carried(denial, TtlPolicy(min_ttl=300)) == [60, 0]


def test_the_largest_ttl_there_is_counts_as_itself() -> None:
    unbounded = TtlPolicy(max_ttl=0x7FFFFFFF)
    assert lifetime(answered(0x7FFFFFFF), unbounded) == 0x7FFFFFFF
    assert carried(answered(0x7FFFFFFF), unbounded) == [0x7FFFFFFF]


def test_nothing_but_ttls_changes() -> None:
    reply = answered(100000)
    message = bounded_message(reply, TtlPolicy(max_ttl=60))
    (offset,) = reply.ttl_offsets
    assert message[:offset] == reply.message[:offset]
    assert message[offset : offset + 4] == b"\0\0\0\x3c"
    assert message[offset + 4 :] == reply.message[offset + 4 :]
