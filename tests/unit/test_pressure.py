"""A thread is under pressure while it hardly rests."""

import time

import pytest

from heimdall_lib.server.pressure import Pressure


class Worker:
    """A thread of which a test says what it does."""

    def __init__(self) -> None:
        self.now = self.worked = 1000.0
        self.pressure = Pressure(clock=lambda: self.now, worked=lambda: self.worked)

    def spend(self, seconds: float, *, working: float) -> bool:
        """Let time pass, of which a share is work; say whether there is pressure then."""
        self.now += seconds
        self.worked += seconds * working
        return self.pressure.high()


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_at_first_there_is_none(worker: Worker) -> None:
    assert not worker.pressure.high()


@pytest.mark.parametrize(("share", "high"), [(0.0, False), (0.84, False), (0.86, True), (1.0, True)])
def test_it_is_high_beyond_a_share_of_the_time(worker: Worker, share: float, high: bool) -> None:
    assert worker.spend(0.02, working=share) is high


def test_what_is_shorter_than_a_window_changes_nothing(worker: Worker) -> None:
    assert not worker.spend(0.009, working=1.0)
    assert worker.spend(0.009, working=1.0)
    assert worker.spend(0.009, working=0.0)
    assert not worker.spend(0.009, working=0.0)


def test_after_a_rest_there_is_none(worker: Worker) -> None:
    assert worker.spend(0.1, working=1.0)
    assert not worker.spend(10.0, working=0.01)


def test_the_clocks_are_those_of_this_thread() -> None:
    pressure = Pressure()
    time.sleep(0.05)
    assert not pressure.high()
