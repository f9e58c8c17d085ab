"""Heimdall's counters as Prometheus families, built when somebody asks (docs/operations.md lists them).

Rules: the query path counts in plain ints; nothing here is called outside a scrape; no name and no client ever
becomes a label.
"""

import resource
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from heimdall_lib import __version__
from heimdall_lib.names import rcode_name
from heimdall_lib.stats import DURATION_BUCKETS, Histogram, Stats
from heimdall_lib.tally import Reading, WorkerState

_PREFIX = "heimdall_"


class StatsCollector(Collector):
    """Shows what ``look`` returns: the reading of one process or the sum over several."""

    def __init__(self, look: Callable[[], Reading]) -> None:
        """Read nothing yet."""
        self._look = look

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its values now."""
        reading = self._look()
        yield from _queries(reading.stats)
        yield from _cache(reading)
        yield from _redis(reading.stats)
        yield from _upstreams(reading.stats)
        if reading.workers:
            yield from _workers(reading.workers)
        yield _gauge("build_info", "The version that runs.", {__version__: 1}, "version")


class ProcessesCollector(Collector):
    """The usual ``process_…`` families over this process and those that it started and ``children`` lists.

    CPU time and memory are sums, and the CPU time of children that have ended stays in its sum. Open files are those
    of the process that has the most, since their limit is one process's. The start is this process's.
    """

    def __init__(self, children: Callable[[], Iterable[int]]) -> None:
        """Read nothing yet."""
        self._children = children
        self._pid: int | str = "self"
        self._one = ProcessCollector(pid=lambda: self._pid, registry=None)

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its value now."""
        families = self._families("self")
        others = [self._families(pid) for pid in self._children()]
        for name, family in families.items():
            if over_processes := _OVER_PROCESSES.get(name):
                values = [each[name].samples[0].value for each in (families, *others) if name in each]
                family.samples = [family.samples[0]._replace(value=over_processes(values))]
            yield family

    def _families(self, pid: int | str) -> dict[str, Metric]:
        self._pid = pid
        return {family.name: family for family in self._one.collect()}


def _with_ended_children(values: Sequence[float]) -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(values) + ended.ru_utime + ended.ru_stime


_OVER_PROCESSES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "process_cpu_seconds": _with_ended_children,
    "process_resident_memory_bytes": sum,
    "process_virtual_memory_bytes": sum,
    "process_open_fds": max,
}


def _queries(stats: Stats) -> Iterator[Metric]:
    rcodes = {rcode_name(rcode): count for rcode, count in enumerate(stats.responses) if count or rcode < 6}
    yield _counter("queries", "Queries received.", stats.queries, "transport")
    yield _counter("responses", "Answers sent, by response code.", rcodes, "rcode")
    yield _histograms("query_duration_seconds", "Time to answer a query.", stats.durations, "source")
    yield _counter("dropped_queries", "Queries not answered as asked.", stats.dropped, "reason")
    yield _counter("coalesced_queries", "Queries that waited for another's answer.", stats.coalesced_queries)
    yield _gauge("inflight_queries", "Queries waiting for L2 or an upstream.", stats.inflight)
    yield _gauge("tcp_connections", "Open client connections.", stats.tcp_connections)


def _cache(reading: Reading) -> Iterator[Metric]:
    stats = reading.stats
    yield _counter("cache_hits", "Queries answered from L1.", stats.cache_hits)
    yield _counter("cache_misses", "Queries that L1 had no fresh answer for.", stats.cache_misses)
    yield _gauge("cache_size", "Entries in L1.", reading.entries)
    yield _gauge("cache_bytes", "Bytes that L1's entries take.", reading.size)
    yield _counter("cache_evictions", "Entries that left L1 for want of room.", stats.cache_evictions)
    yield _counter("cache_expired", "Entries purged from L1 after their time.", stats.cache_expired)
    yield _counter("cache_stale_answers", "Answers served past their expiry.", stats.cache_stale_answers)
    yield _counter("cache_prefetches", "Popular entries refreshed before their expiry.", stats.cache_prefetches)


def _redis(stats: Stats) -> Iterator[Metric]:
    yield _counter("redis_hits", "Answers found in L2.", stats.redis_hits)
    yield _counter("redis_misses", "Reads that L2 had no answer for.", stats.redis_misses)
    yield _counter("redis_errors", "Operations that Redis failed.", stats.redis_errors, "reason")
    yield _counter("redis_rejected_entries", "Values not believed.", stats.redis_rejected, "reason")
    yield _counter("redis_dropped_writes", "Answers not written to L2.", stats.redis_dropped_writes)
    yield _counter("redis_held_back_writes", "New names past their zone's budget.", stats.redis_held_back_writes)
    yield _histograms("redis_operation_duration_seconds", "Time of a round trip.", stats.redis_operations, "operation")
    yield _gauge("redis_up", "1 while Redis is in use.", int(stats.redis_up))
    yield _gauge("redis_breaker_open", "1 while queries are kept from Redis.", int(stats.redis_breaker_open))
    yield _counter("redis_budget_exceeded", "Reads that upstream did not wait for.", stats.redis_budget_exceeded)
    yield _counter("redis_invalidations", "Invalidations exchanged.", stats.redis_invalidations, "direction")
    yield _counter("redis_warmed_entries", "Entries that L1 took from L2 at start.", stats.redis_warmed_entries)
    yield _counter("redis_bytes_saved", "Bytes that compression kept out of L2.", stats.redis_bytes_saved)


def _upstreams(stats: Stats) -> Iterator[Metric]:
    servers = stats.upstreams
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


def _workers(workers: Sequence[WorkerState]) -> Iterator[Metric]:
    yield _gauge("workers", "Workers that answer.", sum(worker.up for worker in workers))
    yield _counter("worker_restarts", "Workers that were replaced.", sum(worker.restarts for worker in workers))


def registry(collector: Collector, children: Callable[[], Iterable[int]] = tuple) -> CollectorRegistry:
    """Return a registry of Heimdall's families and those of Python and of the process with its ``children`` (pids)."""
    whole = CollectorRegistry(auto_describe=False)
    whole.register(collector)
    whole.register(ProcessesCollector(children))
    for make in (PlatformCollector, GCCollector):
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
