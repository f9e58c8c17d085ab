"""Arithmetic on samples: medians, percentiles, and ratios taken round by round.

A sample is what one server did in one round: metric → value. Rounds are interleaved, so that a slow minute of the
machine hits every server's sample of that round; hence ratios are taken within a round, and their median is reported.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

NOTHING = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
_THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"

Sample = Mapping[str, float]


@dataclass(frozen=True)
class Metric:
    """How a figure is called and read."""

    label: str
    unit: str
    lower_is_better: bool = True
    digits: int = 0

    def text(self, value: float | None) -> str:
        """Return the figure as people read it."""
        return NOTHING if value is None else number(value, self.digits)


def number(value: float, digits: int = 0) -> str:
    """Return a number with its thousands apart."""
    return f"{value:,.{digits}f}".replace(",", _THIN_SPACE)


METRICS: dict[str, Metric] = {
    "rate": Metric("answers", "1/s", lower_is_better=False),
    "cpu_us": Metric("CPU", "µs/query", digits=2),
    "alone_cpu_us": Metric("CPU, one by one", "µs/query"),
    "p50_us": Metric("p50", "µs"),
    "p99_us": Metric("p99", "µs"),
    "max_us": Metric("worst", "µs"),
    "above_rtt_us": Metric("p50 above the round trip to Redis", "µs"),
    "offered": Metric("offered", "1/s", lower_is_better=False),
    "lost": Metric("lost", "queries"),
    "errors": Metric("errors", "answers"),
    "entries": Metric("entries in L1", "", lower_is_better=False),
    "bytes_per_entry": Metric("memory per entry", "B"),
    "waiting": Metric("misses waiting", "queries", lower_is_better=False),
    "l2_share": Metric("answered by L2", "%", lower_is_better=False, digits=1),
    "l1_share": Metric("L1 hits", "%", lower_is_better=False, digits=1),
    "hit_share": Metric("hits in all", "%", lower_is_better=False, digits=1),
    "upstream": Metric("upstream queries", "", digits=0),
    "shed": Metric("shed", "queries"),
    "answered": Metric("hits answered", "%", lower_is_better=False, digits=1),
    "memory": Metric("memory", "MiB", digits=1),
    "mean_us": Metric("mean", "µs"),
    "l1_p50_us": Metric("L1 p50", "µs"),
    "l1_p99_us": Metric("L1 p99", "µs"),
    "l2_p50_us": Metric("L2 p50", "µs"),
    "l2_p99_us": Metric("L2 p99", "µs"),
    "miss_p50_us": Metric("miss p50", "µs"),
    "miss_p99_us": Metric("miss p99", "µs"),
    "open_ms": Metric("breaker opens after", "ms"),
    "calm_p99_us": Metric("p99 before", "µs"),
    "opening_p99_us": Metric("p99 until it opens", "µs"),
    "after_p50_us": Metric("p50 after", "µs"),
    "after_p99_us": Metric("p99 after", "µs"),
    "grown_kib": Metric("memory grown", "KiB"),
    "message_bytes": Metric("answer", "B"),
    "value_bytes": Metric("value", "B"),
    "key_bytes": Metric("key", "B"),
    "redis_bytes": Metric("key and value in Redis", "B"),
    "whole_bytes": Metric("all that Redis needs for it", "B"),
}


def medians(samples: Sequence[Sample]) -> dict[str, float]:
    """Return each metric's median over the rounds."""
    keys = [key for key in METRICS if any(key in sample for sample in samples)]
    return {key: median(sample[key] for sample in samples if key in sample) for key in keys}


def ratio(ours: Sequence[Sample], theirs: Sequence[Sample], metric: str) -> float | None:
    """Return the median over the rounds of ours ÷ theirs, or None when no round has both."""
    pairs = [(mine.get(metric), other.get(metric)) for mine, other in zip(ours, theirs, strict=False)]
    ratios = [mine / other for mine, other in pairs if mine is not None and other]
    return median(ratios) if ratios else None


def best(ratios: Mapping[str, float | None], metric: str) -> tuple[str, float] | None:
    """Return the peer that compares best with us, and our ratio to it."""
    known = [(name, value) for name, value in ratios.items() if value is not None]
    if not known:
        return None
    choose = max if METRICS[metric].lower_is_better else min
    return choose(known, key=lambda pair: pair[1])


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
