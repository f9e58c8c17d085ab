"""What an upstream's reply is, and the form in which it is kept."""

import struct
from collections.abc import Sequence

import pytest

from heimdall_lib.errors import WireError
from heimdall_lib.reply import Kind, Reply, examine, has_opt, is_truncated
from tests.support.messages import (
    AAAA,
    AD,
    CNAME,
    DNAME,
    EXTENDED_ERROR,
    HTTPS,
    NS,
    QR,
    RA,
    RD,
    SOA,
    TC,
    TO_QUESTION,
    A,
    assemble,
    counts_of,
    flags_of,
    opt,
    option,
    question,
    record,
    reply,
    soa_data,
    ttls_of,
    wire_name,
)

NAME = "www.example.com"
ASKED = question(NAME)
ADDRESS = record(TO_QUESTION, A, 300, bytes(4))
DENIAL = "example.com. 3600 IN SOA ns.example.com. mail.example.com. 1 7200 3600 1209600 900"


def address(ttl: int) -> bytes:
    return record(TO_QUESTION, A, ttl, bytes(4))


def soa(ttl: int, minimum: int) -> bytes:
    return record(b"\0", SOA, ttl, soa_data(minimum))


def placed(section: str, *records: bytes, answer: Sequence[bytes] = (), rcode: int = 0) -> bytes:
    sections: dict[str, Sequence[bytes]] = {"answer": answer, "authority": (), "additional": (), section: records}
    return assemble(
        ASKED,
        answer=sections["answer"],
        authority=sections["authority"],
        additional=sections["additional"],
        rcode=rcode,
    )


def examined(data: bytes, asked: bytes = ASKED) -> Reply:
    return examine(data, asked)


# Kinds


def test_records_of_the_type_asked_for_are_an_answer() -> None:
    found = examined(reply(NAME, answer=[f"{NAME}. 300 IN A 192.0.2.1", f"{NAME}. 300 IN A 192.0.2.2"]))
    assert (found.kind, found.rcode, found.ttl) == (Kind.ANSWER, 0, 300)


def test_an_answer_lives_as_long_as_the_least_of_its_ttls() -> None:
    chain = [f"{NAME}. 300 IN CNAME a.example.", "a.example. 20 IN CNAME b.example.", "b.example. 600 IN A 192.0.2.1"]
    found = examined(reply(NAME, answer=chain))
    assert (found.kind, found.ttl) == (Kind.ANSWER, 20)


@pytest.mark.parametrize("section", ["authority", "additional"])
def test_what_comes_along_with_an_answer_bounds_it_too(section: str) -> None:
    assert examined(placed(section, record(b"\0", NS, 7, b"\0"), answer=[ADDRESS])).ttl == 7


def test_any_record_answers_a_question_for_any_type() -> None:
    assert examined(assemble(question(NAME, 255), answer=[ADDRESS]), question(NAME, 255)).kind is Kind.ANSWER


def test_an_alias_answers_a_question_for_the_alias() -> None:
    data = assemble(question(NAME, CNAME), answer=[record(TO_QUESTION, CNAME, 60, b"\0")])
    assert examined(data, question(NAME, CNAME)).kind is Kind.ANSWER


def test_an_unknown_type_is_an_answer_like_any_other() -> None:
    data = assemble(question(NAME, 65280), answer=[record(TO_QUESTION, 65280, 60, b"\xc0\xff\x00")])
    found = examined(data, question(NAME, 65280))
    assert (found.kind, found.ttl) == (Kind.ANSWER, 60)
    assert found.message[-3:] == b"\xc0\xff\x00"


def test_an_answer_without_records_and_without_soa_may_not_be_cached() -> None:
    found = examined(reply(NAME))
    assert (found.kind, found.ttl) == (Kind.NODATA, None)


def test_records_of_another_type_are_no_answer() -> None:
    found = examined(assemble(ASKED, answer=[record(TO_QUESTION, AAAA, 300, bytes(16))]))
    assert (found.kind, found.ttl) == (Kind.NODATA, None)


def test_a_record_of_the_type_outside_the_answer_section_is_no_answer() -> None:
    assert examined(assemble(ASKED, authority=[ADDRESS], additional=[ADDRESS])).kind is Kind.NODATA


@pytest.mark.parametrize("zone", ["example.com.", "."])
def test_a_referral_is_a_failure(zone: str) -> None:
    found = examined(reply(NAME, authority=[f"{zone} 300 IN NS ns.example.com."]))
    assert (found.kind, found.ttl) == (Kind.FAILURE, None)


def test_name_servers_beside_an_answer_an_alias_or_a_denial_are_no_referral() -> None:
    servers = "example.com. 300 IN NS ns.example.com."
    assert examined(reply(NAME, answer=[f"{NAME}. 9 IN A 192.0.2.1"], authority=[servers])).kind is Kind.ANSWER
    assert examined(reply(NAME, answer=[f"{NAME}. 9 IN CNAME a.test."], authority=[servers])).kind is Kind.NODATA
    assert examined(reply(NAME, authority=[servers, DENIAL])).kind is Kind.NODATA
    assert examined(reply(NAME, authority=[servers], rcode="NXDOMAIN")).kind is Kind.NXDOMAIN


@pytest.mark.parametrize("rcode", [0, 3])
def test_a_part_of_an_answer_is_a_failure(rcode: int) -> None:
    found = examined(assemble(ASKED, answer=[ADDRESS], authority=[soa(60, 60)], flags=QR | TC, rcode=rcode))
    assert (found.kind, found.ttl) == (Kind.FAILURE, None)


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_an_answer_that_was_not_asked_for_is_a_failure(rcode: str) -> None:
    other = "other.example.com. 300 IN A 192.0.2.66"
    assert examined(reply(NAME, answer=[other], rcode=rcode)).kind is Kind.FAILURE
    assert examined(reply(NAME, answer=[f"{NAME}. 300 IN A 192.0.2.1", other], rcode=rcode)).kind is Kind.FAILURE


@pytest.mark.parametrize(
    ("rtype", "rdata"),
    [(A, bytes(3)), (AAAA, bytes(4)), (NS, b"\1a"), (CNAME, b"\0\0"), (15, b"\0"), (33, bytes(6)), (NS, b"\xc0\x00")],
)
def test_data_that_is_not_what_its_type_says_is_refused(rtype: int, rdata: bytes) -> None:
    with pytest.raises(WireError):
        examined(assemble(ASKED, answer=[ADDRESS], additional=[record(b"\0", rtype, 60, rdata)]))


@pytest.mark.parametrize("section", ["answer", "authority", "additional"])
def test_an_owner_that_no_client_could_read_is_refused(section: str) -> None:
    inside_a_label = b"\xc0\x0d"
    with pytest.raises(WireError):
        examined(placed(section, record(inside_a_label, A, 60, bytes(4))))


# Negative answers (RFC 2308)


@pytest.mark.parametrize(("rcode", "kind"), [("NOERROR", Kind.NODATA), ("NXDOMAIN", Kind.NXDOMAIN)])
def test_a_negative_answer_lives_by_its_soa(rcode: str, kind: Kind) -> None:
    found = examined(reply(NAME, rcode=rcode, authority=[DENIAL]))
    assert (found.kind, found.ttl) == (kind, 900)


@pytest.mark.parametrize(("ttl", "minimum"), [(900, 60), (60, 900), (60, 60)])
def test_the_lesser_of_the_soas_ttl_and_its_minimum_counts(ttl: int, minimum: int) -> None:
    assert examined(assemble(ASKED, authority=[soa(ttl, minimum)], rcode=3)).ttl == 60


def test_the_soas_names_may_be_compressed() -> None:
    names = {"primary": b"\2ns\xc0\x10", "mailbox": TO_QUESTION}
    data = assemble(ASKED, authority=[record(b"\xc0\x10", SOA, 300, soa_data(120, **names))], rcode=3)
    assert examined(data).ttl == 120


def test_of_several_soas_the_least_counts() -> None:
    assert examined(assemble(ASKED, authority=[soa(300, 200), soa(100, 400), soa(500, 500)], rcode=3)).ttl == 100


@pytest.mark.parametrize("section", ["answer", "additional"])
def test_a_soa_in_another_section_denies_nothing(section: str) -> None:
    assert examined(placed(section, soa(300, 300), rcode=3)).ttl is None


@pytest.mark.parametrize(("rcode", "kind"), [(0, Kind.NODATA), (3, Kind.NXDOMAIN)])
@pytest.mark.parametrize(("alias_ttl", "ttl"), [(20, 20), (5000, 900)])
def test_a_denial_behind_an_alias_lives_no_longer_than_the_alias(
    rcode: int, kind: Kind, alias_ttl: int, ttl: int
) -> None:
    alias = record(TO_QUESTION, CNAME, alias_ttl, wire_name("a.example"))
    found = examined(assemble(ASKED, answer=[alias], authority=[soa(3600, 900)], rcode=rcode))
    assert (found.kind, found.ttl) == (kind, ttl)


def test_an_alias_without_a_soa_may_not_be_cached() -> None:
    alias = record(TO_QUESTION, CNAME, 60, wire_name("a.example"))
    assert examined(assemble(ASKED, answer=[alias])).ttl is None


def test_a_name_that_does_not_exist_does_not_exist_whatever_the_answer_section_holds() -> None:
    found = examined(assemble(ASKED, answer=[ADDRESS], rcode=3))
    assert (found.kind, found.ttl) == (Kind.NXDOMAIN, None)


@pytest.mark.parametrize(
    "rdata",
    [b"", b"\0", b"\0\0", soa_data(1)[:-1], soa_data(1) + b"\0", b"\3ns"],
    ids=["empty", "one name", "two names", "cut short", "too long", "a name cut short"],
)
def test_soa_data_of_the_wrong_size_is_refused(rdata: bytes) -> None:
    with pytest.raises(WireError):
        examined(assemble(ASKED, authority=[record(b"\0", SOA, 60, rdata)], rcode=3))


def test_soa_data_that_borrows_from_the_next_record_is_refused() -> None:
    cut = record(b"\0", SOA, 60, soa_data(1)[:-4])
    with pytest.raises(WireError):
        examined(assemble(ASKED, authority=[cut, soa(60, 60)], rcode=3))


# TTLs with the top bit set (RFC 2181, section 8)


@pytest.mark.parametrize(
    ("wire_ttl", "ttl"), [(0, 0), (0x7FFFFFFF, 0x7FFFFFFF), (0x80000000, 0), (0x80000001, 0), (0xFFFFFFFF, 0)]
)
def test_a_ttl_with_the_top_bit_set_counts_as_zero(wire_ttl: int, ttl: int) -> None:
    assert examined(assemble(ASKED, answer=[address(wire_ttl)])).ttl == ttl
    assert examined(assemble(ASKED, authority=[soa(wire_ttl, 0x7FFFFFFF)], rcode=3)).ttl == ttl
    assert examined(assemble(ASKED, authority=[soa(0x7FFFFFFF, wire_ttl)], rcode=3)).ttl == ttl


# Failures


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_a_code_that_says_the_server_would_not_or_could_not_is_a_failure(rcode: int) -> None:
    found = examined(assemble(ASKED, answer=[ADDRESS], rcode=rcode))
    assert found == Reply(Kind.FAILURE, rcode, b"", (), None)


@pytest.mark.parametrize(("extended", "rcode"), [(1, 16), (1, 23), (255, 4095)])
def test_an_extended_code_is_a_failure(extended: int, rcode: int) -> None:
    found = examined(assemble(ASKED, additional=[opt(extended_rcode=extended)], rcode=rcode & 0xF))
    assert (found.kind, found.rcode) == (Kind.FAILURE, rcode)


@pytest.mark.parametrize("rcode", [6, 7, 8, 9, 10, 11, 15])
def test_any_other_code_is_passed_on_and_never_cached(rcode: int) -> None:
    found = examined(assemble(ASKED, answer=[ADDRESS], rcode=rcode))
    assert (found.kind, found.rcode, found.ttl) == (Kind.OTHER, rcode, None)
    assert found.message[3] & 0x0F == rcode


def test_a_code_that_is_passed_on_comes_with_no_record_that_a_client_could_not_read() -> None:
    no_name = record(TO_QUESTION, 16, 300, b"\1\x40")
    at = 12 + len(ASKED) + len(no_name) - 1
    unreadable = record((0xC000 | at).to_bytes(2, "big"), A, 300, bytes(4))
    with pytest.raises(WireError):
        examined(assemble(ASKED, answer=[no_name, unreadable], rcode=6))


def test_no_name_reaches_into_the_opt_that_is_taken_off() -> None:
    text = record(TO_QUESTION, 16, 300, b"\x17")  # a label that is the owner and the fixed fields of what follows
    at = 12 + len(ASKED) + len(text) - 1
    pointing = record(TO_QUESTION, CNAME, 300, (0xC000 | at).to_bytes(2, "big"))
    message = assemble(ASKED, answer=[text, pointing], additional=[opt(options=option(3, b""))])
    assert message.index(pointing) + 0x17 < len(message)
    with pytest.raises(WireError):
        examined(message)


@pytest.mark.parametrize("rcode", [0, 3, 6])
def test_a_part_of_an_answer_is_a_failure_whatever_its_code(rcode: int) -> None:
    assert examined(assemble(ASKED, answer=[ADDRESS], flags=QR | TC, rcode=rcode)).kind is Kind.FAILURE


# What is kept


def test_what_is_kept_has_no_id_and_no_flags_of_its_hop() -> None:
    data = assemble(ASKED, answer=[ADDRESS], flags=0xFFFF & ~(0x7800 | 0x000F), message_id=0xBEEF)
    kept = examined(data).message
    assert kept[:2] == b"\0\0"
    assert flags_of(kept) == QR | RA | AD


def test_what_is_kept_offers_recursion_and_no_authenticity_that_upstream_did_not_claim() -> None:
    assert flags_of(examined(assemble(ASKED, flags=QR | RD)).message) == QR | RA


def test_the_question_is_kept_in_lower_case() -> None:
    kept = examined(assemble(question("wWw.eXample.cOM"), answer=[ADDRESS])).message
    assert kept[12 : 12 + len(ASKED)] == ASKED


def kept_of(*records: bytes) -> bytes:
    """The records of an answer as they are kept."""
    return examined(assemble(question("wWw.eXample.cOM"), answer=records)).message[12 + len(ASKED) :]


@pytest.mark.parametrize("owner", ["wWw.eXample.cOM", "eXample.cOM", "cOM"])
def test_owners_that_a_server_copied_from_the_question_are_kept_in_lower_case(owner: str) -> None:
    name = wire_name(owner)
    data = examined(assemble(question("wWw.eXample.cOM"), authority=[record(name, SOA, 1, soa_data(1))])).message
    assert data.endswith(record(name.lower(), SOA, 1, soa_data(1)))


def test_so_is_the_part_of_an_owner_that_is_not_compressed() -> None:
    assert kept_of(record(b"\3wWw\xc0\x10", A, 1, bytes(4))) == record(b"\3www\xc0\x10", A, 1, bytes(4))


def test_names_that_have_nothing_to_do_with_the_question_are_kept_as_they_are() -> None:
    alias = record(TO_QUESTION, CNAME, 1, wire_name("Www.Example.NET"))
    address = record(wire_name("Www.Example.NET"), A, 1, bytes(4))
    assert kept_of(alias, address) == alias + address


def test_an_alias_that_a_server_made_of_the_question_is_kept_in_lower_case() -> None:
    moved = record(wire_name("eXample.cOM"), DNAME, 1, wire_name("Example.NET"))
    alias = record(TO_QUESTION, CNAME, 1, wire_name("wWw.Example.NET"))
    address = record(wire_name("wWw.Example.NET"), A, 1, bytes(4))
    lower = wire_name("www.example.net")
    assert kept_of(moved, alias, address) == b"".join(
        [
            record(wire_name("example.com"), DNAME, 1, wire_name("Example.NET")),
            record(TO_QUESTION, CNAME, 1, lower),
            record(lower, A, 1, bytes(4)),
        ]
    )


def test_a_type_that_looks_like_letters_is_kept_as_it_is() -> None:
    asked = question(NAME, HTTPS)
    kept = examined(assemble(asked, answer=[record(TO_QUESTION, HTTPS, 1, b"\0\1\0")]), asked).message
    assert kept[12 : 12 + len(asked)] == asked


def test_every_ttl_has_its_offset() -> None:
    found = examined(
        assemble(ASKED, answer=[address(1), address(2)], authority=[soa(3, 9)], additional=[ADDRESS, opt()])
    )
    ttls = [struct.unpack_from("!I", found.message, offset)[0] for offset in found.ttl_offsets]
    assert ttls == [1, 2, 3, 300]


def test_a_compressed_reply_can_still_be_read_by_others() -> None:
    data = reply(
        NAME,
        answer=[f"{NAME}. 300 IN CNAME a.example.com.", "a.example.com. 20 IN A 192.0.2.1"],
        authority=["example.com. 50 IN NS ns.example.com."],
        additional=["ns.example.com. 40 IN A 192.0.2.53"],
        edns=True,
    )
    assert ttls_of(examined(data).message) == [300, 20, 50, 40]


# OPT


@pytest.mark.parametrize("cookie", [bytes(8), bytes(16), bytes(40)])
def test_a_cookie_leaves_no_trace(cookie: bytes) -> None:
    plain = assemble(ASKED, answer=[ADDRESS])
    assert examined(assemble(ASKED, answer=[ADDRESS], additional=[opt(options=option(10, cookie))])) == examined(plain)


def test_the_opt_is_taken_off() -> None:
    plain, with_opt = assemble(ASKED, answer=[ADDRESS]), assemble(ASKED, answer=[ADDRESS], additional=[opt()])
    assert examined(with_opt).message == examined(plain).message
    assert has_opt(with_opt)
    assert not has_opt(examined(with_opt).message)


def test_the_opt_is_taken_off_behind_other_additional_records() -> None:
    found = examined(assemble(ASKED, answer=[ADDRESS], additional=[ADDRESS, opt()]))
    assert counts_of(found.message) == (1, 1, 0, 1)
    assert len(found.ttl_offsets) == 2


def test_what_follows_the_opt_goes_with_it() -> None:
    found = examined(assemble(ASKED, answer=[ADDRESS], additional=[ADDRESS, opt(), address(5), address(6)]))
    assert counts_of(found.message) == (1, 1, 0, 1)
    assert (len(found.ttl_offsets), found.ttl) == (2, 300)
    assert not has_opt(found.message)


@pytest.mark.parametrize(
    "data",
    [placed("additional", opt(), opt()), placed("answer", opt()), placed("authority", opt())],
    ids=["twice", "in the answer", "in the authority"],
)
def test_an_opt_twice_or_in_the_wrong_place_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="OPT"):
        examined(data)


def test_a_reply_without_opt_speaks_no_edns() -> None:
    assert not has_opt(assemble(ASKED, answer=[ADDRESS]))


@pytest.mark.parametrize("data", [b"", bytes(11), bytes(12), assemble(ASKED, additional=[opt()])[:-1]])
def test_a_reply_that_cannot_be_read_speaks_no_edns(data: bytes) -> None:
    assert not has_opt(data)


def test_truncation_is_seen() -> None:
    assert is_truncated(assemble(ASKED, flags=QR | TC))
    assert not is_truncated(assemble(ASKED, flags=0xFFFF & ~TC))


@pytest.mark.parametrize("size", range(len(assemble(ASKED, answer=[ADDRESS], additional=[opt()]))))
def test_a_reply_cut_short_is_refused(size: int) -> None:
    with pytest.raises(WireError):
        examined(assemble(ASKED, answer=[ADDRESS], additional=[opt()])[:size])


# Extended DNS Errors (RFC 8914)


def error_in(options: bytes, rcode: int = 2) -> tuple[int, str] | None:
    return examined(assemble(ASKED, additional=[opt(options=options)], rcode=rcode)).error


def test_upstreams_extended_error_is_kept() -> None:
    assert error_in(option(EXTENDED_ERROR, b"\0\x16no route")) == (22, "no route")
    assert error_in(option(EXTENDED_ERROR, b"\0\3"), rcode=0) == (3, "")


def test_without_an_extended_error_there_is_none() -> None:
    assert error_in(b"") is None
    assert error_in(option(10, bytes(8))) is None
    assert examined(assemble(ASKED, rcode=2)).error is None


def test_the_first_extended_error_counts() -> None:
    assert error_in(option(10, b"") + option(EXTENDED_ERROR, b"\0\1a") + option(EXTENDED_ERROR, b"\0\2b")) == (1, "a")


@pytest.mark.parametrize("data", [b"", b"\0"])
def test_an_extended_error_without_a_code_is_passed_over(data: bytes) -> None:
    assert error_in(option(EXTENDED_ERROR, data)) is None


def test_an_extended_errors_text_is_made_harmless() -> None:
    text = "a\nb\x1b[31m\0\x7f\u202eé".encode()
    assert error_in(option(EXTENDED_ERROR, b"\0\0" + text)) == (0, "a?b?[31m???????")


def test_an_extended_errors_text_is_cut() -> None:
    found = error_in(option(EXTENDED_ERROR, b"\0\0" + b"x" * 5000))
    assert found is not None
    assert set(found[1]) == {"x"}
    assert len(found[1]) < 256


def test_an_option_cut_short_is_refused() -> None:
    with pytest.raises(WireError):
        error_in(option(10, bytes(8))[:-1])
