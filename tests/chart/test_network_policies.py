"""Who may talk to whom, by a small reading of the NetworkPolicies."""

import pytest

from charts.render import Object, render
from tests.chart.cases import CASES
from tests.chart.cluster import Peer, allowed, of_kind, pod_templates

INTERNET = Peer(None)
STRANGER = Peer({"app": "something"}, "shop")
NEIGHBOUR = Peer({"app": "something"})
PROMETHEUS = Peer({"app": "prometheus"}, "monitoring")


def pods(objects: list[Object]) -> tuple[Peer, Peer]:
    """Return a pod of Heimdall and one of Redis."""
    templates = pod_templates(objects)
    labels = {name.split("/")[0]: pod["metadata"]["labels"] for name, pod in templates.items()}
    heimdall = labels.get("Deployment") or labels["DaemonSet"]
    return Peer(heimdall), Peer(labels.get("StatefulSet", {"app": "redis"}))


def helm_test(objects: list[Object]) -> Peer:
    """Return the pod that `helm test` runs."""
    return Peer(pod_templates(of_kind(objects, "Pod")).popitem()[1]["metadata"]["labels"])


@pytest.fixture(params=["defaults", "auth", "another name", "DaemonSet"])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    return render(CASES[request.param]).objects


def test_redis_is_reached_by_heimdall_and_by_nobody_else(objects: list[Object]) -> None:
    heimdall, redis = pods(objects)
    assert allowed(objects, heimdall, redis, 6379, "TCP")
    assert not allowed(objects, heimdall, redis, 22, "TCP")
    for other in (STRANGER, NEIGHBOUR, PROMETHEUS, INTERNET, helm_test(objects), Peer(heimdall.labels, "shop")):
        assert not allowed(objects, other, redis, 6379, "TCP")


def test_redis_reaches_nobody(objects: list[Object]) -> None:
    heimdall, redis = pods(objects)
    for target, port, protocol in ((heimdall, 1053, "UDP"), (INTERNET, 443, "TCP"), (STRANGER, 80, "TCP")):
        assert not allowed(objects, redis, target, port, protocol)


def test_everybody_may_ask(objects: list[Object]) -> None:
    heimdall, _ = pods(objects)
    for source in (STRANGER, NEIGHBOUR, PROMETHEUS, INTERNET):
        assert allowed(objects, source, heimdall, 1053, "UDP")
        assert allowed(objects, source, heimdall, 1053, "TCP")


def test_metrics_are_for_the_monitoring_namespace(objects: list[Object]) -> None:
    heimdall, _ = pods(objects)
    assert allowed(objects, PROMETHEUS, heimdall, 8080, "TCP")
    for source in (STRANGER, NEIGHBOUR, INTERNET):
        assert not allowed(objects, source, heimdall, 8080, "TCP")


def test_heimdall_reaches_upstream_servers_wherever_they_are_and_nothing_else(objects: list[Object]) -> None:
    heimdall, _ = pods(objects)
    for target in (INTERNET, Peer({"k8s-app": "kube-dns"}, "kube-system")):
        assert allowed(objects, heimdall, target, 53, "UDP")
        assert allowed(objects, heimdall, target, 53, "TCP")
        assert allowed(objects, heimdall, target, 853, "TCP")
        assert not allowed(objects, heimdall, target, 443, "TCP")


def test_an_external_redis_is_reached_at_its_ports() -> None:
    objects = render({"redis": {"external": {"url": "redis://cache:7000", "ports": [7000]}}}).objects
    heimdall, _ = pods(objects)
    assert allowed(objects, heimdall, INTERNET, 7000, "TCP")
    assert not allowed(objects, heimdall, INTERNET, 6379, "TCP")


def test_without_redis_no_redis_is_reached() -> None:
    objects = render(CASES["no Redis"]).objects
    heimdall, redis = pods(objects)
    assert not allowed(objects, heimdall, redis, 6379, "TCP")


def test_the_operator_can_narrow_and_widen() -> None:
    objects = render(CASES["narrow network policy"]).objects
    heimdall, _ = pods(objects)
    assert not allowed(objects, STRANGER, heimdall, 1053, "UDP")
    assert allowed(objects, helm_test(objects), heimdall, 1053, "UDP")
    assert not allowed(objects, PROMETHEUS, heimdall, 8080, "TCP")
    assert not allowed(objects, heimdall, INTERNET, 53, "UDP")
    assert allowed(objects, heimdall, INTERNET, 443, "TCP")


def test_switched_off_there_is_no_policy() -> None:
    objects = render(CASES["no network policy"]).objects
    heimdall, redis = pods(objects)
    assert allowed(objects, STRANGER, redis, 6379, "TCP")
    assert allowed(objects, heimdall, INTERNET, 443, "TCP")
