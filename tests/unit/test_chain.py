"""Which records of an answer section belong to the name that was asked for."""

import pytest

from heimdall_lib import chain, wire
from heimdall_lib.errors import WireError
from tests.support.messages import CNAME, TO_QUESTION, A, assemble, question, record, reply, wire_name

NAME = "www.example.com"


def belongs(*answer: str, name: str = NAME) -> bool:
    message = reply(name, answer=answer)
    records = [one for one in wire.records(message, wire.question_end(message)) if one.section == wire.ANSWER]
    return chain.belongs(message, wire_name(name.lower()), records)


def test_nothing_belongs() -> None:
    assert belongs()


def test_records_of_the_name_belong_in_any_case_and_of_any_type() -> None:
    assert belongs(f"{NAME}. 1 IN A 192.0.2.1", "WWW.EXAMPLE.COM. 1 IN TXT x")


def test_the_ends_of_aliases_belong_in_any_order() -> None:
    links = [f"{NAME}. 1 IN CNAME a.test.", "a.test. 1 IN CNAME B.test.", "b.test. 1 IN A 192.0.2.1"]
    assert belongs(*links)
    assert belongs(*reversed(links))


def test_every_target_of_a_name_with_several_aliases_belongs() -> None:
    first, second = (record(TO_QUESTION, CNAME, 1, wire_name(name)) for name in ("a.test", "b.test"))
    ends = [record(wire_name(name), A, 1, bytes(4)) for name in ("a.test", "b.test")]
    message = assemble(question(NAME), answer=[first, second, *ends])
    assert chain.belongs(message, wire_name(NAME), list(wire.records(message, wire.question_end(message))))


def test_a_loop_of_aliases_belongs_and_has_an_end() -> None:
    assert belongs(f"{NAME}. 1 IN CNAME a.test.", f"a.test. 1 IN CNAME {NAME}.")


def test_another_name_does_not_belong_even_beside_one_that_does() -> None:
    assert not belongs("a.test. 1 IN A 192.0.2.1")
    assert not belongs(f"{NAME}. 1 IN A 192.0.2.1", "a.test. 1 IN A 192.0.2.1")
    assert not belongs("a.test. 1 IN CNAME b.test.", "b.test. 1 IN A 192.0.2.1")
    assert not belongs("example.com. 1 IN A 192.0.2.1")


def test_a_dname_belongs_above_a_name_of_the_chain_and_nowhere_else() -> None:
    redirected = ["example.com. 1 IN DNAME test.", f"{NAME}. 1 IN CNAME www.test.", "www.test. 1 IN A 192.0.2.1"]
    assert belongs(*redirected)
    assert belongs("test. 1 IN DNAME other.", f"{NAME}. 1 IN CNAME www.test.", "www.test. 1 IN CNAME www.other.")
    assert not belongs("ample.com. 1 IN DNAME test.", f"{NAME}. 1 IN CNAME www.test.")
    assert not belongs("test. 1 IN DNAME other.", f"{NAME}. 1 IN A 192.0.2.1")


def test_beside_a_dname_only_the_dname_belongs() -> None:
    redirected = ["example.com. 1 IN DNAME test.", f"{NAME}. 1 IN CNAME www.test."]
    assert not belongs(*redirected, "example.com. 1 IN A 192.0.2.66")
    assert belongs(*redirected, "test. 1 IN DNAME other.", "www.test. 1 IN CNAME www.other.")


def test_the_root_belongs_to_itself() -> None:
    message = assemble(question("."), answer=[record(b"\0", A, 1, bytes(4))])
    assert chain.belongs(message, b"\0", list(wire.records(message, wire.question_end(message))))


def test_a_name_that_cannot_be_read_is_refused() -> None:
    message = assemble(question(NAME), answer=[record(b"\xc0\x11", A, 1, bytes(4))])
    found = list(wire.records(message, wire.question_end(message)))
    with pytest.raises(WireError):
        chain.belongs(message, wire_name(NAME), found)
