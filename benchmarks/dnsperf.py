"""dnsperf, the load generator: its command line, and what its report says."""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import BenchmarkError

# The same for every server. With the default of 100 queries outstanding, Redis 5 ms away could give 20 000 answers a
# second at most. 200 are too many: a receive buffer of the default size (208 KiB) is sure to hold 192 datagrams,
# because the kernel takes room back in quarters, and what does not fit is lost. 150 cost the bare echo 3 % of its rate.
CLIENTS = 20
OUTSTANDING = 150
_TIMEOUT_SECONDS = 3


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent: a file of names, for some time or a number of times through the file."""

    names: Path
    seconds: float | None = None
    passes: int | None = None
    rate: int | None = None
    clients: int = CLIENTS
    outstanding: int = OUTSTANDING
    edns: bool = False
    tcp: bool = False
    timeout: int = _TIMEOUT_SECONDS

    def argv(self, port: int) -> list[str]:
        """Return the command that sends this load to a loopback port."""
        argv = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", str(self.names), "-T", "1", "-W"]
        argv += ["-c", str(self.clients), "-q", str(self.outstanding), "-t", str(self.timeout)]
        argv += ["-l", f"{self.seconds:g}"] if self.seconds is not None else []
        argv += ["-n", str(self.passes)] if self.passes is not None else []
        argv += ["-Q", str(self.rate)] if self.rate is not None else []
        return argv + ["-e"] * self.edns + ["-m", "tcp"] * self.tcp


@dataclass(frozen=True)
class Outcome:
    """What became of the queries."""

    sent: int
    completed: int
    lost: int
    errors: int
    seconds: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.completed / self.seconds if self.seconds else 0.0


def parse(report: str) -> Outcome:
    """Read dnsperf's report; raise when it holds no statistics."""
    codes = dict(re.findall(r"([A-Z0-9]+) (\d+) \(", _field(report, "Response codes", default="")))
    completed = int(_field(report, "Queries completed").split()[0])
    return Outcome(
        sent=int(_field(report, "Queries sent").split()[0]),
        completed=completed,
        lost=int(_field(report, "Queries lost").split()[0]),
        errors=completed - int(codes.get("NOERROR", 0)),
        seconds=float(_field(report, r"Run time \(s\)")),
    )


def _field(report: str, label: str, *, default: str | None = None) -> str:
    match = re.search(rf"^\s*{label}:\s*(.*)$", report, re.MULTILINE)
    if match is None and default is None:
        raise BenchmarkError(f"dnsperf printed no statistics: {report.strip()[-300:] or 'it printed nothing'}")
    return match[1] if match else str(default)
