"""The greenlets in which queries wait: how many, that none is lost, and that they are used again."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from greenlet import GreenletExit, getcurrent

from heimdall_lib.pause import Pause
from heimdall_lib.server.misses import Misses
from heimdall_lib.server.runners import Runners
from heimdall_lib.stats import Stats
from tests.fakes import PATIENCE, Lines

MOMENT = 0.2
"""Seconds for which misses are gathered: long enough for a test on a busy machine to do something meanwhile."""


class House:
    """Misses with a bound, and queries that wait until the test lets them go on."""

    def __init__(self, bound: int = 1000) -> None:
        self.stats = Stats()
        self.misses = Misses(bound, self.stats, Runners(), pressed=lambda: self.pressed, moment=MOMENT)
        self.waiting: list[Pause[bool]] = []
        self.done: list[object] = []
        self.pressed = False

    def hold(self, name: object = None) -> None:
        pause: Pause[bool] = Pause()
        self.waiting.append(pause)
        pause.wait(PATIENCE)
        self.done.append(name)

    def release(self) -> None:
        waiting, self.waiting = self.waiting, []
        for pause in waiting:
            pause.end(True)
        gevent.idle()

    def burst(self, size: int) -> set[Any]:
        """Run so many at once, and return the greenlets in which they ran."""
        used: list[Any] = []

        def run() -> None:
            used.append(getcurrent())
            self.hold()

        for _ in range(size):
            assert self.misses.run(run)
        gevent.idle()
        assert len(used) == self.stats.inflight == size
        self.release()
        assert self.stats.inflight == 0
        return set(used)


@pytest.fixture
def house() -> House:
    return House()


def in_the_loop(function: Callable[..., object], *args: object) -> None:
    """Call from the loop, and come back after it."""
    gevent.get_hub().loop.run_callback(function, *args)
    gevent.sleep(0)


def from_a_greenlet(function: Callable[..., object], *args: object) -> None:
    gevent.spawn(function, *args).join(PATIENCE)


FROM_BOTH = pytest.mark.parametrize("call", [in_the_loop, from_a_greenlet])


# Running


@FROM_BOTH
def test_what_is_run_has_its_arguments_and_may_wait(house: House, call: Callable[..., None]) -> None:
    seen: list[object] = []

    def wait(*args: object) -> None:
        seen.append(args)
        house.hold("done")

    call(house.misses.run, wait, "query", 1)
    gevent.idle()
    assert seen == [("query", 1)]
    assert (house.stats.inflight, house.done) == (1, [])
    house.release()
    assert (house.stats.inflight, house.done) == (0, ["done"])


def test_the_loop_comes_back_when_what_it_runs_waits(house: House) -> None:
    events: list[object] = []

    def wait() -> None:
        events.append("begun")
        house.hold()

    def run() -> None:
        events.append(house.misses.run(wait))

    in_the_loop(run)
    assert events == ["begun", True]
    house.release()


def test_a_greenlet_goes_on_before_what_it_runs_begins(house: House) -> None:
    events: list[object] = []
    events.append(house.misses.run(events.append, "begun"))
    events.append("went on")
    gevent.idle()
    assert events == [True, "went on", "begun"]


def test_a_query_may_run_another(house: House) -> None:
    def run(depth: int) -> None:
        house.done.append(depth)
        if depth:
            assert house.misses.run(run, depth - 1)
        house.hold(f"{depth} done")

    in_the_loop(house.misses.run, run, 3)
    gevent.idle()
    assert (house.stats.inflight, house.done) == (4, [3, 2, 1, 0])
    house.release()
    assert house.stats.inflight == 0
    assert sorted(map(str, house.done[4:])) == ["0 done", "1 done", "2 done", "3 done"]


# The bound


@FROM_BOTH
def test_beyond_the_bound_nothing_is_run(call: Callable[..., None]) -> None:
    house = House(bound=2)
    ran: list[object] = []

    def run(name: str) -> None:
        ran.append(house.misses.run(house.hold, name))

    for name in ("a", "b", "c"):
        call(run, name)
    gevent.idle()
    assert ran == [True, True, False]
    assert house.stats.inflight == 2
    house.release()
    assert sorted(map(str, house.done)) == ["a", "b"]


def test_those_that_have_not_begun_count(house: House) -> None:
    house = House(bound=2)
    assert [house.misses.run(house.hold, name) for name in "abc"] == [True, True, False]
    gevent.idle()
    house.release()
    assert house.done == ["a", "b"]


def test_whoever_is_done_makes_room() -> None:
    house = House(bound=1)
    for name in "abc":
        assert house.misses.run(house.hold, name)
        gevent.idle()
        assert not house.misses.run(house.hold, "shed")
        house.release()
    assert house.done == ["a", "b", "c"]


# Under pressure


@pytest.fixture
def pressed(house: House) -> House:
    house.pressed = True
    return house


def begun_in_one_turn(house: House, *, within: float = PATIENCE) -> list[list[object]]:
    """Return what begins from now on, by the turn of the loop in which it does."""
    turns: list[list[object]] = []
    until = gevent.get_hub().loop.now() + within
    while gevent.get_hub().loop.now() < until and house.stats.inflight:
        before = len(house.done)
        gevent.sleep(0)
        if len(house.done) > before:
            turns.append(house.done[before:])
    return turns


def test_under_pressure_they_begin_together_a_moment_later(pressed: House) -> None:
    for name in "abc":
        in_the_loop(pressed.misses.run, pressed.done.append, name)
    assert (pressed.done, pressed.stats.inflight) == ([], 3)
    assert begun_in_one_turn(pressed) == [["a", "b", "c"]]


def test_when_there_are_many_they_begin_at_once(pressed: House) -> None:
    for number in range(70):
        pressed.misses.run(pressed.done.append, number)
    gevent.idle()
    assert len(pressed.done) == 64
    begun_in_one_turn(pressed)
    assert pressed.done == list(range(70))


def test_those_that_were_gathered_are_gathered_once(pressed: House) -> None:
    for turn in range(3):
        for number in range(3):
            pressed.misses.run(pressed.done.append, 3 * turn + number)
        assert begun_in_one_turn(pressed) == [[3 * turn, 3 * turn + 1, 3 * turn + 2]]


def test_those_that_are_gathered_count(pressed: House) -> None:
    pressed.misses.bound = 2
    assert [pressed.misses.run(pressed.done.append, name) for name in "abc"] == [True, True, False]
    assert begun_in_one_turn(pressed) == [["a", "b"]]
    assert pressed.misses.run(pressed.done.append, "d")
    assert begun_in_one_turn(pressed) == [["d"]]


def test_without_pressure_nothing_waits_for_those_that_were_gathered(pressed: House) -> None:
    pressed.misses.run(pressed.done.append, "gathered")
    pressed.pressed = False
    in_the_loop(pressed.misses.run, pressed.done.append, "at once")
    assert pressed.done == ["at once"]
    assert begun_in_one_turn(pressed) == [["gathered"]]


# What fails


def fail() -> None:
    raise ValueError("a bug")


@FROM_BOTH
def test_what_fails_is_logged_and_counted_out(house: House, call: Callable[..., None]) -> None:
    with Lines("heimdall.server") as lines:
        call(house.misses.run, fail)
        gevent.idle()
    assert list(lines) == ["ERROR a query was left unanswered"]
    assert lines.records[0].exc_info is not None
    assert isinstance(lines.records[0].exc_info[1], ValueError)
    assert house.stats.inflight == 0


def test_what_fails_after_it_has_waited_is_logged_and_counted_out(house: House) -> None:
    def wait_and_fail() -> None:
        house.hold()
        fail()

    with Lines("heimdall.server") as lines:
        house.misses.run(wait_and_fail)
        gevent.idle()
        house.release()
    assert list(lines) == ["ERROR a query was left unanswered"]
    assert house.stats.inflight == 0


def test_the_greenlet_of_what_failed_is_used_again(house: House) -> None:
    used: list[object] = []

    def note_and_fail() -> None:
        used.append(getcurrent())
        fail()

    with Lines("heimdall.server"):
        for _ in range(3):
            house.misses.run(note_and_fail)
            gevent.idle()
    assert len(set(used)) == 1


def test_what_is_killed_is_counted_out_and_others_run_after_it(house: House) -> None:
    def give_up() -> None:
        raise GreenletExit

    house.misses.run(give_up)
    gevent.idle()
    assert house.stats.inflight == 0
    assert len(house.burst(3)) == 3


# Greenlets that are kept


def test_one_after_the_other_they_run_in_the_same_greenlet(house: House) -> None:
    assert len({one for _ in range(10) for one in house.burst(1)}) == 1


def test_a_burst_needs_no_new_greenlets_after_one_as_large(house: House) -> None:
    first = house.burst(100)
    assert len(first) == 100
    for _ in range(3):
        assert house.burst(100) == first
    assert house.burst(10) < first
    assert len(house.burst(101) - first) == 1


def test_of_a_large_burst_a_few_hundred_greenlets_are_kept(house: House) -> None:
    first = house.burst(900)
    again = house.burst(900)
    assert len(first) == len(again) == 900
    assert 0 < len(first & again) < 900
    assert len([one for one in first if not one.dead]) == len(first & again)
