"""Addresses and ports as text."""

import pytest

from heimdall_lib.config.addresses import (
    HTTP_LISTENER,
    LISTENERS,
    address,
    covers,
    endpoint,
    is_host_name,
    is_wildcard,
)
from heimdall_lib.config.values import Kind
from heimdall_lib.settings import Endpoint


def refusal(kind: Kind, text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what the tests look at
        kind.parse(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_an_address_has_one_canonical_form(text: str, canonical: str) -> None:
    assert str(address(text)) == canonical


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2", "192.0.2.256", "[::1]", "::1%", "1.2.3.4:53"])
def test_other_text_is_no_address(text: str) -> None:
    assert address(text) is None


@pytest.mark.parametrize(
    "text", ["localhost", "dns.example", "dns.example.", "a-b.c_d", "1.example", "xn--bcher-kva.example", "a" * 63]
)
def test_host_names(text: str) -> None:
    assert is_host_name(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "a..b", ".a", "-a", "a-", "a b", "a" * 64, ".".join(["a" * 60] * 5), "bücher.example", "192.0.2.300", "7",
     "a.1.", "a/b", "a:b", "a\n"],
)  # fmt: skip
def test_what_is_no_host_name(text: str) -> None:
    assert not is_host_name(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 6379),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("192.0.2.1:65535", "192.0.2.1", 65535),
        ("[::1]", "::1", 6379),
        ("[2001:DB8::1]:5353", "2001:db8::1", 5353),
        ("[fe80::1%eth0]:53", "fe80::1%eth0", 53),
        ("[::ffff:10.0.0.1]", "10.0.0.1", 6379),
        ("Redis.Example.:7000", "redis.example", 7000),
        ("localhost", "localhost", 6379),
    ],
)
def test_an_endpoint_with_a_default_port(text: str, host: str, port: int) -> None:
    assert endpoint(text, 6379) == Endpoint(host, port)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the host must be"),
        (":53", "the host must be"),
        ("a b:53", "the host must be"),
        ("192.0.2.256", "the host must be"),
        ("host:", "host:port is allowed"),
        ("host:port", "host:port is allowed"),
        ("host:123456", "host:port is allowed"),
        ("host:53:53", "host:port is allowed"),
        ("2001:db8::1", "host:port is allowed"),
        ("[::1", "host:port is allowed"),
        ("[::1]53", "host:port is allowed"),
        ("x[::1]", "host:port is allowed"),
        ("[]", "only an IPv6 address"),
        ("[192.0.2.1]", "only an IPv6 address"),
        ("[localhost]", "only an IPv6 address"),
        ("host:0", "a port from 1 to 65535"),
        ("host:65536", "a port from 1 to 65535"),
    ],
)
def test_a_malformed_endpoint_is_refused_without_being_repeated(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        endpoint(text, 6379)
    assert "secret" not in str(caught.value)


def test_an_endpoint_without_a_default_needs_its_port() -> None:
    with pytest.raises(ValueError, match="the port is missing"):
        endpoint("192.0.2.1")
    assert endpoint("192.0.2.1:0", lowest_port=0) == Endpoint("192.0.2.1", 0)


def test_listeners() -> None:
    expected = (Endpoint("127.0.0.1", 1053), Endpoint("::1", 1053), Endpoint("0.0.0.0", 0))
    assert LISTENERS.parse("127.0.0.1:1053, [::1]:1053,0.0.0.0:0") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': the port is missing"),
        ("127.0.0.1", "'127.0.0.1': the port is missing"),
        ("127.0.0.1:53,", "'': the port is missing"),
        ("localhost:53", "'localhost:53': an IP address is needed"),
        ("*:53", "'*:53': the host must be"),
        (":53", "':53': the host must be"),
        ("::1:53", "'::1:53': host:port is allowed, an IPv6 address in brackets"),
        ("127.0.0.1:65536", "'127.0.0.1:65536': a port from 0 to 65535 is allowed"),
        ("127.0.0.1:53,127.0.0.1:53", "127.0.0.1:53 is listed twice"),
        ("[::1]:53,[0:0::1]:53", "[::1]:53 is listed twice"),
    ],
)
def test_listeners_that_are_refused(text: str, message: str) -> None:
    assert refusal(LISTENERS, text).startswith(message)


def test_http_listens_at_one_address_or_nowhere() -> None:
    assert HTTP_LISTENER.parse("[::]:8080") == Endpoint("::", 8080)
    assert HTTP_LISTENER.parse("disabled") is None
    assert HTTP_LISTENER.parse("Disabled") is None
    for text in ("", "off", "8080", "127.0.0.1:1,127.0.0.1:2", "localhost:8080"):
        assert text in refusal(HTTP_LISTENER, text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("127.0.0.1", 53), ("127.0.0.1", 53), True),
        (("0.0.0.0", 53), ("127.0.0.1", 53), True),
        (("127.0.0.1", 53), ("::", 53), True),
        (("127.0.0.1", 53), ("127.0.0.2", 53), False),
        (("127.0.0.1", 53), ("127.0.0.1", 54), False),
        (("0.0.0.0", 0), ("0.0.0.0", 0), False),
    ],
)
def test_whether_two_listeners_get_into_each_others_way(
    one: tuple[str, int], other: tuple[str, int], expected: bool
) -> None:
    assert covers(Endpoint(*one), Endpoint(*other)) is expected


def test_wildcards() -> None:
    assert is_wildcard("0.0.0.0")
    assert is_wildcard("::")
    assert not is_wildcard("127.0.0.1")
