"""The goals that docs/performance.md holds Heimdall to, and whether a run met them."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import NOTHING, TIMES, number, ratio
from benchmarks.results import FLOOR, HEIMDALL, Results, ScenarioResult
from benchmarks.scenarios.hung import STOPS, WITHOUT

_NEARLY_A_MILLION = 950_000

Figure = Callable[[ScenarioResult], float | None]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on one figure of a scenario; ``aim`` is what would be better still."""

    scenario: str
    text: str
    figure: Figure
    must: float
    aim: float | None = None
    unit: str = TIMES
    at_least: bool = False

    def met(self, value: float, bound: float) -> bool:
        """Say whether ``value`` is on the right side of ``bound``."""
        return value >= bound if self.at_least else value <= bound

    def bound(self, value: float | None) -> str:
        """Return a bound as text."""
        return NOTHING if value is None else f"{'≥' if self.at_least else '≤'} {self.number(value)}"

    def number(self, value: float) -> str:
        """Return a figure with its unit."""
        return f"{number(value, 2 if self.unit == TIMES else 0)} {self.unit}"


def verdict(goal: Goal, results: Results) -> tuple[str, str]:
    """Return the measured figure and a word for it."""
    result = results.scenarios.get(goal.scenario)
    value = goal.figure(result) if result else None
    if value is None:
        return NOTHING, "not measured"
    if not goal.met(value, goal.must):
        return goal.number(value), "**missed**"
    return goal.number(value), "aim met" if goal.aim is not None and goal.met(value, goal.aim) else "met"


def _to_best(metric: str) -> Figure:
    return lambda result: found[1] if (found := result.best_peer(metric)) else None


def _to(row: str, metric: str) -> Figure:
    return _between(HEIMDALL, row, metric)


def _between(ours: str, theirs: str, metric: str) -> Figure:
    def figure(result: ScenarioResult) -> float | None:
        mine, other = result.row(ours), result.row(theirs)
        return ratio(mine.samples, other.samples, metric) if mine and other else None

    return figure


def _of(row: str, metric: str) -> Figure:
    return lambda result: found.median().get(metric) if (found := result.row(row)) else None


def _added(ours: str, theirs: str, metric: str) -> Figure:
    def figure(result: ScenarioResult) -> float | None:
        mine, other = _of(ours, metric)(result), _of(theirs, metric)(result)
        return None if mine is None or other is None else mine - other

    return figure


def _at_a_million(figure: Figure) -> Figure:
    """Return the figure when the fill came near enough to a million, which takes misses of ten thousand a second."""

    def checked(result: ScenarioResult) -> float | None:
        entries = _of("many entries", "entries")(result)
        return figure(result) if entries and entries >= _NEARLY_A_MILLION else None

    return checked


_ALONE = f"{HEIMDALL}, no misses"

GOALS = (
    Goal(scenario="l1", text="L1 hit, CPU ÷ best peer", figure=_to_best("cpu_us"), must=1.0, aim=0.85),
    Goal(scenario="l1", text="L1 hit, CPU ÷ bare echo", figure=_to(FLOOR, "cpu_us"), must=1.5),
    Goal(
        scenario="l1", text="L1 hit, answers/s ÷ best peer", figure=_to_best("rate"), must=1.0, aim=1.2, at_least=True
    ),
    Goal(
        scenario="l1-latency",
        text="L1 hit at 10 k/s offered, p50 ÷ Unbound",
        figure=_to("unbound", "p50_us"),
        must=1.25,
    ),
    Goal(
        scenario="l1-latency",
        text="L1 hit at 10 k/s offered, p99 ÷ Unbound",
        figure=_to("unbound", "p99_us"),
        must=2.0,
        aim=1.25,
    ),
    Goal(
        scenario="l1-million",
        text="L1 hit at 10 k/s offered among 1 M entries, p99",
        figure=_at_a_million(_of("many entries", "p99_us")),
        must=1000,
        unit="µs",
    ),
    Goal(
        scenario="l1-million",
        text="Memory per entry at 1 M entries",
        figure=_at_a_million(_of("many entries", "bytes_per_entry")),
        must=700,
        aim=500,
        unit="B",
    ),
    Goal(
        scenario="l1-million",
        text="CPU per hit, 1 M entries ÷ 1 k entries",
        figure=_at_a_million(_between("many entries", "1 k entries", "cpu_us")),
        must=1.3,
    ),
    Goal(
        scenario="l1-with-dead-upstream",
        text="Hits while misses wait for a dead upstream, p50 ÷ without",
        figure=_to(_ALONE, "p50_us"),
        must=1.1,
    ),
    Goal(
        scenario="l1-with-dead-upstream",
        text="Hits lost meanwhile",
        figure=_of(HEIMDALL, "lost"),
        must=0,
        unit="queries",
    ),
    Goal(
        scenario="l2",
        text="L2 hit, Redis on loopback",
        figure=_of(HEIMDALL, "rate"),
        must=20_000,
        aim=30_000,
        unit="/s",
        at_least=True,
    ),
    Goal(
        scenario="l2-3ms",
        text="L2 hit, Redis 3 ms away",
        figure=_of(HEIMDALL, "rate"),
        must=10_000,
        aim=20_000,
        unit="/s",
        at_least=True,
    ),
    Goal(
        scenario="l2-latency",
        text="L2 hit at 2 k/s offered, p50 above the round trip to Redis 3 ms away",
        figure=_of(HEIMDALL, "above_rtt_us"),
        must=1000,
        unit="µs",
    ),
    Goal(
        scenario="miss",
        text="Miss, answers/s ÷ best of the caches",
        figure=_to_best("rate"),
        must=1.0,
        aim=1.2,
        at_least=True,
    ),
    Goal(
        scenario="miss-l2",
        text="Miss with Redis on loopback",
        figure=_of(HEIMDALL, "rate"),
        must=8000,
        aim=12_000,
        unit="/s",
        at_least=True,
    ),
    Goal(
        scenario="miss-l2",
        text="Miss, p50 that Redis on loopback adds",
        figure=_added(HEIMDALL, "without Redis", "p50_us"),
        must=500,
        unit="µs",
    ),
    Goal(
        scenario="miss-l2",
        text="Miss, p50 that Redis 15 ms away adds (the read budget is 20 ms)",
        figure=_added("Redis 15 ms away", "without Redis", "p50_us"),
        must=20_000,
        unit="µs",
    ),
    Goal(
        scenario="hung",
        text="Miss at 5 k/s, p99 that a Redis that stops adds until the breaker opens",
        figure=_added(STOPS, WITHOUT, "opening_p99_us"),
        must=20_000,
        unit="µs",
    ),
    Goal(
        scenario="hung",
        text="Miss at 5 k/s, p99 that a Redis that has stopped adds after that",
        figure=_added(STOPS, WITHOUT, "after_p99_us"),
        must=1000,
        unit="µs",
    ),
    Goal(
        scenario="hung",
        text="Queries lost when Redis stops",
        figure=_of(STOPS, "lost"),
        must=0,
        unit="queries",
    ),
    Goal(
        scenario="tcp",
        text="TCP pipelined hits, answers/s ÷ Unbound",
        figure=_to("unbound", "rate"),
        must=1.0,
        aim=1.5,
        at_least=True,
    ),
)
