"""A Redis, or another engine, of a test's own: started on a free port, told what to do, killed and started again."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from heimdall_lib.settings import Endpoint, RedisTarget, Secret
from tests.fakes import PATIENCE, ThreadWithALoop, eventually, unused_port
from tests.support.engines import REDIS


@pytest.fixture(autouse=True)
def loops_go_with_their_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server runs in a thread waits in a loop of its own here, which has files open."""
    for module in ("bus", "redis_cache", "warming"):
        monkeypatch.setattr(f"heimdall_lib.shared_cache.{module}.Thread", ThreadWithALoop)


class RedisServer:
    """One redis-server process that keeps nothing on disk; ``admin`` is a client of the test's own."""

    def __init__(
        self, directory: Path, *arguments: str, engine: str = REDIS, port: int = 0, password: str = ""
    ) -> None:
        self.engine = engine
        self.port = port or unused_port()
        self.socket = directory / "redis.sock"
        self._directory = directory
        self._arguments = arguments
        self._password = password
        self._process: subprocess.Popen[bytes] | None = None
        self.admin = self.client(self.port, password)

    @staticmethod
    def client(port: int, password: str = "") -> Any:
        """Return a client of the test's own of whatever listens on a port."""
        return redis.Redis(port=port, password=password or None, protocol=2, socket_timeout=PATIENCE, driver_info=None)

    @property
    def target(self) -> RedisTarget:
        return RedisTarget("standalone", (Endpoint("127.0.0.1", self.port),), "test", password=Secret(self._password))

    def start(self) -> None:
        command = [self.engine, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory)]
        command += ["--unixsocket", str(self.socket), "--save", "", "--appendonly", "no", "--daemonize", "no"]
        if self._password:
            command += ["--requirepass", self._password]
        self._process = subprocess.Popen([*command, *self._arguments], stdout=subprocess.DEVNULL)
        eventually(self.answers)

    def answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self.engine} did not start"
        try:
            return bool(self.admin.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """End the process at once, as a crash would."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(PATIENCE)
            self._process = None
        self.admin.connection_pool.disconnect()

    def pause(self) -> None:
        """Let the process hang: connections stay open, nothing is answered."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)

    def close(self) -> None:
        self.kill()
        self.admin.close()

    def calls(self, command: str) -> int:
        """How often a command was called since the statistics were reset."""
        statistics = self.admin.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
        return int(statistics["calls"])


StartRedis = Callable[..., RedisServer]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The server's program: Redis's, unless the test is run on every engine."""
    return getattr(request, "param", REDIS)


@pytest.fixture
def start_redis(tmp_path: Path, engine: str) -> Iterator[StartRedis]:
    """Start Redis with some arguments; every one is ended with the test."""
    with ExitStack() as stack:
        count = 0

        def start(*arguments: str, **options: Any) -> RedisServer:
            nonlocal count
            count += 1
            directory = tmp_path / f"redis-{count}"
            directory.mkdir()
            server = RedisServer(directory, *arguments, engine=engine, **options)
            stack.callback(server.close)
            server.start()
            return server

        yield start


@pytest.fixture
def redis_server(start_redis: StartRedis) -> RedisServer:
    return start_redis()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port on which connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as sock, contextlib.suppress(OSError):
        yield sock.getsockname()[1]


def after(seconds: float) -> Callable[[], bool]:
    """A condition that comes true after some time."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() >= until


def fill_up(server: RedisServer) -> None:
    """Leave no room for writes: nothing is evicted, as Redis's default says."""
    server.admin.set("ballast", bytes(2_000_000))
    server.admin.config_set("maxmemory", "1mb")


def start_cluster(start_redis: StartRedis) -> list[RedisServer]:
    """Start a Cluster of three servers, and wait until it is one."""
    servers = [start_redis("--cluster-enabled", "yes", "--cluster-port", str(unused_port())) for _ in range(3)]
    for number, server in enumerate(servers):
        first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
        server.admin.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
        server.admin.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
    for server in servers[1:]:
        bus = servers[0].admin.config_get("cluster-port")["cluster-port"]
        server.admin.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port, bus)
    eventually(lambda: all(each.admin.cluster("info")["cluster_state"] == "ok" for each in servers), 30.0)
    return servers


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Start a Sentinel that watches the Redis on a port, with more lines for its file; return its own port."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(redis_port: int, *lines: str, tls: bool = False) -> int:
        port = unused_port()
        file = tmp_path / "sentinel.conf"
        ports = [f"tls-port {port}", "port 0"] if tls else [f"port {port}"]
        watch = f"sentinel monitor mymaster 127.0.0.1 {redis_port} 1"
        file.write_text("\n".join([*ports, "bind 127.0.0.1", f"dir {tmp_path}", *lines, watch]) + "\n")
        processes.append(subprocess.Popen(["redis-server", str(file), "--sentinel"], stdout=subprocess.DEVNULL))

        def listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        eventually(listens)
        return port

    yield start
    for process in processes:
        process.kill()
        process.wait()


class Tls:
    """An authority, a server's certificate and a client's, in files."""

    def __init__(self, directory: Path) -> None:
        ca = trustme.CA()
        self.ca = self._write(directory / "ca.pem", ca.cert_pem)
        self.other_ca = self._write(directory / "other-ca.pem", trustme.CA().cert_pem)
        server, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.com")
        self.cert = self._write(directory / "cert.pem", server.cert_chain_pems[0])
        self.key = self._write(directory / "key.pem", server.private_key_pem)
        self.client_cert = self._write(directory / "client-cert.pem", client.cert_chain_pems[0])
        self.client_key = self._write(directory / "client-key.pem", client.private_key_pem)
        wrong = ca.issue_cert("redis.example")
        self.wrong_cert = self._write(directory / "wrong-cert.pem", wrong.cert_chain_pems[0])
        self.wrong_key = self._write(directory / "wrong-key.pem", wrong.private_key_pem)

    @staticmethod
    def _write(path: Path, blob: trustme.Blob) -> str:
        blob.write_to_path(str(path))
        return str(path)

    def arguments(self, port: int, *, clients: str = "no") -> list[str]:
        words = ["--tls-port", str(port), "--tls-ca-cert-file", self.ca, "--tls-auth-clients", clients]
        return [*words, "--tls-cert-file", self.cert, "--tls-key-file", self.key]


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)
