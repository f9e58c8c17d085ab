"""What holds of the keys and values in Redis, whatever is read from there."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heimdall_lib.query import cache_key
from heimdall_lib.shared_cache.codec import Codec, RejectedValueError, StoredAnswer, redis_key
from heimdall_lib.shared_cache.codec import cache_key as key_from
from tests.properties.strategies import BITS, CHECKED, NAMES, NUMBERS
from tests.support.messages import question

NAME = "heimdall:dns:cache:1:view:www.example.com:A:IN"
KEY = cache_key(question("www.example.com"), dnssec_ok=False, checking_disabled=False)
MESSAGES = st.one_of(st.binary(min_size=12, max_size=300), st.integers(12, 65535).map(bytes))
ANSWERS = st.builds(StoredAnswer, MESSAGES, st.integers(0, 2**63), st.integers(1, 2**31))
KEYS = st.lists(st.text(min_size=1, max_size=20), max_size=2)
COMPRESS = st.sampled_from([0, 1, 512])
REASONS = {"format", "version", "signature", "flags", "size", "compression"}


@st.composite
def cache_keys(draw: st.DrawFn) -> bytes:
    numbers = struct.pack("!HH", draw(NUMBERS), draw(NUMBERS))
    return cache_key(draw(NAMES) + numbers, dnssec_ok=draw(BITS), checking_disabled=draw(BITS))


@CHECKED
@given(first=cache_keys(), second=cache_keys())
def test_two_cache_keys_never_share_a_redis_key(first: bytes, second: bytes) -> None:
    assert (redis_key("p", "v", first) == redis_key("p", "v", second)) is (first == second)


@CHECKED
@given(key=cache_keys())
def test_a_redis_key_has_no_separators_but_its_own_and_nothing_that_a_pattern_would_match(key: bytes) -> None:
    name = redis_key("prefix", "view", key)

    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set("*?[]{} ")
    bits = key[-1]
    assert name.count(":") == 5 + (bits & 1) + (bits >> 1 & 1)


@CHECKED
@given(key=cache_keys())
def test_a_cache_key_is_told_from_its_redis_key_and_from_no_other(key: bytes) -> None:
    name = redis_key("prefix", "view", key)

    assert key_from("prefix", "view", name) == key
    assert key_from("prefix", "other", name) is None
    assert key_from("prefix", "view", name[:-1]) != key


@CHECKED
@given(name=st.text(max_size=40), before=st.sampled_from(["", "prefix:1:view:"]))
def test_any_text_at_all_is_a_redis_key_or_nobodys(name: str, before: str) -> None:
    key = key_from("prefix", "view", before + name)

    assert key is None or redis_key("prefix", "view", key) == before + name


@CHECKED
@given(answer=ANSWERS, keys=KEYS, compress=COMPRESS)
def test_what_is_encoded_is_decoded(answer: StoredAnswer, keys: list[str], compress: int) -> None:
    codec = Codec(signing_keys=keys, compress_min_bytes=compress)

    value, _ = codec.encode(NAME, KEY, answer)

    assert codec.decode(NAME, KEY, value) == answer


@CHECKED
@given(answer=ANSWERS, compress=COMPRESS)
def test_what_compression_saves_is_what_the_value_is_shorter_by(answer: StoredAnswer, compress: int) -> None:
    plain, nothing = Codec().encode(NAME, KEY, answer)
    value, saved = Codec(compress_min_bytes=compress).encode(NAME, KEY, answer)

    assert nothing == 0
    assert saved == len(plain) - len(value) >= 0


@CHECKED
@given(answer=ANSWERS, compress=COMPRESS, data=st.data())
def test_a_flipped_bit_in_a_signed_value_is_refused(answer: StoredAnswer, compress: int, data: st.DataObject) -> None:
    codec = Codec(signing_keys=["one key"], compress_min_bytes=compress)
    value = bytearray(codec.encode(NAME, KEY, answer)[0])
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8

    with pytest.raises(RejectedValueError):
        codec.decode(NAME, KEY, bytes(value))


@CHECKED
@given(answer=ANSWERS, size=st.integers(0, 400))
def test_a_value_cut_short_is_refused(answer: StoredAnswer, size: int) -> None:
    for codec in (Codec(), Codec(compress_min_bytes=1), Codec(signing_keys=["one key"])):
        value, _ = codec.encode(NAME, KEY, answer)
        with pytest.raises(RejectedValueError):
            codec.decode(NAME, KEY, value[: min(size, len(value) - 1)])


HEADERS = st.builds(
    struct.Struct("!2sBBBQIH").pack,
    st.just(b"HD"),
    st.sampled_from([1, 1, 1, 2]),
    st.integers(0, 255),
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 65535),
)
BODIES = st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(zlib.compress))


@CHECKED
@given(
    value=st.one_of(st.binary(max_size=60), st.tuples(HEADERS, BODIES).map(b"".join)),
    keys=KEYS,
)
def test_foreign_bytes_are_refused_with_a_reason_or_read(value: bytes, keys: list[str]) -> None:
    reason, size = "", 0
    try:
        size = len(Codec(signing_keys=keys).decode(NAME, KEY, value).message)
    except RejectedValueError as error:
        reason = error.reason
    assert reason in REASONS or 0 <= size <= 65535
