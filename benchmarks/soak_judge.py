"""What the samples of a soak say: whether anything grows.

A figure's growth is its Theil-Sen slope (the median of the slopes between pairs of samples, which spikes do not move)
times the time that it was watched, after a warm-up. Only samples that are whole rounds apart are paired: what fills up
between one flush and the next does not grow. It may not exceed what the figure moves by itself: a part of its median,
and a few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

ROUND_SECONDS = 120.0
_APART_SECONDS = 3.0  # from a whole number of rounds, at most
_MOST_SAMPLES = 400  # of which there are 80,000 pairs


@dataclass(frozen=True)
class Figure:
    """One thing that is sampled, and how much of it is no growth."""

    label: str
    unit: str
    share: float
    """Of the median, that may come and go."""
    few: float
    """That may come and go besides, in ``unit``."""
    divisor: float = 1.0


FIGURES: Mapping[str, Figure] = {
    "rss": Figure("resident memory", "MiB", 0.03, 2.0, 1024 * 1024),
    "fds": Figure("open files", "", 0.0, 4.0),
    "threads": Figure("threads", "", 0.0, 0.5),
    "greenlets": Figure("greenlets", "", 0.05, 10.0),
    "objects": Figure("objects of Python's", "", 0.03, 2000.0),
    "l1_bytes": Figure("L1", "MiB", 0.05, 0.5, 1024 * 1024),
    "l1_entries": Figure("entries in L1", "", 0.05, 100.0),
}

Sample = Mapping[str, float]
"""``at`` (seconds since the start), and the figures."""


@dataclass(frozen=True)
class Verdict:
    """What became of one figure after the warm-up."""

    figure: Figure
    first: float
    median: float
    last: float
    highest: float
    growth: float
    allowed: float

    @property
    def grows(self) -> bool:
        """Say whether it grew by more than it may."""
        return self.growth > self.allowed


def judge(samples: Sequence[Sample], warm_up: float) -> dict[str, Verdict]:
    """Return the verdict on every figure over the samples taken from ``warm_up`` seconds on."""
    watched = [sample for sample in samples if sample["at"] >= warm_up]
    return {key: _verdict(figure, key, watched) for key, figure in FIGURES.items()}


def table(verdicts: Mapping[str, Verdict]) -> str:
    """Return the verdicts as a table in Markdown."""
    rows = ["| figure | first | median | last | highest | growth | allowed | |", "|---|---|---|---|---|---|---|---|"]
    for verdict in verdicts.values():
        digits = 1 if verdict.figure.unit else 0
        values = (verdict.first, verdict.median, verdict.last, verdict.highest, verdict.growth, verdict.allowed)
        cells = " | ".join(f"{value:.{digits}f}" for value in values)
        name = f"{verdict.figure.label} ({verdict.figure.unit})" if verdict.figure.unit else verdict.figure.label
        rows.append(f"| {name} | {cells} | {'**grows**' if verdict.grows else 'steady'} |")
    return "\n".join(rows)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median slope between pairs of points whole rounds apart; of all pairs, in less than a round.

    Some points do when there are very many.
    """
    step = -(-len(points) // _MOST_SAMPLES)
    slopes: dict[bool, list[float]] = {False: [], True: []}
    for (x1, y1), (x2, y2) in combinations(points[::step], 2):
        off = (x2 - x1 + ROUND_SECONDS / 2) % ROUND_SECONDS - ROUND_SECONDS / 2
        in_phase = x2 - x1 > ROUND_SECONDS / 2 and abs(off) <= _APART_SECONDS
        slopes[in_phase].append((y2 - y1) / (x2 - x1))
    return median(slopes[True] or slopes[False] or [0.0])


def _verdict(figure: Figure, key: str, watched: Sequence[Sample]) -> Verdict:
    points = [(sample["at"], sample[key] / figure.divisor) for sample in watched]
    values = [value for _, value in points]
    middle = median(values)
    return Verdict(
        figure=figure,
        first=values[0],
        median=middle,
        last=values[-1],
        highest=max(values),
        growth=slope(points) * (points[-1][0] - points[0][0]),
        allowed=figure.share * middle + figure.few,
    )
