"""A cached answer, and the answers to clients that are made of it."""

import struct
from typing import Any

import pytest

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.query import Query, parse
from heimdall_lib.reply import examine
from tests.support.messages import (
    AD,
    CD,
    QR,
    RA,
    RD,
    TO_QUESTION,
    A,
    assemble,
    flags_of,
    opt,
    query,
    question,
    record,
    reply,
    ttls_of,
)

NAME = "www.example.com"
ASKED = question(NAME)
ANSWER = [f"{NAME}. 300 IN CNAME a.example.", "a.example. 20 IN A 192.0.2.1"]


def entry_of(data: bytes, *, stored_at: float = 1000.0, lifetime: float = 20.0, stale: float = 100.0) -> Entry:
    examined = examine(data, ASKED)
    return entries.make(examined.message, examined.ttl_offsets, stored_at=stored_at, lifetime=lifetime, stale=stale)


ENTRY = entry_of(reply(NAME, answer=ANSWER, flags="QR RD RA AD"))


def asked(name: str = NAME, *, flags: int = RD, dnssec_ok: bool = False, message_id: int = 0x1234) -> Query:
    data = query(name, flags=flags, additional=[opt(dnssec_ok=True)] if dnssec_ok else [], message_id=message_id)
    parsed = parse(data)
    assert parsed is not None
    return parsed


# Times


def test_an_entry_knows_its_instants() -> None:
    assert entries.stored_at(ENTRY) == 1000.0
    assert entries.expires_at(ENTRY) == 1020.0
    assert entries.stale_until(ENTRY) == 1120.0


@pytest.mark.parametrize(("now", "wanted"), [(1000.0, False), (1017.9, False), (1018.0, True), (1019.9, True)])
def test_an_entry_wants_a_refresh_in_the_last_tenth_of_its_life(now: float, wanted: bool) -> None:
    assert entries.wants_refresh(ENTRY, now) is wanted


# What was stored


def test_the_message_is_as_it_was_stored() -> None:
    examined = examine(reply(NAME, answer=ANSWER), ASKED)
    entry = entries.make(examined.message, examined.ttl_offsets, stored_at=0.0, lifetime=1.0, stale=0.0)
    assert entries.message_of(entry) == examined.message


def test_an_entry_may_have_no_records() -> None:
    entry = entry_of(reply(NAME))
    assert entries.render(entry, asked(), 1005.0)[12:] == ASKED


@pytest.mark.parametrize("count", [63, 64, 65, 500])
def test_an_entry_may_have_many_records(count: int) -> None:
    many = [record(TO_QUESTION, A, 100 + number, bytes(4)) for number in range(count)]
    entry = entry_of(assemble(ASKED, answer=many))
    rendered = entries.render(entry, asked(), 1060.0)
    ttls = [struct.unpack_from("!I", rendered, 12 + len(ASKED) + 16 * number + 6)[0] for number in range(count)]
    assert ttls == [40 + number for number in range(count)]


# TTLs


@pytest.mark.parametrize(
    ("now", "ttls"),
    [
        (1000.0, [300, 20]),
        (1000.999, [300, 20]),
        (1001.0, [299, 19]),
        (1019.5, [281, 1]),
        (1020.0, [280, 0]),
        (1200.0, [100, 0]),
        (9999999.0, [0, 0]),
    ],
)
def test_ttls_count_down_by_whole_seconds_to_zero(now: float, ttls: list[int]) -> None:
    assert ttls_of(entries.render(ENTRY, asked(), now)) == ttls


def test_a_stale_answer_tells_the_stale_ttl() -> None:
    assert ttls_of(entries.render(ENTRY, asked(), 0.0, stale_ttl=30)) == [30, 30]


# What is the client's own


def test_the_id_is_the_clients() -> None:
    assert entries.render(ENTRY, asked(message_id=0xBEEF), 1000.0)[:2] == b"\xbe\xef"


def test_the_questions_case_is_the_clients() -> None:
    rendered = entries.render(ENTRY, asked("wWw.exaMPLE.com"), 1000.0)
    assert rendered[12 : 12 + len(ASKED)] == question("wWw.exaMPLE.com")


@pytest.mark.parametrize("flags", [0, RD, CD, RD | CD])
def test_recursion_desired_and_checking_disabled_are_the_clients(flags: int) -> None:
    assert flags_of(entries.render(ENTRY, asked(flags=flags), 1000.0)) == QR | RA | flags


@pytest.mark.parametrize(("flags", "dnssec_ok"), [(AD, False), (0, True), (AD, True)])
def test_authenticity_is_told_to_who_asks_for_it(flags: int, dnssec_ok: bool) -> None:
    query_with_ad = asked(flags=flags, dnssec_ok=dnssec_ok)
    assert flags_of(entries.render(ENTRY, query_with_ad, 1000.0)) == QR | RA | AD


def test_authenticity_is_not_told_to_who_does_not_ask() -> None:
    assert not flags_of(entries.render(ENTRY, asked(), 1000.0)) & AD


def test_authenticity_that_upstream_did_not_claim_is_told_to_nobody() -> None:
    entry = entry_of(reply(NAME, answer=ANSWER))
    assert not flags_of(entries.render(entry, asked(flags=AD, dnssec_ok=True), 1000.0)) & AD


def test_rendering_for_one_client_changes_nothing_for_the_next() -> None:
    first = bytes(entries.render(ENTRY, asked(), 1000.0))
    entries.render(ENTRY, asked("WWW.EXAMPLE.COM", flags=CD | AD, message_id=1), 1010.0, stale_ttl=1)
    assert entries.render(ENTRY, asked(), 1000.0) == first


# The same answer


def answers(*records: str, **options: Any) -> Entry:
    return entry_of(reply(NAME, answer=list(records), **options))


ONE, TWO = f"{NAME}. 300 IN A 192.0.2.1", f"{NAME}. 300 IN A 192.0.2.2"


@pytest.mark.parametrize(
    "other",
    [
        answers(ONE, TWO),
        answers(TWO, ONE),
        answers(ONE.replace("300", "20"), TWO.replace("300", "20")),
        answers(ONE, TWO, authority=["example.com. 60 IN NS ns.example."]),
        answers(ONE, TWO, flags="QR RD RA AD"),
    ],
    ids=["the same", "order", "TTLs", "authority", "AD"],
)
def test_ttls_order_and_other_sections_make_no_other_answer(other: Entry) -> None:
    assert entries.same_answer(answers(ONE, TWO), other)


@pytest.mark.parametrize(
    "other",
    [
        answers(ONE),
        answers(ONE, TWO, f"{NAME}. 300 IN A 192.0.2.3"),
        answers(ONE, f"{NAME}. 300 IN A 192.0.2.3"),
        answers(f"{NAME}. 300 IN CNAME a.example.", "a.example. 300 IN A 192.0.2.1"),
        answers(rcode="NXDOMAIN", authority=["example.com. 60 IN SOA ns.example. host.example. 1 2 3 4 5"]),
    ],
    ids=["one less", "one more", "another address", "an alias", "a denial"],
)
def test_another_record_or_response_code_makes_another_answer(other: Entry) -> None:
    assert not entries.same_answer(answers(ONE, TWO), other)
