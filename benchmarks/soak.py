"""The soak: everything that happens to a server in a day, again and again, while what it holds is watched.

``python -m benchmarks.soak --minutes 10`` starts Heimdall, a Redis and an upstream on loopback. Clients ask all the
time; an outage, a crash, a flush or a reload follows the other, and the whole round of them takes two minutes. The
verdict is printed at the end; the exit status is 1 when something grew or a query was left unanswered.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks import dns
from benchmarks.errors import BenchmarkError
from benchmarks.machine import REPOSITORY
from benchmarks.processes import Child, Nursery
from benchmarks.progress import Progress
from benchmarks.server import Server
from benchmarks.soak_clients import Clients
from benchmarks.soak_judge import ROUND_SECONDS, Sample, Verdict, judge, table
from benchmarks.soak_upstream import Upstream

_SAMPLE_SECONDS = 5.0
_START_SECONDS = 15.0
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.05
_FLAGS = (
    *("--max-cache-size", "5000", "--serve-stale", "60", "--purge-interval", "5", "--tcp-idle-timeout", "5"),
    *("--drain-seconds", "1", "--warm-cache-entries", "1000"),
)
_REDIS_MEMORY = "32mb"


class Soak:
    """One run: what it has started, and what it does to it."""

    def __init__(self, nursery: Nursery, rate: float) -> None:
        """Start the server, and what it needs."""
        self._nursery = nursery
        self._upstream = Upstream()
        self._redis_port = dns.free_port()
        self._redis: Child | None = None
        self._counts = nursery.directory / "counts.json"
        self._config = nursery.directory / "heimdall.yaml"
        self._reloads = 0
        self._start_redis()
        self.server = self._start_server()
        self.clients = Clients(self.server.port, rate)
        # When in the round, and what: the times are apart, so that each finds the server well again.
        self._events: Sequence[tuple[float, str, Callable[[], None]]] = (
            (10, "a flush of everything", lambda: self._flush("all=true")),
            (20, "a reload", self._reload),
            (30, "upstream is silent", lambda: self._silence(True)),
            (45, "upstream answers", lambda: self._silence(False)),
            (60, "Redis is killed", self._kill_redis),
            (75, "Redis is back, empty", self._start_redis),
            (90, "a flush of a subtree", lambda: self._flush("name=soak.example&subtree=true")),
            (100, "a reload", self._reload),
        )

    def run(self, seconds: float, progress: Progress) -> list[Sample]:
        """Go through the rounds for so long; return what was sampled meanwhile."""
        samples: list[Sample] = []
        started = time.monotonic()
        plan = iter(self._plan())
        due, what, act = next(plan)
        self.clients.start()
        while (now := time.monotonic() - started) < seconds:
            if now >= due:
                progress.say(f"{now:5.0f} s  {what}")
                act()
                due, what, act = next(plan)
            if not samples or now >= samples[-1]["at"] + _SAMPLE_SECONDS:
                samples.append({"at": now, **self._sample()})
            time.sleep(_POLL_SECONDS)
        self.clients.stop()
        return samples

    def _plan(self) -> Iterator[tuple[float, str, Callable[[], None]]]:
        begin = 0.0
        while True:
            yield from ((begin + at, what, act) for at, what, act in self._events)
            begin += ROUND_SECONDS

    def _start_server(self) -> Server:
        port, http_port = dns.free_port(), dns.free_port()
        self._config.write_text("min-ttl: 0\n")
        argv = [sys.executable, "-m", "benchmarks.soak_server", str(self._counts), "--config", str(self._config)]
        argv += ["--bind-addr", f"127.0.0.1:{port}", "--http-bind-addr", f"127.0.0.1:{http_port}"]
        argv += ["--upstream-servers", f"127.0.0.1:{self._upstream.port}"]
        argv += ["--redis-url", f"redis://127.0.0.1:{self._redis_port}", *_FLAGS]
        child = self._nursery.start("heimdall", argv, cores=os.sched_getaffinity(0), cwd=REPOSITORY)
        dns.wait_until_answered(port, seconds=_START_SECONDS, alive=child.check)
        return Server("heimdall", "heimdall", port, child, http_port)

    def _start_redis(self) -> None:
        argv = ["redis-server", "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", ""]
        argv += ["--appendonly", "no", "--maxmemory", _REDIS_MEMORY, "--maxmemory-policy", "allkeys-lru"]
        argv += ["--dir", str(self._nursery.directory)]
        self._redis = self._nursery.start("redis", argv, cores=os.sched_getaffinity(0))
        dns.wait_until_accepted(self._redis_port, seconds=_START_SECONDS, alive=self._redis.check)

    def _kill_redis(self) -> None:
        if self._redis:
            os.kill(self._redis.pid, signal.SIGKILL)
            self._nursery.stop(self._redis)

    def _silence(self, silent: bool) -> None:
        self._upstream.silent = silent

    def _reload(self) -> None:
        self._reloads += 1
        self._config.write_text(f"min-ttl: {self._reloads % 2}\n")
        os.kill(self.server.child.pid, signal.SIGHUP)

    def _flush(self, what: str) -> None:
        connection = HTTPConnection("127.0.0.1", self.server.http_port, timeout=2 * _ANSWER_SECONDS)
        try:
            connection.request("POST", f"/cache/flush?{what}")
            if (status := connection.getresponse().status) != 200:
                raise BenchmarkError(f"a flush was answered {status}")
        except (OSError, HTTPException) as error:
            raise BenchmarkError(f"a flush was not answered: {error}") from None
        finally:
            connection.close()

    def _sample(self) -> Mapping[str, float]:
        child = self.server.child
        child.check()
        self._counts.unlink(missing_ok=True)
        os.kill(child.pid, signal.SIGUSR1)
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not self._counts.exists():
            if time.monotonic() > deadline:
                raise BenchmarkError("the server did not count itself")
            time.sleep(_POLL_SECONDS)
        return {
            **json.loads(self._counts.read_text()),
            "rss": child.memory_bytes(),
            "fds": len(list(Path(f"/proc/{child.pid}/fd").iterdir())),
            "threads": len(list(Path(f"/proc/{child.pid}/task").iterdir())),
            "l1_bytes": self.server.counter("cache_bytes"),
            "l1_entries": self.server.counter("cache_size"),
        }


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--rate", type=float, default=400.0, help="queries a second, about (default: 400)")
    options = parser.parse_args(argv)
    seconds = 60 * options.minutes
    with tempfile.TemporaryDirectory(prefix="heimdall-soak-") as directory, Nursery(Path(directory)) as nursery:
        progress = Progress()
        progress.scenario = "soak"
        try:
            soak = Soak(nursery, options.rate)
            samples = soak.run(seconds, progress)
        except BenchmarkError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1
    progress.done()
    # The first round brings everything to its height: caches, pools and the memory that Python keeps.
    warm_up = min(seconds / 3, 2 * ROUND_SECONDS)
    return report(judge(samples, warm_up), soak.clients, seconds, warm_up)


def report(verdicts: Mapping[str, Verdict], clients: Clients, seconds: float, warm_up: float) -> int:
    """Print what was found; return the exit status."""
    print(f"\n{seconds / 60:.0f} minutes, judged from {warm_up:.0f} s on; {clients.asked} queries: ", end="")
    print(", ".join(f"{count} {what}" for what, count in clients.outcomes.most_common()) + "\n")
    print(table(verdicts))
    growing = [verdict.figure.label for verdict in verdicts.values() if verdict.grows]
    unanswered = clients.outcomes["unanswered"]
    if growing:
        print(f"\nGrows: {', '.join(growing)}.")
    if unanswered:
        print(f"\n{unanswered} queries were left unanswered.")
    if not growing and not unanswered:
        print("\nNothing grows, and every query was answered.")
    return int(bool(growing or unanswered))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
