"""EDNS between a client and Heimdall: OPT, its version, sizes, flags and options."""

from collections.abc import Sequence

import dns.edns
import dns.flags
import dns.message
import pytest

from tests.conformance.replies import replying
from tests.support import messages
from tests.support.client import addresses, exchange_bytes, extended_errors, flags, query, rcode
from tests.support.messages import TO_QUESTION, opt, option, record
from tests.support.processes import Heimdall
from tests.support.upstream import Upstream

COOKIE, KEEPALIVE = 10, 11
HALF = b"8 octets"
OTHER = record(TO_QUESTION, messages.TXT, 0, b"\1x")


def asked(name: str, *additional: bytes) -> bytes:
    return messages.query(name, additional=additional)


def answer_to(server: Heimdall, wire: bytes) -> dns.message.Message:
    return dns.message.from_wire(exchange_bytes(server.address, wire))


def generic(code: int, data: bytes) -> dns.edns.GenericOption:
    return dns.edns.GenericOption(dns.edns.OptionType.make(code), data)


def options_of(answer: dns.message.Message) -> list[tuple[int, bytes]]:
    return [(int(each.otype), each.to_wire() or b"") for each in answer.options]


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "AXFR", "OPT"])
def test_opt_is_in_the_answer_if_it_was_in_the_query(
    server: Heimdall, upstream: Upstream, name: str, rdtype: str
) -> None:
    """RFC 6891, section 6.1.1: OPT in a query means OPT in its answer, an error too; no OPT means none."""
    upstream.add(name, "A", "192.0.2.1")
    for _ in ("miss", "hit"):
        assert server.ask(name, rdtype, use_edns=False).edns == -1
        assert server.ask(name, rdtype).edns == 0


@pytest.mark.parametrize(
    "additional",
    [
        pytest.param((opt(), opt()), id="twice"),
        pytest.param((opt(owner=b"\1a\0"),), id="not at the root"),
        pytest.param((opt(options=option(65001, b"abc"))[:-1],), id="option cut short"),
    ],
)
def test_an_opt_that_is_wrong_is_a_format_error(server: Heimdall, name: str, additional: Sequence[bytes]) -> None:
    """RFC 6891, section 6.1.1: a query with OPT twice, or one that is not at the root, is FORMERR."""
    assert rcode(answer_to(server, asked(name, *additional))) == "FORMERR"


@pytest.mark.parametrize("section", ["answer", "authority"])
def test_an_opt_in_another_section_is_a_format_error(server: Heimdall, name: str, section: str) -> None:
    """RFC 6891, section 6.1.1: OPT is in the additional section and nowhere else."""
    wire = messages.assemble(messages.question(name), flags=messages.RD, **{section: [opt()]})  # type: ignore[arg-type]
    assert rcode(answer_to(server, wire)) == "FORMERR"


def test_opt_may_be_anywhere_in_the_additional_section(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6891, section 6.1.1: OPT is found wherever it is in the additional section."""
    upstream.add(name, "A", "192.0.2.1")
    for additional in ((opt(), OTHER), (OTHER, opt()), (OTHER, opt(), OTHER)):
        answer = answer_to(server, asked(name, *additional))
        assert (answer.edns, addresses(answer)) == (0, ["192.0.2.1"])


@pytest.mark.parametrize("version", [1, 255])
@pytest.mark.parametrize("more", [b"", option(65001, b"x")], ids=["alone", "with an option"])
def test_another_version_is_badvers(server: Heimdall, upstream: Upstream, name: str, version: int, more: bytes) -> None:
    """RFC 6891, section 6.1.3: a version that is not supported is BADVERS, with the version that is."""
    answer = answer_to(server, asked(name, opt(version=version, options=more)))
    assert (rcode(answer), answer.edns, answer.answer) == ("BADVERS", 0, [])
    assert upstream.count(name) == 0


@pytest.mark.parametrize("size", [0, 100, 511])
def test_a_size_below_512_means_512(server: Heimdall, upstream: Upstream, name: str, size: int) -> None:
    """RFC 6891, section 6.2.3: a payload size below 512 is treated as 512."""
    upstream.add(name, "A", *(f"192.0.2.{number}" for number in range(100)))
    wire = exchange_bytes(server.address, asked(name, opt(udp_size=size)))
    assert 480 < len(wire) <= 512


@pytest.mark.parametrize("size", [700, 1232])
def test_an_answer_is_no_larger_than_the_client_takes(
    server: Heimdall, upstream: Upstream, name: str, size: int
) -> None:
    """RFC 6891, section 6.2.3: an answer over UDP has no more octets than its query's OPT says, OPT included."""
    upstream.add(name, "A", *(f"192.0.2.{number}" for number in range(200)))
    for _ in ("miss", "hit"):
        wire = exchange_bytes(server.address, asked(name, opt(udp_size=size)))
        assert size - 20 < len(wire) <= size
        assert "TC" in flags(dns.message.from_wire(wire))


@pytest.mark.parametrize("size", [1400, 4096, 65535])
def test_no_answer_is_so_large_that_it_is_fragmented(
    server: Heimdall, upstream: Upstream, name: str, size: int
) -> None:
    """RFC 9715, section 3.1: an answer over UDP has 1232 octets at most, whatever the client says."""
    upstream.add(name, "A", *(f"192.0.2.{number}" for number in range(200)))
    wire = exchange_bytes(server.address, asked(name, opt(udp_size=size)))
    assert 1212 < len(wire) <= 1232


def test_no_larger_answer_is_invited(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 9715, section 3.2: upstream servers and clients are told that Heimdall takes 1232 octets over UDP."""
    assert server.ask(name, payload=4096).payload == 1232
    assert [asked.message.payload for asked in upstream.questions(name)] == [1232]


def test_flags_that_nobody_knows_are_ignored(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6891, section 6.1.4: of the flags in OPT only DO means anything; the others are neither sent nor copied."""
    upstream.add(name, "A", "192.0.2.1")
    for state in (0x7FFF, 0xFFFF):
        answer = server.ask(name, ednsflags=state)
        assert (answer.ednsflags, addresses(answer)) == (state & 0x8000, ["192.0.2.1"])
    assert [asked.message.ednsflags for asked in upstream.questions(name)] == [0, 0x8000]


@pytest.mark.parametrize("code", [3, 5, 9, 12, 13, 100, 65001, 65535])
def test_an_option_that_is_not_supported_is_ignored(server: Heimdall, upstream: Upstream, name: str, code: int) -> None:
    """RFC 6891, section 6.1.2: an option that is not understood is ignored, not echoed and not passed on."""
    upstream.add(name, "A", "192.0.2.1")
    for _ in ("miss", "hit"):
        answer = answer_to(server, asked(name, opt(options=option(code, b"\0\0\0\0"))))
        assert (addresses(answer), answer.options) == (["192.0.2.1"], ())
    assert [[option.otype for option in one.message.options] for one in upstream.questions(name)] == [[COOKIE]]


def test_a_client_subnet_stays_with_its_client(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7871, section 2: where a client is, is nobody's business: the option goes no further."""
    upstream.add(name, "A", "192.0.2.1")
    for subnet in ("198.51.100.0", "203.0.113.0"):
        answer = server.ask(name, options=[dns.edns.ECSOption(subnet, 24)])
        assert (addresses(answer), answer.options) == (["192.0.2.1"], ())
    assert [[option.otype for option in one.message.options] for one in upstream.questions(name)] == [[COOKIE]]


def test_a_keepalive_over_tcp_is_told_the_idle_timeout(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7828, section 3.3.2: over TCP the option is answered with the idle timeout, in tenths of a second."""
    upstream.add(name, "A", "192.0.2.1")
    keepalive = [generic(KEEPALIVE, b"")]
    for _ in ("miss", "hit"):
        answer = server.ask(name, transport="tcp", options=keepalive)
        assert options_of(answer) == [(KEEPALIVE, (100).to_bytes(2, "big"))]
        assert server.ask(name, transport="tcp").options == ()


def test_a_keepalive_over_udp_is_ignored(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7828, section 3.3.1: over UDP the option is ignored."""
    upstream.add(name, "A", "192.0.2.1")
    for _ in ("miss", "hit"):
        answer = server.ask(name, options=[generic(KEEPALIVE, b"")])
        assert (addresses(answer), answer.options) == (["192.0.2.1"], ())


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_client_cookie_comes_back_with_a_server_cookie(
    server: Heimdall, upstream: Upstream, name: str, transport: str
) -> None:
    """RFC 7873, section 5.2.3: a client cookie is answered with itself and a server cookie."""
    upstream.add(name, "A", "192.0.2.1")
    cookies = set()
    for rdtype in ("A", "A", "AXFR"):
        options = [generic(COOKIE, HALF)]
        answer = server.ask(name, rdtype, transport=transport, options=options)
        cookies.add(dict(options_of(answer))[COOKIE])
    (cookie,) = cookies
    assert (cookie[:8], len(cookie)) == (HALF, 16)


def test_a_server_cookie_that_is_not_valid_is_replaced(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 7873, section 5.2.4: a server cookie that is not valid is answered, with one that is."""
    upstream.add(name, "A", "192.0.2.1")
    found = []
    for theirs in (b"", bytes(8), bytes(32)):
        answer = server.ask(name, options=[generic(COOKIE, HALF + theirs)])
        assert addresses(answer) == ["192.0.2.1"]
        found += options_of(answer)
    assert found == [found[0]] * 3
    assert found[0][1][8:] != bytes(8)


def test_another_client_cookie_has_another_server_cookie(server: Heimdall, name: str) -> None:
    """RFC 7873, section 4.2: a server cookie is a function of the client's, and tells nothing of another's."""
    first, second = (options_of(server.ask(name, options=[generic(COOKIE, half)])) for half in (HALF, HALF[::-1]))
    assert first[0][1][8:] != second[0][1][8:]


@pytest.mark.parametrize("size", [0, 7, 9, 15, 41])
def test_a_cookie_of_the_wrong_size_is_a_format_error(server: Heimdall, name: str, size: int) -> None:
    """RFC 7873, section 5.2.2: a cookie of a size that none has is FORMERR."""
    assert rcode(answer_to(server, asked(name, opt(options=option(COOKIE, bytes(size)))))) == "FORMERR"


def test_a_cookie_may_be_asked_for_without_a_question(server: Heimdall) -> None:
    """RFC 7873, section 5.4: a query without a question, but with a cookie, is answered NOERROR with both cookies."""
    additional = [opt(options=option(COOKIE, HALF))]
    answer = answer_to(server, messages.assemble(b"", questions=0, flags=messages.RD, additional=additional))
    assert (rcode(answer), answer.question) == ("NOERROR", [])
    assert [cookie[:8] for _, cookie in options_of(answer)] == [HALF]


def test_a_cookie_is_for_one_hop(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 6891, section 6.1.1: OPT is not forwarded: a cookie reaches neither upstream nor the next client."""
    upstream.add(name, "A", "192.0.2.1")
    server.ask(name, options=[generic(COOKIE, HALF)])
    assert server.ask(name).options == ()
    (one,) = upstream.questions(name)
    assert HALF not in one.wire


@pytest.mark.parametrize(
    ("options", "code"),
    [({"rdtype": "AXFR"}, 21), ({"flags": 0}, 20)],
    ids=["not supported", "not authoritative"],
)
def test_a_refusal_says_why(server: Heimdall, name: str, options: dict[str, object], code: int) -> None:
    """RFC 8914, section 4: an error says its reason: 20 without RD and without an answer, 21 for a transfer."""
    assert extended_errors(server.ask(name, **options)) == [code]  # type: ignore[arg-type]


def test_the_minimal_query_with_edns_is_answered(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8906, section 8.2.1: a query with a plain OPT is answered with a plain OPT."""
    upstream.add(name, "A", "192.0.2.1")
    answer = server.ask(name)
    assert (rcode(answer), answer.edns, answer.options) == ("NOERROR", 0, ())


@pytest.mark.parametrize("bits", [dns.flags.AD, dns.flags.CD, dns.flags.AD | dns.flags.CD])
def test_security_bits_do_no_harm(server: Heimdall, upstream: Upstream, name: str, bits: int) -> None:
    """RFC 8906, section 8.1.3: AD and CD in a query are no reason for an error."""
    upstream.on(name, replying("@ 300 IN A 192.0.2.1"))
    answer = server.ask(name, flags=dns.flags.RD | bits, use_edns=False)
    assert (rcode(answer), addresses(answer)) == ("NOERROR", ["192.0.2.1"])


def test_a_whole_bundle_of_the_unknown_is_answered(server: Heimdall, upstream: Upstream, name: str) -> None:
    """RFC 8906, section 8.2.6: an unknown version is BADVERS, whatever else is unknown in its OPT."""
    wire = asked(name, opt(version=1, dnssec_ok=True, options=option(100, b"x") + option(65001, b"")))
    answer = answer_to(server, wire)
    assert (rcode(answer), answer.options, query(name).edns) == ("BADVERS", (), 0)
    assert upstream.count(name) == 0
