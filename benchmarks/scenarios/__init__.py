"""The scenarios, in the order of the report."""

from benchmarks.scenario import Scenario
from benchmarks.scenarios import (
    beside,
    fleet,
    flood,
    hits,
    hung,
    million,
    misses,
    overload,
    shared,
    sizes,
    variants,
)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for module in (hits, million, beside, shared, misses, variants, fleet, hung, sizes, flood, overload)
    for scenario in module.SCENARIOS
}
