"""A wait for one thing: what ends it, that nothing else does, and that it leaves nothing behind."""

import gc
import time
from collections.abc import Callable
from threading import Thread

import gevent
import pytest
from greenlet import getcurrent

from heimdall_lib.pause import TICK_SECONDS, Pause
from tests.fakes import Threads

LONG = 10.0
"""Seconds that no test ever waits: whoever waits is woken long before."""

SHORT = 3 * TICK_SECONDS
NOT_SO_SHORT = 0.2
"""Seconds within which something else happens, even on a busy machine."""


class Waiter:
    """A greenlet that waits for one pause after the other, and notes how each ended."""

    def __init__(self, *timeouts: float) -> None:
        self.pauses: list[Pause[object]] = []
        self.seen: list[object] = []
        self._timeouts = timeouts
        self.greenlet = gevent.spawn(self._run)
        gevent.idle()  # by now it waits

    def _run(self) -> None:
        for timeout in self._timeouts:
            pause: Pause[object] = Pause()
            self.pauses.append(pause)
            self.seen.append(pause.wait(timeout))

    def join(self) -> list[object]:
        gevent.joinall([self.greenlet], LONG, raise_error=True)
        return self.seen


def in_the_loop(function: Callable[..., object], *args: object) -> None:
    """Call from the loop, and come back after it."""
    gevent.get_hub().loop.run_callback(function, *args)
    gevent.sleep(0)


def in_a_thread(function: Callable[..., object], *args: object) -> None:
    thread = Thread(target=function, args=args, daemon=True)
    thread.start()
    thread.join(LONG)


def directly(function: Callable[..., object], *args: object) -> None:
    function(*args)


FROM_ANYWHERE = pytest.mark.parametrize("call", [directly, in_the_loop, in_a_thread])


# What ends it


@FROM_ANYWHERE
def test_what_ended_before_the_wait_is_there_at_once(call: Callable[..., None]) -> None:
    pause: Pause[str] = Pause()
    call(pause.end, "value")
    assert pause.wait(LONG) == "value"
    assert pause.value == "value"


@FROM_ANYWHERE
def test_a_wait_ends_when_it_is_ended(call: Callable[..., None]) -> None:
    waiter = Waiter(LONG)
    started = time.monotonic()
    call(waiter.pauses[0].end, "value")
    assert waiter.join() == ["value"]
    assert time.monotonic() - started < LONG / 2


def test_the_main_greenlet_may_wait_too() -> None:
    pause: Pause[str] = Pause()
    gevent.spawn(pause.end, "value")
    assert pause.wait(LONG) == "value"


@pytest.mark.parametrize("value", [False, 0, b"", ()])
def test_it_may_end_with_anything_but_none(value: object) -> None:
    waiter = Waiter(LONG)
    waiter.pauses[0].end(value)
    assert waiter.join() == [value]


def test_whoever_ends_it_goes_on_first() -> None:
    events: list[str] = []
    pauses: list[Pause[str]] = []

    def wait() -> None:
        pauses.append(Pause())
        events.append(str(pauses[0].wait(LONG)))

    def end() -> None:
        pauses[0].end("woken")
        events.append("ended")

    waiter = gevent.spawn(wait)
    gevent.idle()
    end()
    waiter.join(LONG)
    assert events == ["ended", "woken"]


def test_the_loop_may_have_the_greenlet_go_on_until_it_waits_again() -> None:
    waiter = Waiter(LONG, LONG)
    seen_by_the_loop: list[object] = []

    def end() -> None:
        waiter.pauses[0].end_now("first")
        seen_by_the_loop.append((list(waiter.seen), len(waiter.pauses)))

    in_the_loop(end)
    assert seen_by_the_loop == [(["first"], 2)]
    in_the_loop(waiter.pauses[1].end_now, "second")
    assert waiter.join() == ["first", "second"]


def test_what_the_loop_ends_before_the_wait_is_there_at_once() -> None:
    pause: Pause[str] = Pause()
    in_the_loop(pause.end_now, "value")
    assert pause.wait(LONG) == "value"


def test_the_end_that_comes_between_the_look_and_the_wait_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    pause: Pause[str] = Pause()

    def overtaken() -> object:
        pause.end("value")
        return getcurrent()

    monkeypatch.setattr("heimdall_lib.pause.getcurrent", overtaken)
    started = time.monotonic()
    assert pause.wait(LONG) == "value"
    assert time.monotonic() - started < LONG / 2


# Time


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_time_nothing_is_waited_for(timeout: float) -> None:
    pause: Pause[str] = Pause()
    others: list[str] = []
    gevent.spawn(others.append, "ran")
    assert pause.wait(timeout) is None
    assert others == []
    gevent.idle()


def test_a_wait_lasts_its_timeout_at_least() -> None:
    for step in range(20):
        timeout = SHORT + step * TICK_SECONDS / 10
        started = time.monotonic()
        assert Pause[str]().wait(timeout) is None
        assert time.monotonic() - started >= timeout


def test_waits_are_over_in_the_order_of_their_deadlines_even_when_the_loop_is_late() -> None:
    deadlines: list[float] = []

    def wait(ticks: int) -> None:
        deadline = time.monotonic() + ticks * TICK_SECONDS
        Pause[str]().wait(ticks * TICK_SECONDS)
        deadlines.append(deadline)

    waiters = [gevent.spawn(wait, ticks) for ticks in (20, 5, 15, 10)]
    gevent.idle()
    time.sleep(25 * TICK_SECONDS)  # blocks the loop
    gevent.joinall(waiters, LONG)
    assert len(deadlines) == 4
    assert deadlines == sorted(deadlines)


def test_waits_that_begin_while_others_are_over_have_their_own_time() -> None:
    waiter = Waiter(*[SHORT] * 10)
    started = time.monotonic()
    assert waiter.join() == [None] * 10
    assert time.monotonic() - started >= 9 * SHORT


# What ends first counts


@pytest.mark.parametrize("first", ["end", "end_now"])
@pytest.mark.parametrize("second", ["end", "end_now"])
def test_of_two_ends_the_first_counts(first: str, second: str) -> None:
    waiter = Waiter(LONG, LONG)
    pause = waiter.pauses[0]

    def end_twice() -> None:
        getattr(pause, first)("first")
        getattr(pause, second)("second")

    in_the_loop(end_twice)
    gevent.idle()
    assert (waiter.seen, pause.value) == (["first"], "first")
    waiter.pauses[1].end("woken once")
    assert waiter.join() == ["first", "woken once"]


def test_an_end_in_time_counts_even_if_the_time_is_over_before_the_greenlet_runs() -> None:
    waiter = Waiter(NOT_SO_SHORT, LONG)
    waiter.pauses[0].end("in time")
    time.sleep(NOT_SO_SHORT + SHORT)  # blocks the loop
    gevent.sleep(SHORT)
    assert waiter.seen == ["in time"]
    waiter.pauses[1].end("woken once")
    assert waiter.join() == ["in time", "woken once"]


@FROM_ANYWHERE
def test_a_pause_that_is_over_disturbs_nobody(call: Callable[..., None]) -> None:
    waiter = Waiter(SHORT, LONG)
    while not waiter.seen:
        gevent.sleep(TICK_SECONDS)
    call(waiter.pauses[0].end, "late")
    gevent.sleep(SHORT)
    assert waiter.seen == [None]
    waiter.pauses[1].end("in time")
    assert waiter.join() == [None, "in time"]


def test_a_pause_that_is_over_and_ended_by_the_loop_disturbs_nobody() -> None:
    waiter = Waiter(SHORT, LONG)
    while not waiter.seen:
        gevent.sleep(TICK_SECONDS)
    in_the_loop(waiter.pauses[0].end_now, "late")
    assert waiter.seen == [None]
    waiter.pauses[1].end("in time")
    assert waiter.join() == [None, "in time"]


@pytest.mark.parametrize("ended", [False, True])
def test_a_greenlet_that_is_killed_while_it_waits_is_not_woken_where_it_waits_next(ended: bool) -> None:
    pause: Pause[str] = Pause()
    events: list[str] = []

    def wait() -> None:
        try:
            pause.wait(NOT_SO_SHORT)
        except gevent.GreenletExit:
            events.append("killed")
        gevent.sleep(NOT_SO_SHORT + SHORT)  # would raise InvalidSwitchError
        events.append("slept")

    waiter = gevent.spawn(wait)
    gevent.idle()
    waiter.kill(block=False)
    gevent.idle()
    if ended:
        pause.end("late")
    gevent.joinall([waiter], LONG, raise_error=True)
    assert events == ["killed", "slept"]


# Many


def test_thousands_wait_at_once_and_each_has_its_own_end() -> None:
    pauses: list[Pause[int]] = []
    seen: dict[int, int | None] = {}

    def wait(number: int) -> None:
        pauses.append(Pause())
        seen[number] = pauses[number].wait(LONG if number % 2 else SHORT)

    greenlets = [gevent.spawn(wait, number) for number in range(5000)]
    gevent.idle()
    for number in range(1, 5000, 2):
        pauses[number].end(number)
    gevent.joinall(greenlets, LONG, raise_error=True)
    assert seen == {number: number if number % 2 else None for number in range(5000)}


def test_threads_wait_each_in_a_loop_of_its_own() -> None:
    pauses: dict[int, Pause[int]] = {}
    seen: dict[int, int | None] = {}

    def wait(number: int) -> None:
        pauses[number] = Pause()
        seen[number] = pauses[number].wait(LONG)

    threads = Threads()
    for number in range(8):
        threads(wait, number)
    for number in range(8):
        while number not in pauses:
            time.sleep(TICK_SECONDS)
        pauses[number].end(number)
    threads.join()
    assert threads.deaths == []
    assert seen == {number: number for number in range(8)}


def test_no_end_is_missed_when_another_thread_races_the_wait() -> None:
    seen: list[int | None] = []
    pauses: list[Pause[int]] = []

    def wait() -> None:
        for number in range(300):
            pauses.append(Pause())
            seen.append(pauses[number].wait(LONG))

    threads = Threads()
    threads(wait)
    for number in range(300):
        while len(pauses) <= number:
            pass
        pauses[number].end(number)
    threads.join()
    assert threads.deaths == []
    assert seen == list(range(300))


# Afterwards


@pytest.mark.parametrize("ended", [False, True])
def test_nothing_keeps_the_loop_busy_when_nobody_waits(ended: bool) -> None:
    finished: list[bool] = []

    def wait_and_finish() -> None:
        pause: Pause[str] = Pause()
        if ended:
            gevent.spawn(pause.end, "value")
        pause.wait(SHORT)
        finished.append(gevent.get_hub().join(LONG / 2))

    threads = Threads()
    threads(wait_and_finish)
    threads.join()
    assert threads.deaths == []
    assert finished == [True]


def test_a_pause_that_was_ended_is_not_kept_until_its_time_would_be_over() -> None:
    mark = object()
    waiters = [Waiter(LONG) for _ in range(10)]
    for waiter in waiters:
        waiter.pauses.pop().end(mark)
        assert waiter.join() == [mark]
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Pause) and one.value is mark]


def test_after_an_idle_time_waits_end_as_before() -> None:
    assert Pause[str]().wait(SHORT) is None
    gevent.sleep(2 * SHORT)
    started = time.monotonic()
    assert Pause[str]().wait(SHORT) is None
    assert SHORT <= time.monotonic() - started < LONG


def test_nothing_goes_off_for_waits_that_have_ended_before() -> None:
    """A process that answers a thousand queries a second would wake up a thousand times for what is long over."""
    alarms = Pause[None]()._alarms
    waiters = [Waiter(NOT_SO_SHORT + number * TICK_SECONDS) for number in range(50)]
    for waiter in waiters:
        waiter.pauses.pop().end("value")
        waiter.join()
    assert Pause[str]().wait(SHORT) is None
    gevent.idle()
    assert (alarms._ticks, alarms._waits) == ([], {})
