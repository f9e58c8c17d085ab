"""What was found out a moment ago."""

import threading

import pytest

from heimdall_lib.recent import Recent
from tests.fakes import eventually


class House:
    """Counts how often it is looked at, and can be told to fail."""

    def __init__(self) -> None:
        self.looked = 0
        self.outcome = ""
        self.now = 100.0
        self.recent = Recent(self.look, seconds=1.0, clock=lambda: self.now)

    def look(self) -> str:
        self.looked += 1
        if self.outcome == "raise":
            raise RuntimeError(self.outcome)
        return self.outcome


def test_it_is_found_out_once_a_second_however_often_it_is_asked_for() -> None:
    house = House()
    assert [house.recent() for _ in range(5)] == [""] * 5
    house.outcome = "silent"
    house.now += 0.9
    assert (house.recent(), house.looked) == ("", 1)
    house.now += 0.1
    assert (house.recent(), house.recent(), house.looked) == ("silent", "silent", 2)


def test_the_second_begins_when_the_outcome_is_there() -> None:
    house = House()

    def slow() -> str:
        house.now += 10.0
        return house.look()

    recent = Recent(slow, seconds=1.0, clock=lambda: house.now)
    recent()
    recent()
    assert house.looked == 1


def test_who_asks_meanwhile_waits_for_the_same_outcome() -> None:
    begun, go_on, found = threading.Event(), threading.Event(), list[str]()

    def slow() -> str:
        begun.set()
        assert go_on.wait(20)
        return f"outcome {len(found)}"

    recent = Recent(slow, seconds=60.0)
    threads = [threading.Thread(target=lambda: found.append(recent())) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    assert not found
    go_on.set()
    eventually(lambda: len(found) == len(threads))
    for thread in threads:
        thread.join()
    assert found == ["outcome 0"] * 4


def test_what_cannot_be_found_out_is_tried_again() -> None:
    house = House()
    house.outcome = "raise"
    for _ in range(2):
        with pytest.raises(RuntimeError):
            house.recent()
    house.outcome = ""
    assert (house.recent(), house.looked) == ("", 3)
