"""The scripts of the Redis pod, run as they are but for paths and port, and Heimdalls that use that Redis."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from charts.render import render
from tests.chart.cluster import the
from tests.support.processes import PATIENCE, Launcher, Process, environment, eventually, free_port
from tests.support.upstream import Upstream

AWKWARD = "p\"a'ss\\ wörd $HOME #1"


class RedisPod:
    """What the StatefulSet runs, below a directory instead of / and on loopback only."""

    def __init__(self, root: Path, values: dict[str, Any]) -> None:
        self.port = free_port()
        self.root = root
        self._files = the(render({"redis": values, **CLUSTER_DNS}).objects, "ConfigMap", "heimdall-redis")["data"]
        for name in ("data", "run/heimdall-redis", "etc/heimdall-redis", "run/secrets/redis", "run/secrets/tls"):
            (root / name).mkdir(parents=True)
        for name, text in self._files.items():
            (root / "etc/heimdall-redis" / name).write_text(self._here(text))
        with (root / "etc/heimdall-redis/redis.conf").open("a") as conf:
            conf.write("\nbind 127.0.0.1\n")
        self._process: Process | None = None

    def start(self) -> None:
        self._process = Process(["sh", str(self.root / "etc/heimdall-redis/start.sh")], cwd=self.root)

    def answers(self) -> bool:
        """Tell what the probe says."""
        command = ["sh", str(self.root / "etc/heimdall-redis/ping.sh")]
        finished = subprocess.run(command, env=environment(), capture_output=True, timeout=PATIENCE, check=False)
        return finished.returncode == 0

    def stop(self) -> int:
        assert self._process is not None
        status = self._process.stop()
        self._process.kill()
        return status

    @property
    def command_line(self) -> str:
        """What everybody on the machine can read of it."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/cmdline").read_text()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _here(self, text: str) -> str:
        for path in ("/etc/heimdall-redis", "/run/heimdall-redis", "/run/secrets", "/data"):
            text = text.replace(path, f"{self.root}{path}")
        return text.replace("6379", str(self.port))


CLUSTER_DNS = {"dnsPolicy": "ClusterFirst", "config": {"upstreamServers": "192.0.2.53"}}


@pytest.fixture
def started() -> Iterator[list[RedisPod]]:
    pods: list[RedisPod] = []
    yield pods
    for pod in pods:
        pod.kill()


def test_without_a_password(started: list[RedisPod], heimdall: Launcher, tmp_path: Path) -> None:
    pod = RedisPod(tmp_path, {})
    started.append(pod)
    assert not pod.answers()
    pod.start()
    eventually(pod.answers)
    heimdall("--redis-url", f"redis://127.0.0.1:{pod.port}").wait_for_redis()


def test_with_a_password_of_any_characters(
    started: list[RedisPod], heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    pod = RedisPod(tmp_path, {"auth": {"enabled": True, "password": AWKWARD}})
    started.append(pod)
    secret = tmp_path / "run/secrets/redis/password"
    secret.write_text(AWKWARD)
    pod.start()
    eventually(pod.answers)
    server = heimdall("--redis-url", f"redis://127.0.0.1:{pod.port}", "--redis-password-file", str(secret))
    server.wait_for_redis()
    stranger = heimdall("--redis-url", f"redis://127.0.0.1:{pod.port}")
    stranger.wait_for_line(r"not in use \(auth")
    assert "redis-server" in pod.command_line
    assert AWKWARD not in pod.command_line


def test_entries_survive_a_restart_on_a_volume(
    started: list[RedisPod], heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    pod = RedisPod(tmp_path, {})
    started.append(pod)
    pod.start()
    eventually(pod.answers)
    server = heimdall("--redis-url", f"redis://127.0.0.1:{pod.port}")
    server.wait_for_redis()
    server.ask("www.example.com")
    server.stop()
    assert pod.stop() == 0
    pod.start()
    eventually(pod.answers)
    after = heimdall("--redis-url", f"redis://127.0.0.1:{pod.port}", "--redis-read-budget", "4", "--redis-timeout", "5")
    after.wait_for_line("L1 has 1 entries from Redis after")
    after.ask("www.example.com")
    assert after.metric("cache_hits_total") == 1


@pytest.mark.parametrize("mutual", [False, True], ids=["TLS", "mutual TLS"])
def test_over_tls(mutual: bool, started: list[RedisPod], heimdall: Launcher, tmp_path: Path) -> None:
    values = {"tls": {"enabled": True, "existingSecret": "tls", "clientSecret": "me" if mutual else ""}}
    pod = RedisPod(tmp_path, values)
    started.append(pod)
    authority = trustme.CA()
    for name, certificate in (("tls", authority.issue_cert("localhost")), ("me", authority.issue_cert("heimdall"))):
        directory = tmp_path / "run/secrets" / name
        directory.mkdir(exist_ok=True)
        authority.cert_pem.write_to_path(directory / "ca.crt")
        certificate.private_key_pem.write_to_path(directory / "tls.key")
        certificate.cert_chain_pems[0].write_to_path(directory / "tls.crt")
    pod.start()
    eventually(pod.answers)
    secrets = tmp_path / "run/secrets"
    url = ("--redis-url", f"rediss://localhost:{pod.port}", "--redis-ca-cert", str(secrets / "tls/ca.crt"))
    own = ("--redis-client-cert", str(secrets / "me/tls.crt"), "--redis-client-key", str(secrets / "me/tls.key"))
    heimdall(*url, *(own if mutual else ()), "--redis-timeout", "5", "--redis-read-budget", "4").wait_for_redis()
    if mutual:
        heimdall(*url, "--redis-timeout", "5").wait_for_line("not in use")


def test_the_files_are_readable_by_nobody_else(started: list[RedisPod], tmp_path: Path) -> None:
    pod = RedisPod(tmp_path, {"auth": {"enabled": True, "password": AWKWARD}})
    started.append(pod)
    (tmp_path / "run/secrets/redis/password").write_text(AWKWARD)
    pod.start()
    eventually(pod.answers)
    assert (tmp_path / "run/heimdall-redis/redis.conf").stat().st_mode & 0o077 == 0
