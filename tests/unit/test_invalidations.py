"""What a flush covers, and up to when what is kept under a key is outdated."""

import pytest

from heimdall_lib.invalidations import EVERYTHING, NEVER, Flush, Invalidations
from heimdall_lib.wire import from_presentation
from tests.fakes import ask, parsed

A, AAAA = 1, 28


def key(name: str, rdtype: str = "A", *, do: bool = False) -> bytes:
    return parsed(ask(name, rdtype, do=do)).key


def flush(name: str, qtype: int | None = None, *, subtree: bool = False) -> Flush:
    return Flush(from_presentation(name), qtype, subtree)


COVERED = [
    (flush("www.example.com"), key("www.example.com.")),
    (flush("www.example.com"), key("www.example.com.", "AAAA", do=True)),
    (flush("www.example.com", AAAA), key("www.example.com.", "AAAA")),
    (flush("example.com", subtree=True), key("example.com.")),
    (flush("example.com", subtree=True), key("a.b.example.com.", "TXT")),
    (flush("example.com", A, subtree=True), key("a.example.com.")),
    (flush("."), key(".", "NS")),
    (flush(".", subtree=True), key("www.example.com.")),
    (Flush(subtree=True), key("www.example.com.")),
    (EVERYTHING, key(".", "NS")),
    (EVERYTHING, key("www.example.com.")),
]
NOT_COVERED = [
    (flush("www.example.com"), key("example.com.")),
    (flush("example.com"), key("www.example.com.")),
    (flush("www.example.com", A), key("www.example.com.", "AAAA")),
    (flush("example.com", subtree=True), key("com.")),
    (flush("example.com", subtree=True), key("notexample.com.")),
    # The octets of this label end like the name: a length of 7, "example", and so on.
    (flush("example.com", subtree=True), key(r"x\007example.com.")),
    (flush("example.com", A, subtree=True), key("a.example.com.", "AAAA")),
    (flush("."), key("www.example.com.")),
]


@pytest.mark.parametrize(("what", "of"), COVERED)
def test_what_a_flush_covers_is_outdated_up_to_its_instant(what: Flush, of: bytes) -> None:
    assert what.covers(of)
    invalidations = Invalidations()
    assert invalidations.floor(of) == NEVER
    invalidations.flushed(what, 10.0)
    assert invalidations.floor(of) == 10.0


@pytest.mark.parametrize(("what", "of"), NOT_COVERED)
def test_what_it_does_not_cover_stays(what: Flush, of: bytes) -> None:
    assert not what.covers(of)
    invalidations = Invalidations()
    invalidations.flushed(what, 10.0)
    assert invalidations.floor(of) == NEVER


@pytest.mark.parametrize("what", [flush("www.example.com"), flush("example.com", subtree=True), EVERYTHING])
def test_a_floor_only_rises(what: Flush) -> None:
    invalidations = Invalidations()
    for until in (10.0, 5.0):
        invalidations.flushed(what, until)
        assert invalidations.floor(key("www.example.com.")) == 10.0


def test_the_highest_floor_counts() -> None:
    invalidations = Invalidations()
    invalidations.flushed(EVERYTHING, 1.0)
    invalidations.flushed(flush("www.example.com"), 3.0)
    invalidations.flushed(flush("com", subtree=True), 2.0)
    assert invalidations.floor(key("www.example.com.")) == 3.0
    assert invalidations.floor(key("example.com.")) == 2.0
    assert invalidations.floor(key("example.org.")) == 1.0


def test_a_change_is_of_one_key() -> None:
    invalidations = Invalidations()
    invalidations.changed(key("www.example.com."), 10.0)
    assert invalidations.floor(key("www.example.com.")) == 10.0
    assert invalidations.floor(key("www.example.com.", do=True)) == NEVER


@pytest.mark.parametrize(("subtree", "bound"), [(False, 4096), (True, 256)])
def test_what_no_longer_fits_makes_everything_outdated_up_to_its_instant(subtree: bool, bound: int) -> None:
    invalidations = Invalidations()
    for number in range(bound):
        invalidations.flushed(flush(f"n{number}.example", subtree=subtree), float(number + 1))
    other = key("www.example.com.")
    assert invalidations.floor(other) == NEVER
    invalidations.flushed(flush("n0.example", subtree=subtree), 5000.0)  # is the newest now
    invalidations.flushed(flush("one.more.example", subtree=subtree), 6000.0)
    assert invalidations.floor(other) == 2.0
    assert invalidations.floor(key("n0.example.")) == 5000.0


def test_the_oldest_of_too_many_changes_is_forgotten() -> None:
    invalidations = Invalidations()
    for number in range(4097):
        invalidations.changed(key(f"n{number}.example."), 10.0)
    assert invalidations.floor(key("n0.example.")) == NEVER
    assert invalidations.floor(key("n1.example.")) == 10.0
