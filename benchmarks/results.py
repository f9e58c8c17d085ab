"""What a run found: scenarios, their rows, and the JSON that keeps them.

A row is one server, or one way of running it, with a sample per round. Medians and ratios are worked out from the
samples, never stored apart from them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.errors import BenchmarkError
from benchmarks.figures import METRICS, best, medians, ratio

Kind = Literal["heimdall", "peer", "variant", "beside", "floor"]
"""``variant``: Heimdall run differently; ``beside``: shown, but not compared with; ``floor``: the kernel's price."""

HEIMDALL = "heimdall"
FLOOR = "bare echo"


@dataclass
class Row:
    """One server's samples, a round each."""

    name: str
    kind: Kind
    samples: list[dict[str, float]] = field(default_factory=list)

    def median(self) -> dict[str, float]:
        """Return each metric's median."""
        return medians(self.samples)


@dataclass
class ScenarioResult:
    """What one scenario found."""

    name: str
    measured_at: str
    version: str
    """Heimdall's."""
    seconds: float = 0.0
    others_percent: float = 0.0
    """How much of the cores' time other processes took."""
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_measured: str = ""
    """Why there are no rows."""

    def row(self, name: str) -> Row | None:
        """Return the row called ``name``."""
        return next((row for row in self.rows if row.name == name), None)

    def ratios(self, metric: str, kinds: tuple[Kind, ...] = ("peer",)) -> dict[str, float | None]:
        """Return Heimdall ÷ each row of those kinds."""
        ours = self.row(HEIMDALL)
        if ours is None:
            return {}
        return {row.name: ratio(ours.samples, row.samples, metric) for row in self.rows if row.kind in kinds}

    def best_peer(self, metric: str) -> tuple[str, float] | None:
        """Return the peer that does best in ``metric``, and Heimdall ÷ it."""
        return best(self.ratios(metric), metric)

    def summary(self) -> dict[str, Any]:
        """Return medians and ratios, for those who read the JSON without this program."""
        compared = [key for key in METRICS if key in {"rate", "cpu_us", "p50_us", "p99_us"}]
        return {
            "median": {row.name: {key: round(value, 3) for key, value in row.median().items()} for row in self.rows},
            "heimdall_to_best_peer": {
                key: {"peer": found[0], "ratio": round(found[1], 3)}
                for key in compared
                if (found := self.best_peer(key))
            },
        }


@dataclass
class Results:
    """A machine, its programs, and the scenarios that were measured there."""

    machine: dict[str, str]
    versions: dict[str, str]
    missing: dict[str, str]
    """What is not here → what that means for the report."""
    scenarios: dict[str, ScenarioResult] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        whole = asdict(self)
        for name, result in self.scenarios.items():
            whole["scenarios"][name] |= self.scenarios[name].summary() if result.rows else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what ``save`` wrote."""
        try:
            whole = json.loads(path.read_text())
            scenarios = {name: _scenario(value) for name, value in whole["scenarios"].items()}
            return cls(whole["machine"], whole["versions"], whole["missing"], scenarios)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BenchmarkError(f"{path} holds no results of this benchmark: {error!r}") from None


def _scenario(value: Mapping[str, Any]) -> ScenarioResult:
    rows = [Row(row["name"], row["kind"], row["samples"]) for row in value["rows"]]
    known = {
        key: value[key]
        for key in ("name", "measured_at", "version", "seconds", "others_percent", "notes", "not_measured")
    }
    return ScenarioResult(rows=rows, **known)
