"""What the chart gives the container is what the server takes: environment, files, probes, time to stop."""

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from charts.render import Object, render
from tests.chart.cases import ADMIN_TOKEN, CASES, PASSWORD, PRODUCTION, SIGNING_KEY
from tests.chart.cluster import environment, mounted_secrets, of_kind, pod_templates, size_in_bytes, the, workload
from tests.support.processes import PATIENCE, Launcher, RedisServer, eventually, run_heimdall
from tests.support.upstream import Upstream, failing, silent

MOUNT = "/run/secrets/heimdall"
GIVEN = {
    "url": f"rediss://user:{PASSWORD.replace(' ', '%20')}@cache.example:6380/1",
    "password": PASSWORD,
    "redis-password": PASSWORD,
    "admin-token": ADMIN_TOKEN,
    "redis-signing-key": SIGNING_KEY,
    "ca.crt": "-----BEGIN CERTIFICATE-----",
    "tls.crt": "-----BEGIN CERTIFICATE-----",
    "tls.key": "-----BEGIN PRIVATE KEY-----",
}
"""What is in the Secrets, by key; the chart's own hold the same."""


def container(objects: list[Object]) -> Object:
    found: Object = workload(objects)["spec"]["template"]["spec"]["containers"][0]
    return found


def start_up_environment(objects: list[Object], directory: Path, address: str = "10.96.0.20") -> dict[str, str]:
    """Return the container's environment, with the mounted secrets in ``directory``."""
    own = {
        (each["metadata"]["name"], key): value
        for each in of_kind(objects, "Secret")
        for key, value in each["stringData"].items()
    }
    for path, secret, key in mounted_secrets(objects):
        (directory / path).write_text(own.get((secret, key), GIVEN[key]))
    return {name: value.replace(MOUNT, str(directory)) for name, value in environment(objects, GIVEN, address).items()}


def effective(objects: list[Object], directory: Path) -> dict[str, str]:
    """Return the settings that the server makes of the environment; it must accept them."""
    return checked(json.dumps(start_up_environment(objects, directory)))


@functools.cache
def checked(environ: str) -> dict[str, str]:
    """Return what --check-config says to an environment, given as JSON."""
    finished = run_heimdall("--check-config", env=json.loads(environ))
    assert (finished.returncode, finished.stderr) == (0, "")
    return dict(line.split(" = ", 1) for line in finished.stdout.splitlines())


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the mounted secrets of every case are: the same, so that equal environments are checked once."""
    return tmp_path_factory.mktemp("secrets")


@pytest.mark.parametrize("name", CASES.keys())
def test_the_server_accepts_the_environment(name: str, secrets: Path) -> None:
    settings = effective(render(CASES[name]).objects, secrets)
    assert settings["bind-addr"].startswith(("0.0.0.0:1053", "[::]:1053"))


@pytest.mark.parametrize(
    ("name", "url", "shown"),
    [
        ("defaults", "redis://10.96.0.20:6379/0", {"redis-password": "-"}),
        ("another name", "redis://10.96.0.20:6379/0", {}),
        ("auth", "redis://10.96.0.20:6379/0", {"redis-password": "***"}),
        ("no Redis", "-", {"redis-enabled": "false (--redis-enabled false)"}),
        ("external Redis", "redis+sentinel://a:26379,b:26379/main/0", {}),
        ("external Redis, URL in a Secret", "rediss://cache.example:6380/1", {}),
        ("external Redis, mutual TLS", "rediss://cache.example:6380/1", {"redis-username": "heimdall"}),
        ("TLS", "rediss://heimdall-redis:6379/0", {}),
    ],
)
def test_the_server_finds_the_redis_that_the_values_mean(
    name: str, url: str, shown: dict[str, str], secrets: Path
) -> None:
    settings = effective(render(CASES[name]).objects, secrets)
    assert settings["redis-url"].split(" ")[0] == url
    assert {key: settings[key] for key in shown} == shown


def test_redis_is_found_whatever_the_release_is_called(tmp_path: Path) -> None:
    objects = render(release="dns", namespace="network").objects
    assert the(objects, "Deployment")["metadata"]["name"] == "dns-heimdall"
    assert the(objects, "StatefulSet")["metadata"]["name"] == "heimdall-redis"
    assert effective(objects, tmp_path)["redis-url"].startswith("redis://10.96.0.20:6379")


@pytest.mark.parametrize("name", ["defaults", "another name"])
def test_a_pod_s_environment_starts_cleanly_and_uses_redis(
    name: str, heimdall: Launcher, upstream: Upstream, redis: RedisServer, tmp_path: Path
) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    environ = start_up_environment(render(CASES[name]).objects, tmp_path, address="127.0.0.1")
    environ |= {"HEIMDALL_REDIS_SERVICE_PORT": str(redis.port)}
    server = heimdall(env=environ)
    server.wait_for_redis()
    assert server.ask("www.example.com").answer
    assert "is no setting" not in server.log
    assert "WARNING" not in server.log


def test_a_file_decides_what_is_null_in_the_values(tmp_path: Path) -> None:
    file = tmp_path / "heimdall.yaml"
    file.write_text("max-ttl: 60\nmin-ttl: 30\n")
    settings = effective(render({"config": {"config": str(file), "maxTtl": None}}).objects, tmp_path)
    assert (settings["max-ttl"], settings["min-ttl"]) == ("60", "0")


def test_a_name_that_is_not_there_yet_stops_the_start_instead_of_doing_without(tmp_path: Path) -> None:
    environ = start_up_environment(render(CASES["another name"]).objects, tmp_path)
    environ |= {"HEIMDALL_REDIS_SERVICE_HOST": "$(DNS_CACHE_REDIS_SERVICE_HOST)"}
    finished = run_heimdall("--check-config", env=environ)
    assert finished.returncode == 2
    assert "HEIMDALL_REDIS_SERVICE_HOST" in finished.stderr


@pytest.mark.parametrize("name", CASES.keys())
def test_heimdall_never_resolves_through_itself(name: str) -> None:
    objects = render(CASES[name]).objects
    spec = workload(objects)["spec"]["template"]["spec"]
    assert spec["dnsConfig"] == {"options": [{"name": "ndots", "value": "1"}]}
    if spec["dnsPolicy"] != "Default":
        assert the(objects, "ConfigMap", "heimdall")["data"]["HEIMDALL_UPSTREAM_SERVERS"] != "auto"


@pytest.mark.parametrize("values", [{}, PRODUCTION], ids=["defaults", "production"])
def test_memory_limits_leave_room_beside_the_cache(values: dict[str, Any]) -> None:
    objects = render(values).objects
    limit = size_in_bytes(container(objects)["resources"]["limits"]["memory"])
    assert limit >= 1.5 * int(the(objects, "ConfigMap", "heimdall")["data"]["HEIMDALL_MAX_CACHE_BYTES"])
    (redis,) = the(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    conf = the(objects, "ConfigMap", "heimdall-redis")["data"]["redis.conf"]
    (maxmemory,) = [line.split()[1] for line in conf.splitlines() if line.startswith("maxmemory ")]
    assert size_in_bytes(redis["resources"]["limits"]["memory"]) >= 1.5 * size_in_bytes(maxmemory)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 5 + 5 + 5 + 5),
        ({"preStopSeconds": 0}, 5 + 5 + 5),
        ({"config": {"drainSeconds": 10.5, "queryTimeout": 2}, "preStopSeconds": 15}, 15 + 11 + 2 + 5),
    ],
    ids=str,
)
def test_a_pod_has_time_for_pre_stop_drain_and_queries_in_flight(values: dict[str, Any], expected: int) -> None:
    objects = render(values).objects
    assert workload(objects)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == expected
    lifecycle = container(objects).get("lifecycle")
    seconds = values.get("preStopSeconds", 5)
    assert lifecycle == ({"preStop": {"exec": {"command": ["sleep", str(seconds)]}}} if seconds else None)


def test_the_server_stops_within_the_time_that_the_pod_has(
    heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    config = {"drainSeconds": 0.5, "queryTimeout": 1, "upstreamTimeout": 1, "staleClientTimeout": 0.5}
    objects = render({"config": config, "preStopSeconds": 0, "redis": {"enabled": False}}).objects
    upstream.reaction = silent
    environ = start_up_environment(objects, tmp_path)
    server = heimdall("--drain-seconds", environ["HEIMDALL_DRAIN_SECONDS"], env=environ)
    probes = container(objects)
    paths = {name: probes[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {server.get(path).status for path in paths.values()} == {200}
    with pytest.raises(Exception, match="timed out"):
        server.ask("slow.example.com", timeout=0.1)
    grace = workload(objects)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    server.send(signal.SIGTERM)
    eventually(lambda: server.get(paths["readinessProbe"]).status == 503)
    assert server.get(paths["livenessProbe"]).status == 200
    assert server.wait(timeout=grace) == 0


def test_helm_test_asks_over_udp_and_tcp_and_fails_when_there_is_no_answer(
    heimdall: Launcher, upstream: Upstream
) -> None:
    (spec,) = pod_templates(of_kind(render().objects, "Pod"))["Pod/heimdall-query"]["spec"]["containers"]
    assert spec["args"] == ["heimdall.default", "53", "example.com"]
    upstream.add("example.com", "A", "192.0.2.1")
    server = heimdall()

    def run(port: int, name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *spec["command"][1:], "127.0.0.1", str(port), name]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    answered = run(server.address[1], "example.com")
    assert (answered.returncode, answered.stdout) == (0, "UDP: NOERROR A 192.0.2.1\nTCP: NOERROR A 192.0.2.1\n")
    upstream.reaction = failing("SERVFAIL")
    assert run(server.address[1], "failing.example.com").returncode == 1
