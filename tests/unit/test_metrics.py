"""The families that operators hold on to, their labels, and the numbers behind them."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from heimdall_lib import __version__
from heimdall_lib.metrics import ProcessesCollector, StatsCollector, registry
from heimdall_lib.stats import DROP_REASONS, DURATION_BUCKETS, SOURCES, Stats
from heimdall_lib.tally import Reading, WorkerState

FAMILIES = {
    "queries": ("counter", {"transport"}),
    "responses": ("counter", {"rcode"}),
    "query_duration_seconds": ("histogram", {"source"}),
    "cache_hits": ("counter", set()),
    "cache_misses": ("counter", set()),
    "cache_size": ("gauge", set()),
    "cache_bytes": ("gauge", set()),
    "cache_evictions": ("counter", set()),
    "cache_expired": ("counter", set()),
    "cache_stale_answers": ("counter", set()),
    "cache_prefetches": ("counter", set()),
    "coalesced_queries": ("counter", set()),
    "redis_hits": ("counter", set()),
    "redis_misses": ("counter", set()),
    "redis_errors": ("counter", {"reason"}),
    "redis_rejected_entries": ("counter", {"reason"}),
    "redis_dropped_writes": ("counter", set()),
    "redis_held_back_writes": ("counter", set()),
    "redis_operation_duration_seconds": ("histogram", {"operation"}),
    "redis_up": ("gauge", set()),
    "redis_breaker_open": ("gauge", set()),
    "redis_budget_exceeded": ("counter", set()),
    "redis_invalidations": ("counter", {"direction"}),
    "redis_warmed_entries": ("counter", set()),
    "redis_bytes_saved": ("counter", set()),
    "upstream_queries": ("counter", {"server"}),
    "upstream_failures": ("counter", {"server", "reason"}),
    "upstream_duration_seconds": ("histogram", {"server"}),
    "upstream_up": ("gauge", {"server"}),
    "dropped_queries": ("counter", {"reason"}),
    "inflight_queries": ("gauge", set()),
    "tcp_connections": ("gauge", set()),
    "build_info": ("gauge", {"version"}),
}
"""Without the prefix, and without ``_total`` for counters; type and labels."""

SERVER = "tls://192.0.2.53:853#dns.example"


def busy() -> Stats:
    """Counters with something in each family that has labels which appear on first use."""
    stats = Stats()
    stats.redis_errors["timeout"] += 1
    stats.redis_rejected["signature"] += 2
    stats.redis_operations["get"].observe(0.0004)
    upstream = stats.upstream(SERVER)
    upstream.queries += 3
    upstream.failures["timeout"] += 1
    upstream.duration.observe(0.02)
    return stats


def collected(stats: Stats, size: tuple[int, int] = (0, 0)) -> dict[str, Metric]:
    return {family.name: family for family in StatsCollector(lambda: Reading(stats, *size)).collect()}


def value(stats: Stats, sample: str, size: tuple[int, int] = (0, 0), **labels: str) -> float:
    found = [
        each.value
        for family in collected(stats, size).values()
        for each in family.samples
        if each.name == f"heimdall_{sample}" and each.labels == labels
    ]
    assert len(found) == 1, f"{sample} {labels}: {found}"
    return found[0]


def test_the_families_are_those_of_the_contract() -> None:
    assert set(collected(busy())) == {f"heimdall_{name}" for name in FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_type_and_labels(name: str) -> None:
    kind, labels = FAMILIES[name]
    family = collected(busy())[f"heimdall_{name}"]
    assert family.type == kind
    assert family.documentation.endswith(".")
    assert family.samples
    assert {frozenset(sample.labels) - {"le"} for sample in family.samples} == {frozenset(labels)}


@pytest.mark.parametrize(
    ("generate", "read"),
    [(generate_latest, read_text), (generate_openmetrics, read_openmetrics)],
    ids=["Prometheus", "OpenMetrics"],
)
def test_the_exposition_can_be_read_back(
    generate: Callable[..., bytes], read: Callable[[str], Iterable[Metric]]
) -> None:
    text = generate(registry(StatsCollector(lambda: Reading(busy(), entries=7, size=4096)))).decode()
    families = {family.name: family for family in read(text)}
    assert {f"heimdall_{name}" for name in FAMILIES} <= set(families)
    assert [sample.value for sample in families["heimdall_cache_bytes"].samples] == [4096]
    assert families["heimdall_upstream_queries"].samples[0].labels == {"server": SERVER}


def test_the_usual_families_of_the_process_and_of_python_are_there() -> None:
    text = generate_latest(registry(StatsCollector(lambda: Reading(Stats())))).decode()
    for name in ("process_cpu_seconds_total", "process_open_fds", "python_info", "python_gc_collections_total"):
        assert re.search(f"^{name}[ {{]", text, re.MULTILINE), name


def children_that_burn(count: int) -> list[subprocess.Popen[bytes]]:
    """Start processes that use some CPU time, open 200 files each, and stay."""
    code = "import time; sum(range(3_000_000)); f = [open('/dev/null') for _ in range(200)]; print(flush=True); input()"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(count)
    ]
    for each in started:
        assert each.stdout is not None
        each.stdout.readline()
    return started


def test_other_processes_of_the_server_are_measured_with_it_and_their_cpu_time_stays() -> None:
    pids: list[int] = []
    collector = ProcessesCollector(lambda: pids)

    def measured() -> dict[str, float]:
        return {family.name: family.samples[0].value for family in collector.collect()}

    alone = measured()
    children = children_that_burn(2)
    try:
        pids[:] = [each.pid for each in children]
        together = measured()
    finally:
        for each in children:
            each.communicate(b"\n")
    pids.clear()
    afterwards = measured()
    assert together["process_resident_memory_bytes"] > alone["process_resident_memory_bytes"] + 2 * 2**20
    assert together["process_virtual_memory_bytes"] > alone["process_virtual_memory_bytes"]
    assert together["process_cpu_seconds"] > alone["process_cpu_seconds"]
    assert afterwards["process_cpu_seconds"] >= together["process_cpu_seconds"] - 0.05  # ticks of a hundredth each
    assert max(200, alone["process_open_fds"]) <= together["process_open_fds"] < 400 + alone["process_open_fds"]
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert together[name] == alone[name]


def test_a_process_that_is_gone_is_not_measured() -> None:
    (child,) = children_that_burn(1)
    child.communicate(b"\n")
    families = list(ProcessesCollector(lambda: [child.pid]).collect())
    assert {"process_cpu_seconds", "process_open_fds"} <= {family.name for family in families}


def test_workers_are_counted_when_there_are_any() -> None:
    states = [
        WorkerState(number=1, pid=11, up=True, uptime_seconds=5.0, queries=1, restarts=0),
        WorkerState(number=2, pid=12, up=False, uptime_seconds=5.0, queries=1, restarts=3),
    ]
    families = {family.name: family for family in StatsCollector(lambda: Reading(Stats(), workers=states)).collect()}
    assert [sample.value for sample in families["heimdall_workers"].samples] == [1]
    assert [sample.value for sample in families["heimdall_worker_restarts"].samples] == [3]


def test_two_registries_do_not_share_families() -> None:
    first, second = busy(), Stats()
    registry(StatsCollector(lambda: Reading(first, entries=1, size=1)))
    text = generate_latest(registry(StatsCollector(lambda: Reading(second, entries=2, size=2)))).decode()
    assert "heimdall_cache_size 2.0" in text
    assert SERVER not in text


def test_queries_by_transport() -> None:
    stats = Stats()
    stats.queries["tcp"] += 5
    assert value(stats, "queries_total", transport="tcp") == 5
    assert value(stats, "queries_total", transport="udp") == 0


def test_the_common_response_codes_are_there_from_the_start_and_others_once_they_were_sent() -> None:
    stats = Stats()
    rcodes = {sample.labels["rcode"] for sample in collected(stats)["heimdall_responses"].samples}
    assert rcodes == {"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"}
    stats.responses[16] += 1
    stats.responses[3] += 2
    assert value(stats, "responses_total", rcode="BADVERS") == 1
    assert value(stats, "responses_total", rcode="NXDOMAIN") == 2


@pytest.mark.parametrize(
    ("attribute", "sample"),
    [
        ("cache_hits", "cache_hits_total"),
        ("cache_misses", "cache_misses_total"),
        ("cache_evictions", "cache_evictions_total"),
        ("cache_expired", "cache_expired_total"),
        ("cache_stale_answers", "cache_stale_answers_total"),
        ("cache_prefetches", "cache_prefetches_total"),
        ("coalesced_queries", "coalesced_queries_total"),
        ("redis_hits", "redis_hits_total"),
        ("redis_misses", "redis_misses_total"),
        ("redis_dropped_writes", "redis_dropped_writes_total"),
        ("redis_held_back_writes", "redis_held_back_writes_total"),
        ("redis_budget_exceeded", "redis_budget_exceeded_total"),
        ("redis_warmed_entries", "redis_warmed_entries_total"),
        ("redis_bytes_saved", "redis_bytes_saved_total"),
        ("inflight", "inflight_queries"),
        ("tcp_connections", "tcp_connections"),
    ],
)
def test_a_plain_counter_shows_as_it_stands(attribute: str, sample: str) -> None:
    stats = Stats()
    assert value(stats, sample) == 0
    setattr(stats, attribute, 41)
    assert value(stats, sample) == 41


@pytest.mark.parametrize(("attribute", "sample"), [("redis_up", "redis_up"), ("redis_breaker_open",) * 2])
def test_a_state_is_0_or_1(attribute: str, sample: str) -> None:
    stats = Stats()
    assert value(stats, sample) == 0
    setattr(stats, attribute, True)
    assert value(stats, sample) == 1


def test_the_size_of_l1_is_asked_for_at_each_scrape() -> None:
    assert value(Stats(), "cache_size", (3, 900)) == 3
    assert value(Stats(), "cache_bytes", (3, 900)) == 900


def test_redis_errors_rejections_and_invalidations_by_their_labels() -> None:
    stats = busy()
    stats.redis_invalidations["sent"] += 4
    assert value(stats, "redis_errors_total", reason="timeout") == 1
    assert value(stats, "redis_rejected_entries_total", reason="signature") == 2
    assert value(stats, "redis_invalidations_total", direction="sent") == 4
    assert value(stats, "redis_invalidations_total", direction="received") == 0


def test_upstream_servers_by_their_addresses() -> None:
    stats = busy()
    stats.upstream("udp://192.0.2.54:53").up = False
    assert value(stats, "upstream_queries_total", server=SERVER) == 3
    assert value(stats, "upstream_failures_total", server=SERVER, reason="timeout") == 1
    assert value(stats, "upstream_up", server=SERVER) == 1
    assert value(stats, "upstream_up", server="udp://192.0.2.54:53") == 0
    assert value(stats, "upstream_duration_seconds_count", server=SERVER) == 1


def test_dropped_queries_and_durations_have_every_label_from_the_start() -> None:
    families = collected(Stats())
    dropped = families["heimdall_dropped_queries"].samples
    assert {sample.labels["reason"] for sample in dropped} == set(DROP_REASONS)
    durations = families["heimdall_query_duration_seconds"].samples
    assert {sample.labels["source"] for sample in durations} == set(SOURCES)


def test_the_version() -> None:
    assert value(Stats(), "build_info", version=__version__) == 1


class TestHistograms:
    def buckets(self, stats: Stats) -> list[tuple[float, float]]:
        samples = collected(stats)["heimdall_query_duration_seconds"].samples
        return [
            (float(sample.labels["le"]), sample.value)
            for sample in samples
            if sample.name.endswith("_bucket") and sample.labels["source"] == "l1"
        ]

    def test_buckets_begin_at_50_microseconds_and_end_with_everything(self) -> None:
        bounds = [bound for bound, _ in self.buckets(Stats())]
        assert bounds == [*DURATION_BUCKETS, float("inf")]
        assert bounds[0] == 0.00005

    def test_buckets_are_cumulative(self) -> None:
        stats = Stats()
        for seconds in (0.00001, 0.00005, 0.0003, 0.3, 60.0):
            stats.durations["l1"].observe(seconds)
        buckets = dict(self.buckets(stats))
        assert (buckets[0.00005], buckets[0.0005], buckets[5.0], buckets[float("inf")]) == (2, 3, 4, 5)
        assert all(before <= after for before, after in pairwise(buckets.values()))

    def test_count_and_sum(self) -> None:
        stats = Stats()
        for seconds in (0.25, 0.5):
            stats.durations["l2"].observe(seconds)
        assert value(stats, "query_duration_seconds_count", source="l2") == 2
        assert value(stats, "query_duration_seconds_sum", source="l2") == 0.75
        assert value(stats, "query_duration_seconds_count", source="l1") == 0
