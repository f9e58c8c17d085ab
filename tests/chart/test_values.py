"""Values: complete, the same as the server's settings, refused when wrong, and written down where operators look."""

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml

from charts.generate import descriptions, readme
from charts.render import CHART, render
from heimdall_lib.config.table import TABLE, Setting

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
# What the chart must decide, or derives from other values.
CHART_S_OWN = {"bindAddr": "0.0.0.0:1053", "httpBindAddr": "0.0.0.0:8080", "redisEnabled": ""}


def value_name(setting: Setting) -> str:
    first, *others = setting.flag.split("-")
    return first + "".join(word.title() for word in others)


SETTINGS = {value_name(row): row for row in TABLE}


def leaves(node: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that the schema describes as more than a mapping of further ones."""
    for key, inner in node["properties"].items():
        if "properties" in inner:
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key)


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(helm_python.HelmError) as caught:
        render(values)
    return str(caught.value)


def test_config_has_every_setting_of_the_server_in_the_same_order() -> None:
    assert list(VALUES["config"]) == list(SETTINGS)
    assert list(SCHEMA["properties"]["config"]["properties"]) == list(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS.keys())
def test_the_default_is_that_of_the_server(name: str) -> None:
    value = VALUES["config"][name]
    text = json.dumps(value) if isinstance(value, bool | int | float) else value
    assert text == CHART_S_OWN.get(name, SETTINGS[name].default)


def accepts(name: str, value: object) -> bool:
    """Tell whether the server takes a value of a setting."""
    try:
        SETTINGS[name].kind.parse(str(value))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", SETTINGS.keys())
def test_the_schema_allows_exactly_the_numbers_that_the_server_allows(name: str) -> None:
    rules = SCHEMA["properties"]["config"]["properties"][name]
    for bound, beyond in (("minimum", -1), ("maximum", 1)):
        if bound in rules:
            assert accepts(name, rules[bound])
            assert not accepts(name, rules[bound] + beyond)
    if "exclusiveMinimum" in rules:
        assert not accepts(name, rules["exclusiveMinimum"])


@pytest.mark.parametrize("name", ["upstreamPolicy", "logLevel", "logFormat"])
def test_the_schema_allows_exactly_the_words_that_the_server_allows(name: str) -> None:
    words = SCHEMA["properties"]["config"]["properties"][name]["enum"]
    assert set(re.findall(r"\w+", SETTINGS[name].kind.allowed)) - {"or"} == set(words)
    assert all(accepts(name, word) for word in words)


def test_every_value_has_a_description_and_a_schema_and_nothing_else_has() -> None:
    described = [path for path, _ in descriptions(TEXT)]
    assert len(set(described)) == len(described)
    assert [path for path in leaves(SCHEMA) if path != ("global",)] == described


def test_the_schema_is_closed_everywhere() -> None:
    def check(node: dict[str, Any]) -> None:
        if "properties" in node:
            assert node["additionalProperties"] is False
            for inner in node["properties"].values():
                check(inner)

    check(SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {"replicaCount": 3},
        {"replicas": "three"},
        {"replicas": -1},
        {"kind": "StatefulSet"},
        {"fullnameOverride": "With Capitals"},
        {"config": {"maxCachesize": 1}},
        {"config": {"max-cache-size": 1}},
        {"config": {"maxCacheSize": "many"}},
        {"config": {"maxCacheSize": 1.5}},
        {"config": {"upstreamPolicy": "slowest"}},
        {"config": {"logLevel": "verbose"}},
        {"config": {"queryLog": "maybe"}},
        {"config": {"bindAddr": "0.0.0.0:53"}},
        {"config": {"httpBindAddr": "disabled"}},
        {"image": {"digest": "sha256:short"}},
        {"redis": {"persistance": {}}},
        {"redis": {"persistence": {"size": "ten"}}},
        {"redis": {"maxmemoryPolicy": "allkeys-fifo"}},
        {"redis": {"maxmemory": "256Mi"}},
        {"service": {"type": "ExternalName"}},
        {"service": {"port": 0}},
        {"dnsPolicy": "None"},
        {"networkPolicy": {"upstreamPorts": [70000]}},
        {"existingSecret": {"keys": ["password"]}},
        {"metrics": {"serviceMonitor": {"interval": "often"}}},
    ],
    ids=str,
)
def test_the_schema_refuses(values: dict[str, Any]) -> None:
    path = next(iter(values))
    assert "don't meet the specifications of the schema" in refusal(values)
    assert path in refusal(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "DaemonSet", "autoscaling": {"enabled": True}}, "autoscaling.enabled: a DaemonSet"),
        (
            {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": 0}},
            "needs targetCPUUtilizationPercentage or targetQueriesPerSecond",
        ),
        ({"dnsPolicy": "ClusterFirst"}, "dnsPolicy: ClusterFirst needs config.upstreamServers"),
        ({"redis": {"auth": {"enabled": True}}}, "redis.auth.enabled: needs redis.auth.password or"),
        (
            {"redis": {"auth": {"enabled": True, "password": "a"}}, "config": {"redisPassword": "b"}},
            "the chart's own Redis is redis.auth.password",
        ),
        ({"redis": {"tls": {"enabled": True}}}, "needs redis.tls.existingSecret"),
        ({"redis": {"tls": {"enabled": True, "existingSecret": "a"}}}, "which only dnsPolicy ClusterFirst finds"),
        ({"redis": {"tls": {"existingSecret": "a"}}}, "redis.tls.enabled is false"),
        ({"redis": {"external": {"urlKey": "url"}}}, "redis.external.urlKey: needs redis.external.existingSecret"),
        ({"redis": {"external": {"existingSecret": "a"}}}, "needs redis.external.url, or urlKey"),
        (
            {"redis": {"external": {"existingSecret": "a", "urlKey": "b", "url": "redis://c"}}},
            "two places for one URL",
        ),
        ({"redis": {"external": {"url": "redis://a"}, "tls": {"existingSecret": "b"}}}, "is not a TLS URL"),
        ({"redis": {"external": {"url": "http://a"}}}, "redis.external.url: redis://"),
        (
            {"redis": {"external": {"url": "redis://a", "existingSecret": "b"}}, "config": {"redisPassword": "c"}},
            "has the password already",
        ),
        (
            {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
            "would scrape every pod twice",
        ),
        (
            {"config": {"adminToken": "sixteen-characters", "adminTokenFile": "/a"}},
            "config.adminToken: not together with config.adminTokenFile",
        ),
    ],
    ids=str,
)
def test_combinations_that_would_fail_later_are_refused(values: dict[str, Any], message: str) -> None:
    assert message in refusal(values)


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"redisUrl": "redis://:hush-hush@cache"}},
        {"redis": {"external": {"url": "redis://user:hush-hush@cache"}}},
        {"config": {"adminToken": "hush-hush"}},
        {"config": {"redisSigningKey": "hush-hush"}},
    ],
    ids=str,
)
def test_a_secret_that_is_refused_is_not_repeated(values: dict[str, Any]) -> None:
    assert "hush" not in refusal(values)


def test_null_leaves_a_setting_to_the_server() -> None:
    (data,) = [each["data"] for each in render({"config": {"maxTtl": None}}).objects if "HEIMDALL_MIN_TTL" in str(each)]
    assert "HEIMDALL_MAX_TTL" not in data


@pytest.mark.parametrize(
    ("given", "written"), [(268435456, "268435456"), (1099511627776, "1099511627776"), (12345678, "12345678")]
)
def test_large_numbers_are_written_in_full(given: int, written: str) -> None:
    (data,) = [
        each["data"]
        for each in render({"config": {"maxCacheBytes": given}}).objects
        if "HEIMDALL_MIN_TTL" in each.get("data", {})
    ]
    assert data["HEIMDALL_MAX_CACHE_BYTES"] == written


def test_the_readme_s_table_is_up_to_date() -> None:
    for path, text in readme().items():
        assert path.read_text(encoding="utf-8") == text, "run make manifests"


def test_the_readme_s_links_lead_somewhere() -> None:
    (text,) = readme().values()
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (CHART / link).exists()] == []
