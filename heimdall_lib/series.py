"""What happened between two readings of the counters, in rates, ratios and latencies; and their course over a while.

Rules: no clock; bounded; a latency is estimated inside its histogram's bucket, as Prometheus does it, and never
outside; where nothing happened there is no ratio and no latency, which is None and not zero.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from heimdall_lib.stats import DURATION_BUCKETS, SOURCES, Stats, ratio

SAMPLE_SECONDS = 5.0
"""How often ``add`` is to be called."""

_SAMPLES_PER_MINUTE = 12
_POINTS = 15 * _SAMPLES_PER_MINUTE
_SERVFAIL = 2
_FOR_WANT_OF_ROOM = ("overload", "connection_limit")
_ALL = "all"

Figures = dict[str, float | None]
"""By name: ``queries_per_second``, ``l1_hit_ratio``, ``upstream_p99_ms`` and so on."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Those counters at an instant (seconds) of which something is told; pairs are hits and misses."""

    at: float
    queries: int
    servfail: int
    shed: int
    l1: tuple[int, int]
    l2: tuple[int, int]
    durations: Mapping[str, Sequence[int]]


def snapshot(stats: Stats, at: float) -> Snapshot:
    """Return a copy of the counters."""
    durations = {source: tuple(stats.durations[source].counts) for source in SOURCES}
    return Snapshot(
        at=at,
        queries=sum(stats.queries.values()),
        servfail=stats.responses[_SERVFAIL],
        shed=sum(stats.dropped[reason] for reason in _FOR_WANT_OF_ROOM),
        l1=(stats.cache_hits, stats.cache_misses),
        l2=(stats.redis_hits, stats.redis_misses),
        durations={_ALL: tuple(map(sum, zip(*durations.values(), strict=True))), **durations},
    )


def between(old: Snapshot, new: Snapshot) -> Figures:
    """Return what happened from ``old`` to ``new``."""
    seconds = max(new.at - old.at, 0.001)
    figures: Figures = {
        "queries_per_second": round((new.queries - old.queries) / seconds, 1),
        "servfail_per_second": round((new.servfail - old.servfail) / seconds, 2),
        "shed_per_second": round((new.shed - old.shed) / seconds, 2),
        "l1_hit_ratio": ratio(new.l1[0] - old.l1[0], new.l1[1] - old.l1[1]),
        "l2_hit_ratio": ratio(new.l2[0] - old.l2[0], new.l2[1] - old.l2[1]),
    }
    for source, counts in new.durations.items():
        happened = [after - before for before, after in zip(old.durations[source], counts, strict=True)]
        figures[f"{source}_per_second"] = round(sum(happened) / seconds, 2)
        figures[f"{source}_median_ms"] = _milliseconds(happened, 0.5)
        figures[f"{source}_p99_ms"] = _milliseconds(happened, 0.99)
    return figures


class Series:
    """The last minute in one, and the last quarter of an hour in steps of ``SAMPLE_SECONDS``."""

    def __init__(self, start: Snapshot) -> None:
        """Begin with what was counted at the start."""
        self._start = start
        self._minute: deque[Snapshot] = deque(maxlen=_SAMPLES_PER_MINUTE + 1)
        self._points: deque[Figures] = deque(maxlen=_POINTS)

    def add(self, now: Snapshot) -> None:
        """Take note of the counters."""
        if self._minute:
            self._points.append(between(self._minute[-1], now))
        self._minute.append(now)

    def last_minute(self, now: Snapshot) -> Figures:
        """Return what happened in the minute before ``now``, or since the start if that is less."""
        return between(self._minute[0] if self._minute else self._start, now)

    def columns(self) -> dict[str, list[float | None]]:
        """Return the course of every figure, the oldest value first."""
        points = list(self._points)
        return {name: [point[name] for point in points] for name in (points[0] if points else ())}


def _milliseconds(counts: Sequence[int], share: float) -> float | None:
    """Return the time within which a share of the durations lay; those above every bound count as the highest one."""
    reached = list(accumulate(counts))
    if not reached[-1]:
        return None
    rank = share * reached[-1]
    bucket = next(index for index, count in enumerate(reached) if count >= rank and counts[index])
    if bucket == len(DURATION_BUCKETS):
        return DURATION_BUCKETS[-1] * 1000
    lower = DURATION_BUCKETS[bucket - 1] if bucket else 0.0
    below = reached[bucket] - counts[bucket]
    inside = (rank - below) / counts[bucket]
    return round((lower + inside * (DURATION_BUCKETS[bucket] - lower)) * 1000, 3)
