"""What the Dockerfile, compose.yml and the files that it mounts promise, as far as can be told without an engine."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import heimdall_lib
from heimdall_lib.config.table import TABLE
from tests.container.engine import run
from tests.support.processes import REPOSITORY, program

SETTINGS = {setting.variable for setting in TABLE}
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]


def instructions(name: str) -> list[str]:
    """Return the Dockerfile's instructions of one kind, continuation lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]


def mounted(service: str) -> dict[str, Path]:
    """Return the files of this repository that a service sees, by the path at which it does."""
    found = [volume.split(":") for volume in SERVICES[service].get("volumes", []) if volume.startswith("./")]
    assert all(words[2:] == ["ro"] for words in found)
    return {words[1]: REPOSITORY / words[0] for words in found}


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_is_labelled_with_the_version_it_holds() -> None:
    assert f"VERSION={heimdall_lib.__version__}" in instructions("ARG")


def test_the_dockerfile_sets_only_variables_that_are_settings() -> None:
    names = {word.partition("=")[0] for line in instructions("ENV") for word in line.split()}
    assert {name for name in names if name.startswith("HEIMDALL_")} <= SETTINGS


def test_nothing_in_the_dockerfile_is_for_one_architecture_only() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert not re.search(r"amd64|x86_64|arm64|aarch64|--platform", text)


def test_the_build_sees_only_what_the_image_holds() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {
        "LICENSE",
        "heimdall.py",
        "heimdall_lib",
        "requirements.txt",
    }


def test_compose_sets_only_variables_that_are_settings() -> None:
    assert set(SERVICES["heimdall"]["environment"]) <= SETTINGS


@pytest.mark.parametrize("name", SERVICES)
def test_compose_gives_every_service_bounds_and_no_privilege(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == "unless-stopped"
    assert service.get("cap_add", []) == (["CHOWN", "SETGID", "SETUID"] if name == "redis" else [])


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_started_when_what_it_needs_is_healthy(name: str) -> None:
    needed = SERVICES[name].get("depends_on", {})
    assert all(how == {"condition": "service_healthy"} for how in needed.values())
    assert all("healthcheck" in SERVICES[each] or each == "heimdall" for each in needed), "the image has its own"


def test_the_images_that_are_pulled_have_a_tag() -> None:
    assert all(re.fullmatch(r"[a-z/]+:[\w.-]+", SERVICES[name]["image"]) for name in SERVICES.keys() - {"heimdall"})
    assert not any("latest" in service["image"] for service in SERVICES.values())


def test_compose_publishes_dns_but_http_on_loopback_only_and_redis_not_at_all() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published.pop("heimdall") == [
        "${HEIMDALL_HOST_PORT:-53}:1053/udp",
        "${HEIMDALL_HOST_PORT:-53}:1053/tcp",
        "127.0.0.1:${HEIMDALL_HTTP_PORT:-8080}:8080/tcp",
    ]
    assert published.pop("redis") == []
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_compose_leaves_time_to_drain_and_to_finish() -> None:
    defaults = 5 + 4.5  # --drain-seconds and --query-timeout
    grace = SERVICES["heimdall"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > defaults


def test_monitoring_is_a_profile_of_its_own() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == {"prometheus", "grafana"}


def test_the_variables_of_the_file_are_explained_at_its_top() -> None:
    text = (REPOSITORY / "compose.yml").read_text(encoding="utf-8")
    explained = set(re.findall(r"^# (HEIMDALL_\w+) ", text, re.MULTILINE))
    assert explained == set(re.findall(r"\$\{(HEIMDALL_\w+):-", text))


@pytest.mark.parametrize("profile", [(), ("--profile", "monitoring")], ids=["default", "monitoring"])
def test_the_compose_file_is_valid(compose: list[str], profile: tuple[str, ...]) -> None:
    shown = json.loads(run(*compose, *profile, "config", "--format", "json"))
    assert set(shown["services"]) == {"heimdall", "redis", *(("prometheus", "grafana") if profile else ())}


def test_what_is_mounted_is_in_the_repository() -> None:
    assert all(path.exists() for service in SERVICES for path in mounted(service).values())


def test_promtool_finds_nothing_wrong_in_prometheus_s_configuration(tmp_path: Path) -> None:
    configuration = mounted("prometheus")["/etc/prometheus/prometheus.yml"]
    rules = mounted("prometheus")["/etc/prometheus/rules"]
    text = configuration.read_text(encoding="utf-8").replace("/etc/prometheus/rules", str(rules))
    (tmp_path / "prometheus.yml").write_text(text)
    done = run(program("promtool"), "check", "config", str(tmp_path / "prometheus.yml"))
    assert "1 rule files found" in done
    assert re.search(r"SUCCESS: \d\d rules found", done)


def test_prometheus_looks_for_every_heimdall_at_its_metrics_port() -> None:
    configuration = yaml.safe_load(mounted("prometheus")["/etc/prometheus/prometheus.yml"].read_text(encoding="utf-8"))
    heimdall = next(job for job in configuration["scrape_configs"] if job["job_name"] == "heimdall")
    (discovery,) = heimdall["dns_sd_configs"]
    assert (discovery["names"], discovery["type"], discovery["port"]) == (["heimdall"], "A", 8080)
    assert set(discovery["names"]) <= SERVICES.keys()


def test_grafana_reads_prometheus_and_the_chart_s_dashboard() -> None:
    files = mounted("grafana")
    provisioning = "/etc/grafana/provisioning"
    (source,) = yaml.safe_load(files[f"{provisioning}/datasources/heimdall.yml"].read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = yaml.safe_load(files[f"{provisioning}/dashboards/heimdall.yml"].read_text())["providers"]
    assert provider["type"] == "file"
    directory = files[provider["options"]["path"]]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    dashboard = json.loads((directory / Path(home).name).read_text(encoding="utf-8"))
    assert dashboard["uid"] == "heimdall"
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["query"] == source["type"]


def test_nobody_can_change_anything_in_grafana() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert all(isinstance(value, str) for value in environment.values())
