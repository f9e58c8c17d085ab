"""Misses while Redis stops answering: what clients notice of it, beside the same load without Redis."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from threading import Timer

from benchmarks import dns, redis_server, zone
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.figures import percentile
from benchmarks.measure import Subject, interleave
from benchmarks.prober import Probe, probe
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

STOPS, WITHOUT = "Redis stops", "without Redis"
_OFFERED = 5000
_CALM = 0.25  # of the time, before Redis stops
_ENTRIES = 1000  # L1 is full soon, so that what grows afterwards is not the cache
_OPENED = re.compile(r"^(\S+)Z WARNING heimdall\.redis: Redis at \S+ is not in use", re.MULTILINE)


class _Moment:
    """When Redis stops, or would: an instant (ns), and the server's memory at it."""

    def __init__(self, server: Server, stop: Callable[[], object]) -> None:
        self._server = server
        self._stop = stop
        self.at = self.memory = 0

    def come(self) -> None:
        self.memory = self._server.child.memory_bytes()
        self._stop()
        self.at = time.time_ns()


def _hung(bench: Bench) -> list[Row]:
    redis = redis_server.start(bench)
    count = int(_OFFERED * bench.seconds)
    opens_after: list[float] = []

    def measure(name: str, port: int, number: int) -> dict[str, float]:
        server = bench.heimdall(name=name, kind="variant", entries=_ENTRIES, redis=port)
        queries = [(0, dns.query(each, 0)) for each in zone.names(f"hung{number}p{server.port}-", count)]
        bench.progress.say(f"{count} misses, {name}")
        with ExitStack() as stack:
            moment = _Moment(server, lambda: port and stack.enter_context(redis_server.hung(port)))
            timer = Timer(_CALM * bench.seconds, moment.come)
            timer.start()
            found = probe([server.port], queries, _OFFERED)
            timer.join()
            grown = server.child.memory_bytes() - moment.memory
            if port:
                opens_after.append(_opened(server, moment.at / 1e9))
        bench.stop(server)
        latencies = phases(found, moment.at, moment.at + int(opens_after[-1] * 1e9))
        return {**latencies, "open_ms": 1000 * opens_after[-1] if port else 0.0, "grown_kib": grown / 1024}

    return interleave(
        bench,
        [
            Subject(STOPS, "variant", lambda number: measure(STOPS, redis, number)),
            Subject(WITHOUT, "variant", lambda number: measure(WITHOUT, 0, number)),
        ],
    )


def _opened(server: Server, since: float) -> float:
    """Return how long after an instant (seconds since the epoch) the breaker opened, as the server's log says."""
    log = server.child.log.read_text(errors="replace")
    opened = [datetime.fromisoformat(f"{at}+00:00").timestamp() - since for at in _OPENED.findall(log)]
    if len(opened) != 1 or opened[0] <= 0:
        raise BenchmarkError(f"{server.name}: the breaker opened {len(opened)} times: the machine is too busy")
    return opened[0]


def phases(found: Probe, stopped_at: int, opened_at: int) -> dict[str, float]:
    """Return latencies of what was sent before Redis stopped, until the breaker opened, and after; instants in ns."""
    sent = list(zip(found.sent_at, found.nanoseconds, strict=True))
    calm = _micros([took for at, took in sent if at < stopped_at])
    opening = _micros([took for at, took in sent if stopped_at <= at < opened_at])
    after = _micros([took for at, took in sent if opened_at <= at])
    if not (calm and opening and after):
        raise BenchmarkError("the breaker opened outside the measurement")
    return {
        "calm_p99_us": percentile(calm, 99),
        "opening_p99_us": percentile(opening, 99),
        "after_p50_us": percentile(after, 50),
        "after_p99_us": percentile(after, 99),
        "lost": found.lost,
    }


def _micros(latencies: Sequence[int]) -> list[float]:
    return [took / 1000 for took in latencies if took >= 0]


SCENARIOS = (
    Scenario(
        name="hung",
        title="Redis stops answering under load",
        about=f"{_OFFERED} misses a second, forwarded to nsd. After a quarter of the time Redis is stopped (SIGSTOP): "
        "latencies of what was sent before that, from then until the breaker opened, and after. Without Redis the same "
        "moments are looked at. L1 is full before, so that memory that grows from then on is not the cache's.",
        run=_hung,
        rounds=5,
        seconds=4.0,
        shown=(
            *("open_ms", "calm_p99_us", "opening_p99_us", "after_p50_us", "after_p99_us"),
            *("grown_kib", "lost"),
        ),
        compared=(),
    ),
)
