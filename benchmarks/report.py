"""Tables: for the terminal after a run, and for docs/, where they replace what stands between markers.

Rules: no figure is written by hand; a block that is generated says nothing that the results do not hold.
"""

import re
from collections.abc import Iterable, Sequence

from benchmarks.errors import BenchmarkError
from benchmarks.figures import METRICS, NOTHING, ratio
from benchmarks.goals import GOALS, verdict
from benchmarks.plots import CHARTS
from benchmarks.results import HEIMDALL, Results, Row, ScenarioResult
from benchmarks.scenario import Scenario
from benchmarks.scenarios import SCENARIOS

_BLOCK = re.compile(r"(<!-- benchmark: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NUMBER = re.compile(rf"^[-\d\u202f.]+$|^{NOTHING}$")


def rewrite(text: str, results: Results) -> str:
    """Return a document with the content between its markers made anew."""
    made = blocks(results)

    def fill(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise BenchmarkError(f"there is no block {match[2]!r}; there are: {', '.join(made)}")
        return f"{match[1]}{made[match[2]]}\n{match[3]}"

    return _BLOCK.sub(fill, text)


def blocks(results: Results) -> dict[str, str]:
    """Return every block that a document can have."""
    made = {name: _scenario_block(scenario, results) for name, scenario in SCENARIOS.items()}
    return {"machine": machine_table(results), "goals": goals_table(results), "missing": _missing(results), **made}


def machine_table(results: Results) -> str:
    """Return where and with what the figures were measured."""
    dates = sorted(result.measured_at for result in results.scenarios.values())
    measured = f"{dates[0]} to {dates[-1]}" if dates else "never"
    rows = [(key, value) for key, value in results.machine.items()]
    rows += [("versions", ", ".join(f"{name} {version}" for name, version in results.versions.items()))]
    return table(("", ""), [*rows, ("measured", measured)])


def goals_table(results: Results) -> str:
    """Return the goals and whether they were met."""
    rows = []
    for goal in GOALS:
        measured, word = verdict(goal, results)
        rows.append((goal.text, goal.bound(goal.must), goal.bound(goal.aim), measured, word))
    return table(("goal", "must", "aim", "measured", ""), rows)


def scenario_table(scenario: Scenario, result: ScenarioResult) -> str:
    """Return a scenario's medians, a row for each server, and Heimdall's ratios to them."""
    metrics = [key for key in scenario.shown if any(key in row.median() for row in result.rows)]
    compared = [key for key in scenario.compared if key in metrics and result.row(HEIMDALL)]
    variants = any(row.kind == "variant" for row in result.rows)
    header = ["", *(_label(key) for key in metrics)]
    header += [
        f"{METRICS[key].label} ÷ default" if variants else f"{METRICS[key].label}: ours ÷ it" for key in compared
    ]
    rows = [_row(result, row, metrics, compared) for row in result.rows]
    return table(header, rows)


def summary(scenario: Scenario, result: ScenarioResult) -> str:
    """Return one line on the best peers."""
    found = [(METRICS[key].label, result.best_peer(key)) for key in scenario.compared]
    parts = [f"{label} {best[1]:.2f} ({best[0]})" for label, best in found if best]
    return f"Heimdall ÷ best peer: {', '.join(parts)}." if parts else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table that is readable as it is: columns padded, numbers to the right."""
    body = [list(row) for row in rows]
    columns = list(zip(header, *body, strict=True))
    right = [number > 0 and all(_NUMBER.match(cell) for cell in column[1:]) for number, column in enumerate(columns)]
    widths = [max(3, *(len(cell) for cell in column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (width - 1) + (":" if to_right else "-") for width, to_right in zip(widths, right, strict=True)]
    return "\n".join([line(list(header)), line(rule), *(line(row) for row in body)])


def _row(result: ScenarioResult, row: Row, metrics: Sequence[str], compared: Sequence[str]) -> list[str]:
    median, ours = row.median(), result.row(HEIMDALL)
    cells = [row.name, *(METRICS[key].text(median.get(key)) for key in metrics)]
    for key in compared:
        pair = (row, ours) if row.kind == "variant" else (ours, row)
        value = None if row is ours or not pair[0] or not pair[1] else ratio(pair[0].samples, pair[1].samples, key)
        cells.append(NOTHING if value is None else f"{value:.2f}")
    return cells


def _label(key: str) -> str:
    metric = METRICS[key]
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _scenario_block(scenario: Scenario, results: Results) -> str:
    result = results.scenarios.get(scenario.name)
    if result is None:
        return f"{scenario.about}\n\nNot measured yet."
    parts = [scenario.about]
    if result.not_measured:
        parts.append(f"Not measured: {result.not_measured}.")
    if result.rows:
        parts += [
            f"![{chart.alt}](performance/{name}.svg)"
            for name, chart in CHARTS.items()
            if chart.scenario == scenario.name
        ]
        rounds = max(len(row.samples) for row in result.rows)
        parts += [scenario_table(scenario, result), summary(scenario, result)]
        parts.append(
            f"Medians of {rounds} round{'s' * (rounds > 1)}, {result.measured_at}, Heimdall {result.version}; "
            f"other processes took {result.others_percent:.0f} % of the cores' time."
        )
    parts.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join(filter(None, parts))


def _missing(results: Results) -> str:
    if not results.missing:
        return "Nothing was missing."
    return "\n".join(f"- {name}: {reason}" for name, reason in results.missing.items())
