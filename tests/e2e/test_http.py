"""The HTTP side of a live process: metrics as Prometheus reads them, health, readiness, and what it knows of itself."""

import json
import subprocess
import time
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from heimdall_lib import __version__
from tests.support.client import TcpClient, http, metrics, query
from tests.support.processes import PATIENCE, Heimdall, Launcher, RedisServer, eventually, program
from tests.support.upstream import Upstream, failing

NAME = "www.example.com"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

# The names that dashboards and alerts hold on to, with exactly these labels. A counter's family is without _total.
COUNTERS = {
    "queries": {"transport"},
    "responses": {"rcode"},
    "cache_hits": set[str](),
    "cache_misses": set[str](),
    "cache_evictions": set[str](),
    "cache_expired": set[str](),
    "cache_stale_answers": set[str](),
    "cache_prefetches": set[str](),
    "coalesced_queries": set[str](),
    "redis_hits": set[str](),
    "redis_misses": set[str](),
    "redis_errors": {"reason"},
    "redis_rejected_entries": {"reason"},
    "redis_dropped_writes": set[str](),
    "redis_held_back_writes": set[str](),
    "redis_budget_exceeded": set[str](),
    "redis_invalidations": {"direction"},
    "redis_warmed_entries": set[str](),
    "redis_bytes_saved": set[str](),
    "upstream_queries": {"server"},
    "upstream_failures": {"server", "reason"},
    "dropped_queries": {"reason"},
}
GAUGES = {
    "cache_size": set[str](),
    "cache_bytes": set[str](),
    "redis_up": set[str](),
    "redis_breaker_open": set[str](),
    "upstream_up": {"server"},
    "inflight_queries": set[str](),
    "tcp_connections": set[str](),
    "build_info": {"version"},
}
HISTOGRAMS = {
    "query_duration_seconds": {"source"},
    "redis_operation_duration_seconds": {"operation"},
    "upstream_duration_seconds": {"server"},
}


@pytest.fixture
def busy(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> Heimdall:
    """A Heimdall to which everything has happened that makes a sample."""
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--redis-url", redis.url, "--redis-timeout", "5", "--redis-read-budget", "4")
    server.wait_for_redis()
    for transport in ("udp", "tcp"):
        server.ask(NAME, transport=transport)
    redis.client.set(redis.wait_for_key(NAME).replace("www", "wrong"), b"foreign", ex=60)
    server.ask("wrong.example.com")
    upstream.reaction = failing("SERVFAIL")
    server.ask("failing.example.com")
    redis.kill()
    for number in range(6):
        server.ask(f"n{number}.example.com")
    return server


def test_promtool_finds_nothing_to_complain_of(busy: Heimdall) -> None:
    answer = busy.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"], input=answer.body, capture_output=True, timeout=PATIENCE, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_open_metrics_are_given_to_who_asks_for_them(busy: Heimdall) -> None:
    answer = busy.get("/metrics", headers={"Accept": OPEN_METRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    parse: Any = text_string_to_metric_families  # the package leaves this one without types
    names = {family.name for family in parse(answer.text)}
    assert {f"heimdall_{name}" for name in (*COUNTERS, *GAUGES, *HISTOGRAMS)} <= names


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("counter", COUNTERS), ("gauge", GAUGES), ("histogram", HISTOGRAMS)],
    ids=lambda each: str(each)[:9],
)
def test_every_promised_name_is_there_with_exactly_its_labels(
    busy: Heimdall, kind: str, expected: dict[str, set[str]]
) -> None:
    families = {name.removeprefix("heimdall_"): family for name, family in metrics(busy.http).items()}
    assert {name for name in expected if name not in families} == set()
    for name, labels in expected.items():
        family = families[name]
        assert family.type == kind, name
        assert family.documentation, name
        found = {frozenset(set(sample.labels) - {"le"}) for sample in family.samples}
        assert found == {frozenset(labels)}, name


def test_the_process_and_python_are_measured_too(heimdall: Launcher) -> None:
    names = set(metrics(heimdall().http))
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds", "python_info"} <= names


def test_every_family_is_announced_before_anything_has_happened(heimdall: Launcher) -> None:
    names = {name.removeprefix("heimdall_") for name in metrics(heimdall().http)}
    assert {*COUNTERS, *GAUGES, *HISTOGRAMS} <= names


def test_no_name_and_no_client_is_in_the_metrics(busy: Heimdall) -> None:
    assert "example" not in busy.get("/metrics").text


def test_the_numbers_are_what_happened(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall()
    for _ in range(3):
        server.ask(NAME)
    server.ask(NAME, transport="tcp")
    server.ask("nxdomain.example.com")
    assert server.metric("queries_total", transport="udp") == 4
    assert server.metric("queries_total", transport="tcp") == 1
    assert server.metric("responses_total", rcode="NOERROR") == 4
    assert server.metric("responses_total", rcode="NXDOMAIN") == 1
    assert server.metric("cache_hits_total") == 3
    assert server.metric("cache_misses_total") == 2
    assert server.metric("cache_size") == 2
    assert server.metric("upstream_queries_total", server=f"udp://{upstream.address}") == 2
    assert server.metric("query_duration_seconds_count", source="l1") == 3
    assert server.metric("query_duration_seconds_bucket", source="upstream", le="+Inf") == 2
    assert server.metric("build_info", version=__version__) == 1
    assert server.metric("build_info") == 1


def test_healthz_and_readyz_are_well_whatever_becomes_of_redis_and_the_upstream(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    server = heimdall(
        "--redis-url", redis.url, "--upstream-timeout", "0.2", "--query-timeout", "0.5", "--serve-stale", "0"
    )
    server.wait_for_redis()
    eventually(lambda: server.get("/readyz").status == 200)
    redis.kill()
    upstream.reaction = failing("SERVFAIL")
    for number in range(8):
        server.ask(f"n{number}.example.com")
    for path in ("/healthz", "/health", "/readyz"):
        answer = server.get(path)
        assert (answer.status, answer.text) == (200, "ok\n"), path
    assert server.get("/healthz", method="HEAD").body == b""


def test_readiness_is_an_answer_over_udp_and_tcp_liveness_one_over_udp(heimdall: Launcher) -> None:
    server = heimdall()
    assert server.get("/healthz").status == 200
    assert (server.metric("queries_total", transport="udp"), server.metric("queries_total", transport="tcp")) == (1, 0)
    assert server.get("/readyz").status == 200
    assert (server.metric("queries_total", transport="udp"), server.metric("queries_total", transport="tcp")) == (2, 1)
    assert server.metric("cache_misses_total") == 0


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_however_often_probes_ask_the_server_asks_itself_once_a_second(heimdall: Launcher, path: str) -> None:
    server = heimdall()
    started_at = time.monotonic()
    assert {server.get(path).status for _ in range(50)} == {200}
    assert 1 <= server.metric("queries_total", transport="udp") <= 1 + time.monotonic() - started_at


def test_who_has_as_many_tcp_connections_as_it_may_have_is_ready(heimdall: Launcher) -> None:
    server = heimdall("--max-tcp-connections", "1")
    with TcpClient(server.address) as only:
        only.send(query(NAME))
        only.receive()
        assert server.get("/readyz").status == 200
        assert server.metric("dropped_queries_total", reason="connection_limit") == 1


def test_a_client_beyond_its_rate_on_the_same_machine_makes_nothing_unhealthy(heimdall: Launcher) -> None:
    server = heimdall("--rate-limit", "0.01", "--rate-limit-burst", "1")
    server.ask(NAME)
    assert [server.get(path).status for path in ("/healthz", "/readyz")] == [200, 200]
    assert server.metric("dropped_queries_total", reason="rate_limit") >= 2


def test_stats_are_json_for_a_program_and_hold_no_secret(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--admin-token", "a-very-secret-token")
    server.ask(NAME)
    server.ask(NAME)
    answer = server.get("/stats")
    assert answer.headers["content-type"] == "application/json"
    stats = json.loads(answer.body)
    assert stats["version"] == __version__
    assert stats["uptime_seconds"] > 0
    assert stats["ready"] is True
    assert (stats["l1"]["entries"], stats["l1"]["hits"], stats["l1"]["hit_ratio"]) == (1, 1, 0.5)
    assert [each["server"] for each in stats["upstreams"]] == [f"udp://{upstream.address}"]
    assert stats["settings"]["admin-token"] == "***"
    assert "a-very-secret-token" not in answer.text


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/../etc/passwd", "//metrics", "/STATS"])
def test_an_unknown_path_is_404(heimdall: Launcher, path: str) -> None:
    answer = heimdall().get(path)
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_another_method_is_405(heimdall: Launcher, method: str) -> None:
    server = heimdall()
    for path in ("/metrics", "/healthz", "/stats"):
        answer = server.get(path, method=method)
        assert answer.status == 405, path
        assert "GET" in answer.headers["allow"]


def test_a_slow_http_client_holds_up_neither_dns_nor_another(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall()
    with TcpClient(server.http) as slow:
        slow.sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        assert server.ask(NAME).answer
        assert http(server.http, "/readyz").status == 200
