"""What the tests of the image are given: an engine that answers, the image, and containers that are removed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.container.engine import find_compose, run

IMAGE = os.environ.get("HEIMDALL_TEST_IMAGE", "")
BUILD_ARGUMENTS = os.environ.get("HEIMDALL_TEST_BUILD_ARGS", "").split()


@pytest.fixture(scope="session")
def engine() -> None:
    """Skip unless a Docker engine answers."""
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed")
    probe = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no Docker engine answers: {probe.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """Build the image, unless ``HEIMDALL_TEST_IMAGE`` names one that is there already.

    ``HEIMDALL_TEST_BUILD_ARGS`` are further words for ``docker build``.
    """
    if IMAGE:
        return IMAGE
    run("docker", "build", "--network=host", *BUILD_ARGUMENTS, "--tag", "heimdall:test", ".", timeout=900)
    return "heimdall:test"


@pytest.fixture(scope="session")
def compose() -> list[str]:
    found = find_compose()
    if not found:
        pytest.skip("neither docker-compose nor the docker compose plugin is installed")
    return found


@pytest.fixture
def container(image: str) -> Iterator[Callable[..., str]]:
    """Return a function that starts a container as the documentation says and returns its id."""
    started: list[str] = []

    def start(*options: str, arguments: tuple[str, ...] = ()) -> str:
        hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")
        started.append(run("docker", "run", "--detach", *hardened, *options, image, *arguments))
        return started[-1]

    yield start
    for container_id in started:
        run("docker", "rm", "--force", "--volumes", container_id)
