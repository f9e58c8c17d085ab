"""What holds of DNS bytes, whatever the bytes."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib import wire
from heimdall_lib.errors import WireError
from tests.properties.strategies import BYTES, CHECKED, NAMES, SOUND, Made, replies
from tests.support.messages import TC, counts_of, flags_of, wire_name

OFFSETS = st.integers(0, 100)


@CHECKED
@given(data=BYTES, offset=OFFSETS)
def test_finding_the_end_of_a_name_fails_with_a_wire_error_or_not_at_all(data: bytes, offset: int) -> None:
    with suppress(WireError):
        assert offset < wire.name_end(data, offset)


@CHECKED
@given(data=BYTES)
def test_finding_the_end_of_the_question_fails_with_a_wire_error_or_stays_in_the_message(data: bytes) -> None:
    with suppress(WireError):
        assert 17 <= wire.question_end(data) <= len(data)


@CHECKED
@given(data=BYTES, offset=OFFSETS)
def test_reading_records_fails_with_a_wire_error_or_goes_through_to_the_end(data: bytes, offset: int) -> None:
    with suppress(WireError):
        ends = [record.end for record in wire.records(data, offset)]
        assert [offset, *ends][-1] == len(data)


@CHECKED
@given(data=BYTES)
def test_reading_the_records_behind_the_question_fails_with_a_wire_error_or_not_at_all(data: bytes) -> None:
    with suppress(WireError):
        for record in wire.records(data, wire.question_end(data)):
            assert record.start < record.ttl_offset < record.rdata <= record.end <= len(data)


@CHECKED
@given(data=st.binary(max_size=40))
def test_reading_options_fails_with_a_wire_error_or_accounts_for_every_octet(data: bytes) -> None:
    with suppress(WireError):
        assert sum(4 + len(value) for _, value in wire.options(data)) == len(data)


@CHECKED
@given(reply=BYTES, query=st.one_of(BYTES, SOUND))
def test_matching_a_reply_to_a_query_never_fails(reply: bytes, query: bytes) -> None:
    assert wire.is_reply_to(reply, query) in {True, False}


@CHECKED
@given(data=st.one_of(BYTES, SOUND), limit=st.integers(0, 200))
def test_truncating_anything_fails_with_a_wire_error_or_not_at_all(data: bytes, limit: int) -> None:
    with suppress(WireError):
        wire.truncate(data, limit)


@CHECKED
@given(made=replies(), limit=st.integers(0, 700))
def test_truncation_keeps_the_longest_run_of_records_that_fits_and_additional_ones_all_or_none(
    made: Made, limit: int
) -> None:
    message = made.message()
    kept: list[tuple[int, bytes]] = []
    size = 12 + len(made.question)
    for section, record in made.records:
        size += len(record)
        if size > limit:
            kept = [one for one in kept if one[0] != wire.ADDITIONAL]
            break
        kept.append((section, record))

    shorter = wire.truncate(message, limit)

    assert bytes(shorter[12:]) == made.question + b"".join(record for _, record in kept)
    sections = [section for section, _ in kept]
    assert counts_of(shorter) == (1, *(sections.count(number) for number in (1, 2, 3)))
    assert len(shorter) <= max(limit, 12 + len(made.question))


@CHECKED
@given(made=replies(), limit=st.integers(0, 700))
def test_truncation_is_told_unless_only_additional_records_went(made: Made, limit: int) -> None:
    message = made.message()

    shorter = wire.truncate(message, limit)

    lost = [section for section, _ in made.records][sum(counts_of(shorter)[1:]) :]
    told = TC if set(lost) & {wire.ANSWER, wire.AUTHORITY} else 0
    assert flags_of(shorter) == flags_of(message) | told
    assert shorter[:2] == message[:2]
    assert shorter[3] == message[3]


@CHECKED
@given(name=NAMES)
def test_a_name_as_text_holds_nothing_that_has_a_meaning_in_a_key_a_pattern_or_a_log(name: bytes) -> None:
    text = wire.presentation(name)

    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(":*?[]{} \n/\"'")


@CHECKED
@given(name=NAMES)
def test_a_name_as_text_tells_every_octet_of_the_name(name: bytes) -> None:
    assert wire_name(wire.presentation(name)) == name
