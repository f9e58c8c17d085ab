"""Heimdall's counters as Prometheus families, built when somebody asks (docs/operations.md lists them).

Rules: the query path counts in plain ints; nothing here is called outside a scrape; no name and no client ever
becomes a label.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from heimdall_lib import __version__
from heimdall_lib.names import rcode_name
from heimdall_lib.stats import DURATION_BUCKETS, Histogram, Stats

_PREFIX = "heimdall_"


class StatsCollector(Collector):
    """Reads one process's ``Stats``; ``cache_size`` returns L1's entries and bytes."""

    def __init__(self, stats: Stats, cache_size: Callable[[], tuple[int, int]]) -> None:
        """Read nothing yet."""
        self._stats = stats
        self._cache_size = cache_size

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its values now."""
        yield from self._queries()
        yield from self._cache()
        yield from self._redis()
        yield from self._upstreams()
        yield _gauge("build_info", "The version that runs.", {__version__: 1}, "version")

    def _queries(self) -> Iterator[Metric]:
        stats = self._stats
        rcodes = {rcode_name(rcode): count for rcode, count in enumerate(stats.responses) if count or rcode < 6}
        yield _counter("queries", "Queries received.", stats.queries, "transport")
        yield _counter("responses", "Answers sent, by response code.", rcodes, "rcode")
        yield _histograms("query_duration_seconds", "Time to answer a query.", stats.durations, "source")
        yield _counter("dropped_queries", "Queries not answered as asked.", stats.dropped, "reason")
        yield _counter("coalesced_queries", "Queries that waited for another's answer.", stats.coalesced_queries)
        yield _gauge("inflight_queries", "Queries waiting for L2 or an upstream.", stats.inflight)
        yield _gauge("tcp_connections", "Open client connections.", stats.tcp_connections)

    def _cache(self) -> Iterator[Metric]:
        stats = self._stats
        entries, size = self._cache_size()
        yield _counter("cache_hits", "Queries answered from L1.", stats.cache_hits)
        yield _counter("cache_misses", "Queries that L1 had no fresh answer for.", stats.cache_misses)
        yield _gauge("cache_size", "Entries in L1.", entries)
        yield _gauge("cache_bytes", "Bytes that L1's entries take.", size)
        yield _counter("cache_evictions", "Entries that left L1 for want of room.", stats.cache_evictions)
        yield _counter("cache_expired", "Entries purged from L1 after their time.", stats.cache_expired)
        yield _counter("cache_stale_answers", "Answers served past their expiry.", stats.cache_stale_answers)
        yield _counter("cache_prefetches", "Popular entries refreshed before their expiry.", stats.cache_prefetches)

    def _redis(self) -> Iterator[Metric]:
        stats = self._stats
        yield _counter("redis_hits", "Answers found in L2.", stats.redis_hits)
        yield _counter("redis_misses", "Reads that L2 had no answer for.", stats.redis_misses)
        yield _counter("redis_errors", "Operations that Redis failed.", stats.redis_errors, "reason")
        yield _counter("redis_rejected_entries", "Values not believed.", stats.redis_rejected, "reason")
        yield _counter("redis_dropped_writes", "Answers not written to L2.", stats.redis_dropped_writes)
        yield _histograms(
            "redis_operation_duration_seconds", "Time of a round trip.", stats.redis_operations, "operation"
        )
        yield _gauge("redis_up", "1 while Redis is in use.", int(stats.redis_up))
        yield _gauge("redis_breaker_open", "1 while queries are kept from Redis.", int(stats.redis_breaker_open))
        yield _counter("redis_budget_exceeded", "Reads that upstream did not wait for.", stats.redis_budget_exceeded)
        yield _counter("redis_invalidations", "Invalidations exchanged.", stats.redis_invalidations, "direction")
        yield _counter("redis_warmed_entries", "Entries that L1 took from L2 at start.", stats.redis_warmed_entries)
        yield _counter("redis_bytes_saved", "Bytes that compression kept out of L2.", stats.redis_bytes_saved)

    def _upstreams(self) -> Iterator[Metric]:
        servers = self._stats.upstreams
        queries = {name: server.queries for name, server in servers.items()}
        up = {name: int(server.up) for name, server in servers.items()}
        durations = {name: server.duration for name, server in servers.items()}
        failures = CounterMetricFamily(
            f"{_PREFIX}upstream_failures", "Attempts that brought no answer.", labels=("server", "reason")
        )
        for name, server in servers.items():
            for reason, count in server.failures.items():
                failures.add_metric((name, reason), count)
        yield _counter("upstream_queries", "Attempts at a server.", queries, "server")
        yield failures
        yield _histograms("upstream_duration_seconds", "Time a server took to answer.", durations, "server")
        yield _gauge("upstream_up", "0 while a server rests after failures.", up, "server")


def registry(collector: Collector) -> CollectorRegistry:
    """Return a registry of Heimdall's families and those of the process and of Python."""
    whole = CollectorRegistry(auto_describe=False)
    whole.register(collector)
    for make in (ProcessCollector, PlatformCollector, GCCollector):
        make(registry=whole)
    return whole


def _counter(name: str, text: str, value: int | Mapping[str, int], label: str = "") -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=(label,) if label else ())
    for labels, number in _samples(value):
        family.add_metric(labels, number)
    return family


def _gauge(name: str, text: str, value: int | Mapping[str, int], label: str = "") -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=(label,) if label else ())
    for labels, number in _samples(value):
        family.add_metric(labels, number)
    return family


def _samples(value: int | Mapping[str, int]) -> Iterable[tuple[tuple[str, ...], int]]:
    if isinstance(value, int):
        return [((), value)]
    return [((label,), number) for label, number in value.items()]


def _histograms(name: str, text: str, histograms: Mapping[str, Histogram], label: str) -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, text, labels=(label,))
    bounds = [*(str(bound) for bound in DURATION_BUCKETS), "+Inf"]
    for value, histogram in histograms.items():
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric((value,), buckets, histogram.total)
    return family
