"""What a server does in every reply: when it is expected, and when no longer."""

import pytest

from heimdall_lib.upstream.habit import Habit

SPARED = 900.0


def missed(habit: Habit, times: int, now: float = 10.0) -> list[bool]:
    return [habit.missed(now) for _ in range(times)]


def test_at_first_nobody_can_tell() -> None:
    habit = Habit()
    assert (habit.kept, habit.given_up, habit.settled, habit.spared_until) == (False, False, False, 0.0)


def test_a_server_that_was_never_seen_to_do_it_is_given_up_at_the_third_reply_without_it() -> None:
    habit = Habit()
    assert missed(habit, 3) == [False, False, True]
    assert (habit.given_up, habit.spared_until) == (True, 10.0 + SPARED)


def test_a_server_that_was_seen_to_do_it_has_thirty_trials() -> None:
    habit = Habit()
    habit.seen()
    assert (habit.kept, habit.settled) == (True, True)
    assert missed(habit, 30) == [False] * 29 + [True]
    assert (habit.kept, habit.given_up) == (False, True)


def test_a_reply_with_it_starts_the_count_anew() -> None:
    habit = Habit()
    for _ in range(3):
        habit.seen()
        assert not any(missed(habit, 29))
        assert (habit.kept, habit.settled) == (True, False)


def test_while_it_is_spared_every_reply_is_believed_and_the_time_is_not_prolonged() -> None:
    habit = Habit()
    missed(habit, 3, 10.0)
    assert missed(habit, 2, 10.0 + SPARED - 1) == [True, True]
    assert habit.spared_until == 10.0 + SPARED


def test_after_that_one_reply_without_it_is_enough() -> None:
    habit = Habit()
    missed(habit, 3, 10.0)
    later = 10.0 + SPARED
    assert habit.missed(later)
    assert habit.spared_until == later + SPARED


def test_after_that_one_reply_with_it_is_enough() -> None:
    habit = Habit()
    missed(habit, 3)
    habit.seen()
    assert (habit.kept, habit.given_up) == (True, False)
    assert not any(missed(habit, 29, 10.0 + SPARED))


@pytest.mark.parametrize("seen", [True, False])
def test_a_server_may_be_spared_at_once(seen: bool) -> None:
    habit = Habit()
    if seen:
        habit.seen()
    habit.spare(5.0)
    assert (habit.kept, habit.settled, habit.spared_until) == (False, False, 5.0 + SPARED)
