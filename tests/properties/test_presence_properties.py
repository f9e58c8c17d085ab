"""What a replica says of itself arrives as it was meant, and whatever else stands there says nothing."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib.shared_cache import presence
from heimdall_lib.shared_cache.presence import Presence
from tests.properties.strategies import CHECKED

INSTANTS = st.integers(0, (1 << 53) - 1)
RATIOS = st.none() | st.floats(0, 1)
TEXT = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
PRESENCES = st.builds(Presence, TEXT, TEXT, INSTANTS, INSTANTS, st.floats(0, 1e9), RATIOS, RATIOS)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@CHECKED
@given(PRESENCES)
def test_it_says_what_was_meant_but_for_what_is_too_long(one: Presence) -> None:
    cut = one._replace(host=one.host[:253], version=one.version[:64])
    value = presence.encode(one)
    assert presence.decode(value) == (cut if len(value) <= presence.MAX_SIZE else None)


@CHECKED
@given(PRESENCES, st.integers(0, 400), st.integers(0, 255))
def test_one_octet_changed_never_raises(one: Presence, place: int, octet: int) -> None:
    value = bytearray(presence.encode(one))
    value[place % len(value)] = octet
    presence.decode(bytes(value))


@CHECKED
@given(PRESENCES, st.sampled_from(Presence._fields), JSON)
def test_any_value_of_any_field_is_taken_as_what_it_is_or_not_at_all(one: Presence, field: str, value: Any) -> None:
    changed = one._replace(host="host", version="1", **{field: value}) if field not in ("host", "version") else one
    decoded = presence.decode(presence.encode(changed))
    assert decoded in (None, changed._replace(host=changed.host[:253], version=changed.version[:64]))


@CHECKED
@given(st.binary(max_size=64))
def test_bytes_that_are_none_say_nothing(value: bytes) -> None:
    assert presence.decode(value) is None
