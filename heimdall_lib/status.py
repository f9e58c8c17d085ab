"""What one process knows of itself, as plain data: for ``/stats`` and the readiness check.

Rules: it reads, never writes, what the rest of the house keeps; no secret (settings come redacted), no client.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping

from heimdall_lib import __version__
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.names import rcode_name
from heimdall_lib.stats import Histogram, Stats
from heimdall_lib.upstream.forwarder import Forwarder

SAMPLE_SECONDS = 5.0
_SAMPLES = 13  # one minute


class Status:
    """A view on the counters and the tiers."""

    def __init__(
        self,
        *,
        stats: Stats,
        memory: MemoryCache,
        forwarder: Forwarder,
        redis: str,
        warming: Callable[[], Mapping[str, object]],
        shown: Callable[[], Mapping[str, str]],
    ) -> None:
        """``redis`` says which Redis is in use and why, ``warming`` how far that is; ``shown`` returns the settings.

        What is shown holds no secrets.
        """
        self._stats = stats
        self._memory = memory
        self._forwarder = forwarder
        self._redis = redis
        self._warming = warming
        self._shown = shown
        self._started_at = time.monotonic()
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self.not_ready = "starting"
        """Why the process is not ready for traffic; empty when it is."""

    def sample(self) -> None:
        """Take note of the count of queries; to be called every ``SAMPLE_SECONDS``."""
        self._samples.append((time.monotonic(), sum(self._stats.queries.values())))

    def describe(self) -> dict[str, object]:
        """Return everything, ready for JSON; durations are seconds, sizes bytes."""
        return {
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self._started_at, 3),
            "ready": not self.not_ready,
            "queries": self._queries(),
            "l1": self._l1(),
            "l2": self._l2(),
            "upstreams": self._forwarder.describe(),
            "settings": dict(self._shown()),
        }

    def _queries(self) -> dict[str, object]:
        stats = self._stats
        return {
            "by_transport": dict(stats.queries),
            "per_second": self._rate(),
            "responses": {rcode_name(rcode): count for rcode, count in enumerate(stats.responses) if count},
            "by_source": {source: _count(histogram) for source, histogram in stats.durations.items()},
            "coalesced": stats.coalesced_queries,
            "dropped": dict(stats.dropped),
            "inflight": stats.inflight,
            "tcp_connections": stats.tcp_connections,
        }

    def _l1(self) -> dict[str, object]:
        stats = self._stats
        return {
            "entries": len(self._memory),
            "bytes": self._memory.bytes,
            "hits": stats.cache_hits,
            "misses": stats.cache_misses,
            "hit_ratio": _ratio(stats.cache_hits, stats.cache_misses),
            "evictions": stats.cache_evictions,
            "expired": stats.cache_expired,
            "stale_answers": stats.cache_stale_answers,
            "prefetches": stats.cache_prefetches,
        }

    def _l2(self) -> dict[str, object]:
        stats = self._stats
        return {
            "redis": self._redis,
            "up": stats.redis_up,
            "breaker_open": stats.redis_breaker_open,
            "hits": stats.redis_hits,
            "misses": stats.redis_misses,
            "hit_ratio": _ratio(stats.redis_hits, stats.redis_misses),
            "errors": dict(stats.redis_errors),
            "rejected": dict(stats.redis_rejected),
            "dropped_writes": stats.redis_dropped_writes,
            "budget_exceeded": stats.redis_budget_exceeded,
            "bytes_saved": stats.redis_bytes_saved,
            "warming": dict(self._warming()),
        }

    def _rate(self) -> float:
        """Return the queries per second over the last minute, or since the start if that is less."""
        now, count = time.monotonic(), sum(self._stats.queries.values())
        since, before = self._samples[0] if self._samples else (self._started_at, 0)
        return round((count - before) / max(now - since, 0.001), 1)


def _ratio(hits: int, misses: int) -> float | None:
    return round(hits / (hits + misses), 4) if hits + misses else None


def _count(histogram: Histogram) -> int:
    return sum(histogram.counts)
