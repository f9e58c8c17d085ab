"""L1: what it keeps, what it lets go of and when."""

import sys

import pytest

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.memory_cache import OVERHEAD, FailureCache, MemoryCache
from heimdall_lib.stats import Stats

INTERVAL = 30.0


def entry_of(text: bytes = b"", *, until: float = 100.0) -> Entry:
    """Return an entry that may serve until ``until``, the last second of that stale."""
    return entries.make(text, (), stored_at=0.0, lifetime=until - 1.0, stale=1.0)


EMPTY_COST = len(entry_of()) + OVERHEAD


@pytest.fixture(name="stats")
def fixture_stats() -> Stats:
    return Stats()


def cache_of(stats: Stats, *, entries: int = 3, size: int = 100 * EMPTY_COST) -> MemoryCache:
    return MemoryCache(max_entries=entries, max_bytes=size, purge_interval=INTERVAL, stats=stats)


def put_again(cache: MemoryCache, key: bytes, entry: Entry | None = None) -> None:
    """Put what a second query brings after the first one's answer has gone."""
    cache.put(key, entry or entry_of(key))
    cache.remove(key)
    cache.put(key, entry or entry_of(key))


def filled(stats: Stats, *keys: bytes, entries: int = 3, until: float = 100.0) -> MemoryCache:
    cache = cache_of(stats, entries=entries)
    for key in keys:
        cache.put(key, entry_of(key, until=until))
    return cache


# Keeping


def kept(cache: MemoryCache, *keys: bytes) -> list[bytes]:
    return [key for key in keys if key in cache]


def test_a_new_cache_is_empty(stats: Stats) -> None:
    cache = cache_of(stats)
    assert (len(cache), cache.bytes, cache.get(b"a")) == (0, 0, None)


def test_what_was_put_is_there(stats: Stats) -> None:
    cache = cache_of(stats)
    cache.put(b"a", entry_of(b"1"))
    assert cache.get(b"a") == entry_of(b"1")
    assert cache.get(b"b") is None


def test_to_look_whether_an_entry_is_there_is_not_to_use_it(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c")
    assert b"a" in cache
    assert b"d" not in cache
    cache.put(b"d", entry_of())
    assert b"a" not in cache


def test_an_entry_takes_the_place_of_the_one_before(stats: Stats) -> None:
    cache = cache_of(stats)
    cache.put(b"a", entry_of(bytes(500), until=10.0))
    cache.put(b"a", entry_of(b"2", until=1000.0))
    assert cache.get(b"a") == entry_of(b"2", until=1000.0)
    assert (len(cache), cache.bytes) == (1, 2 + EMPTY_COST)
    assert not cache.purge(500.0, 10)
    assert len(cache) == 1


def test_the_same_entry_can_be_put_twice(stats: Stats) -> None:
    cache = filled(stats, b"a", b"a")
    assert (len(cache), cache.bytes) == (1, 2 + EMPTY_COST)
    assert stats.cache_evictions == 0


def test_what_was_removed_is_gone(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b")
    assert cache.remove(b"a")
    assert not cache.remove(b"a")
    assert cache.get(b"a") is None
    assert (len(cache), cache.bytes) == (1, 2 + EMPTY_COST)


def test_an_expired_entry_is_still_there_to_serve_stale(stats: Stats) -> None:
    cache = cache_of(stats)
    entry = entries.make(b"", (), stored_at=0.0, lifetime=10.0, stale=500.0)
    cache.put(b"a", entry)
    cache.purge(400.0, 10)
    assert cache.get(b"a") == entry


# Bounds


def test_the_least_recently_used_entry_makes_room(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c", b"d")
    assert kept(cache, b"a", b"b", b"c", b"d") == [b"b", b"c", b"d"]
    assert stats.cache_evictions == 1


def test_what_made_room_is_freed(stats: Stats) -> None:
    key, entry = bytes(b"a" * 10), entry_of(b"1")
    holders = sys.getrefcount(key), sys.getrefcount(entry)
    cache = cache_of(stats)
    cache.put(key, entry)
    for other in (b"b", b"c", b"d"):
        cache.put(other, entry_of())
    assert (sys.getrefcount(key), sys.getrefcount(entry)) == holders


def test_reading_makes_an_entry_the_most_recently_used(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c")
    cache.get(b"a")
    cache.put(b"d", entry_of())
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None


def test_putting_again_makes_an_entry_the_most_recently_used(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c", b"a", b"d")
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None


def test_a_cache_of_one_entry_holds_the_last(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", entries=1)
    assert (len(cache), cache.held(b"a"), cache.held(b"b")) == (1, None, entry_of(b"b"))


def test_as_many_entries_go_as_one_needs_for_its_bytes(stats: Stats) -> None:
    cache = cache_of(stats, entries=100, size=4 * (EMPTY_COST + 1))
    for key in (b"a", b"b", b"c", b"d"):
        cache.put(key, entry_of())
    assert cache.bytes == 4 * (EMPTY_COST + 1)
    put_again(cache, b"e", entry_of(bytes(2 * EMPTY_COST)))
    assert kept(cache, b"a", b"b", b"c", b"d", b"e") == [b"d", b"e"]
    assert stats.cache_evictions == 3


def test_an_entry_that_alone_fills_the_bytes_is_kept_alone(stats: Stats) -> None:
    cache = cache_of(stats, size=EMPTY_COST + 101)
    cache.put(b"a", entry_of())
    put_again(cache, b"b", entry_of(bytes(100)))
    assert (len(cache), cache.bytes) == (1, EMPTY_COST + 101)


def test_an_entry_larger_than_the_bytes_displaces_nothing_but_its_own_predecessor(stats: Stats) -> None:
    cache = cache_of(stats, size=2 * EMPTY_COST + 10)
    cache.put(b"a", entry_of())
    cache.put(b"b", entry_of())
    cache.put(b"a", entry_of(bytes(2 * EMPTY_COST)))
    assert cache.get(b"a") is None
    assert cache.get(b"b") is not None
    assert stats.cache_evictions == 0


# Probation


FULL = [b"%02d" % number for number in range(32)]


def full(stats: Stats, *, size: int = 1000 * EMPTY_COST) -> MemoryCache:
    """A full cache of 32 entries, 2 of which may be on probation."""
    cache = cache_of(stats, entries=32, size=size)
    for key in FULL:
        cache.put(key, entry_of(key))
    return cache


def test_while_there_is_room_nothing_is_on_probation(stats: Stats) -> None:
    cache = full(stats)
    assert all(cache.get(key) for key in FULL)
    assert not any(cache.admit(key) for key in FULL)


def test_what_is_asked_for_once_displaces_no_more_than_the_share_of_probation(stats: Stats) -> None:
    cache = full(stats)
    for number in range(10_000):
        cache.put(b"random %d" % number, entry_of())
    assert kept(cache, *FULL) == FULL[2:]
    assert kept(cache, b"random 9997", b"random 9998", b"random 9999") == [b"random 9998", b"random 9999"]
    assert (len(cache), stats.cache_evictions) == (32, 10_000)


def test_what_is_on_probation_is_held_but_not_got(stats: Stats) -> None:
    cache = full(stats)
    cache.put(b"new", entry_of())
    assert b"new" in cache
    assert (cache.get(b"new"), cache.held(b"new")) == (None, entry_of())
    assert (cache.held(FULL[5]), cache.held(b"nobody")) == (entry_of(FULL[5]), None)


def test_what_is_asked_for_again_joins_the_others(stats: Stats) -> None:
    cache = full(stats)
    cache.put(b"new", entry_of())
    size = cache.bytes
    assert cache.admit(b"new") == entry_of()
    assert cache.admit(b"new") is None
    assert cache.get(b"new") == entry_of()
    assert (len(cache), cache.bytes, stats.cache_evictions) == (32, size, 1)
    for number in range(100):
        cache.put(b"random %d" % number, entry_of())
    assert cache.get(b"new") == entry_of()


def test_what_joins_the_others_is_paid_for_by_the_least_recently_used_of_them(stats: Stats) -> None:
    cache = full(stats)
    for number in range(10):
        cache.put(b"new %d" % number, entry_of())
        cache.admit(b"new %d" % number)
    cache.put(b"last", entry_of())
    assert kept(cache, *FULL) == FULL[11:]


def test_what_comes_again_after_its_probation_joins_the_others_at_once(stats: Stats) -> None:
    cache = full(stats)
    for number in range(100):
        cache.put(b"new %d" % number, entry_of())
    cache.put(b"new 50", entry_of())
    assert cache.get(b"new 50") == entry_of()


def test_an_answer_that_comes_twice_for_one_query_stays_on_probation(stats: Stats) -> None:
    cache = full(stats)
    cache.put(b"new", entry_of(b"from L2"))
    cache.put(b"new", entry_of(b"from upstream"))
    assert (cache.get(b"new"), cache.held(b"new")) == (None, entry_of(b"from upstream"))
    assert (len(cache), stats.cache_evictions) == (32, 1)


def test_an_answer_that_is_fetched_anew_stays_where_it_was(stats: Stats) -> None:
    cache = full(stats)
    cache.put(FULL[0], entry_of(b"fresh"))
    assert cache.get(FULL[0]) == entry_of(b"fresh")
    assert stats.cache_evictions == 0


def test_large_answers_on_probation_displace_no_more_than_its_share_of_the_bytes(stats: Stats) -> None:
    cache = full(stats, size=32 * (EMPTY_COST + 4))
    for number in range(100):
        cache.put(b"random %d" % number, entry_of(bytes(number * 4)))
    assert sum(key in cache for key in FULL) >= 29  # a share of two, in whole entries
    assert cache.bytes <= 32 * (EMPTY_COST + 4)


def test_an_answer_too_large_for_probation_is_kept_when_it_comes_again(stats: Stats) -> None:
    cache = full(stats, size=32 * (EMPTY_COST + 4))
    large = entry_of(bytes(3 * EMPTY_COST))
    cache.put(b"large", large)
    assert (b"large" in cache, len(cache), stats.cache_evictions) == (False, 32, 0)
    cache.put(b"large", large)
    assert cache.get(b"large") == large
    assert kept(cache, *FULL) == FULL[4:]


def test_when_all_that_is_left_is_on_probation_that_makes_room(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", entries=1)
    put_again(cache, b"c")
    cache.put(b"d", entry_of())
    assert kept(cache, b"a", b"b", b"c", b"d") == [b"d"]
    cache.put(b"c", entry_of())
    assert (cache.get(b"c"), len(cache)) == (entry_of(), 1)


def test_what_is_on_probation_can_be_removed_purged_and_swept(stats: Stats) -> None:
    cache = full(stats)
    cache.put(b"new", entry_of(until=100.0))
    assert cache.remove(b"new")
    put_again(cache, b"other")
    cache.put(b"one", entry_of(until=10.0))
    cache.put(b"two", entry_of(until=1000.0))
    assert not cache.purge(40.0, 10)
    assert kept(cache, b"one", b"two") == [b"two"]
    assert sum(cache.sweep(lambda key: key == b"two", 10)) == 1
    assert sum(cache.sweep(lambda _: True, 10)) == 30
    assert (len(cache), cache.bytes) == (0, 0)


# Purging


def test_an_entry_of_no_more_use_is_purged_within_an_interval(stats: Stats) -> None:
    cache = filled(stats, b"a", until=100.0)
    cache.purge(99.9, 10)
    assert len(cache) == 1
    assert not cache.purge(100.0 + INTERVAL, 10)
    assert (len(cache), cache.bytes) == (0, 0)
    assert stats.cache_expired == 1
    assert stats.cache_evictions == 0


@pytest.mark.parametrize("now", [0.0, 60.0, 89.9, 90.0, 99.9, 100.0])
def test_an_entry_that_may_still_serve_is_never_purged(stats: Stats, now: float) -> None:
    cache = filled(stats, b"a", b"b", until=100.001)
    assert not cache.purge(now, 10)
    assert len(cache) == 2


def test_only_what_is_overdue_is_purged(stats: Stats) -> None:
    cache = cache_of(stats, entries=100)
    for number in range(20):
        cache.put(bytes((number,)), entry_of(until=10.0 + 10.0 * number))
    assert not cache.purge(90.0, 100)
    kept = [number for number in range(20) if cache.get(bytes((number,)))]
    assert kept == list(range(8, 20))
    assert stats.cache_expired == 8


def test_purging_goes_in_bounded_steps(stats: Stats) -> None:
    cache = filled(stats, *(bytes((number,)) for number in range(10)), entries=10)
    sizes = [(cache.purge(1000.0, 4), len(cache)) for _ in range(4)]
    assert sizes == [(True, 6), (True, 2), (False, 0), (False, 0)]
    assert stats.cache_expired == 10


def test_a_step_of_nothing_takes_nothing_and_says_that_there_is_more(stats: Stats) -> None:
    cache = filled(stats, b"a")
    assert cache.purge(1000.0, 0)
    assert len(cache) == 1


def test_a_purged_key_can_be_put_again(stats: Stats) -> None:
    cache = filled(stats, b"a")
    cache.purge(1000.0, 10)
    cache.put(b"a", entry_of(until=2000.0))
    assert not cache.purge(1500.0, 10)
    assert cache.get(b"a") is not None


def test_what_was_evicted_or_removed_is_not_purged_again(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c", b"d")
    cache.remove(b"b")
    cache.purge(1000.0, 10)
    assert stats.cache_expired == 2
    assert (len(cache), cache.bytes) == (0, 0)


# Failures


def test_a_failure_is_remembered_until_its_time_is_over() -> None:
    failures = FailureCache()
    failures.put(b"a", (22, "no answer"), until=10.0)
    assert failures.get(b"a", 9.9) == (22, "no answer")
    assert failures.get(b"a", 10.0) is None
    assert failures.get(b"b", 0.0) is None


def test_the_latest_failure_counts() -> None:
    failures = FailureCache()
    failures.put(b"a", (22, ""), until=10.0)
    failures.put(b"a", (23, "refused"), until=20.0)
    assert failures.get(b"a", 15.0) == (23, "refused")


def test_a_failure_can_be_forgotten_even_if_there_is_none() -> None:
    failures = FailureCache()
    failures.put(b"a", (22, ""), until=10.0)
    failures.remove(b"a")
    failures.remove(b"a")
    assert failures.get(b"a", 0.0) is None


def test_failures_are_bounded_and_the_oldest_goes() -> None:
    failures = FailureCache()
    for number in range(20000):
        failures.put(str(number).encode(), (22, ""), until=10.0)
    remembered = [number for number in range(20000) if failures.get(str(number).encode(), 0.0)]
    assert 0 < len(remembered) < 20000
    assert remembered == list(range(20000 - len(remembered), 20000))


# Sweeping


def test_a_sweep_takes_out_what_is_wanted_and_nothing_else(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c")
    assert sum(cache.sweep(lambda key: key != b"b", 10)) == 2
    assert (len(cache), cache.get(b"b")) == (1, entry_of(b"b"))
    assert cache.bytes == 2 + EMPTY_COST


def test_a_sweep_pauses_after_each_step(stats: Stats) -> None:
    cache = filled(stats, *(bytes((number,)) for number in range(10)), entries=10)
    assert list(cache.sweep(lambda _: True, 4)) == [4, 4, 2]
    assert len(cache) == 0


def test_what_is_put_while_a_sweep_pauses_stays(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b")
    sweep = cache.sweep(lambda _: True, 1)
    next(sweep)
    for key in (b"a", b"b"):
        cache.put(key, entry_of(b"new"))
    assert sum(sweep) == 0
    assert cache.get(b"a") == cache.get(b"b") == entry_of(b"new")


def test_after_a_sweep_entries_are_purged_as_before(stats: Stats) -> None:
    cache = filled(stats, b"a", b"b", b"c")
    next(cache.sweep(lambda _: False, 1))  # nobody goes on
    assert not cache.purge(1000.0, 10)
    assert len(cache) == 0


def test_failures_are_forgotten_together() -> None:
    failures = FailureCache()
    failures.put(b"a", (22, ""), 10.0)
    failures.clear()
    assert failures.get(b"a", 5.0) is None
