"""Every set of values makes objects that a cluster takes, that keep out of each other's way and that hold no secret."""

import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from charts.render import CHART, Object, render
from tests.chart.cases import CASES, SECRETS
from tests.chart.cluster import matches, of_kind, pod_templates, references, the, workload

OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
OWN_KINDS = {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
GIVEN = {"cache", "ca", "me", "redis-auth", "redis-tls", "mine", "extra", "dns", "heimdall-secrets", "default"}
GIVEN |= {"heimdall-redis-auth"}
"""Names of objects that the cases leave to the operator."""

RENDERED = {name: render(values, namespace="dns").objects for name, values in CASES.items()}

every_case = pytest.mark.parametrize("objects", RENDERED.values(), ids=RENDERED.keys())


def selectors(objects: list[Object]) -> dict[str, dict[str, str]]:
    """Return every selector of pods, by the kind and name of the object that has it."""
    found = {}
    for each in objects:
        spec = each.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        if selector and each["kind"] != "ServiceMonitor":
            found[f"{each['kind']}/{each['metadata']['name']}"] = selector.get("matchLabels", selector)
    return found


@functools.cache
def validate(text: str, version: str) -> None:
    """Raise for an object, as JSON, that a version of Kubernetes would not take; most cases share most objects."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@every_case
def test_every_object_is_valid_and_has_no_unknown_field(objects: list[Object], version: str) -> None:
    for each in objects:
        if each["kind"] not in OWN_KINDS:
            validate(json.dumps(each), version)


def test_the_chart_names_the_oldest_version_that_is_tested() -> None:
    with helm_python.Chart.load(CHART) as chart:
        assert chart.metadata["kubeVersion"] == f">={OLDEST}.0-0"


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_lint_finds_nothing(values: dict[str, Any]) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@every_case
def test_every_object_is_there_once_in_the_release_s_namespace_with_its_labels(objects: list[Object]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    for each in objects:
        assert each["metadata"]["namespace"] == "dns"
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "heimdall"
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


@every_case
def test_a_selector_matches_the_pods_of_one_workload_and_of_no_other(objects: list[Object]) -> None:
    templates = pod_templates(objects)
    for name, selector in selectors(objects).items():
        selected = [each for each, pod in templates.items() if matches(selector, pod["metadata"]["labels"])]
        assert len(selected) == 1, name
        assert ("Redis" in name or "redis" in name) == selected[0].startswith("StatefulSet"), name


def test_two_releases_in_one_namespace_select_none_of_each_other_s_pods() -> None:
    first = render(release="a", namespace="dns").objects
    second = render({"fullnameOverride": "b"}, release="b", namespace="dns").objects
    names = [{(each["kind"], each["metadata"]["name"]) for each in objects} for objects in (first, second)]
    assert not names[0] & names[1]
    for own, other in itertools.permutations((first, second)):
        pods = pod_templates(other).values()
        assert not [s for s in selectors(own).values() for pod in pods if matches(s, pod["metadata"]["labels"])]


@every_case
def test_what_a_pod_needs_is_made_by_the_chart_or_named_by_the_operator(objects: list[Object]) -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in objects}
    for pod in pod_templates(objects).values():
        for kind, name in references(pod):
            assert (kind, name) in made or name in GIVEN, (kind, name)


@every_case
def test_what_a_pod_needs_is_installed_before_the_pod(objects: list[Object]) -> None:
    position = {(each["kind"], each["metadata"]["name"]): number for number, each in enumerate(objects)}
    for number, each in enumerate(objects):
        for pod in pod_templates([each]).values():
            assert all(position.get(reference, -1) < number for reference in references(pod))


@every_case
def test_heimdall_has_no_volume_that_replicas_would_have_to_share(objects: list[Object]) -> None:
    spec = workload(objects)["spec"]["template"]["spec"]
    assert not [volume for volume in spec["volumes"] if "persistentVolumeClaim" in volume]
    assert not of_kind(objects, "PersistentVolumeClaim")
    for each in of_kind(objects, "StatefulSet"):
        assert each["spec"]["replicas"] == 1


@every_case
def test_no_secret_is_anywhere_but_in_a_secret(objects: list[Object]) -> None:
    for each in objects:
        if each["kind"] != "Secret":
            text = json.dumps(each)
            assert not [secret for secret in SECRETS if secret in text], each["kind"]


@pytest.mark.parametrize("name", ["auth", "mutual TLS and auth", "secrets of Heimdall", "external Redis, mutual TLS"])
def test_secrets_that_are_given_are_in_a_secret(name: str) -> None:
    stored = [value for each in of_kind(RENDERED[name], "Secret") for value in each["stringData"].values()]
    assert stored
    assert set(stored) <= set(SECRETS)


@every_case
def test_every_pod_keeps_to_the_restricted_pod_security_standard(objects: list[Object]) -> None:
    for pod in pod_templates(objects).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert not [volume for volume in spec.get("volumes", []) if "hostPath" in volume]
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert "cpu" not in container["resources"]["limits"]


@every_case
def test_a_probe_and_a_service_name_ports_that_the_container_has(objects: list[Object]) -> None:
    pods = pod_templates(objects)
    for each in of_kind(objects, "Service"):
        selector = each["spec"]["selector"]
        (pod,) = [pod for pod in pods.values() if matches(selector, pod["metadata"]["labels"])]
        ports = {(p["name"], p["protocol"]) for c in pod["spec"]["containers"] for p in c["ports"]}
        assert {(port["targetPort"], port["protocol"]) for port in each["spec"]["ports"]} <= ports
    container = workload(objects)["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in {port["name"] for port in container["ports"]}


def test_the_default_is_three_replicas_and_a_redis_that_keeps_ten_gibibytes() -> None:
    objects = RENDERED["defaults"]
    assert the(objects, "Deployment")["spec"]["replicas"] == 3
    (claim,) = the(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    service = the(objects, "Service", "heimdall")
    assert {(port["port"], port["protocol"]) for port in service["spec"]["ports"]} == {(53, "UDP"), (53, "TCP")}


def test_a_rollout_takes_no_replica_away_before_the_next_is_ready() -> None:
    for name, field in (("defaults", "strategy"), ("DaemonSet", "updateStrategy")):
        assert workload(RENDERED[name])["spec"][field]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_autoscaler_alone_sets_the_number_of_replicas() -> None:
    objects = RENDERED["autoscaling"]
    assert "replicas" not in the(objects, "Deployment")["spec"]
    scaler = the(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "heimdall"}
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]


def test_a_daemonset_has_neither_replicas_nor_a_budget_nor_anti_affinity() -> None:
    objects = RENDERED["DaemonSet"]
    assert not of_kind(objects, "PodDisruptionBudget", "Deployment")
    daemons = the(objects, "DaemonSet")["spec"]
    assert "replicas" not in daemons
    assert "topologySpreadConstraints" not in daemons["template"]["spec"]
    assert "podAntiAffinity" not in daemons["template"]["spec"]["affinity"]
    assert the(objects, "Service", "heimdall")["spec"]["internalTrafficPolicy"] == "Local"


def test_affinities_of_the_operator_and_of_the_chart_stand_beside_each_other() -> None:
    affinity = workload(RENDERED["hard anti-affinity"])["spec"]["template"]["spec"]["affinity"]
    assert set(affinity) == {"nodeAffinity", "podAntiAffinity"}


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ({"config": {"maxTtl": 60}}, {"Deployment/heimdall"}),
        ({"config": {"adminToken": "a-token-of-sixteen-characters"}}, {"Deployment/heimdall"}),
        ({"redis": {"maxmemory": "128mb"}}, {"StatefulSet/heimdall-redis"}),
        (
            {"redis": {"auth": {"enabled": True, "password": "x"}}},
            {"Deployment/heimdall", "StatefulSet/heimdall-redis"},
        ),
        ({"replicas": 5}, set()),
        ({"redis": {"persistence": {"storageClass": "fast"}}}, set()),
    ],
    ids=["a setting", "a secret", "Redis's memory", "Redis's password", "replicas", "Redis's volume"],
)
def test_a_change_restarts_exactly_the_pods_that_must_see_it(change: dict[str, Any], restarted: set[str]) -> None:
    before, after = pod_templates(RENDERED["defaults"]), pod_templates(render(change, namespace="dns").objects)
    assert {name for name in before if before[name] != after[name]} == restarted


def toggles(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[Any]]]:
    """Yield the path and the possible values of everything that is switched: booleans, and words of a closed set."""
    for key, inner in schema.get("properties", {}).items():
        if inner.get("type") == "boolean":
            yield (*path, key), {True, False}
        elif "enum" in inner:
            yield (*path, key), set(inner["enum"]) - {""}
        yield from toggles(inner, (*path, key))


# The settings are the server's business, and what Redis evicts is Redis's.
TOGGLES = [
    (path, choices)
    for path, choices in toggles(json.loads((CHART / "values.schema.json").read_text(encoding="utf-8")))
    if path[0] != "config" and path[-1] not in {"maxmemoryPolicy", "pullPolicy"}
]


@pytest.mark.parametrize(("path", "choices"), TOGGLES, ids=[".".join(path) for path, _ in TOGGLES])
def test_every_toggle_is_rendered_in_each_of_its_positions(path: tuple[str, ...], choices: set[Any]) -> None:
    def chosen(values: Any) -> Any:
        for key in path:
            values = values.get(key, {}) if isinstance(values, dict) else {}
        return None if values == {} else values

    default = chosen(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")))
    assert choices <= {default, *(chosen(values) for values in CASES.values())}


def test_an_autoscaled_replica_is_not_scaled_before_it_has_work() -> None:
    objects = RENDERED["production"]
    (metric,) = the(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    requests = workload(objects)["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    cores = float(requests["cpu"]) * metric["resource"]["target"]["averageUtilization"] / 100
    assert 0.5 <= cores <= 0.85, "a process has one core, and HeimdallSaturated says at 85 % that it is used up"


def test_nodes_without_a_zone_are_never_left_out() -> None:
    spec = workload(RENDERED["production"])["spec"]["template"]["spec"]
    found = {each["topologyKey"]: each["whenUnsatisfiable"] for each in spec["topologySpreadConstraints"]}
    assert found == {"kubernetes.io/hostname": "DoNotSchedule", "topology.kubernetes.io/zone": "ScheduleAnyway"}
