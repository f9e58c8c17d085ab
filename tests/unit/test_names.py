"""Types, classes and codes in words, and what Heimdall says of itself."""

import re

import dns.message
import dns.rdatatype
import pytest

from heimdall_lib import entry as entries
from heimdall_lib.names import ChaosAnswers, class_name, class_number, rcode_name, type_name, type_number
from heimdall_lib.query import Query, parse
from tests.support.messages import ANY, CH, QR, RA, TXT, A, flags_of, query

# Words


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "NS",
        "CNAME",
        "SOA",
        "PTR",
        "MX",
        "TXT",
        "AAAA",
        "SRV",
        "NAPTR",
        "DNAME",
        "DS",
        "SSHFP",
        "RRSIG",
        "NSEC",
        "DNSKEY",
        "NSEC3",
        "NSEC3PARAM",
        "TLSA",
        "SMIMEA",
        "HIP",
        "CDS",
        "CDNSKEY",
        "OPENPGPKEY",
        "SVCB",
        "HTTPS",
        "ANY",
        "CAA",
        "URI",
        "AXFR",
        "IXFR",
    ],
)
def test_a_type_has_the_name_that_everybody_gives_it(name: str) -> None:
    assert type_name(int(dns.rdatatype.from_text(name))) == name


@pytest.mark.parametrize("qtype", [0, 32, 1000, 65280, 65535])
def test_a_type_without_a_name_is_a_number(qtype: int) -> None:
    assert type_name(qtype) == f"TYPE{qtype}"


def test_no_two_types_share_a_name() -> None:
    names: dict[str, int] = {}
    shared = [
        (names[type_name(qtype)], qtype) for qtype in range(65536) if names.setdefault(type_name(qtype), qtype) != qtype
    ]
    assert shared == []


def test_no_two_classes_share_a_name() -> None:
    assert len({class_name(qclass) for qclass in range(65536)}) == 65536


def test_no_two_codes_share_a_name() -> None:
    assert len({rcode_name(rcode) for rcode in range(4096)}) == 4096


def test_names_of_types_classes_and_codes_are_plain_words() -> None:
    words = {name(number) for name in (type_name, class_name) for number in range(65536)}
    words |= {rcode_name(rcode) for rcode in range(4096)}
    assert [word for word in words if not re.fullmatch(r"[A-Z][A-Z0-9]*", word)] == []


@pytest.mark.parametrize(
    ("qclass", "name"), [(1, "IN"), (3, "CH"), (4, "HS"), (254, "NONE"), (255, "ANY"), (2, "CLASS2")]
)
def test_a_class_has_its_name(qclass: int, name: str) -> None:
    assert class_name(qclass) == name


@pytest.mark.parametrize(
    ("rcode", "name"),
    [
        (0, "NOERROR"),
        (1, "FORMERR"),
        (2, "SERVFAIL"),
        (3, "NXDOMAIN"),
        (4, "NOTIMP"),
        (5, "REFUSED"),
        (12, "RCODE12"),
        (16, "BADVERS"),
        (23, "RCODE23"),
    ],
)
def test_a_code_has_its_name(rcode: int, name: str) -> None:
    assert rcode_name(rcode) == name


def test_a_type_or_class_is_found_by_its_name() -> None:
    assert [type_number(type_name(number)) for number in range(65536)] == list(range(65536))
    assert [class_number(class_name(number)) for number in range(65536)] == list(range(65536))


@pytest.mark.parametrize("name", ["", "a", "IN ", "TYPE", "TYPE65536", "TYPE-1", "TYPEA", "CLASS", "CLASS65536", "1"])
def test_what_is_no_name_of_a_type_or_class_is_refused(name: str) -> None:
    for number in (type_number, class_number):
        with pytest.raises(ValueError, match=f"is called '{name}'"):
            number(name)


# Of itself


CHAOS = ChaosAnswers(version="Heimdall 1.2", server_id="host-0")


def asked(name: str, qtype: int = TXT) -> Query:
    parsed = parse(query(name, qtype, CH))
    assert parsed is not None
    return parsed


def text_of(chaos: ChaosAnswers, one: Query) -> str:
    """Return the text that a client reads out of the answer."""
    message = chaos.find(one)
    assert message is not None
    assert message[:2] == b"\0\0"
    assert flags_of(message) == QR | RA
    entry = entries.make(message, (), stored_at=0.0, lifetime=0.0, stale=0.0)
    answer = dns.message.from_wire(bytes(entries.render(entry, one, 0.0)))
    assert answer.rcode() == 0
    assert len(answer.answer) == 1
    assert (answer.answer[0].ttl, int(answer.answer[0].rdclass), int(answer.answer[0].rdtype)) == (0, CH, TXT)
    strings: tuple[bytes, ...] = answer.answer[0][0].strings
    return b"".join(strings).decode()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("version.bind", "Heimdall 1.2"),
        ("version.server", "Heimdall 1.2"),
        ("id.server", "host-0"),
        ("hostname.bind", "host-0"),
    ],
)
@pytest.mark.parametrize("qtype", [TXT, ANY])
def test_heimdall_says_what_and_who_it_is(name: str, text: str, qtype: int) -> None:
    assert text_of(CHAOS, asked(name, qtype)) == text


def test_the_case_of_the_name_is_the_clients() -> None:
    assert text_of(CHAOS, asked("VERSION.bind")) == "Heimdall 1.2"


@pytest.mark.parametrize("name", ["version", "bind", "a.version.bind", "authors.bind", "."])
def test_of_anything_else_heimdall_says_nothing(name: str) -> None:
    assert CHAOS.find(asked(name)) is None


def test_there_is_nothing_but_text() -> None:
    assert CHAOS.find(asked("version.bind", A)) is None


def test_a_text_of_255_octets_fits() -> None:
    assert text_of(ChaosAnswers(version="", server_id="x" * 255), asked("id.server")) == "x" * 255
