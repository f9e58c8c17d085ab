"""Token buckets."""

from heimdall_lib.buckets import TokenBuckets


def taken(buckets: TokenBuckets, key: str, now: float, count: int) -> int:
    return sum(buckets.take(key, now) for _ in range(count))


def test_a_bucket_has_its_burst_and_then_its_rate() -> None:
    buckets = TokenBuckets(rate=2, burst=5, remembered=10)
    assert taken(buckets, "a", 0.0, 20) == 5
    assert taken(buckets, "a", 1.5, 20) == 3
    assert taken(buckets, "a", 1e6, 20) == 5


def test_a_bucket_that_is_not_refilled_stays_empty() -> None:
    buckets = TokenBuckets(rate=0, burst=2, remembered=10)
    assert taken(buckets, "a", 0.0, 20) == 2
    assert taken(buckets, "a", 1e9, 20) == 0


def test_each_key_has_a_bucket_of_its_own() -> None:
    buckets = TokenBuckets(rate=1, burst=2, remembered=10)
    taken(buckets, "a", 0.0, 20)
    assert taken(buckets, "b", 0.0, 20) == 2


def test_the_bucket_that_was_not_used_for_longest_is_forgotten() -> None:
    buckets = TokenBuckets(rate=0, burst=1, remembered=2)
    assert [buckets.take(key, 0.0) for key in ("a", "b", "a", "c")] == [True, True, False, True]
    assert [buckets.take(key, 0.0) for key in ("a", "b")] == [False, True]
