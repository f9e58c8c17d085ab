"""The circuit breaker: when it opens, when it probes, when it closes."""

import pytest

from heimdall_lib.breaker import Breaker


def breaker(*, threshold: int = 3, open_at_start: bool = False) -> Breaker:
    return Breaker(threshold=threshold, first_delay=1.0, max_delay=6.0, open_at_start=open_at_start)


def opened(now: float) -> Breaker:
    one = breaker(threshold=1)
    assert one.failed(now)
    return one


def probes(one: Breaker, start: float, until: float) -> list[float]:
    """Return the instants at which probes are due, seen every eighth of a second."""
    instants = [start + step / 8 for step in range(int((until - start) * 8) + 1)]
    return [now for now in instants if one.probe_due(now)]


def test_a_breaker_starts_closed_and_probes_nothing() -> None:
    one = Breaker(threshold=3, first_delay=1.0, max_delay=6.0)
    assert not one.open
    assert probes(one, 0.0, 100.0) == []


@pytest.mark.parametrize("threshold", [1, 2, 5])
def test_so_many_faults_in_a_row_open_it(threshold: int) -> None:
    one = breaker(threshold=threshold)
    assert [one.failed(0.0) for _ in range(threshold)] == [False] * (threshold - 1) + [True]
    assert one.open


def test_a_success_in_between_starts_the_count_anew() -> None:
    one = breaker()
    faults = [one.failed(0.0), one.failed(0.0)]
    one.succeeded()
    faults += [one.failed(0.0), one.failed(0.0)]
    assert not one.open
    assert [*faults, one.failed(0.0)] == [False, False, False, False, True]


def test_a_fault_while_it_is_open_opens_nothing_and_delays_no_probe() -> None:
    one = opened(0.0)
    assert not one.failed(0.9)
    assert one.open
    assert one.probe_due(1.0)


def test_no_probe_is_due_before_the_first_delay() -> None:
    one = opened(100.0)
    assert not one.probe_due(100.0)
    assert not one.probe_due(100.999)
    assert one.probe_due(101.0)


def test_one_probe_is_due_at_a_time() -> None:
    one = opened(0.0)
    assert one.probe_due(1.0)
    assert not one.probe_due(1.0)


def test_each_probe_is_due_twice_as_late_as_the_one_before_up_to_a_cap() -> None:
    due = probes(opened(0.0), 0.0, 30.0)
    delays = [after - before for before, after in zip([0.0, *due], due, strict=False)]
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0, 6.0]


def test_a_probe_asked_for_late_counts_from_when_it_was_asked_for() -> None:
    one = opened(0.0)
    assert one.probe_due(50.0)
    assert not one.probe_due(50.5)


def test_a_success_closes_it_and_ends_the_probes() -> None:
    one = opened(0.0)
    probes(one, 0.0, 20.0)
    one.succeeded()
    assert not one.open
    assert probes(one, 20.0, 60.0) == []


def test_after_a_success_the_delays_begin_anew() -> None:
    one = opened(0.0)
    probes(one, 0.0, 20.0)
    one.succeeded()
    assert one.failed(100.0)
    assert probes(one, 100.0, 101.0) == [101.0]


def test_a_breaker_that_starts_open_has_its_first_probe_due_at_once() -> None:
    one = breaker(open_at_start=True)
    assert one.open
    assert probes(one, 0.0, 20.0) == [0.0, 1.0, 3.0, 7.0, 13.0, 19.0]


def test_a_breaker_that_starts_open_closes_at_the_first_success_and_counts_from_there() -> None:
    one = breaker(open_at_start=True)
    one.succeeded()
    assert not one.open
    assert [one.failed(5.0) for _ in range(3)] == [False, False, True]
