"""Single flight, with greenlets and with real threads."""

import time
from collections.abc import Callable
from functools import partial
from threading import Barrier, Thread

import gevent
import pytest

from heimdall_lib.flight import Flight, Flights
from heimdall_lib.pause import Pause
from tests.fakes import with_a_loop_of_its_own

LONG = 10.0
"""Seconds that no test ever waits: whoever waits is woken long before."""


def in_threads(count: int, work: Callable[[], object]) -> list[Thread]:
    threads = [Thread(target=with_a_loop_of_its_own, args=(work,), daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def collect(flight: Flight[str], seen: list[str | None]) -> None:
    seen.append(flight.wait(LONG))


def joined(threads: list[Thread]) -> bool:
    for thread in threads:
        thread.join(LONG)
    return not any(thread.is_alive() for thread in threads)


# One flight


def test_a_flight_under_way_has_no_outcome() -> None:
    flight: Flight[str] = Flight()
    assert flight.outcome is None
    assert flight.wait(0.0) is None
    assert flight.wait(-1.0) is None


def test_what_landed_is_there_at_once() -> None:
    flight: Flight[str] = Flight()
    assert flight.land("outcome")
    assert flight.outcome == "outcome"
    assert flight.wait(0.0) == "outcome"
    assert flight.wait(LONG) == "outcome"


def test_what_lands_first_counts() -> None:
    flight: Flight[str] = Flight()
    assert flight.land("first")
    assert not flight.land("second")
    assert flight.wait(LONG) == "first"


def test_an_outcome_may_be_false() -> None:
    flight: Flight[int] = Flight()
    assert flight.land(0)
    assert not flight.land(1)
    assert flight.wait(LONG) == 0


def test_a_waiter_is_woken_as_soon_as_the_outcome_lands() -> None:
    flight: Flight[str] = Flight()
    waiters = in_threads(1, lambda: flight.wait(LONG))
    assert flight.wait(0.002) is None
    landed_at = time.monotonic()
    flight.land("outcome")
    assert joined(waiters)
    assert time.monotonic() - landed_at < LONG / 2


def test_a_thousand_waiters_have_one_outcome() -> None:
    flight: Flight[object] = Flight()
    waiters = [gevent.spawn(flight.wait, LONG) for _ in range(1000)]
    gevent.idle()
    outcome = object()
    flight.land(outcome)
    gevent.joinall(waiters, LONG, raise_error=True)
    assert all(waiter.value is outcome for waiter in waiters)


def test_a_waiter_that_gives_up_disturbs_nobody() -> None:
    flight: Flight[str] = Flight()
    seen: list[str | None] = []
    waiters = in_threads(1, lambda: seen.append(flight.wait(LONG)))
    assert flight.wait(0.002) is None
    assert seen == []
    assert flight.land("outcome")
    assert joined(waiters)
    assert seen == ["outcome"]


def test_who_gave_up_may_wait_again() -> None:
    flight: Flight[str] = Flight()
    assert flight.wait(0.001) is None
    flight.land("outcome")
    assert flight.wait(LONG) == "outcome"


def test_an_outcome_that_lands_while_somebody_begins_to_wait_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    flight: Flight[str] = Flight()

    class Overtaken(Pause[bool]):
        def __init__(self) -> None:
            super().__init__()
            flight.land("outcome")

    monkeypatch.setattr("heimdall_lib.flight.Pause", Overtaken)
    started = time.monotonic()
    assert flight.wait(1.0) == "outcome"
    assert time.monotonic() - started < 0.5


def test_all_who_begin_to_wait_at_once_are_woken() -> None:
    for _ in range(20):
        flight: Flight[str] = Flight()
        seen: list[str | None] = []
        waiting = in_threads(4, partial(collect, flight, seen))
        flight.land("outcome")
        assert joined(waiting)
        assert seen == ["outcome"] * 4


# What is called when it lands


def test_a_call_is_made_when_the_outcome_lands() -> None:
    flight: Flight[str] = Flight()
    seen: list[str] = []
    flight.then(seen.append)
    assert seen == []
    flight.land("outcome")
    assert seen == ["outcome"]


def test_a_call_is_made_at_once_when_the_outcome_has_landed() -> None:
    flight: Flight[str] = Flight()
    seen: list[str] = []
    flight.land("outcome")
    flight.then(seen.append)
    assert seen == ["outcome"]


def test_a_call_is_made_once_whatever_lands_later() -> None:
    flight: Flight[str] = Flight()
    seen: list[str] = []
    flight.then(seen.append)
    flight.land("first")
    flight.land("second")
    assert seen == ["first"]


def test_waiters_and_a_call_have_the_same_outcome() -> None:
    flight: Flight[str] = Flight()
    called: list[str] = []
    seen: list[str | None] = []
    flight.then(called.append)
    waiters = in_threads(10, lambda: seen.append(flight.wait(1.0)))
    flight.land("outcome")
    assert joined(waiters)
    assert (called, seen) == (["outcome"], ["outcome"] * 10)


# Flights by key


def test_the_first_to_join_leads() -> None:
    flights: Flights[str] = Flights()
    flight, leads = flights.join(b"a")
    assert leads
    assert flights.join(b"a") == (flight, False)
    other, leads_other = flights.join(b"b")
    assert leads_other
    assert other is not flight


def test_flights_under_way_are_counted() -> None:
    flights: Flights[str] = Flights()
    assert len(flights) == 0
    assert b"a" not in flights
    flight, _ = flights.join(b"a")
    flights.join(b"b")
    assert len(flights) == 2
    assert b"a" in flights
    flights.land(b"a", flight, "outcome")
    assert len(flights) == 1
    assert b"a" not in flights


def test_who_joins_after_the_landing_leads_the_next() -> None:
    flights: Flights[str] = Flights()
    first, _ = flights.join(b"a")
    assert flights.land(b"a", first, "outcome")
    second, leads = flights.join(b"a")
    assert leads
    assert second is not first
    assert second.outcome is None


def test_landing_again_disturbs_neither_the_outcome_nor_the_next_flight() -> None:
    flights: Flights[str] = Flights()
    first, _ = flights.join(b"a")
    flights.land(b"a", first, "first")
    second, _ = flights.join(b"a")
    assert not flights.land(b"a", first, "late")
    assert first.outcome == "first"
    assert flights.join(b"a") == (second, False)


def test_a_flight_that_landed_by_itself_still_makes_room() -> None:
    flights: Flights[str] = Flights()
    flight, _ = flights.join(b"a")
    flight.land("early")
    assert not flights.land(b"a", flight, "late")
    assert b"a" not in flights


def test_of_many_who_join_one_leads_and_all_have_its_outcome() -> None:
    flights: Flights[object] = Flights()
    all_here = Barrier(100)
    seen: list[object] = []
    fetched: list[object] = []

    def ask() -> None:
        flight, leads = flights.join(b"a")
        all_here.wait(LONG)
        if leads:
            fetched.append(object())
            flights.land(b"a", flight, fetched[-1])
        seen.append(flight.wait(1.0))

    assert joined(in_threads(100, ask))
    assert seen == fetched * 100
    assert len(flights) == 0


def test_nobody_joins_a_flight_that_was_detached_but_who_waits_is_served() -> None:
    flights: Flights[str] = Flights()
    old, _ = flights.join(b"key")
    flights.detach()
    assert b"key" not in flights
    new, leads = flights.join(b"key")
    assert leads
    flights.land(b"key", old, "old")
    assert (old.outcome, new.outcome) == ("old", None)
    assert b"key" in flights
