"""What the tests of the image do with a Docker engine, whichever the ``docker`` command reaches.

Rules: ports are published on loopback only; what a test started is removed after it, and nothing is left behind but the
image ``heimdall:test``.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import yaml

from tests.support import client, processes
from tests.support.processes import REPOSITORY, free_port

ADDRESS = "192.0.2.53"
"""What the stack's authoritative server answers for every name."""

STOPS_WITHIN_SECONDS = 15
_STARTS_WITHIN_SECONDS = 60.0
_PROJECT = f"heimdall-test-{os.getpid()}"
_EPHEMERAL = "127.0.0.1:"  # a port of the engine's own choice, on loopback

T = TypeVar("T")


def run(*command: str, timeout: float = 300, environment: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def eventually(look: Callable[[], T]) -> T:
    """Return what ``look`` returns as soon as that is true; containers take longer than processes."""
    return processes.eventually(look, timeout=_STARTS_WITHIN_SECONDS, pause=0.2)


def find_compose() -> list[str]:
    """Return the words that run Compose, empty when it is not installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if found := shutil.which("docker-compose", path=path):
        return [found]
    plugin = ["docker", "compose"]
    works = shutil.which("docker") and subprocess.run([*plugin, "version"], capture_output=True, check=False)
    return plugin if works and works.returncode == 0 else []


def state(container: str) -> dict[str, Any]:
    found = json.loads(run("docker", "inspect", "--format", "{{json .State}}", container))
    assert isinstance(found, dict)
    return found


def health(container: str) -> str:
    status = state(container)
    assert status["Running"], run("docker", "logs", container)
    return str(status["Health"]["Status"])


@dataclass(frozen=True)
class Replica:
    """One Heimdall of a stack."""

    container: str

    def ask(self, name: str, *question: str, transport: str = "udp") -> dns.message.Message:
        """Ask for a name, and a type and a class if given."""
        return client.ask(self._published(f"1053/{transport}"), name, *question, transport=transport)

    def addresses(self, name: str, *, transport: str = "udp") -> list[str]:
        return client.addresses(self.ask(name, transport=transport))

    def metric(self, name: str, **labels: str) -> float:
        return client.metric(self._published("8080/tcp"), f"heimdall_{name}", **labels)

    def get(self, path: str) -> client.HttpAnswer:
        return client.http(self._published("8080/tcp"), path)

    def where(self, name: str) -> str:
        """Return which tiers have the answer."""
        return str(json.loads(self.get(f"/cache/entry?name={name}").body)["where"])

    def command(self, *words: str) -> str:
        """Run one of Heimdall's own commands in the container."""
        return run("docker", "exec", self.container, "python", "heimdall.py", *words)

    def _published(self, port: str) -> client.Address:
        host, _, number = run("docker", "port", self.container, port).splitlines()[0].rpartition(":")
        return host, int(number)


class Stack:
    """The stack of compose.yml under a project name of its own, with an authoritative server beside it."""

    def __init__(self, compose: Sequence[str], image: str, directory: Path, *, patient: bool) -> None:
        """Start nothing yet; with ``patient``, Heimdall waits for Redis longer than by default."""
        # The image's own dnslib serves as the authority, so that no further image is needed.
        authority = {
            "image": image,
            "entrypoint": ["python", "-m", "dnslib.fixedresolver", "--address", "0.0.0.0", "--port", "5353"],
            "command": ["--tcp", "--response", f". 3600 IN A {ADDRESS}"],
            "healthcheck": {"disable": True},
            "stop_signal": "SIGKILL",
        }
        waits = {"HEIMDALL_REDIS_READ_BUDGET": "4", "HEIMDALL_REDIS_TIMEOUT": "5"} if patient else {}
        heimdall = {"image": image, "environment": waits}
        override = directory / "override.yml"
        override.write_text(yaml.safe_dump({"services": {"heimdall": heimdall, "authority": authority}}))
        self._command = [*compose, "--project-name", _PROJECT, "--file", "compose.yml", "--file", str(override)]
        self._environment = {
            "HEIMDALL_HOST_PORT": _EPHEMERAL,
            "HEIMDALL_HTTP_PORT": str(free_port()),
            "HEIMDALL_UPSTREAM_SERVERS": "auto",
        }

    def __call__(self, *arguments: str) -> str:
        return run(*self._command, *arguments, environment=self._environment)

    def containers(self, service: str) -> list[str]:
        return self("ps", "--all", "--quiet", service).split()

    def container(self, service: str) -> str:
        (found,) = self.containers(service)
        return found

    def replicas(self) -> list[Replica]:
        return [Replica(each) for each in self.containers("heimdall")]

    def up(self, *, replicas: int = 1) -> None:
        if replicas > 1:
            self._environment["HEIMDALL_HTTP_PORT"] = "0"  # one for each, of the engine's choice
        self("up", "--detach", "--no-build", "authority")
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        authority = run("docker", "inspect", "--format", networks, self.container("authority"))
        self._environment["HEIMDALL_UPSTREAM_SERVERS"] = f"{authority}:5353"
        self.start("redis", "heimdall", "--scale", f"heimdall={replicas}")

    def start(self, *services: str) -> None:
        """Start services, and wait until they are healthy."""
        self("up", "--detach", "--no-build", "--no-recreate", "--wait", *services)

    def down(self) -> None:
        self("down", "--volumes", "--timeout", "0")

    def stored(self) -> str:
        """Return the names of the keys in Redis."""
        return self("exec", "-T", "redis", "redis-cli", "--scan")

    def asked(self, name: str) -> int:
        """Return how often the authoritative server was asked for a name."""
        log = run("docker", "logs", self.container("authority")).splitlines()
        return sum("Request:" in line and f"'{name}.'" in line for line in log)


@contextmanager
def running_stack(
    compose: Sequence[str], image: str, directory: Path, *, replicas: int = 1, patient: bool = True
) -> Iterator[Stack]:
    """Start a stack with so many replicas, and remove it in the end.

    On a machine that is busy with the tests, Redis may well take longer than a query waits that is not ``patient``.
    """
    stack = Stack(compose, image, directory, patient=patient)
    try:
        stack.up(replicas=replicas)
        yield stack
    finally:
        stack.down()
