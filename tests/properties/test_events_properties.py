"""What replicas tell each other arrives as it was meant, and whatever else arrives is no message."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib import wire
from heimdall_lib.invalidations import Flush
from heimdall_lib.query import KEY_FLAGS
from heimdall_lib.shared_cache import events
from tests.properties.strategies import CHECKED, NAMES, NUMBERS

IDS = st.binary(min_size=8, max_size=8).map(bytes.hex)
INSTANTS = st.integers(0, (1 << 53) - 1)
LOWER_NAMES = NAMES.map(bytes.lower)
KEYS = st.builds(
    lambda name, qtype, qclass, bits: name + wire.UINT16.pack(qtype) + wire.UINT16.pack(qclass) + bits,
    LOWER_NAMES,
    NUMBERS,
    NUMBERS,
    st.sampled_from(KEY_FLAGS),
)
FLUSHES = st.one_of(st.just(Flush()), st.builds(Flush, LOWER_NAMES, st.none() | NUMBERS, st.booleans()))
EVENTS = st.one_of(
    st.builds(events.Flushed, IDS, IDS, INSTANTS, FLUSHES),
    st.builds(events.Acked, IDS, IDS),
    st.builds(events.Changed, IDS, KEYS, INSTANTS),
    st.builds(events.Generation, IDS, INSTANTS),
)


@CHECKED
@given(EVENTS)
def test_a_message_says_what_was_meant(event: events.Event) -> None:
    message = events.encode(event)
    assert len(message) <= events.MAX_SIZE
    assert events.decode(message) == event


@CHECKED
@given(EVENTS, st.integers(0, 400), st.integers(0, 255))
def test_a_spoilt_message_is_none_or_another(event: events.Event, at: int, octet: int) -> None:
    spoilt = bytearray(events.encode(event))
    spoilt[at % len(spoilt)] = octet
    found = events.decode(bytes(spoilt))
    assert found is None or events.decode(events.encode(found)) == found


@CHECKED
@given(st.binary(max_size=200) | st.text(max_size=100) | st.none() | st.integers())
def test_anything_else_is_none(message: object) -> None:
    assert events.decode(message) is None


@pytest.mark.parametrize("field", ["name", "type"])
@pytest.mark.parametrize("value", [False, 0, None, []])
def test_what_is_no_text_is_no_name_and_no_type(field: str, value: object) -> None:
    fields = json.loads(events.encode(events.Flushed("0" * 16, "1" * 16, 1, Flush())))
    assert events.decode(json.dumps(fields).encode()) is not None
    assert events.decode(json.dumps({**fields, field: value}).encode()) is None


@CHECKED
@given(NAMES)
def test_a_name_is_read_as_it_is_written(name: bytes) -> None:
    text = wire.presentation(name)
    assert wire.from_presentation(text) == name.lower()
    assert wire.from_presentation(text + "." * (text != ".")) == name.lower()
