"""What a scenario is."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.results import Row


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A question about speed, and how it is answered."""

    name: str
    title: str
    about: str
    """What is measured, in a sentence or two for the report."""
    run: Callable[[Bench], list[Row]]
    rounds: int = 3
    seconds: float = 2.0
    """How long one server is measured in one round, where the scenario measures by time."""
    shown: tuple[str, ...] = ("rate", "cpu_us", "lost", "errors")
    """The columns of its table."""
    compared: tuple[str, ...] = ("cpu_us", "rate")
    """The metrics for which ratios are shown."""
