"""Which charts there are, and what goes into them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import svg
from benchmarks.figures import METRICS
from benchmarks.results import HEIMDALL, Results, Row, ScenarioResult
from benchmarks.scenarios import SCENARIOS

_SPREAD = ", line: lowest to highest"
_L2_SCENARIOS = ("l2", "l2-1ms", "l2-3ms", "l2-5ms")


@dataclass(frozen=True)
class Chart:
    """A picture of a scenario."""

    scenario: str
    alt: str
    draw: Callable[[Results], str | None]


def write(results: Results, directory: Path) -> list[Path]:
    """Write every chart for which there are results; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, chart in CHARTS.items():
        if (drawn := chart.draw(results)) is not None:
            written.append(directory / f"{name}.svg")
            written[-1].write_text(drawn)
    return written


def _bars(scenario: str, metric: str) -> Callable[[Results], str | None]:
    def draw(results: Results) -> str | None:
        result = results.scenarios.get(scenario)
        rows = [row for row in result.rows if metric in row.median()] if result else []
        if not result or not rows:
            return None
        sign = 1 if METRICS[metric].lower_is_better else -1
        rows.sort(key=lambda row: sign * row.median()[metric])
        return svg.bars(
            f"{SCENARIOS[scenario].title}: {_what(metric)}",
            _better(metric),
            _foot(results, result, spread=_SPREAD),
            [_bar(_named(row, results), row, metric) for row in rows],
        )

    return draw


def _bar(label: str, row: Row, metric: str) -> svg.Bar:
    values = [sample[metric] for sample in row.samples if metric in sample]
    median = row.median()[metric]
    ours = row.kind in {"heimdall", "variant"}
    return svg.Bar(label, median, min(values), max(values), METRICS[metric].text(median), ours, row.kind == "floor")


def _latency(results: Results) -> str | None:
    result = results.scenarios.get("l1-latency")
    if not result or not result.rows:
        return None
    medians = sorted(((row.median(), row) for row in result.rows), key=lambda pair: pair[0]["p99_us"])
    return svg.ranges(
        f"{SCENARIOS['l1-latency'].title}, 10 000 queries/s offered",
        "µs, less is better · dot: p50, ring: p99",
        _foot(results, result),
        [
            svg.Range(
                _named(row, results),
                median["p50_us"],
                median["p99_us"],
                f"{median['p50_us']:.0f} to {median['p99_us']:.0f}",
                ours=row.kind == "heimdall",
            )
            for median, row in medians
        ],
    )


def _l2(results: Results) -> str | None:
    found = [(name, results.scenarios[name]) for name in _L2_SCENARIOS if name in results.scenarios]
    rows = [
        (SCENARIOS[name].title.removeprefix("L2 hits, "), row, result)
        for name, result in found
        if (row := result.row(HEIMDALL)) is not None
    ]
    if not rows:
        return None
    return svg.bars(
        "L2 hits by distance to Redis: answers/s",
        _better("rate"),
        _foot(results, rows[0][2], spread=_SPREAD),
        [_bar(label, row, "rate") for label, row, _ in rows],
    )


def _fleet(results: Results) -> str | None:
    result = results.scenarios.get("fleet")
    if not result or not result.rows:
        return None
    shares = []
    for row in result.rows:
        median = row.median()
        l1, l2 = median["l1_share"], median["l2_share"]
        shares.append(svg.Shares(row.name, (("L1", l1), ("L2", l2), ("upstream", 100 - l1 - l2))))
    return svg.shares(SCENARIOS["fleet"].title, "who answers, % of the queries", _foot(results, result), shares)


def _what(metric: str) -> str:
    return {"cpu_us": "CPU time per query", "rate": "answers/s"}[metric]


def _better(metric: str) -> str:
    chosen = METRICS[metric]
    return f"{chosen.unit}, {'less' if chosen.lower_is_better else 'more'} is better"


def _named(row: Row, results: Results) -> str:
    """Return a row's name, with the version of a peer; Heimdall's is in the foot."""
    version = results.versions.get(row.name, "") if row.kind != "heimdall" else ""
    return f"{row.name} {version}".rstrip()


def _foot(results: Results, result: ScenarioResult, *, spread: str = "") -> tuple[str, str]:
    machine, rounds = results.machine, max(len(row.samples) for row in result.rows)
    medians = f"median of {rounds} rounds{spread}" if rounds > 1 else "one round"
    return (
        f"Heimdall {result.version} · {result.measured_at} · {medians}",
        f"{machine['processor']}, {machine['cores']} cores · {machine['system']}, Linux {machine['kernel']}",
    )


CHARTS = {
    "l1-cpu": Chart("l1", "CPU time per L1 hit", _bars("l1", "cpu_us")),
    "l1-rate": Chart("l1", "L1 hits per second", _bars("l1", "rate")),
    "l1-latency": Chart("l1-latency", "Latency of L1 hits", _latency),
    "tcp": Chart("tcp", "L1 hits per second over TCP", _bars("tcp", "rate")),
    "miss": Chart("miss", "Misses per second", _bars("miss", "rate")),
    "l2": Chart("l2", "L2 hits per second by distance to Redis", _l2),
    "options": Chart("options", "CPU time per hit with options", _bars("options", "cpu_us")),
    "fleet": Chart("fleet", "Who answers in a fleet", _fleet),
}
