"""Keys and values in Redis: their layout, and what is not believed."""

import hashlib
import struct
import tracemalloc
import zlib
from collections.abc import Sequence

import pytest

from heimdall_lib.query import cache_key
from heimdall_lib.settings import Secret
from heimdall_lib.shared_cache.codec import Codec, RejectedValueError, StoredAnswer, redis_key
from heimdall_lib.shared_cache.codec import cache_key as key_from
from tests.support.messages import CH, HTTPS, TXT, A, assemble, question, record

PREFIX, VIEW = "heimdall:dns:cache", "4f2a"


def key_of(name: str, qtype: int = A, qclass: int = 1, *, dnssec_ok: bool = False, cd: bool = False) -> bytes:
    return cache_key(question(name, qtype, qclass), dnssec_ok=dnssec_ok, checking_disabled=cd)


KEY = key_of("www.example.com")
NAME = redis_key(PREFIX, VIEW, KEY)
LONG_DATA = b"\xc8" + b"a" * 200
MESSAGE = assemble(question("www.example.com"), answer=[record(b"\xc0\x0c", TXT, 60, LONG_DATA)])
ANSWER = StoredAnswer(MESSAGE, stored_at=1_700_000_000_123, lifetime=300)


def value_of(
    body: bytes = MESSAGE, *, flags: int = 0, version: int = 1, bits: int = 0, size: int = len(MESSAGE)
) -> bytes:
    """Return a value as another language would write it."""
    return struct.pack("!2sBBBQIH", b"HD", version, flags, bits, ANSWER.stored_at, ANSWER.lifetime, size) + body


def reason(codec: Codec, value: bytes, *, name: str = NAME, key: bytes = KEY) -> str:
    with pytest.raises(RejectedValueError) as caught:
        codec.decode(name, key, value)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def signing(*keys: str) -> Codec:
    return Codec(signing_keys=keys)


# Keys


@pytest.mark.parametrize(
    ("key", "rest"),
    [
        (key_of("WWW.Example.com"), "www.example.com:A:IN"),
        (key_of("."), ".:A:IN"),
        (key_of("www.example.com", HTTPS, dnssec_ok=True), "www.example.com:HTTPS:IN:do"),
        (key_of("www.example.com", cd=True), "www.example.com:A:IN:cd"),
        (key_of("www.example.com", dnssec_ok=True, cd=True), "www.example.com:A:IN:do:cd"),
        (key_of("version.bind", TXT, CH), "version.bind:TXT:CH"),
        (key_of(r"a\.b\058c.example", 65280, 1234), r"a\046b\058c.example:TYPE65280:CLASS1234"),
    ],
)
def test_a_redis_key_can_be_read(key: bytes, rest: str) -> None:
    assert redis_key(PREFIX, VIEW, key) == f"heimdall:dns:cache:1:4f2a:{rest}"
    assert key_from(PREFIX, VIEW, f"heimdall:dns:cache:1:4f2a:{rest}") == key


@pytest.mark.parametrize(
    "name",
    [
        "",
        "www.example.com:A:IN",
        "heimdall:dns:cache:1:4f2b:www.example.com:A:IN",
        "heimdall:dns:cache:2:4f2a:www.example.com:A:IN",
        "other:1:4f2a:www.example.com:A:IN",
        f"{NAME}:",
        f"{NAME}:lease",
        f"{NAME}:do:lease",
        f"{NAME}:cd:do",
        f"{NAME}:do:do",
        f"{NAME}\n",
        "heimdall:dns:cache:1:4f2a:www.example.com",
        "heimdall:dns:cache:1:4f2a:www.example.com:A",
        "heimdall:dns:cache:1:4f2a:www.example.com:a:IN",
        "heimdall:dns:cache:1:4f2a:www.example.com:TYPE1:IN",
        "heimdall:dns:cache:1:4f2a:www.example.com:TYPE065280:IN",
        "heimdall:dns:cache:1:4f2a:www.example.com:TYPE65536:IN",
        "heimdall:dns:cache:1:4f2a:www.example.com:A:CLASS1",
        "heimdall:dns:cache:1:4f2a:www.example.com.:A:IN",
        r"heimdall:dns:cache:1:4f2a:\119ww.example.com:A:IN",
        f"heimdall:dns:cache:1:4f2a:{'a' * 64}:A:IN",
        "heimdall:dns:cache:1:popular:4f2a:20781",
    ],
)
def test_a_name_that_no_cache_key_has_is_nobodys(name: str) -> None:
    assert key_from(PREFIX, VIEW, name) is None


def test_no_two_types_share_a_redis_key() -> None:
    assert len({redis_key(PREFIX, VIEW, key_of(".", qtype)) for qtype in range(65536)}) == 65536


def test_no_two_classes_share_a_redis_key() -> None:
    assert len({redis_key(PREFIX, VIEW, key_of(".", A, qclass)) for qclass in range(65536)}) == 65536


def test_two_views_never_share_a_redis_key() -> None:
    assert redis_key(PREFIX, "one", KEY) != redis_key(PREFIX, "two", KEY)


# Layout


def test_a_value_is_laid_out_for_other_languages_to_read() -> None:
    assert Codec().encode(NAME, KEY, ANSWER) == (value_of(), 0)


def test_a_value_tells_its_dnssec_and_checking_bits() -> None:
    key = key_of("www.example.com", dnssec_ok=True, cd=True)
    value, _ = Codec().encode(NAME, key, ANSWER)
    assert value == value_of(bits=3)
    assert Codec().decode(NAME, key, value) == ANSWER


def test_a_compressed_value_is_laid_out_for_other_languages_to_read() -> None:
    value, saved = Codec(compress_min_bytes=1).encode(NAME, KEY, ANSWER)
    assert value[:19] == value_of(flags=1)[:19]
    assert zlib.decompress(value[19:]) == MESSAGE
    assert saved == len(MESSAGE) - len(value[19:]) > 0


def test_a_signed_value_ends_in_a_mac_over_the_keys_name_and_the_value() -> None:
    value, _ = signing("secret").encode(NAME, KEY, ANSWER)
    content = value_of(flags=2)
    mac_key = hashlib.blake2b(b"secret", digest_size=32).digest()
    mac = hashlib.blake2b(NAME.encode() + b"\0" + content, key=mac_key, digest_size=16).digest()
    assert value == content + mac


def test_a_value_that_another_language_wrote_is_read() -> None:
    assert Codec().decode(NAME, KEY, value_of()) == ANSWER
    assert Codec().decode(NAME, KEY, value_of(zlib.compress(MESSAGE, 9), flags=1)) == ANSWER


# Compression


@pytest.mark.parametrize(
    ("least", "compressed"), [(0, False), (1, True), (len(MESSAGE), True), (len(MESSAGE) + 1, False)]
)
def test_messages_from_a_size_on_are_compressed(least: int, compressed: bool) -> None:
    value, saved = Codec(compress_min_bytes=least).encode(NAME, KEY, ANSWER)
    assert bool(saved) is compressed
    assert Codec().decode(NAME, KEY, value) == ANSWER


def test_what_compression_would_not_make_smaller_stays_as_it_is() -> None:
    noise = StoredAnswer(hashlib.shake_128(b"noise").digest(600), 0, 1)
    value, saved = Codec(compress_min_bytes=1).encode(NAME, KEY, noise)
    assert (value, saved) == (Codec().encode(NAME, KEY, noise)[0], 0)


def test_the_largest_message_there_is_comes_through() -> None:
    largest = StoredAnswer(bytes(65535), 0, 1)
    for codec in (Codec(), Codec(compress_min_bytes=1), signing("secret")):
        assert codec.decode(NAME, KEY, codec.encode(NAME, KEY, largest)[0]) == largest


@pytest.mark.parametrize("size", [0, 12, 65535])
def test_a_bomb_is_never_expanded_beyond_the_size_of_a_message(size: int) -> None:
    bomb = value_of(zlib.compress(bytes(20_000_000), 9), flags=1, size=size)
    codec = Codec()
    tracemalloc.start()
    try:
        assert reason(codec, bomb) == "compression"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "body",
    [b"", b"not compressed", zlib.compress(MESSAGE)[:-1], zlib.compress(MESSAGE)[:-4] + bytes(4)],
    ids=["empty", "foreign", "cut short", "wrong checksum"],
)
def test_what_cannot_be_expanded_is_refused(body: bytes) -> None:
    assert reason(Codec(), value_of(body, flags=1)) == "compression"


# What is not believed


@pytest.mark.parametrize(
    "value", [b"", b"H", b"OK", value_of()[:18], b"HE" + value_of()[2:], b'{"json": "or the like"}']
)
def test_what_is_not_a_value_is_refused(value: bytes) -> None:
    assert reason(Codec(), value) == reason(signing("secret"), value) == "format"


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    assert reason(Codec(), value_of(version=version)) == "version"


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_other_dnssec_and_checking_bits_are_refused(bits: int) -> None:
    assert reason(Codec(), value_of(bits=bits)) == "flags"


@pytest.mark.parametrize("size", [0, 12, len(MESSAGE) - 1, len(MESSAGE) + 1, 65535])
def test_another_size_than_the_header_tells_is_refused(size: int) -> None:
    assert reason(Codec(), value_of(size=size)) == "size"


@pytest.mark.parametrize("size", [len(MESSAGE) - 1, len(MESSAGE) + 1, 65535])
def test_another_size_after_expansion_is_refused(size: int) -> None:
    assert reason(Codec(), value_of(zlib.compress(MESSAGE), flags=1, size=size)) in {"size", "compression"}


@pytest.mark.parametrize(
    "value",
    [value_of(b"", size=0), value_of(b"", flags=2, size=0), value_of(zlib.compress(b""), flags=1, size=0)],
    ids=["plain", "signed", "compressed"],
)
def test_a_value_without_a_message_is_refused(value: bytes) -> None:
    assert reason(Codec(), value) == "size"


# Signatures


@pytest.mark.parametrize("keys", [["first"], ["first", "second"], [Secret("first")]])
def test_a_signed_value_is_read_by_who_has_the_key(keys: Sequence[str]) -> None:
    value, _ = signing("first").encode(NAME, KEY, ANSWER)
    assert signing(*keys).decode(NAME, KEY, value) == ANSWER


def test_a_list_of_keys_signs_with_its_first_and_verifies_with_every_one() -> None:
    before, during, after = signing("old"), signing("new", "old"), signing("new")
    old_value, new_value = before.encode(NAME, KEY, ANSWER)[0], during.encode(NAME, KEY, ANSWER)[0]
    assert during.decode(NAME, KEY, old_value) == during.decode(NAME, KEY, new_value) == ANSWER
    assert after.decode(NAME, KEY, new_value) == ANSWER
    assert reason(after, old_value) == "signature"
    assert reason(before, new_value) == "signature"


def test_an_unsigned_value_is_refused_by_who_has_a_key() -> None:
    assert reason(signing("secret"), value_of()) == "signature"
    assert reason(signing("secret"), value_of() + bytes(16)) == "signature"
    assert reason(signing("secret"), value_of(flags=2) + bytes(16)) == "signature"


def test_a_signed_value_is_read_by_who_has_no_keys() -> None:
    value, _ = signing("secret").encode(NAME, KEY, ANSWER)
    assert Codec().decode(NAME, KEY, value) == ANSWER


def test_a_value_signed_for_one_name_is_refused_under_another() -> None:
    value, _ = signing("secret").encode(NAME, KEY, ANSWER)
    other = key_of("www.example.net")
    assert reason(signing("secret"), value, name=redis_key(PREFIX, VIEW, other), key=other) == "signature"
    assert reason(signing("secret"), value, name=redis_key(PREFIX, "other view", KEY)) == "signature"


def test_every_flipped_bit_of_a_signed_value_is_noticed() -> None:
    codec = Codec(signing_keys=["secret"], compress_min_bytes=1)
    value, _ = codec.encode(NAME, KEY, ANSWER)
    for bit in range(8 * len(value)):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason(codec, bytes(flipped)) in {"format", "version", "signature"}


@pytest.mark.parametrize("size", [0, 15, 16, 18, 19, 20, 34, 35, 36])
def test_a_signed_value_cut_short_is_refused(size: int) -> None:
    value, _ = signing("secret").encode(NAME, KEY, ANSWER)
    assert reason(signing("secret"), value[:size]) in {"format", "signature"}
    assert reason(Codec(), value[:size]) in {"format", "size"}
