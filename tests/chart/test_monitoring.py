"""Dashboard and alert rules, asked of a Prometheus that scrapes a Heimdall to which everything has happened."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from charts.render import CHART, render
from tests.chart.cluster import the
from tests.support import client
from tests.support.processes import PATIENCE, Heimdall, Process, RedisServer, eventually, free_port, program
from tests.support.upstream import Upstream, failing, in_another_case

DASHBOARD: dict[str, Any] = json.loads((CHART / "dashboards/heimdall.json").read_text(encoding="utf-8"))
RULES_TEXT = (CHART / "rules/heimdall.yaml").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(RULES_TEXT)["groups"] for rule in group["rules"]]
GUIDE = (CHART.parents[1] / "docs/kubernetes.md").read_text(encoding="utf-8")
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
SOURCES = next(each["query"].split(",") for each in DASHBOARD["templating"]["list"] if each["name"] == "source")
ADAPTER = re.search(r"metricsQuery: (.*)", GUIDE)


class Prometheus:
    """That of compose.yml, which scrapes Heimdalls and evaluates the chart's rules, here every second."""

    def __init__(self, directory: Path, *targets: client.Address) -> None:
        """Scrape targets, each as the pod of a namespace: ``a`` of ``dns``, then ``b`` of ``dns-b`` and so on."""
        self.address = ("127.0.0.1", free_port())
        config = directory / "prometheus.yml"
        config.write_text(json.dumps(self._configuration([f"{host}:{port}" for host, port in targets])))
        listen = f"--web.listen-address={self.address[0]}:{self.address[1]}"
        storage = f"--storage.tsdb.path={directory / 'data'}"
        self._process = Process([program("prometheus"), f"--config.file={config}", storage, listen])
        self._process.wait_for_line("Server is ready to receive web requests")

    def _configuration(self, targets: list[str]) -> dict[str, Any]:
        """Return the stack's configuration with what differs here: where things are, and how often to look."""
        text = (CHART.parents[1] / "monitoring/prometheus.yml").read_text(encoding="utf-8")
        found: dict[str, Any] = yaml.safe_load(text.replace("/etc/prometheus/rules", str(CHART / "rules")))
        found["global"] = dict.fromkeys(found["global"], "1s")
        heimdall, itself = found["scrape_configs"]
        del heimdall["dns_sd_configs"]
        labels = [{"namespace": "dns", "pod": "a"}, {"namespace": "dns-b", "pod": "b"}]
        heimdall["static_configs"] = [
            {"targets": [target], "labels": each} for target, each in zip(targets, labels, strict=True)
        ]
        itself["static_configs"] = [{"targets": [f"{self.address[0]}:{self.address[1]}"]}]
        return found

    def get(self, path: str) -> Any:
        answer = client.http(self.address, f"/api/v1/{path}")
        assert answer.status == 200, answer.text
        return json.loads(answer.body)["data"]

    def query(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of every series of the result."""
        return [each["metric"] for each in self.get(f"query?query={quote(expression, safe='')}")["result"]]

    def end(self) -> None:
        try:
            self._process.stop()
        finally:
            self._process.kill()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes one that was asked queries from every tier and had every kind of failure, and one with workers."""
    directory = tmp_path_factory.mktemp("monitoring")
    redis = RedisServer(directory)
    with Upstream() as upstream:
        servers: list[Heimdall] = []
        prometheuses: list[Prometheus] = []
        try:
            upstream.add("www.example.com", "A", "192.0.2.1")
            redis.start()
            flags = ("--upstream-servers", upstream.address, "--redis-url", redis.url, "--redis-timeout", "5")
            servers.append(Heimdall(*flags, "--redis-read-budget", "4"))
            make_busy(servers[0], upstream, redis)
            servers.append(Heimdall("--upstream-servers", upstream.address, "--workers", "2"))
            prometheuses.append(Prometheus(directory, *(server.http for server in servers)))
            eventually(lambda: len(prometheuses[0].query("count_over_time(heimdall_build_info[1m]) >= 3")) == 2)
            yield prometheuses[0]
            assert [server.stop() for server in servers] == [0, 0]
        finally:
            for each in prometheuses:
                each.end()
            for server in servers:
                server.kill()
            redis.kill()


def make_busy(server: Heimdall, upstream: Upstream, redis: RedisServer) -> None:
    server.wait_for_redis()
    for transport in ("udp", "tcp"):
        server.ask("www.example.com", transport=transport)
    redis.client.set(redis.wait_for_key("www.example.com").replace("www", "wrong"), b"foreign", ex=60)
    server.ask("wrong.example.com")
    upstream.reaction = in_another_case
    server.ask("shouting.example.com")
    upstream.reaction = failing("SERVFAIL")
    server.ask("failing.example.com")
    redis.kill()
    for number in range(6):
        server.ask(f"n{number}.example.com")


def expressions(target: dict[str, Any]) -> list[str]:
    """Return a panel's query as Grafana would send it, once for each tier when it depends on that."""
    text = target["expr"].replace("$__rate_interval", "1m").replace("$job", ".+").replace("$instance", ".+")
    found = [text.replace("$source", source) for source in SOURCES] if "$source" in text else [text]
    assert "$" not in "".join(found)
    return found


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS])
def test_every_query_of_the_dashboard_has_a_result_with_the_labels_of_its_legend(
    title: str, target: dict[str, Any], prometheus: Prometheus
) -> None:
    labels = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
    for expression in expressions(target):
        result = prometheus.query(expression)
        assert result
        assert all(labels <= series.keys() for series in result)


def test_the_dashboard_marks_when_a_replica_started(prometheus: Prometheus) -> None:
    (annotation,) = DASHBOARD["annotations"]["list"]
    (expression,) = expressions(annotation)
    assert {series["pod"] for series in prometheus.query(expression) if "pod" in series} == {"a", "b"}


def test_prometheus_evaluates_every_rule(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        (group,) = prometheus.get("rules")["groups"]
        return [rule for rule in group["rules"] if rule["health"] != "unknown"]

    eventually(lambda: len(evaluated()) == len(RULES))
    assert {rule["name"]: rule["health"] for rule in evaluated()} == {rule["alert"]: "ok" for rule in RULES}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_metric_and_label_of_a_rule_is_one_that_heimdall_has(
    rule: dict[str, Any], prometheus: Prometheus
) -> None:
    selectors = re.findall(r"((?:heimdall|process)_\w+)(\{[^}]*\})?", rule["expr"])
    assert selectors
    for metric, matchers in selectors:
        assert prometheus.query(metric + matchers), metric + matchers


def test_a_lost_redis_and_a_failing_upstream_are_what_the_rules_see(prometheus: Prometheus) -> None:
    (redis,) = [rule["expr"] for rule in RULES if rule["alert"] == "HeimdallRedisDown"]
    assert prometheus.query(redis) == [{"job": "heimdall", "namespace": "dns"}]


def test_the_autoscaler_s_metric_can_be_had_the_way_the_guide_says(prometheus: Prometheus) -> None:
    assert ADAPTER
    expression = ADAPTER[1].strip("'")
    for placeholder, text in (("Series", "heimdall_queries_total"), ("LabelMatchers", 'namespace="dns"')):
        expression = expression.replace(f"<<.{placeholder}>>", text)
    assert prometheus.query(expression.replace("<<.GroupBy>>", "pod").replace("2m", "1m")) == [{"pod": "a"}]
    scaler = the(
        render({"autoscaling": {"enabled": True, "targetQueriesPerSecond": 1}}).objects, "HorizontalPodAutoscaler"
    )
    name = scaler["spec"]["metrics"][1]["pods"]["metric"]["name"]
    assert f"as: {name}\n" in GUIDE


def test_promtool_s_unit_tests_of_the_rules_pass() -> None:
    tests = Path(__file__).parent / "alerts.yaml"
    command = [program("promtool"), "test", "rules", str(tests)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    cases = [each for test in yaml.safe_load(tests.read_text())["tests"] for each in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {each["alertname"] for each in cases if each.get("exp_alerts")} == names
    assert {each["alertname"] for each in cases if not each.get("exp_alerts")} == names


def test_the_guide_says_what_to_do_about_every_alert() -> None:
    assert set(re.findall(r"^\| `(Heimdall\w+)` \|", GUIDE, re.MULTILINE)) == {rule["alert"] for rule in RULES}


def test_the_chart_hands_out_rules_and_dashboard_as_they_are() -> None:
    values = {"metrics": {"prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}}
    objects = render(values).objects
    assert the(objects, "PrometheusRule")["spec"] == yaml.safe_load(RULES_TEXT)
    dashboard = the(objects, "ConfigMap", "heimdall-dashboard")
    assert json.loads(dashboard["data"]["heimdall.json"]) == DASHBOARD
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_monitors_scrape_every_pod_once_at_the_port_that_serves_metrics() -> None:
    objects = render({"metrics": {"serviceMonitor": {"enabled": True}}}).objects
    monitor = the(objects, "ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [each for each in objects if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in services] == ["heimdall-metrics"]
    assert [each["port"] for each in monitor["endpoints"]] == [port["name"] for port in services[0]["spec"]["ports"]]


def test_the_panels_fill_their_grid_without_overlap() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
