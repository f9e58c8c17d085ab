"""The parsers of single values: what they accept, what they refuse, and how a value is written back."""

from ipaddress import ip_network
from typing import Any

import pytest

from heimdall_lib.config import values
from heimdall_lib.config.values import Kind, show
from heimdall_lib.settings import Endpoint, ForwardZone, Secret, UpstreamServer

SMALL = values.integer(1, 100)
SHORT = values.seconds(60)
SHORT_OR_OFF = values.seconds_or_zero(60, "0 = off")


def refusal(kind: Kind, text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what the tests look at
        kind.parse(text)
    return str(caught.value)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("100", 100), ("+7", 7), ("007", 7)])
def test_an_integer_within_its_bounds_is_accepted(text: str, number: int) -> None:
    assert SMALL.parse(text) == number


@pytest.mark.parametrize(
    "text",
    ["", " ", "0", "101", "-1", "1.0", "1e1", "1_0", "0x10", "ten", " 5", "5 ", "٣", "5\n", "nan", "9" * 5000, "true"],
)
def test_anything_but_a_decimal_integer_within_its_bounds_is_refused(text: str) -> None:
    assert refusal(SMALL, text) == "an integer from 1 to 100"


def test_the_special_integer_is_explained() -> None:
    assert values.integer(0, 64, "N", "0 = one per core").allowed == "an integer from 0 to 64; 0 = one per core"


@pytest.mark.parametrize(
    ("text", "number"), [("1.5", 1.5), ("60", 60.0), (".25", 0.25), ("2.", 2.0), ("1e-3", 0.001), ("+1E1", 10.0)]
)
def test_a_duration_may_be_any_finite_number_within_its_bounds(text: str, number: float) -> None:
    assert SHORT.parse(text) == number
    assert SHORT_OR_OFF.parse(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "nan", "NaN", "inf", "-inf", "infinity", ".inf", "1e999", "61", "-0.1", "1,5", "5s", "1_0", " 1", "0x1", "."],
)
def test_a_duration_is_never_infinite_negative_or_text(text: str) -> None:
    assert refusal(SHORT, text) == "seconds, more than 0 and at most 60"
    assert refusal(SHORT_OR_OFF, text) == "seconds, from 0 to 60; 0 = off"


@pytest.mark.parametrize("text", ["0", "0.0", "-0", "1e-999"])
def test_zero_is_a_duration_only_where_it_has_a_meaning(text: str) -> None:
    assert SHORT_OR_OFF.parse(text) == 0
    assert refusal(SHORT, text) == "seconds, more than 0 and at most 60"


def test_large_bounds_are_written_out() -> None:
    assert values.decimal(0, 1e9, "queries", "N").allowed == "queries, from 0 to 1000000000"


@pytest.mark.parametrize("text", ["true", "TRUE", "True", "1", "yes", "Yes", "on", "ON"])
def test_words_for_true(text: str) -> None:
    assert values.BOOLEAN.parse(text) is True
    assert values.AUTO_OR_BOOLEAN.parse(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "False", "0", "no", "No", "off", "oFf"])
def test_words_for_false(text: str) -> None:
    assert values.BOOLEAN.parse(text) is False
    assert values.AUTO_OR_BOOLEAN.parse(text) is False


@pytest.mark.parametrize("text", ["", "2", "y", "n", "t", "enabled", "true ", "null", "01"])
def test_other_words_are_no_boolean(text: str) -> None:
    assert refusal(values.BOOLEAN, text) == values.BOOLEAN.allowed
    assert refusal(values.AUTO_OR_BOOLEAN, text) == values.AUTO_OR_BOOLEAN.allowed


@pytest.mark.parametrize("text", ["auto", "AUTO", "Auto"])
def test_auto_is_neither_true_nor_false(text: str) -> None:
    assert values.AUTO_OR_BOOLEAN.parse(text) is None
    assert refusal(values.BOOLEAN, text) == values.BOOLEAN.allowed


def test_a_word_is_accepted_in_any_case_and_lowered() -> None:
    kind = values.word("text", "json")
    assert kind.parse("JSON") == "json"
    assert refusal(kind, "xml") == "text or json"
    assert values.word("a", "b", "c").allowed == "a, b or c"


def test_a_pattern_has_to_match_from_end_to_end() -> None:
    kind = values.pattern("[a-z]+", "lower case letters")
    assert kind.parse("abc") == "abc"
    for text in ("", "abc1", "1abc", "abc\n"):
        assert refusal(kind, text) == "lower case letters"


def test_an_optional_kind_accepts_the_empty_text_as_not_set() -> None:
    kind = values.optional(SMALL, None)
    assert kind.parse("") is None
    assert kind.parse("5") == 5
    assert refusal(kind, " ") == SMALL.allowed
    assert kind.allowed == SMALL.allowed


@pytest.mark.parametrize("text", ["heimdall:dns:cache", "a", "x" * 128, "prod/eu-1", "~!#$%&()+,;<=>@^_`|'\""])
def test_a_key_prefix_is_printable(text: str) -> None:
    assert values.KEY_PREFIX.parse(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "a\tb", "a\n", "é", *(f"a{char}b" for char in "*?[]{}\\")])
def test_a_key_prefix_has_no_spaces_and_no_glob_or_hash_tag_characters(text: str) -> None:
    assert refusal(values.KEY_PREFIX, text) == values.KEY_PREFIX.allowed


@pytest.mark.parametrize("text", ["x", "pass word", "pässwörd", "a,b", "line\n"])
def test_a_password_is_kept_as_it_is_and_hides_itself(text: str) -> None:
    password = values.PASSWORD.parse(text)
    assert password == text
    assert isinstance(password, Secret)
    assert repr(password) == "'***'"


def test_a_password_that_is_not_utf8_is_refused_without_being_shown() -> None:
    assert refusal(values.PASSWORD, "hunter\udcff") == "UTF-8 text"


def test_a_token_hides_itself() -> None:
    token = values.TOKEN.parse("0123456789abcdef")
    assert isinstance(token, Secret)
    assert token == "0123456789abcdef"


@pytest.mark.parametrize("text", ["", "short", "0123456789abcde", "0123456789abcdef\n", "0123456789 abcdef", "é" * 20])
def test_a_token_that_is_short_or_does_not_fit_into_a_header_is_refused_without_being_shown(text: str) -> None:
    assert refusal(values.TOKEN, text) == "at least 16 printable ASCII characters, no spaces"


def test_signing_keys_are_a_comma_list_of_secrets() -> None:
    keys = values.KEYS.parse("new-key-0123456789, old-key-0123456789")
    assert keys == ("new-key-0123456789", "old-key-0123456789")
    assert all(isinstance(key, Secret) for key in keys)


@pytest.mark.parametrize("text", ["short", "new-key-0123456789,", "new-key-0123456789,short", "a b c d e f g h i j k"])
def test_every_signing_key_has_to_be_long_enough(text: str) -> None:
    message = refusal(values.KEYS, text)
    assert message == values.KEYS.allowed
    assert "new-key" not in message


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("10.0.0.0/8", ["10.0.0.0/8"]),
        ("192.0.2.1", ["192.0.2.1/32"]),
        ("::1", ["::1/128"]),
        (" 10.0.0.0/8 , fc00::/7", ["10.0.0.0/8", "fc00::/7"]),
        ("0.0.0.0/0", ["0.0.0.0/0"]),
        ("any", ["0.0.0.0/0", "::/0"]),
        ("Any,10.0.0.0/8", ["0.0.0.0/0", "::/0", "10.0.0.0/8"]),
        ("10.0.0.0/8,10.0.0.0/8", ["10.0.0.0/8"]),
        ("2001:DB8:0::/32", ["2001:db8::/32"]),
    ],
)
def test_networks(text: str, networks: list[str]) -> None:
    assert values.NETWORKS.parse(text) == tuple(ip_network(network) for network in networks)


@pytest.mark.parametrize(
    ("text", "network"),
    [("10.1.2.3/8", "10.0.0.0/8"), ("192.168.1.1/24", "192.168.1.0/24"), ("fe80::1/10", "fe80::/10")],
)
def test_host_bits_are_refused_with_the_network_that_was_meant(text: str, network: str) -> None:
    assert refusal(values.NETWORKS, f"127.0.0.0/8,{text}") == f"{text!r} has host bits set; the network is {network}"


@pytest.mark.parametrize(
    "text",
    ["", ",", "10.0.0.0/8,", "10/8", "10.0.0.0/33", "::/129", "10.0.0.0/255.0.0.0", "10.0.0.0/", "10.0.0.0/-1",
     "loopback", "example.com", "fe80::1%eth0", "fe80::%eth0/10", "10.0.0.0/8 fc00::/7", "10.0.0.0/0008"],
)  # fmt: skip
def test_what_is_no_network_is_refused(text: str) -> None:
    assert refusal(values.NETWORKS, text).endswith(values.NETWORKS.allowed)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "disabled"),
        (True, "true"),
        (False, "false"),
        (5, "5"),
        (5.0, "5"),
        (1.5, "1.5"),
        (0.02, "0.02"),
        (1e9, "1000000000"),
        ("text", "text"),
        ("", "-"),
        ((), "-"),
        (Secret(""), "-"),
        (Secret("hunter2"), "***"),
        ((Secret("hunter2"), Secret("hunter3")), "***,***"),
        (Endpoint("::1", 53), "[::1]:53"),
        ((Endpoint("::1", 53), Endpoint("127.0.0.1", 53)), "[::1]:53,127.0.0.1:53"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    ],
)
def test_a_value_is_shown_as_it_would_be_set(value: Any, text: str) -> None:
    assert show(value) == text


def test_a_forward_zone_is_shown_as_it_would_be_set() -> None:
    servers = (UpstreamServer("udp", "10.0.0.1", 53), UpstreamServer("tls", "10.0.0.2", 853, "dns.example"))
    zone = ForwardZone("corp.example", servers)
    assert show((zone,)) == "corp.example=udp://10.0.0.1:53+tls://10.0.0.2:853#dns.example"
