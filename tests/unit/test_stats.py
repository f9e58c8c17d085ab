"""The counters of a process."""

from itertools import pairwise

import pytest

from heimdall_lib.stats import DROP_REASONS, DURATION_BUCKETS, SOURCES, Histogram, Stats, ratio


def test_buckets_grow_from_fifty_microseconds_on() -> None:
    assert DURATION_BUCKETS[0] == 0.00005
    assert all(before < after for before, after in pairwise(DURATION_BUCKETS))


def test_a_duration_is_counted_in_one_bucket_and_in_the_total() -> None:
    histogram = Histogram()
    histogram.observe(0.3)
    histogram.observe(0.4)
    assert sum(histogram.counts) == 2
    assert histogram.counts[DURATION_BUCKETS.index(0.5)] == 2
    assert histogram.total == pytest.approx(0.7)


@pytest.mark.parametrize("bound", DURATION_BUCKETS)
def test_a_buckets_upper_bound_belongs_to_it(bound: float) -> None:
    histogram = Histogram()
    histogram.observe(bound)
    histogram.observe(bound * 1.01)
    index = DURATION_BUCKETS.index(bound)
    assert histogram.counts[index : index + 2] == [1, 1]


def test_the_last_count_is_what_lies_above_every_bound() -> None:
    histogram = Histogram()
    histogram.observe(1e9)
    histogram.observe(0.0)
    assert len(histogram.counts) == len(DURATION_BUCKETS) + 1
    assert (histogram.counts[0], histogram.counts[-1]) == (1, 1)


def numbers(value: object) -> list[float]:
    """Return every number inside a counter, whatever its shape."""
    if isinstance(value, Histogram):
        return [*value.counts, value.total]
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers(one)]
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    assert isinstance(value, int | float)
    return [value]


@pytest.mark.parametrize("name", Stats.__slots__)
def test_everything_starts_at_zero(name: str) -> None:
    assert not any(numbers(getattr(Stats(), name)))


def test_the_label_sets_are_closed() -> None:
    stats = Stats()
    assert set(stats.queries) == {"udp", "tcp"}
    assert set(stats.dropped) == set(DROP_REASONS)
    assert set(stats.durations) == set(SOURCES)
    assert set(stats.redis_invalidations) == {"sent", "received"}


def test_there_is_a_count_for_every_code_that_heimdall_answers_with() -> None:
    assert len(Stats().responses) > 16


def test_reasons_that_redis_gives_are_counted_from_zero() -> None:
    stats = Stats()
    stats.redis_errors["timeout"] += 1
    stats.redis_rejected["format"] += 1
    stats.redis_operations["get"].observe(0.001)
    assert stats.redis_errors == {"timeout": 1}
    assert stats.redis_rejected == {"format": 1}
    assert sum(stats.redis_operations["get"].counts) == 1


def test_an_upstream_server_keeps_its_counters() -> None:
    stats = Stats()
    stats.upstream("udp://192.0.2.1:53").queries += 1
    stats.upstream("udp://192.0.2.1:53").failures["timeout"] += 1
    stats.upstream("udp://192.0.2.2:53")
    first, second = stats.upstreams["udp://192.0.2.1:53"], stats.upstreams["udp://192.0.2.2:53"]
    assert (first.queries, dict(first.failures), first.up) == (1, {"timeout": 1}, True)
    assert (second.queries, dict(second.failures), second.up) == (0, {}, True)


def test_a_counter_that_does_not_exist_cannot_be_written() -> None:
    with pytest.raises(AttributeError):
        setattr(Stats(), "cache_hit", 1)  # noqa: B010 - a typing slip, which mypy would see


def test_two_processes_count_apart() -> None:
    first, second = Stats(), Stats()
    first.queries["udp"] += 1
    first.responses[0] += 1
    first.durations["l1"].observe(1.0)
    assert second.queries["udp"] == second.responses[0] == sum(second.durations["l1"].counts) == 0


def test_who_was_turned_away_by_a_limit_was_heard_and_who_sent_nonsense_was_not_turned_away() -> None:
    stats = Stats()
    assert stats.turned_away == 0
    for number, reason in enumerate(DROP_REASONS):
        stats.dropped[reason] = 10**number
    assert stats.turned_away == stats.dropped["rate_limit"] + stats.dropped["connection_limit"]


def test_a_ratio_is_the_share_of_hits_and_none_of_nothing() -> None:
    assert (ratio(1, 2), ratio(0, 1), ratio(3, 0), ratio(0, 0)) == (0.3333, 0.0, 1.0, None)
