"""What a client asked, and the key of its answer."""

import pytest

from heimdall_lib.query import Query, cache_key, parse, question_of
from tests.support.messages import (
    AA,
    AD,
    ANY,
    CD,
    CH,
    HTTPS,
    IN,
    QR,
    RA,
    RD,
    TC,
    A,
    assemble,
    opt,
    option,
    query,
    question,
    record,
    wire_name,
)

NOERROR, FORMERR, NOTIMP, BADVERS = 0, 1, 4, 16


def read(data: bytes) -> Query:
    parsed = parse(data)
    assert parsed is not None
    return parsed


def sound(data: bytes) -> Query:
    parsed = read(data)
    assert parsed.problem is None
    return parsed


# Silence


@pytest.mark.parametrize("size", range(12))
def test_less_than_a_header_deserves_silence(size: int) -> None:
    assert parse(query("example.com")[:size]) is None


def test_a_response_deserves_silence() -> None:
    assert parse(query("example.com", flags=QR)) is None


# What is read


def test_a_plain_query_is_read() -> None:
    parsed = sound(query("WWW.Example.com", HTTPS, CH, message_id=0xABCD))
    assert parsed.id == b"\xab\xcd"
    assert parsed.question == question("WWW.Example.com", HTTPS, CH)
    assert (parsed.qtype, parsed.qclass) == (HTTPS, CH)
    assert parsed.recursion_desired
    assert not parsed.authentic_data
    assert not parsed.checking_disabled
    assert (parsed.edns, parsed.dnssec_ok, parsed.udp_size) == (False, False, 512)


def test_types_and_classes_have_two_octets() -> None:
    parsed = sound(query("example.com", 0x0102, 0x0304))
    assert (parsed.qtype, parsed.qclass) == (0x0102, 0x0304)


@pytest.mark.parametrize(
    ("flag", "attribute"), [(RD, "recursion_desired"), (AD, "authentic_data"), (CD, "checking_disabled")]
)
def test_a_flag_is_read_for_itself(flag: int, attribute: str) -> None:
    names = ("recursion_desired", "authentic_data", "checking_disabled")
    parsed = sound(query("example.com", flags=flag))
    assert [name for name in names if getattr(parsed, name)] == [attribute]


def test_flags_that_mean_nothing_in_a_query_are_ignored() -> None:
    everything = 0x0040 | AA | TC | RA | 0x000F
    assert sound(query("example.com", flags=RD | everything)).key == sound(query("example.com")).key


def test_the_root_can_be_asked_for() -> None:
    assert sound(query(".", 2)).question == b"\0\0\2\0\1"


# EDNS


def test_edns_is_read() -> None:
    parsed = sound(query("example.com", additional=[opt(udp_size=4096, dnssec_ok=True)]))
    assert (parsed.edns, parsed.dnssec_ok, parsed.udp_size) == (True, True, 4096)


def test_edns_alone_does_not_ask_for_dnssec() -> None:
    parsed = sound(query("example.com", additional=[opt()]))
    assert (parsed.edns, parsed.dnssec_ok) == (True, False)


@pytest.mark.parametrize("size", [0, 511, 512])
def test_a_udp_size_below_512_means_512(size: int) -> None:
    assert sound(query("example.com", additional=[opt(udp_size=size)])).udp_size == 512


def test_options_are_passed_over() -> None:
    subnet = opt(options=option(8, bytes(8)) + option(65001, b""))
    assert sound(query("example.com", additional=[subnet])).edns


def test_the_first_cookie_is_read() -> None:
    options = option(3, b"") + option(10, b"12345678" + bytes(8)) + option(10, b"87654321")
    assert sound(query("example.com", additional=[opt(options=options)])).cookie == b"12345678"
    assert sound(query("example.com", additional=[opt()])).cookie == b""


def test_a_cookie_of_the_wrong_size_is_a_format_error() -> None:
    assert read(query("example.com", additional=[opt(options=option(10, bytes(9)))])).problem == FORMERR


def test_a_query_for_a_cookie_alone_needs_no_question() -> None:
    parsed = read(assemble(b"", questions=0, flags=RD, additional=[opt(options=option(10, bytes(8)))]))
    assert (parsed.problem, parsed.cookie, parsed.question) == (NOERROR, bytes(8), b"")
    versed = opt(version=1, options=option(10, bytes(8)))
    assert read(assemble(b"", questions=0, flags=RD, additional=[versed])).problem == BADVERS
    assert read(assemble(b"", questions=0, flags=RD, additional=[opt()])).problem == FORMERR


def test_a_keepalive_is_read_among_other_options() -> None:
    options = option(3, b"") + option(11, b"") + option(65001, b"")
    assert sound(query("example.com", additional=[opt(options=options)])).keepalive
    assert not sound(query("example.com", additional=[opt(options=option(3, b""))])).keepalive


def test_other_additional_records_are_passed_over_before_and_after_the_opt() -> None:
    other = record(wire_name("a.example"), A, 0, bytes(4))
    assert sound(query("example.com", additional=[other, opt(dnssec_ok=True), other])).dnssec_ok
    assert not sound(query("example.com", additional=[other])).edns


def test_an_unknown_edns_version_is_told_so() -> None:
    parsed = read(query("example.com", additional=[opt(version=1, dnssec_ok=True)]))
    assert parsed.problem == BADVERS
    assert parsed.edns


def test_an_unknown_edns_flag_is_ignored() -> None:
    unknown = bytearray(opt())
    unknown[8] |= 0x01
    assert not sound(query("example.com", additional=[bytes(unknown)])).dnssec_ok


# Problems


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 15])
def test_another_opcode_is_not_implemented(opcode: int) -> None:
    parsed = read(query("example.com", flags=RD | opcode << 11))
    assert parsed.problem == NOTIMP
    assert parsed.opcode == opcode << 3


MALFORMED = {
    "no question": assemble(b"", flags=RD, questions=0),
    "two questions": assemble(question("a.example") * 2, flags=RD, questions=2),
    "an answer": assemble(question("a.example"), answer=[record(b"\0", A, 0, bytes(4))], flags=RD),
    "an authority": assemble(question("a.example"), authority=[record(b"\0", A, 0, bytes(4))], flags=RD),
    "a name cut short": query("a.example")[:15],
    "a type cut short": query("a.example")[:-3],
    "a pointer for a name": assemble(b"\xc0\x0c\0\1\0\1", flags=RD),
    "a long name": assemble(b"\x3fa" * 3 + b"\0\0\1\0\1", flags=RD),
    "bytes behind the question": query("a.example") + b"\0",
    "an OPT told but not there": assemble(question("a.example"), additional=[b""], flags=RD),
    "an OPT there but not told": query("a.example") + opt(),
    "an OPT cut short": query("a.example", additional=[opt()])[:-1],
    "an OPT twice": query("a.example", additional=[opt(), opt()]),
    "an OPT not at the root": query("a.example", additional=[opt(owner=b"\1a\0")]),
    "an OPT by a pointer": query("a.example", additional=[opt(owner=b"\xc0\x14")]),
    "an option cut short": query("a.example", additional=[opt(options=option(10, bytes(8))[:-1])]),
    "bytes behind the OPT": query("a.example", additional=[opt()]) + b"\0",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_query_is_told_so(data: bytes) -> None:
    parsed = read(data)
    assert parsed.problem == FORMERR
    assert parsed.id == b"\x12\x34"


def test_a_malformed_query_keeps_its_question_if_that_could_be_read() -> None:
    assert read(MALFORMED["an OPT twice"]).question == question("a.example")
    assert read(MALFORMED["an OPT twice"]).edns
    assert read(MALFORMED["a type cut short"]).question == b""


# Keys


def test_a_key_holds_the_question_in_lower_case() -> None:
    parsed = sound(query("WWW.Example.com"))
    assert question_of(parsed.key) == question("www.example.com")
    assert parsed.question == question("WWW.Example.com")


def test_type_class_dnssec_and_checking_separate_keys() -> None:
    every = [
        sound(query("example.com", qtype, qclass, flags=flags, additional=additional)).key
        for qtype in (A, HTTPS, 97, ANY, 0x4100, 0x6100)
        for qclass in (IN, CH, HTTPS, 97)
        for flags in (RD, RD | CD)
        for additional in ([], [opt(dnssec_ok=True)])
    ]
    assert len(set(every)) == len(every)


def test_recursion_and_edns_without_dnssec_do_not_separate_keys() -> None:
    plain = sound(query("example.com")).key
    assert sound(query("example.com", flags=0)).key == plain
    assert sound(query("example.com", flags=RD | AD, additional=[opt()])).key == plain


def test_octets_beside_the_letters_are_told_apart() -> None:
    assert sound(query("@.example")).key != sound(query("`.example")).key
    assert sound(query(r"\193.example")).key != sound(query(r"\225.example")).key


def test_a_key_made_from_a_question_is_the_one_of_the_query() -> None:
    data = query("WWW.example.com", HTTPS, flags=RD | CD, additional=[opt(dnssec_ok=True)])
    made = cache_key(question("www.EXAMPLE.com", HTTPS), dnssec_ok=True, checking_disabled=True)
    assert made == sound(data).key
