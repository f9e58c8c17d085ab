"""Programs that tests start: Heimdall itself and a Redis of its own.

Rules: no port is guessed where the program can say which it got; whatever was started is gone after the test, ended by
its own process id; a Heimdall that is stopped must exit 0 and must not have logged a traceback.
"""

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

import dns.message
import redis

from tests.support import client
from tests.support.client import Address, HttpAnswer
from tests.support.engines import REDIS

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds after which what should have happened counts as not happening: only a failing test waits so long."""

_HOST = "127.0.0.1"
_NO_VALUES = (":lease", ":replicas"), ":replica:"
_OWN_VARIABLES = ("HEIMDALL_", "KUBERNETES_", "REDIS_URL", "SSL_CERT_")
_LISTENING = re.compile(r"listening on (\S+) port (\d+), UDP and TCP")
_HTTP = re.compile(r"HTTP on (\S+) port (\d+)")
_STARTS = 5
_PORTS_BELOW_EPHEMERAL = range(20000, 32000)

T = TypeVar("T")


def eventually(look: Callable[[], T], *, timeout: float = PATIENCE, pause: float = 0.02) -> T:
    """Return what ``look`` returns as soon as that is true; fail when it is not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"still {found!r} after {timeout:g} s"
        time.sleep(pause)
    return found


def program(name: str) -> str:
    """Return where a program is; Debian keeps some where a user's PATH may not look."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    assert found, f"{name} is not installed"
    return found


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the tests without anything that Heimdall would take as a setting, plus ``extra``."""
    # Coverage of subprocesses is switched on by a variable, so the rest stays.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    return kept | dict(extra or {})


def free_port() -> int:
    """Return a port that is free for UDP and TCP now, outside the range from which the kernel serves others."""
    while True:
        port = random.choice(_PORTS_BELOW_EPHEMERAL)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as sock:
                    sock.bind((_HOST, port))
        except OSError:
            continue
        return port


def run_heimdall(*flags: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run Heimdall with flags that make it end by itself; nothing is added to them."""
    command = [sys.executable, "heimdall.py", *flags]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(env), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


class Process:
    """A program that runs until it is stopped; its standard error is kept line by line."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path = REPOSITORY) -> None:
        self.command = list(command)
        # Apart from the terminal, an interrupt typed at the tests does not reach it before its teardown does.
        self._popen = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        assert self._popen.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self._popen.stderr,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def log(self) -> str:
        """Everything it wrote to standard error until now."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str | re.Pattern[str], *, timeout: float = PATIENCE, start: int = 0) -> str:
        """Return the first line from number ``start`` on in which ``pattern`` is found, as soon as it is there."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines[start:]:
                    if expression.search(line):
                        return line
                remaining = deadline - time.monotonic()
                written = "\n".join(self.lines)
                assert not self._ended, f"ended without {expression.pattern!r} in its log:\n{written}"
                assert remaining > 0, f"no {expression.pattern!r} within {timeout:g} s in:\n{written}"
                self._changed.wait(remaining)

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Return the exit status, once there is one and its last line is read."""
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} still runs after {timeout:g} s; its log:\n{self.log}") from None
        self._reader.join(PATIENCE)
        return status

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit status."""
        self.send(number)
        return self.wait()

    def kill(self) -> None:
        """End it in any case; harmless when it has ended."""
        if self.running:
            self._popen.kill()
        self._popen.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._popen.stderr is not None
        self._popen.stderr.close()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Heimdall(Process):
    """``python heimdall.py`` on free loopback ports, ready to be asked."""

    def __init__(self, *flags: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        """Start with ``flags``, behind a command line ``prefix`` such as nsenter's, and wait until it listens."""
        defaults = ("--bind-addr", f"{_HOST}:0", "--http-bind-addr", f"{_HOST}:0", "--drain-seconds", "0")
        self.addresses: list[Address] = []
        self.http: Address = ("", 0)
        for tries_left in reversed(range(_STARTS)):
            super().__init__([*prefix, sys.executable, "heimdall.py", *defaults, *flags], env=env)
            try:
                self._wait_until_it_listens(http="disabled" not in flags)
                break
            except BaseException:
                self.kill()
                # The port that the kernel chose for UDP may be in use for TCP, by a connection that was closed of late.
                if not tries_left or "Address already in use" not in self.log:
                    raise

    @property
    def address(self) -> Address:
        return self.addresses[0]

    @property
    def tracebacks(self) -> list[str]:
        return [line for line in self.lines if "Traceback" in line]

    def ask(self, name: str, rdtype: str = "A", **options: Any) -> dns.message.Message:
        return client.ask(self.address, name, rdtype, **options)

    def get(self, path: str, **options: Any) -> HttpAnswer:
        return client.http(self.http, path, **options)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples ``heimdall_<name>`` that carry ``labels``; 0 when there are none."""
        return client.metric(self.http, f"heimdall_{name}", **labels)

    def wait_for_metric(self, name: str, value: float, **labels: str) -> None:
        """Wait until the sum that ``metric`` returns is ``value``."""
        eventually(lambda: self.metric(name, **labels) == value)

    def wait_for_redis(self, *, start: int = 0) -> None:
        self.wait_for_line("Redis at .* is in use", start=start)

    def _wait_until_it_listens(self, *, http: bool) -> None:
        self.wait_for_line(_HTTP if http else _LISTENING)
        found = [match for line in self.lines if (match := _LISTENING.search(line))]
        self.addresses = [(match[1], int(match[2])) for match in found]
        if http:
            match = next(match for line in self.lines if (match := _HTTP.search(line)))
            self.http = (match[1], int(match[2]))


class Launcher:
    """Starts any number of Heimdalls, and ends them all."""

    def __init__(self, *flags: str) -> None:
        """Give ``flags`` to every one before its own."""
        self._flags = flags
        self._started: list[Heimdall] = []

    def __call__(self, *flags: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> Heimdall:
        started = Heimdall(*self._flags, *flags, env=env, prefix=prefix)
        self._started.append(started)
        return started

    def stop(self) -> None:
        """Stop those that still run; every one of them must end cleanly."""
        running = [each for each in self._started if each.running]
        for each in running:
            each.send(signal.SIGTERM)
        statuses = [each.wait() for each in running]
        assert statuses == [0] * len(running)
        assert not [line for each in self._started for line in each.tracebacks]

    def kill(self) -> None:
        for each in self._started:
            each.kill()


class RedisServer:
    """A redis-server on a port of its own that keeps nothing on disk, and can be killed, frozen and started again."""

    def __init__(
        self, directory: Path, *, password: str = "", unix_socket: Path | None = None, engine: str = REDIS
    ) -> None:
        """Choose a port; ``start`` starts it there. With ``unix_socket`` it listens there as well."""
        self._engine = engine
        self.directory = directory
        self.port = free_port()
        self._password = password
        self._socket = unix_socket
        self._process: Process | None = None
        self._client: Any = redis.Redis(host=_HOST, port=self.port, password=password or None, socket_timeout=PATIENCE)

    @property
    def url(self) -> str:
        return f"redis://{_HOST}:{self.port}"

    @property
    def client(self) -> Any:
        """A redis-py client, as ``Any``: its own types are a mixture of answers and awaitables."""
        return self._client

    def start(self) -> Self:
        command = [
            program(self._engine),
            "--bind",
            _HOST,
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        command += ["--dir", str(self.directory)]
        if self._password:
            command += ["--requirepass", self._password]
        if self._socket is not None:
            command += ["--unixsocket", str(self._socket)]
        self._process = Process(command, cwd=self.directory)
        eventually(self._answers)
        return self

    def kill(self) -> None:
        """End it at once, as a crash would; harmless when it does not run."""
        if self._process is not None:
            self._process.kill()  # SIGKILL ends a stopped process, too
            self._process = None
        self._client.close()

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def stored(self, name: str = "") -> list[str]:
        """Return the keys of values in which ``name`` stands between colons; all of them without a name."""
        found = sorted(key.decode() for key in self._client.keys("*"))
        endings, part = _NO_VALUES
        values = [key for key in found if not key.endswith(endings) and part not in key]
        return [key for key in values if not name or f":{name}:" in key]

    def wait_for_key(self, name: str) -> str:
        """Return the one key for ``name``, once it is stored."""
        eventually(lambda: self.stored(name))
        (key,) = self.stored(name)
        return key

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.running, f"{self._engine} did not start:\n{self._process.log}"
        try:
            return bool(self._client.ping())
        except redis.ConnectionError:
            return False
