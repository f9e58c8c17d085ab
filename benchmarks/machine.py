"""The machine: which cores do what, and what the report says about it."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import PEERS, program_version

REPOSITORY = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cores:
    """Who runs where, so that the load generator never takes the server's time."""

    server: frozenset[int]
    load: frozenset[int]
    backend: frozenset[int]
    """nsd, Redis and the delays."""
    workers: frozenset[int]
    """Two cores for two workers: the server's, and one that nobody else needs, if there is one."""

    @classmethod
    def choose(cls, available: Sequence[int]) -> "Cores":
        """Give the server a core of its own, then the load, then the rest; what is short is shared."""
        ordered = sorted(available)
        first, last = ordered[0], ordered[-1]
        load = ordered[1] if len(ordered) > 1 else first
        second = ordered[2] if len(ordered) > 3 else last
        return cls(frozenset({first}), frozenset({load}), frozenset({last}), frozenset({first, second}))

    def describe(self) -> str:
        """Return one sentence for the report."""
        if self.server == self.load:
            return "one core for everything: queries/s and latencies say little"
        shared = " (the same core)" if self.load == self.backend else ""
        return (
            f"the server on core {_numbers(self.server)}, the load generator on core {_numbers(self.load)}, "
            f"nsd, Redis and delays on core {_numbers(self.backend)}{shared}"
        )


def describe(cores: Cores) -> dict[str, str]:
    """Return what decides the figures besides the programs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _from_file("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "system": _from_file("/etc/os-release", "PRETTY_NAME", "=").strip('"') or platform.system(),
        "placement": cores.describe(),
    }


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part, peers that are not installed left out."""
    found = {
        "heimdall": program_version(sys.executable, str(REPOSITORY / "heimdall.py"), "--version") + _commit(),
        "python": platform.python_version(),
        "nsd": program_version("nsd", "-v"),
        "dnsperf": program_version("dnsperf", "-h"),
        "redis": program_version("redis-server", "--version"),
    }
    return found | {peer.name: peer.version() for peer in PEERS if peer.installed()}


def _commit() -> str:
    git = ["git", "-C", str(REPOSITORY)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({commit.stdout.strip()}{', modified' if changed.stdout.strip() else ''})"


def _from_file(path: str, key: str, separator: str = ":") -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(separator)[2].strip() for line in lines if line.startswith(key)), "")


def _numbers(cores: frozenset[int]) -> str:
    return "+".join(str(core) for core in sorted(cores))
