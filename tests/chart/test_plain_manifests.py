"""k8s/, for people without Helm: the chart's objects, without anything of Helm's."""

import kubernetes_validate
import yaml

from charts.generate import REPOSITORY, plain_manifests
from charts.render import render
from tests.chart.cluster import pod_templates, references, workload

FILES = plain_manifests()
OBJECTS = [each for text in FILES.values() for each in yaml.safe_load_all(text)]


def test_the_directory_holds_them_and_nothing_else() -> None:
    assert {path: path.read_text(encoding="utf-8") for path in (REPOSITORY / "k8s").iterdir()} == FILES


def test_they_are_valid() -> None:
    for each in OBJECTS:
        for version in ("1.25", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(each, version, strict=True)


def test_they_carry_no_trace_of_helm_and_no_namespace() -> None:
    assert all("namespace" not in each["metadata"] for each in OBJECTS)
    for text in FILES.values():
        assert "helm" not in text.lower().replace("without helm", "")


def test_they_make_everything_but_the_test_pod() -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in OBJECTS}
    of_the_chart = {(each["kind"], each["metadata"]["name"]) for each in render().objects}
    assert made == of_the_chart - {("Pod", "heimdall-query")}


def test_each_file_has_what_its_pods_need_before_the_pods() -> None:
    for text in FILES.values():
        seen: set[tuple[str, str]] = {("ServiceAccount", "default")}
        for each in yaml.safe_load_all(text):
            for pod in pod_templates([each]).values():
                assert set(references(pod)) <= seen
            seen.add((each["kind"], each["metadata"]["name"]))


def test_redis_is_detected_not_stated_so_that_it_may_be_left_out() -> None:
    (data,) = [each["data"] for each in OBJECTS if "HEIMDALL_REDIS_ENABLED" in each.get("data", {})]
    assert data["HEIMDALL_REDIS_ENABLED"] == "auto"
    assert workload(OBJECTS)["spec"]["template"]["spec"]["enableServiceLinks"] is True
