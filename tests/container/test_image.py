"""The image under a Docker engine (``make test-container``)."""

import json
import re
import subprocess
import time
from collections.abc import Callable

import dns.flags
import pytest

import heimdall_lib
from tests.container.conftest import BUILD_ARGUMENTS
from tests.container.engine import STOPS_WITHIN_SECONDS, Replica, eventually, health, run, state
from tests.support.processes import REPOSITORY

pytestmark = pytest.mark.container

_FILES = """
import hashlib, pathlib, sys
for path in sorted(each for root in ("/app", sys.prefix) for each in pathlib.Path(root).rglob("*") if each.is_file()):
    print(path, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_it_declares_an_unprivileged_user_its_ports_and_its_health_check(image: str) -> None:
    config = json.loads(run("docker", "image", "inspect", "--format", "{{json .Config}}", image))
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python", "heimdall.py"]
    assert set(config["ExposedPorts"]) == {"1053/udp", "1053/tcp", "8080/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "heimdall_lib.healthcheck"]
    assert config["Labels"]["org.opencontainers.image.version"] == heimdall_lib.__version__


def test_it_holds_bytecode_but_neither_installer_nor_compiler(image: str) -> None:
    program = (
        "import importlib.util, pathlib, shutil, sys\n"
        "sources = list(pathlib.Path('/app').rglob('*.py')) + list(pathlib.Path(sys.prefix).rglob('*.py'))\n"
        "sources = [path for path in sources if path != pathlib.Path('/app/heimdall.py')]\n"
        "caches = map(importlib.util.cache_from_source, sources)\n"
        "print(sys.prefix, [path for path in caches if not pathlib.Path(path).exists()])\n"
        "print(importlib.util.find_spec('pip'), shutil.which('gcc'))\n"
    )
    printed = run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", program)
    assert printed.splitlines() == ["/opt/venv []", "None None"]


def test_it_adds_as_little_to_its_base_image_as_the_documentation_says(image: str) -> None:
    sizes = run("docker", "history", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).splitlines()
    ours = sum(int(line.partition("\t")[0]) for line in sizes if "COPY" in line)
    said = re.search(r"It is small: (\d+) MB on top", (REPOSITORY / "docs/docker.md").read_text(encoding="utf-8"))
    assert said
    assert ours / 1e6 == pytest.approx(float(said[1]), abs=3)


@pytest.mark.timeout(600)
def test_two_builds_hold_the_same_files(image: str) -> None:
    words = ["build", "--network=host", "--no-cache", *BUILD_ARGUMENTS, "--tag", "heimdall:again", "."]
    try:
        run("docker", *words, timeout=600)
        first, second = (
            run("docker", "run", "--rm", "--entrypoint", "python", each, "-c", _FILES).splitlines()
            for each in (image, "heimdall:again")
        )
        assert len(first) > 500
        assert set(first) ^ set(second) == set()
    finally:
        run("docker", "image", "rm", "--force", "heimdall:again")


def test_its_labels_say_what_it_was_built_from(image: str) -> None:
    labels = json.loads(run("docker", "image", "inspect", "--format", "{{json .Config.Labels}}", image))
    wanted = ("title", "description", "version", "licenses", "source", "revision", "created")
    assert {f"org.opencontainers.image.{each}" for each in wanted} <= labels.keys()


def test_it_runs_without_any_privilege_gets_healthy_and_stops_with_status_0(container: Callable[..., str]) -> None:
    server = container("--publish", "127.0.0.1::1053/udp", "--env", "HEIMDALL_UPSTREAM_SERVERS=192.0.2.1")
    eventually(lambda: health(server) == "healthy")
    assert Replica(server).ask("id.server", "TXT", "CH").flags & dns.flags.QR

    started_at = time.monotonic()
    run("docker", "stop", "--time", str(STOPS_WITHIN_SECONDS), server)
    assert time.monotonic() - started_at < STOPS_WITHIN_SECONDS
    assert state(server)["ExitCode"] == 0
    assert "Traceback" not in run("docker", "logs", server)


def test_the_health_check_fails_when_nothing_answers(container: Callable[..., str]) -> None:
    server = container("--env", "HEIMDALL_UPSTREAM_SERVERS=192.0.2.1")
    check = ["docker", "exec", server, "python", "-m", "heimdall_lib.healthcheck"]
    eventually(lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0)
    wrong = subprocess.run([*check, "127.0.0.1:9"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (1, "unhealthy: 127.0.0.1 port 9: Connection refused\n")


def test_flags_are_appended_and_a_wrong_one_exits_with_status_2(container: Callable[..., str]) -> None:
    server = container(arguments=("--max-cache-size", "many"))
    assert run("docker", "wait", server) == "2"
