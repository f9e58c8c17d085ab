"""DNS bytes: where things are in them, what is refused, and what changes in place."""

import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest

from heimdall_lib import wire
from heimdall_lib.errors import WireError
from tests.support.messages import (
    CNAME,
    EXTENDED_ERROR,
    QR,
    RD,
    SOA,
    TC,
    TO_QUESTION,
    TXT,
    A,
    assemble,
    counts_of,
    flags_of,
    opt,
    option,
    query,
    question,
    record,
    reply,
    wire_name,
)

LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
"""A name of 255 octets."""

HEADER = bytes(12)


# Numbers


@pytest.mark.parametrize("name", ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS"])
def test_codes_have_their_registered_numbers(name: str) -> None:
    assert getattr(wire, name) == dns.rcode.from_text(name)


@pytest.mark.parametrize("name", ["NS", "CNAME", "SOA", "TXT", "OPT", "IXFR", "AXFR", "ANY"])
def test_types_have_their_registered_numbers(name: str) -> None:
    assert getattr(wire, f"TYPE_{name}") == dns.rdatatype.from_text(name)


@pytest.mark.parametrize("name", ["IN", "CH"])
def test_classes_have_their_registered_numbers(name: str) -> None:
    assert getattr(wire, f"CLASS_{name}") == dns.rdataclass.from_text(name)


@pytest.mark.parametrize("name", ["QR", "AA", "TC", "RD", "RA", "AD", "CD"])
def test_flags_are_the_bits_of_their_octet(name: str) -> None:
    word = int(dns.flags.from_text(name))
    assert getattr(wire, name) == word >> 8 or getattr(wire, name) == word & 0xFF


# Names


def test_a_name_ends_after_its_root_label() -> None:
    name = wire_name("www.example.com")
    assert wire.name_end(HEADER + name + b"more", 12) == 12 + len(name)


def test_the_root_is_a_name_of_one_octet() -> None:
    assert wire.name_end(HEADER + b"\0", 12) == 13


def test_a_name_ends_after_its_pointer() -> None:
    message = HEADER + wire_name("example.com") + b"\3www" + TO_QUESTION + b"more"
    start = 12 + len(wire_name("example.com"))
    assert wire.name_end(message, start) == start + 6


@pytest.mark.parametrize("target", [0, 1, 11])
def test_a_pointer_into_the_header_is_refused(target: int) -> None:
    with pytest.raises(WireError, match="pointer"):
        wire.name_end(HEADER + b"\0" + struct.pack("!H", 0xC000 | target), 13)


@pytest.mark.parametrize("target", [13, 14, 15, 100, 0x3FFF])
def test_a_pointer_to_its_own_name_or_forwards_is_refused(target: int) -> None:
    with pytest.raises(WireError, match="pointer"):
        wire.name_end(HEADER + b"\0" + struct.pack("!H", 0xC000 | target) + b"\0", 13)


def test_a_pointer_back_into_the_name_it_ends_is_refused() -> None:
    message = HEADER + b"\0" + b"\1a\1b" + struct.pack("!H", 0xC000 | 15)
    with pytest.raises(WireError, match="pointer"):
        wire.name_end(message, 13)


def test_a_pointer_reaches_as_far_as_fourteen_bits() -> None:
    message = bytes(0x3FFF) + b"\0" + b"\xff\xff"
    assert wire.name_end(message, 0x4000) == 0x4002


@pytest.mark.parametrize("length", [0x40, 0x7F, 0x80, 0xBF])
def test_a_label_type_that_is_not_in_use_is_refused(length: int) -> None:
    with pytest.raises(WireError, match="label type"):
        wire.name_end(HEADER + bytes((length,)) + bytes(300), 12)


@pytest.mark.parametrize("name", [b"", b"\3", b"\3ww", b"\3www", b"\xc0"])
def test_a_name_that_runs_out_of_the_message_is_refused(name: bytes) -> None:
    with pytest.raises(WireError, match="runs out"):
        wire.name_end(HEADER + name, 12)


def compressed(times: int) -> tuple[bytes, int]:
    """A name of as many labels, each followed by a pointer to the next, in a message; and where it begins."""
    message, start = bytearray(HEADER + b"\0"), 12
    for _ in range(times):
        start, target = len(message), start
        message += b"\1a" + struct.pack("!H", 0xC000 | target)
    return bytes(message), start


def test_a_name_is_over_before_it_is_pointed_to() -> None:
    prior = HEADER + b"\3www\0" + b"\1a" + struct.pack("!H", 0xC000 | 12)
    assert wire.name(prior, 17) == b"\1a\3www\0"
    for length in (4, 5, 9):  # just into the name that points to it, and past it
        overlapping = HEADER + bytes((length,)) + b"www\0" + b"\1a" + struct.pack("!H", 0xC000 | 12) + bytes(20)
        with pytest.raises(WireError, match="pointed to"):
            wire.name(overlapping, 17)


def test_a_name_is_compressed_sixteen_times_at_most() -> None:
    assert wire.name(*compressed(16)) == b"\1a" * 16 + b"\0"
    with pytest.raises(WireError, match="too many"):
        wire.name(*compressed(17))


# Questions


def test_the_question_ends_after_its_class() -> None:
    assert wire.question_end(query("www.example.com", additional=[opt()])) == 12 + len(question("www.example.com"))


def test_a_name_of_255_octets_is_a_name() -> None:
    assert wire.question_end(query(LONGEST)) == 12 + 255 + 4


def test_a_name_of_256_octets_is_refused() -> None:
    name = b"\x3e" + b"d" * 62 + wire_name(LONGEST)[: 3 * 64] + b"\0"
    assert len(name) == 256
    with pytest.raises(WireError, match="255"):
        wire.question_end(HEADER + name + b"\0\1\0\1")


@pytest.mark.parametrize("size", range(12, 12 + len(question("a.example"))))
def test_a_question_cut_short_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        wire.question_end(query("a.example")[:size])


@pytest.mark.parametrize("size", range(12))
def test_a_header_cut_short_holds_no_question(size: int) -> None:
    with pytest.raises(WireError):
        wire.question_end(query("a.example")[:size])


# Records


def test_records_are_told_in_order_with_their_places() -> None:
    asked = question("www.example.com")
    first = record(TO_QUESTION, CNAME, 300, wire_name("a.example"))
    second = record(wire_name("example.com"), SOA, 0x80000001, b"anything", rclass=3)
    third = record(b"\0", 65280, 0, b"")
    message = assemble(asked, answer=[first], authority=[second], additional=[third])
    start = 12 + len(asked)

    found = list(wire.records(message, start))

    assert [(one.section, one.type, one.rclass, one.ttl) for one in found] == [
        (wire.ANSWER, CNAME, 1, 300),
        (wire.AUTHORITY, SOA, 3, 0x80000001),
        (wire.ADDITIONAL, 65280, 1, 0),
    ]
    assert [message[one.start : one.end] for one in found] == [first, second, third]
    assert [message[one.rdata : one.end] for one in found] == [wire_name("a.example"), b"anything", b""]
    assert [struct.unpack_from("!I", message, one.ttl_offset)[0] for one in found] == [300, 0x80000001, 0]


def test_a_message_without_records_has_none() -> None:
    message = query("example.com")
    assert list(wire.records(message, len(message))) == []


def test_bytes_after_the_last_record_are_refused() -> None:
    asked = question("example.com")
    with pytest.raises(WireError, match="after the last"):
        list(wire.records(assemble(asked, additional=[opt()]) + b"\0", 12 + len(asked)))


def test_a_message_that_ends_before_its_records_begin_is_refused() -> None:
    message = query("example.com")
    with pytest.raises(WireError):
        list(wire.records(message, len(message) + 1))


def test_a_record_cut_short_is_refused_wherever_it_is_cut() -> None:
    asked = question("example.com")
    whole = assemble(asked, answer=[record(wire_name("a.example"), A, 1, b"\1\2\3\4")])
    start = 12 + len(asked)
    for size in range(start, len(whole)):
        with pytest.raises(WireError):
            list(wire.records(whole[:size], start))


def test_a_header_cut_short_holds_no_records() -> None:
    for size in range(12):
        with pytest.raises(WireError):
            list(wire.records(bytes(size), size))


# EDNS


def test_options_are_told_in_order() -> None:
    data = option(10, b"cookie") + option(65001, b"") + option(EXTENDED_ERROR, b"\0\1") + option(10, b"")
    assert list(wire.options(data)) == [(10, b"cookie"), (65001, b""), (EXTENDED_ERROR, b"\0\1"), (10, b"")]


def test_an_opt_record_may_have_no_options() -> None:
    assert list(wire.options(b"")) == []


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 11, 12, 13])
def test_an_option_cut_short_is_refused(size: int) -> None:
    data = option(10, b"cookie") + option(10, b"")
    with pytest.raises(WireError, match="option"):
        list(wire.options(data[:size]))


@pytest.mark.parametrize("dnssec_ok", [True, False])
def test_an_opt_record_is_what_others_write(dnssec_ok: bool) -> None:
    options = option(10, b"cookie")
    made = wire.opt_record(1232, dnssec_ok=dnssec_ok, extended_rcode=1, data=options)
    assert made == opt(udp_size=1232, dnssec_ok=dnssec_ok, extended_rcode=1, options=options)


def test_an_opt_record_has_no_flags_unless_told() -> None:
    assert wire.opt_record(512, dnssec_ok=False) == opt(udp_size=512)


def test_an_extended_error_is_what_others_write() -> None:
    assert wire.extended_error(22, "né") == option(EXTENDED_ERROR, b"\0\x16" + "né".encode())
    assert wire.extended_error(3) == option(EXTENDED_ERROR, b"\0\3")


@pytest.mark.parametrize(("seconds", "tenths"), [(10, 100), (0.3, 3), (0.05, 0), (1e6, 0xFFFF)])
def test_a_keepalive_counts_in_tenths_of_a_second(seconds: float, tenths: int) -> None:
    assert wire.keepalive(seconds) == option(11, tenths.to_bytes(2, "big"))


# Replies matched to questions


ASKED = question("www.example.com")


def test_a_reply_with_the_same_question_is_the_reply() -> None:
    assert wire.is_reply_to(reply("www.example.com", answer=["www.example.com. 60 IN A 192.0.2.1"]), ASKED)


def test_the_id_is_for_the_caller_to_compare() -> None:
    assert wire.is_reply_to(query("www.example.com", message_id=0x1235, flags=QR), ASKED)


@pytest.mark.parametrize("rcode", [1, 4])
def test_a_header_alone_that_says_formerr_or_notimp_is_a_reply(rcode: int) -> None:
    assert wire.is_reply_to(bytes((0, 0, 0x80, rcode)) + bytes(8), ASKED)


@pytest.mark.parametrize("header", [(0, 1, 0), (0x80, 0, 0), (0x80, 2, 0), (0x88, 1, 0), (0x80, 1, 1)])
def test_no_other_header_alone_is(header: tuple[int, int, int]) -> None:
    first, second, questions = header
    assert not wire.is_reply_to(bytes((0, 0, first, second, 0, questions)) + bytes(6), ASKED)


@pytest.mark.parametrize("asked", ["www.example.com", "WWW.example.COM", "wWw.eXample.com"])
def test_the_case_of_the_name_does_not_matter(asked: str) -> None:
    assert wire.is_reply_to(reply("WWW.example.COM"), question(asked))


def test_the_flags_of_the_answer_do_not_matter() -> None:
    assert wire.is_reply_to(query("www.example.com", flags=0x87FF), ASKED)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(query("www.example.com", flags=RD), id="a query"),
        pytest.param(query("www.example.com", flags=QR | 0x2800), id="opcode"),
        pytest.param(query("www.example.net", flags=QR), id="name"),
        pytest.param(query("w.example.com", flags=QR), id="shorter name"),
        pytest.param(query("www.example.com.net", flags=QR), id="longer name"),
        pytest.param(query("www.example.com", 28, flags=QR), id="type"),
        pytest.param(query("www.example.com", A, 3, flags=QR), id="class"),
        pytest.param(assemble(b"", questions=0), id="no question"),
        pytest.param(assemble(question("www.example.com") * 2, questions=2), id="two questions"),
        pytest.param(query("www.example.com", flags=QR)[:-1], id="cut short"),
        pytest.param(query("www.example.com", flags=QR)[:11], id="no header"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_differs_from_the_question_is_not_its_reply(other: bytes) -> None:
    assert not wire.is_reply_to(other, ASKED)


def test_a_type_whose_octets_look_like_letters_is_matched_exactly() -> None:
    for one, other in ((65, 97), (97, 65)):
        assert not wire.is_reply_to(query("EXAMPLE.com", one, flags=QR), question("example.com", other))
        assert not wire.is_reply_to(query("EXAMPLE.com", A, one, flags=QR), question("example.com", A, other))


# Truncation


ANSWERS = [f"www.example.com. 60 IN A 192.0.2.{number}" for number in range(1, 6)]
WHOLE = reply("www.example.com", answer=ANSWERS, additional=["ns.example.com. 60 IN A 192.0.2.53"])
GLUE_SIZE = 2 + 2 + 1 + 10 + 4


def test_a_message_that_fits_stays_as_it_is() -> None:
    assert wire.truncate(WHOLE, len(WHOLE)) == WHOLE


def test_losing_additional_records_is_no_truncation() -> None:
    shorter = wire.truncate(WHOLE, len(WHOLE) - 1)
    assert counts_of(shorter) == (1, 5, 0, 0)
    assert not flags_of(shorter) & TC


def test_of_additional_records_that_do_not_all_fit_none_stays() -> None:
    glue = [record(TO_QUESTION, A, 1, bytes(4)) for _ in range(3)]
    message = assemble(question("example.com"), answer=[record(TO_QUESTION, TXT, 1, bytes(9))], additional=glue)
    shorter = wire.truncate(message, len(message) - 1)
    assert counts_of(shorter) == (1, 1, 0, 0)
    assert not flags_of(shorter) & TC


def test_losing_answers_is_truncation() -> None:
    shorter = wire.truncate(WHOLE, len(WHOLE) - GLUE_SIZE - 2)
    assert counts_of(shorter) == (1, 4, 0, 0)
    assert flags_of(shorter) & TC
    assert len(dns.message.from_wire(bytes(shorter), one_rr_per_rrset=True).answer) == 4


def test_losing_authority_records_is_truncation() -> None:
    denial = reply("x.example.com", authority=["example.com. 60 IN SOA a. b. 1 2 3 4 5"])
    shorter = wire.truncate(denial, len(denial) - 1)
    assert counts_of(shorter) == (1, 0, 0, 0)
    assert flags_of(shorter) & TC


def test_a_smaller_record_behind_one_that_did_not_fit_is_lost_too() -> None:
    asked = question("example.com")
    message = assemble(asked, answer=[record(TO_QUESTION, TXT, 1, bytes(200)), record(TO_QUESTION, A, 1, bytes(4))])
    assert counts_of(wire.truncate(message, 150)) == (1, 0, 0, 0)


def test_header_and_question_stay_whatever_the_limit() -> None:
    shorter = wire.truncate(bytearray(WHOLE), 0)
    assert shorter[12:] == question("www.example.com")
    assert counts_of(shorter) == (1, 0, 0, 0)
    assert flags_of(shorter) & TC


def test_a_reply_that_was_truncated_already_stays_so() -> None:
    cut = reply("www.example.com", answer=ANSWERS[:1], flags="QR TC", additional=["a. 1 IN A 192.0.2.1"])
    assert flags_of(wire.truncate(cut, len(cut) - 1)) & TC


# Names without compression


def test_a_name_is_read_without_compression_and_in_lower_case() -> None:
    message = assemble(question("wWw.Example.COM"), answer=[record(b"\1A\xc0\x10", A, 1, bytes(4))])
    assert wire.name(message, 12) == wire_name("www.example.com")
    assert wire.name(message, 12 + len(question("www.example.com"))) == wire_name("a.example.com")


@pytest.mark.parametrize("size", [255, 256])
def test_a_name_has_255_octets_at_most_however_it_is_written(size: int) -> None:
    label = b"\x3f" + b"x" * 63
    asked = label * 3 + b"\0"
    message = bytes(12) + asked + bytes((size - 194,)) + b"y" * (size - 194) + b"\xc0\x0c"
    if size == 255:
        assert len(wire.name(message, 12 + len(asked))) == 255
    else:
        with pytest.raises(WireError, match="255"):
            wire.name(message, 12 + len(asked))


@pytest.mark.parametrize(
    ("names", "offset"),
    [
        (b"\xc0\x0c", 12),
        (b"\xc0\x0e\0", 12),
        (b"\xc0\x00", 12),
        (b"\1a\xc0\x0c", 12),
        (b"\x40", 12),
        (b"\3ab", 12),
        (b"\xc0", 12),
        (b"\0\xc0\x0c" + b"".join((0xC00B + 2 * n).to_bytes(2, "big") for n in range(1, 130)), 13 + 2 * 129),
    ],
    ids=["to itself", "forward", "into the header", "a loop", "label type", "cut short", "half", "one after another"],
)
def test_a_name_that_cannot_be_read_is_refused(names: bytes, offset: int) -> None:
    with pytest.raises(WireError):
        wire.name(bytes(12) + names, offset)


# Names as text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"\0", "."),
        (wire_name("www.example.com"), "www.example.com"),
        (wire_name("_dns.Xn--a-0.EXAMPLE"), "_dns.Xn--a-0.EXAMPLE"),
        (b"\1.\0", r"\046"),
        (b"\3a.b\1c\0", r"a\046b.c"),
        (b"\4\\046\0", r"\092046"),
        (b"\2a:\1*\1?\0", r"a\058.\042.\063"),
        (b"\4[]{}\0", r"\091\093\123\125"),
        (b"\5a b\r\n\0", r"a\032b\013\010"),
        (b"\3\0\x1b\xff\0", r"\000\027\255"),
        ("\5bü\n".encode() + b"x\0", r"b\195\188\010x"),
    ],
)
def test_a_name_is_written_as_in_a_zone_file(name: bytes, text: str) -> None:
    assert wire.presentation(name) == text
    assert wire_name(text) == name
    assert wire.from_presentation(text) == name.lower()


def test_a_trailing_newline_does_not_pass_for_a_plain_label() -> None:
    assert wire.presentation(b"\4abc\n\0") == r"abc\010"


def test_what_follows_the_name_is_not_looked_at() -> None:
    assert wire.presentation(question("example.com", 65) + b"\3") == "example.com"


# Names in text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (".", b"\0"),
        ("Www.Example", b"\3www\7example\0"),
        ("example.", b"\7example\0"),
        (r"a\.b.\032\255", b"\3a.b\2\x20\xff\0"),
        (r"\\.*", b"\1\\\1*\0"),
        (r"a\.", b"\2a.\0"),
        (r"a\.-/\/b\046\\", b"\x08a.-//b.\\\0"),
        ("x" * 63, b"\77" + b"x" * 63 + b"\0"),
    ],
)
def test_a_name_that_was_written_by_a_person(text: str, name: bytes) -> None:
    assert wire.from_presentation(text) == name


@pytest.mark.parametrize("text", ["a" * 63, ".".join(["a" * 63] * 3 + ["a" * 61]), r"\255" * 63, r"\097"])
def test_a_name_of_any_size_that_there_is_can_be_read_from_text(text: str) -> None:
    assert wire.from_presentation(text) == wire_name(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "a..b",
        ".a",
        "x" * 64,
        r"\001" * 64,
        ".".join(["x" * 63] * 3 + ["x" * 62]),
        "x" * 100_000,
        r"\256",
        r"\999",
        r"\1",
        r"\25",
        r"\1x1",
        "a\\",
        "a b",
        "a\n",
        "é",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "\\\N{ARABIC-INDIC DIGIT ONE}11",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(WireError):
        wire.from_presentation(text)
