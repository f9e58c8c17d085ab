"""docs/kubernetes.md and NOTES.txt: what they tell operators to set renders, and what they name exists."""

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from charts.render import CHART, render
from tests.chart.cases import CASES

REPOSITORY = CHART.parents[1]
GUIDE = (REPOSITORY / "docs/kubernetes.md").read_text(encoding="utf-8")
BLOCKS = [
    (match[1], match[2]) for match in re.finditer(r"^ *```(\w*)[^\n]*\n(.*?)^ *```$", GUIDE, re.MULTILINE | re.DOTALL)
]
EXAMPLES = [yaml.safe_load(text) for language, text in BLOCKS if language == "yaml"]
VALUES = [each for each in EXAMPLES if not each.keys() & {"apiVersion", "rules"}]
NAMES = {"heimdall", "heimdall-redis", "heimdall-redis-auth", "heimdall-secrets", "data-heimdall-redis-0"}


def commands(program: str) -> Iterator[list[str]]:
    """Yield the words of every command line of a program in the guide."""
    for language, text in BLOCKS:
        if language == "sh":
            for line in re.split(r"\n|&&", text):
                if line.strip().startswith(f"{program} "):
                    yield shlex.split(line)


def flags(words: list[str], name: str) -> list[str]:
    return [value for flag, value in itertools.pairwise(words) if flag == name]


@pytest.mark.parametrize("words", list(commands("helm")), ids=" ".join)
def test_the_values_of_helm_s_command_lines_render(words: list[str]) -> None:
    assert words[1] in {"install", "upgrade", "test", "history", "rollback"}
    assert words[2] == "heimdall"
    for text in flags(words, "--set"):
        render(helm_python.parse_set_string(text))
    for path in flags(words, "--values"):
        if path != "node-local.yaml":
            assert (REPOSITORY / path).is_file()


@pytest.mark.parametrize("values", VALUES, ids=str)
def test_the_values_of_the_examples_render(values: dict[str, Any]) -> None:
    assert render(values).objects


def test_every_value_that_the_guide_names_exists() -> None:
    named = re.findall(r"`([a-z]\w*(?:\.\w+)+)(?:=[^`]*)?`", GUIDE)
    assert len(named) > 20
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path in named:
        value = defaults
        if path.split(".")[0] in defaults:
            for key in path.split("."):
                assert key in value, path
                value = value[key]


def test_the_assignments_of_the_table_render() -> None:
    assignments = re.findall(r"`((?:config|service|redis|networkPolicy|autoscaling)\.[\w.]+=[^`]+)`", GUIDE)
    assert len(assignments) > 10
    for assignment in assignments:
        render(helm_python.parse_set_string(assignment))


def test_the_pod_of_the_examples_is_valid() -> None:
    (pod,) = [each for each in EXAMPLES if "apiVersion" in each]
    kubernetes_validate.validate(pod, "1.25", strict=True)


@pytest.mark.parametrize("words", list(commands("kubectl")), ids=" ".join)
def test_kubectl_s_command_lines_name_what_the_chart_makes(words: list[str]) -> None:
    for word in words[2:]:
        kind, slash, name = word.partition("/")
        if slash and kind in {"deployment", "statefulset", "service"}:
            made = {(each["kind"].lower(), each["metadata"]["name"]) for each in render().objects}
            assert (kind, name) in made
    for path in flags(words, "-f"):
        assert (REPOSITORY / path).exists()
    assert not [
        word for word in words if word.startswith("heimdall") and word.partition("/")[0] not in NAMES | {"heimdall.py"}
    ]


@pytest.mark.parametrize("name", ["defaults", "DaemonSet", "no Redis", "external Redis", "another name"])
def test_the_notes_name_what_was_installed(name: str) -> None:
    rendered = render(CASES[name], release="dns", namespace="network")
    made = {(each["kind"].lower(), each["metadata"]["name"]) for each in rendered.objects}
    named = re.findall(r"(deployment|daemonset)/(\S+)", rendered.notes)
    named += re.findall(r"get (service) --namespace network (\S+)", rendered.notes)
    assert len(named) == 3
    assert set(named) <= made
    assert "helm test --namespace network dns" in rendered.notes
    assert "<no value>" not in rendered.notes


def test_the_notes_warn_of_a_redis_that_everybody_reaches() -> None:
    assert "Everybody in the cluster" not in render().notes
    assert "Everybody in the cluster" in render({"networkPolicy": {"enabled": False}}).notes
    closed = {"networkPolicy": {"enabled": False}, "redis": {"auth": {"enabled": True, "existingSecret": "a"}}}
    assert "Everybody in the cluster" not in render(closed).notes
