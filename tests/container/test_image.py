"""The container image and the compose stack: what their files promise, and what they do under a Docker engine.

The tests marked ``container`` build the image and run it (``make test-container``). They talk to whatever engine the
``docker`` command reaches, leave nothing behind but the image ``heimdall:test``, and publish ports on loopback only.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
import yaml

import heimdall_lib
from heimdall_lib.config.table import TABLE

REPOSITORY = Path(__file__).parents[2]
IMAGE = os.environ.get("HEIMDALL_TEST_IMAGE", "")
PROJECT = f"heimdall-test-{os.getpid()}"
ADDRESS = "192.0.2.53"
SETTINGS = {setting.variable for setting in TABLE}
STARTS_WITHIN_SECONDS = 60
STOPS_WITHIN_SECONDS = 15


# What the files say


def instructions(name: str) -> list[str]:
    """Return the Dockerfile's instructions of one kind, continuation lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith(f"{name} ")]


def compose_file() -> dict[str, Any]:
    content = yaml.safe_load((REPOSITORY / "compose.yml").read_text())
    assert isinstance(content, dict)
    return content


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    run = subprocess.run([hadolint, "Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "")


def test_the_image_is_labelled_with_the_version_it_holds() -> None:
    assert f"VERSION={heimdall_lib.__version__}" in instructions("ARG")


def test_the_dockerfile_sets_only_variables_that_are_settings() -> None:
    names = {word.partition("=")[0] for line in instructions("ENV") for word in line.split()}
    assert {name for name in names if name.startswith("HEIMDALL_")} <= SETTINGS


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
    assert set(compose_file()["services"]["heimdall"]["environment"]) <= SETTINGS


def test_compose_takes_every_privilege_from_heimdall() -> None:
    heimdall = compose_file()["services"]["heimdall"]
    assert heimdall["read_only"] is True
    assert heimdall["cap_drop"] == ["ALL"]
    assert heimdall["security_opt"] == ["no-new-privileges:true"]
    assert "healthcheck" not in heimdall, "the image's own is inherited"


def test_compose_publishes_dns_but_http_on_loopback_only_and_redis_not_at_all() -> None:
    services = compose_file()["services"]
    assert services["heimdall"]["ports"] == [
        "${HEIMDALL_HOST_PORT:-53}:1053/udp",
        "${HEIMDALL_HOST_PORT:-53}:1053/tcp",
        "127.0.0.1:${HEIMDALL_HTTP_PORT:-8080}:8080/tcp",
    ]
    assert "ports" not in services["redis"]


def test_compose_leaves_time_to_drain_and_to_finish() -> None:
    defaults = 5 + 4.5  # --drain-seconds and --query-timeout
    grace = compose_file()["services"]["heimdall"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > defaults


# What an engine makes of them


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


def wait_until(what: str, condition: Callable[[], bool], seconds: float = STARTS_WITHIN_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def free_port() -> int:
    """Return a port that is free for UDP and for TCP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
        ):
            datagram.bind(("127.0.0.1", 0))
            port: int = datagram.getsockname()[1]
            try:
                stream.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def ask(port: int, name: str, *, tcp: bool = False) -> dns.message.Message:
    exchange = dns.query.tcp if tcp else dns.query.udp
    return exchange(dns.message.make_query(name, "A"), "127.0.0.1", port=port, timeout=10)


def addresses(answer: dns.message.Message) -> list[str]:
    assert answer.rcode() == dns.rcode.NOERROR
    return [record.address for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for record in rrset]


@pytest.fixture(scope="module")
def engine() -> None:
    """Skip unless a Docker engine answers."""
    if shutil.which("docker") is None:
        pytest.skip("the docker command is not installed")
    probe = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=30, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no Docker engine answers: {probe.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def image(engine: None) -> str:
    """Build the image, unless ``HEIMDALL_TEST_IMAGE`` names one that is there already."""
    if IMAGE:
        return IMAGE
    run("docker", "build", "--network=host", "--tag", "heimdall:test", ".", timeout=900)
    return "heimdall:test"


@pytest.fixture(scope="module")
def compose_command(engine: None) -> list[str]:
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
        ):
            return command
    pytest.skip("neither the docker compose plugin nor docker-compose is installed")


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


def state(container_id: str) -> dict[str, Any]:
    found = json.loads(run("docker", "inspect", "--format", "{{json .State}}", container_id))
    assert isinstance(found, dict)
    return found


def health(container_id: str) -> str:
    status = state(container_id)
    assert status["Running"], run("docker", "logs", container_id)
    return str(status["Health"]["Status"])


@pytest.mark.container
def test_the_image_declares_an_unprivileged_user_its_ports_and_its_health_check(image: str) -> None:
    config = json.loads(run("docker", "image", "inspect", "--format", "{{json .Config}}", image))
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["python", "heimdall.py"]
    assert set(config["ExposedPorts"]) == {"1053/udp", "1053/tcp", "8080/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "heimdall_lib.healthcheck"]
    assert config["Labels"]["org.opencontainers.image.version"] == heimdall_lib.__version__


@pytest.mark.container
def test_the_image_holds_bytecode_but_neither_installer_nor_compiler(image: str) -> None:
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


@pytest.mark.container
def test_it_runs_without_any_privilege_gets_healthy_and_stops_with_status_0(container: Callable[..., str]) -> None:
    port = free_port()
    server = container("--publish", f"127.0.0.1:{port}:1053/udp", "--env", "HEIMDALL_UPSTREAM_SERVERS=192.0.2.1")
    wait_until("healthy", lambda: health(server) == "healthy")

    question = dns.message.make_query("id.server", dns.rdatatype.TXT, dns.rdataclass.CH)
    assert dns.query.udp(question, "127.0.0.1", port=port, timeout=10).flags & dns.flags.QR

    started_at = time.monotonic()
    run("docker", "stop", "--time", str(STOPS_WITHIN_SECONDS), server)
    assert time.monotonic() - started_at < STOPS_WITHIN_SECONDS
    assert state(server)["ExitCode"] == 0
    assert "Traceback" not in run("docker", "logs", server)


@pytest.mark.container
def test_the_health_check_fails_when_nothing_answers(container: Callable[..., str]) -> None:
    server = container("--env", "HEIMDALL_UPSTREAM_SERVERS=192.0.2.1")
    check = ["docker", "exec", server, "python", "-m", "heimdall_lib.healthcheck"]
    wait_until("answering", lambda: subprocess.run(check, capture_output=True, check=False).returncode == 0)
    wrong = subprocess.run([*check, "127.0.0.1:9"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr) == (1, "unhealthy: 127.0.0.1 port 9: Connection refused\n")


@pytest.mark.container
def test_flags_are_appended_and_a_wrong_one_exits_with_status_2(container: Callable[..., str]) -> None:
    server = container(arguments=("--max-cache-size", "many"))
    assert run("docker", "wait", server) == "2"


class Stack:
    """The compose stack under a project name and ports of its own, with an authoritative server beside it."""

    def __init__(self, compose_command: list[str], image: str, directory: Path) -> None:
        # The image's own dnslib serves as the authority, so that no further image is needed.
        override = {
            "services": {
                "heimdall": {"image": image},
                "authority": {
                    "image": image,
                    "entrypoint": ["python", "-m", "dnslib.fixedresolver", "--address", "0.0.0.0", "--port", "5353"],
                    "command": ["--tcp", "--response", f". 3600 IN A {ADDRESS}"],
                    "healthcheck": {"disable": True},
                    "stop_signal": "SIGKILL",
                },
            }
        }
        (directory / "override.yml").write_text(yaml.safe_dump(override))
        files = ["--file", "compose.yml", "--file", str(directory / "override.yml")]
        self.command = [*compose_command, "--project-name", PROJECT, *files]
        self.port = free_port()
        self.environment = {
            "HEIMDALL_HOST_PORT": f"127.0.0.1:{self.port}",
            "HEIMDALL_HTTP_PORT": str(free_port()),
            "HEIMDALL_UPSTREAM_SERVERS": "auto",
        }

    def __call__(self, *arguments: str) -> str:
        return run(*self.command, *arguments, environment=self.environment)

    def container(self, service: str) -> str:
        return self("ps", "--all", "--quiet", service)

    def up(self) -> None:
        self("up", "--detach", "--no-build", "authority")
        networks = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        authority = run("docker", "inspect", "--format", networks, self.container("authority"))
        self.environment["HEIMDALL_UPSTREAM_SERVERS"] = f"{authority}:5353"
        self("up", "--detach", "--no-build", "--wait", "redis", "heimdall")


@pytest.fixture
def stack(compose_command: list[str], image: str, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(compose_command, image, tmp_path)
    try:
        stack.up()
        yield stack
    finally:
        stack("down", "--volumes", "--timeout", "0")


@pytest.mark.container
def test_the_compose_file_is_valid(compose_command: list[str]) -> None:
    run(*compose_command, "--file", "compose.yml", "config", "--quiet")


@pytest.mark.container
@pytest.mark.timeout(300)
def test_the_stack_answers_over_udp_and_tcp_and_remembers_across_a_stop(stack: Stack) -> None:
    assert addresses(ask(stack.port, "over-udp.example")) == [ADDRESS]
    assert addresses(ask(stack.port, "over-tcp.example", tcp=True)) == [ADDRESS]
    wait_until(
        "both answers in Redis",
        lambda: (
            {"udp", "tcp"}
            <= {key.partition("over-")[2][:3] for key in stack("exec", "-T", "redis", "redis-cli", "--scan").split()}
        ),
    )

    started_at = time.monotonic()
    stack("stop", "heimdall")
    assert time.monotonic() - started_at < STOPS_WITHIN_SECONDS
    assert state(stack.container("heimdall"))["ExitCode"] == 0
    stack("stop")
    assert state(stack.container("redis"))["ExitCode"] == 0

    # Redis kept the answers in its volume: nothing else can give them now, the authority is not started again.
    stack("up", "--detach", "--no-build", "--wait", "redis", "heimdall")
    assert addresses(ask(stack.port, "over-udp.example")) == [ADDRESS]
    assert addresses(ask(stack.port, "over-tcp.example", tcp=True)) == [ADDRESS]
    assert ask(stack.port, "never-asked.example").rcode() == dns.rcode.SERVFAIL


@pytest.mark.container
@pytest.mark.timeout(300)
def test_the_stack_answers_while_redis_is_away(stack: Stack) -> None:
    stack("stop", "redis")
    assert addresses(ask(stack.port, "without-redis.example")) == [ADDRESS]
    assert health(stack.container("heimdall")) == "healthy"
