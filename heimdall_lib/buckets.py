"""Token buckets by key: who may have how much of something, and how fast that grows again.

Rules: no clock (``now`` is an argument, in seconds), no socket; those that were used last are remembered, within a
bound; a bucket that was forgotten is full again.
"""

from lru import LRU


class TokenBuckets:
    """A bucket for every key."""

    def __init__(self, *, rate: float, burst: float, remembered: int) -> None:
        """Refill ``rate`` tokens per second, up to ``burst``; remember so many buckets."""
        self._rate = rate
        self._burst = burst
        self._buckets: LRU[str | bytes, tuple[float, float]] = LRU(remembered)

    def take(self, key: str | bytes, now: float) -> bool:
        """Take a token out of ``key``'s bucket at ``now``; say whether there was one."""
        tokens, since = self._buckets.get(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        taken = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if taken else tokens, now)
        return taken
