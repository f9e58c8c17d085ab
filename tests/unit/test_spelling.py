"""The case of a question's letters, drawn at random; what is forgotten of it is tested with the reply."""

import pytest

from heimdall_lib.spelling import mixed, telling
from tests.support.messages import HTTPS, question, wire_name

ASKED = question("www.example.com")


def test_all_but_the_case_of_the_name_stays() -> None:
    drawn = [mixed(ASKED) for _ in range(50)]
    assert {one.lower() for one in drawn} == {ASKED}
    assert len(set(drawn)) > 40


def test_every_letter_is_drawn() -> None:
    letters = bytes(range(ord("a"), ord("z") + 1))
    asked = bytes((26,)) + letters + b"\0\0\1\0\1"
    drawn = [mixed(asked)[1:27] for _ in range(50)]  # that one is the same in all of them happens once in 2e13 runs
    assert all(len({one[place] for one in drawn}) == 2 for place in range(26))


@pytest.mark.parametrize("qtype", [HTTPS, 97, 0x6161])
def test_a_type_whose_octets_look_like_letters_stays(qtype: int) -> None:
    asked = question("example.com", qtype, 0x6162)
    assert {mixed(asked)[-4:] for _ in range(20)} == {asked[-4:]}


@pytest.mark.parametrize("name", [b"\0", b"\x03123\0", b"\x04\xe1\xe9@[\0", b"\x05`{_-\xc1\0"])
def test_what_is_no_letter_stays(name: bytes) -> None:
    assert mixed(name + b"\0\1\0\1") == name + b"\0\1\0\1"


def test_the_length_of_a_label_is_no_letter() -> None:
    asked = wire_name("x" * 63 + "." + "y" * 60) + b"\0\1\0\1"
    assert mixed(asked).lower() == asked


@pytest.mark.parametrize(
    ("name", "tells"),
    [("www.example.com", False), ("WwW.example.coM", False), ("WwW.eXample.coM", True), ("1.2.3.4", False)],
)
def test_four_capitals_that_come_back_are_no_accident(name: str, tells: bool) -> None:
    assert telling(question(name)) is tells


def test_a_type_is_not_taken_for_capitals() -> None:
    assert not telling(question("AAA.example", 0x4141, 0x4141))
