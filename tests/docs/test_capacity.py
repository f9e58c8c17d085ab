"""The figures that docs/operations.md plans with are those that were measured."""

import json
import re
from typing import Any

import pytest

from tests.support.processes import REPOSITORY

RESULTS: dict[str, Any] = json.loads((REPOSITORY / "docs/performance/results.json").read_text(encoding="utf-8"))
SCENARIOS: dict[str, Any] = RESULTS["scenarios"]
GUIDE = (REPOSITORY / "docs/operations.md").read_text(encoding="utf-8")
ROWS = [
    ("L1, the same question within a second", "l1", "heimdall"),
    ("L1, else", "l1-100k", "heimdall"),
    ("L2, Redis 5 ms away", "l2-5ms", "heimdall"),
    ("upstream, without Redis", "miss", "heimdall"),
    ("upstream, with Redis", "miss-l2", "heimdall"),
]


def median(scenario: str, row: str, figure: str) -> float:
    return float(SCENARIOS[scenario]["median"][row][figure])


@pytest.mark.parametrize(("label", "scenario", "row"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_query_costs_is_what_it_was_measured_to_cost(label: str, scenario: str, row: str) -> None:
    match = re.search(rf"^\| {label} \| ([\d.]+) \| ([\d,]+) \|$", GUIDE, re.MULTILINE)
    assert match
    cost = float(match[1])
    assert cost == pytest.approx(median(scenario, row, "cpu_us"), rel=0.05)
    assert float(match[2].replace(",", "")) == pytest.approx(1e6 / cost, rel=0.05)


def test_the_example_is_worked_out_from_the_table() -> None:
    match = re.search(r"([\d,]+) · \(([^)]*)\) µs = ([\d.]+) s of CPU", GUIDE)
    assert match
    terms = [[float(factor) for factor in term.split(" · ")] for term in match[2].split(" + ")]
    assert sum(share for share, _ in terms) == pytest.approx(1)
    table = {float(found) for found in re.findall(r"^\| (?:L1|L2|upstream)[^|]* \| ([\d.]+) \|", GUIDE, re.MULTILINE)}
    assert {cost for _, cost in terms} <= table
    seconds = float(match[1].replace(",", "")) * sum(share * cost for share, cost in terms) / 1e6
    assert float(match[3]) == pytest.approx(seconds, abs=0.01)


def test_an_entry_takes_what_it_was_measured_to_take() -> None:
    match = re.search(r"\[(\d+) bytes\]\(performance\.md#a-million-entries\)", GUIDE)
    assert match
    assert float(match[1]) == pytest.approx(median("l1-million", "many entries", "bytes_per_entry"), rel=0.05)


def test_what_a_lost_redis_costs_is_what_the_fleet_showed() -> None:
    match = re.search(r"(\d+) % more upstream queries", GUIDE)
    assert match
    with_redis, without = (median("fleet", row, "upstream") for row in ("with Redis", "without Redis"))
    assert float(match[1]) == pytest.approx(100 * (without / with_redis - 1), abs=2)
