"""Child processes: started on given cores, accounted for with their own children, and always ended.

Rules: a child is ended by its own id; it gets a session of its own, so that Ctrl-C reaches it through us and in order;
should this process be killed outright, the kernel ends the child (PR_SET_PDEATHSIG), unless it has changed its
credentials meanwhile, as dnsmasq does.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.errors import BenchmarkError

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 5.0
_LOG_LINES = 5
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)

# Nothing of the caller's HEIMDALL_… or REDIS_URL may reach a server; nsd and the like may be outside a user's PATH.
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": os.environ.get("HOME", "/"),
    "LANG": "C.UTF-8",
}


class Child:
    """One running program and the processes it has forked."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        """Take charge of a program that has just been started."""
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def pid(self) -> int:
        """The id of the program itself."""
        return self._popen.pid

    def check(self) -> None:
        """Raise when the program has ended by itself."""
        if (status := self._popen.poll()) is not None:
            raise BenchmarkError(f"{self.name} ended with status {status}: {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of what the program has printed, on one line."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return " | ".join(line.strip() for line in lines) or "it printed nothing"

    def pids(self) -> list[int]:
        """Return the program and everything below it."""
        found = [self.pid]
        for pid in found:
            for task in _tasks(pid):
                found += [int(child) for child in _read(task / "children").split()]
        return found

    def cpu_seconds(self) -> float:
        """Return the CPU time that the program and its children have used.

        Of the living, the scheduler's own account in nanoseconds: the clock ticks of /proc/…/stat are too coarse for a
        sample of a second or two. Of the dead there are only ticks; only dnsmasq has such children, one a connection.
        """
        pids = self.pids()
        fields = (_read(task / "schedstat").split() for pid in pids for task in _tasks(pid))
        living = sum(int(field[0]) for field in fields if field) / 1e9
        return living + sum(_ticks_of_the_dead(pid) for pid in pids) / _TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Return the resident memory of the program and its children."""
        lines = (line for pid in self.pids() for line in _read(Path(f"/proc/{pid}/status")).splitlines())
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    def wait(self, seconds: float) -> int | None:
        """Wait until the program ends and return its status, or None when it has not ended in time."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, patience: float = _STOP_SECONDS) -> None:
        """End the program and its children: politely, and not so politely after ``patience`` seconds."""
        children = self.pids()[1:] if self._popen.poll() is None else []
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._popen.poll() is None:
                self._popen.send_signal(number)
                self.wait(patience)
        session = self.pid
        for pid in children:  # still there only when their parent had to be killed
            if _session(pid) == session:
                _kill(pid)


class Nursery:
    """Starts children, and ends those that still run when it is left, the newest first."""

    def __init__(self, directory: Path, *, patience: float = _STOP_SECONDS) -> None:
        """Keep the children's output in ``directory``; give them ``patience`` seconds to end."""
        self.directory = directory
        self._patience = patience
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs, even when the user presses Ctrl-C again."""
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.stop(*reversed(self._children))
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cores: Iterable[int],
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program on ``cores``; its output goes to a file of its own."""
        log = self.directory / f"{name.replace(' ', '-')}-{len(self._children)}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            try:
                popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env={**ENVIRONMENT, **(environment or {})},
                    start_new_session=True,
                    preexec_fn=_settle(set(cores)),
                )
            except OSError as error:
                raise BenchmarkError(f"{name} cannot be started: {error}") from None
        child = Child(name, popen, log)
        self._children.append(child)
        return child

    def stop(self, *children: Child) -> None:
        """End some children before their time."""
        for child in children:
            child.stop(self._patience)
            if child in self._children:
                self._children.remove(child)


def _settle(cores: set[int]) -> Callable[[], None]:
    def settle() -> None:  # runs in the child, before the program
        os.sched_setaffinity(0, cores)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return settle


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # ended meanwhile
        return []


def _ticks_of_the_dead(pid: int) -> int:
    """Return cutime + cstime, the 16th and 17th field of proc(5)'s stat; the 2nd may hold blanks."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14]) if fields else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _kill(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
