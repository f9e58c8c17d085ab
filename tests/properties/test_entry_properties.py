"""What holds of an answer rendered from the cache."""

import math
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.query import Query, parse
from tests.properties.strategies import BITS, CHECKED, MASKS, Made, recased, replies
from tests.support.messages import AD, CD, RD, assemble, opt

INSTANTS = st.floats(0, 1e7)
ELAPSED = st.floats(0, 200000)


@dataclass(frozen=True)
class Case:
    """One entry, the reply it was made of, and a query for it by a client with a mind of its own."""

    made: Made
    entry: Entry
    stored_at: float
    query: Query
    flags: int
    dnssec_ok: bool

    @property
    def stored(self) -> bytes:
        return entries.message_of(self.entry)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    made, stored_at = draw(replies()), draw(INSTANTS)
    message = bytearray(made.message())
    # As replies are kept: neither an id, nor what a client or the server itself says.
    message[0:3] = b"\0\0\x80"
    message[3] &= ~0x10
    entry = entries.make(bytes(message), made.ttl_offsets, stored_at=stored_at, lifetime=60.0, stale=0.0)
    flags = sum(flag for flag in (RD, AD, CD) if draw(BITS))
    dnssec_ok = draw(BITS)
    asked = recased(made.question[:-4], draw(MASKS)) + made.question[-4:]
    data = assemble(
        asked,
        additional=[opt(dnssec_ok=True)] if dnssec_ok else [],
        flags=flags,
        message_id=draw(st.integers(0, 0xFFFF)),
    )
    query = parse(data)
    assert query is not None
    return Case(made, entry, stored_at, query, flags, dnssec_ok)


def ttls_in(message: bytes | bytearray, offsets: tuple[int, ...]) -> list[int]:
    return [int.from_bytes(message[offset : offset + 4], "big") for offset in offsets]


@CHECKED
@given(case=cases(), elapsed=ELAPSED)
def test_a_ttl_counts_down_by_whole_seconds_and_stops_at_zero(case: Case, elapsed: float) -> None:
    now = case.stored_at + elapsed

    message = entries.render(case.entry, case.query, now)

    passed = math.floor(now - case.stored_at)
    assert ttls_in(message, case.made.ttl_offsets) == [max(0, ttl - passed) for ttl in case.made.ttls]


@CHECKED
@given(case=cases(), elapsed=ELAPSED, stale_ttl=st.integers(0, 3600))
def test_a_stale_answer_tells_the_stale_ttl_everywhere(case: Case, elapsed: float, stale_ttl: int) -> None:
    message = entries.render(case.entry, case.query, case.stored_at + elapsed, stale_ttl=stale_ttl)

    assert ttls_in(message, case.made.ttl_offsets) == [stale_ttl] * len(case.made.ttl_offsets)


@CHECKED
@given(case=cases(), elapsed=ELAPSED)
def test_nothing_changes_but_id_flags_question_and_ttls(case: Case, elapsed: float) -> None:
    message = entries.render(case.entry, case.query, case.stored_at + elapsed)

    assert message[0:2] == case.query.id
    assert message[2] == case.stored[2] | case.flags >> 8
    wants_ad = case.dnssec_ok or case.flags & AD
    assert message[3] == (case.stored[3] | case.flags & CD) & (0xFF if wants_ad else ~AD & 0xFF)
    assert message[12 : 12 + len(case.made.question)] == case.query.question
    message[0:4] = case.stored[0:4]
    message[12 : 12 + len(case.made.question)] = case.made.question
    for offset in case.made.ttl_offsets:
        message[offset : offset + 4] = case.stored[offset : offset + 4]
    assert message == case.stored


@CHECKED
@given(case=cases(), elapsed=ELAPSED)
def test_rendering_leaves_the_entry_as_it_was(case: Case, elapsed: float) -> None:
    before = bytes(case.entry)
    entries.render(case.entry, case.query, case.stored_at + elapsed)
    assert case.entry == before


@CHECKED
@given(made=replies(), stored_at=INSTANTS, lifetime=st.integers(0, 86400), stale=st.integers(0, 86400))
def test_an_entry_gives_back_what_it_was_made_of(made: Made, stored_at: float, lifetime: int, stale: int) -> None:
    entry = entries.make(made.message(), made.ttl_offsets, stored_at=stored_at, lifetime=lifetime, stale=stale)

    assert entries.message_of(entry) == made.message()
    assert entries.stored_at(entry) == stored_at
    assert entries.expires_at(entry) == stored_at + lifetime
    assert entries.stale_until(entry) == stored_at + lifetime + stale
