"""Plain counters of one process: written on the query path as ints, read by ``metrics.py`` at scrape time.

Rules: nothing here is more than an addition; label sets are closed; times are seconds.
"""

from bisect import bisect_left
from collections import defaultdict

DURATION_BUCKETS = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
)
"""Upper bounds in seconds, shared by every duration histogram."""

SOURCES = ("l1", "l2", "upstream", "stale", "local")
"""Where an answer came from; ``local`` is what Heimdall says for itself: errors, refusals, CHAOS answers."""

DROP_REASONS = ("malformed", "overload", "rate_limit", "connection_limit", "send")


class Histogram:
    """Durations counted by bucket; the last count is what lies above every bound."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        """Start empty."""
        self.counts = [0] * (len(DURATION_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        self.total += seconds

    def observe_many(self, seconds: float, times: int) -> None:
        """Count the same duration several times."""
        self.counts[bisect_left(DURATION_BUCKETS, seconds)] += times
        self.total += seconds * times


class UpstreamStats:
    """What one upstream server has been asked and how it did."""

    __slots__ = ("cookies", "duration", "failures", "lower_case", "queries", "up")

    def __init__(self) -> None:
        """Start at zero, believed up."""
        self.cookies = False
        """Whether it gives DNS cookies."""
        self.lower_case = False
        """Whether it is asked in lower case, as it does not repeat the case of a question."""
        self.queries = 0
        self.failures: defaultdict[str, int] = defaultdict(int)
        self.duration = Histogram()
        self.up = True


class Stats:
    """Every counter of the process; what a gauge shows is set by whoever owns the thing that it measures."""

    __slots__ = (
        "cache_evictions",
        "cache_expired",
        "cache_hits",
        "cache_misses",
        "cache_prefetches",
        "cache_stale_answers",
        "coalesced_queries",
        "dropped",
        "durations",
        "inflight",
        "queries",
        "redis_breaker_open",
        "redis_budget_exceeded",
        "redis_bytes_saved",
        "redis_dropped_writes",
        "redis_errors",
        "redis_held_back_writes",
        "redis_hits",
        "redis_invalidations",
        "redis_misses",
        "redis_operations",
        "redis_rejected",
        "redis_up",
        "redis_warmed_entries",
        "responses",
        "tcp_connections",
        "upstreams",
    )

    def __init__(self) -> None:
        """Start everything at zero."""
        self.queries = {"udp": 0, "tcp": 0}
        self.responses = [0] * 24
        self.durations = {source: Histogram() for source in SOURCES}
        self.dropped = dict.fromkeys(DROP_REASONS, 0)
        self.inflight = 0
        self.tcp_connections = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self.cache_evictions = 0
        self.cache_expired = 0
        self.cache_stale_answers = 0
        self.cache_prefetches = 0
        self.coalesced_queries = 0
        self.redis_hits = 0
        self.redis_misses = 0
        self.redis_errors: defaultdict[str, int] = defaultdict(int)
        self.redis_rejected: defaultdict[str, int] = defaultdict(int)
        self.redis_dropped_writes = 0
        self.redis_held_back_writes = 0
        self.redis_operations: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.redis_up = False
        self.redis_breaker_open = False
        self.redis_budget_exceeded = 0
        self.redis_invalidations = {"sent": 0, "received": 0}
        self.redis_warmed_entries = 0
        self.redis_bytes_saved = 0
        self.upstreams: defaultdict[str, UpstreamStats] = defaultdict(UpstreamStats)

    @property
    def turned_away(self) -> int:
        """How many queries and connections were refused by a limit, without an answer: a sign of life."""
        return self.dropped["rate_limit"] + self.dropped["connection_limit"]

    def upstream(self, server: str) -> UpstreamStats:
        """Return the counters of one upstream server, made at the first call for it."""
        return self.upstreams[server]


def ratio(hits: int, misses: int) -> float | None:
    """Return the share of hits; None when there was neither."""
    return round(hits / (hits + misses), 4) if hits + misses else None
