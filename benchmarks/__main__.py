"""The command: ``run`` measures, ``report`` writes the figures into docs/, ``list`` names the scenarios."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plots, report
from benchmarks.errors import BenchmarkError
from benchmarks.machine import REPOSITORY
from benchmarks.peers import PEERS
from benchmarks.results import Results, ScenarioResult
from benchmarks.runner import Options, run
from benchmarks.scenario import Scenario
from benchmarks.scenarios import SCENARIOS

LATEST = REPOSITORY / "benchmarks" / "results" / "latest.json"
REHEARSAL = LATEST.parent / "rehearsal" / "latest.json"
DOCUMENTS = (REPOSITORY / "docs" / "performance.md", REPOSITORY / "docs" / "redis.md")
COMMITTED = REPOSITORY / "docs" / "performance" / "results.json"
_INTERRUPTED = 130
_BUSY_PERCENT = 5


def main(argv: Sequence[str]) -> int:
    """Do what the command line says; return the exit status."""
    arguments = parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # also when a shell's "&" has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    try:
        return int(arguments.action(arguments))
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; what was started has been ended", file=sys.stderr)
        return _INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    whole = argparse.ArgumentParser(prog="python -m benchmarks", description="Heimdall beside other DNS caches.")
    actions = whole.add_subparsers(required=True, metavar="run | report | list")
    measure = actions.add_parser("run", help="measure scenarios (all, unless some are named)")
    measure.add_argument("scenario", nargs="*", type=_scenario, help=", ".join(SCENARIOS))
    measure.add_argument("--rounds", type=_positive_integer, help="how often each server is measured")
    measure.add_argument("--seconds", type=_positive, help="how long each time, where a scenario measures by time")
    measure.add_argument("--peers", type=_peers, help="comma list, of: " + ",".join(peer.name for peer in PEERS))
    measure.add_argument("--quick", action="store_true", help="a rehearsal: one round, one second, few names")
    measure.add_argument("--results", type=Path, help="where results are kept (JSON)")
    measure.set_defaults(action=_run)
    write = actions.add_parser("report", help="write the figures of docs/ and their charts from results")
    write.add_argument("--results", type=Path, default=LATEST, help="the results (JSON) to write about")
    write.add_argument("--check", action="store_true", help="write nothing; fail when a document is not as written")
    write.set_defaults(action=_report)
    names = actions.add_parser("list", help="name the scenarios")
    names.set_defaults(action=_list)
    return whole


def _run(arguments: argparse.Namespace) -> int:
    chosen = arguments.scenario or list(SCENARIOS.values())
    options = Options(rounds=arguments.rounds, seconds=arguments.seconds, quick=arguments.quick, peers=arguments.peers)
    path: Path = arguments.results or (REHEARSAL if arguments.quick else LATEST)
    results = run(chosen, options, path, _show)
    plots.write(results, path.parent)
    if len(chosen) > 1:
        print(f"\n{report.goals_table(results)}")
    for name, reason in results.missing.items():
        print(f"Missing: {name}: {reason}")
    print(f"\nResults and charts are in {path.parent}; python -m benchmarks report puts them into docs/.")
    return int(any(results.scenarios[scenario.name].not_measured.startswith("failed") for scenario in chosen))


def _report(arguments: argparse.Namespace) -> int:
    results = Results.load(COMMITTED if arguments.check else arguments.results)
    for document in DOCUMENTS:
        before = document.read_text()
        after = report.rewrite(before, results)
        if arguments.check and after != before:
            raise BenchmarkError(f"{document} does not say what {COMMITTED} holds: python -m benchmarks report")
        document.write_text(after)
    if arguments.check:
        return 0
    results.save(COMMITTED)
    plots.write(results, COMMITTED.parent)
    return 0


def _list(_: argparse.Namespace) -> int:
    print(report.table(("scenario", ""), [(name, scenario.title) for name, scenario in SCENARIOS.items()]))
    return 0


def _show(scenario: Scenario, result: ScenarioResult) -> None:
    print(f"\n{scenario.title} ({scenario.name}, {result.seconds:.0f} s)\n")
    if result.rows:
        print(report.scenario_table(scenario, result))
        print(report.summary(scenario, result))
    if result.not_measured:
        print(f"Not measured: {result.not_measured}")
    for note in result.notes:
        print(f"- {note}")
    if result.others_percent > _BUSY_PERCENT:
        print(
            f"- Other processes took {result.others_percent:.0f} % of the cores' time: repeat this on a quiet machine."
        )
    sys.stdout.flush()


def _scenario(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"{name!r} is no scenario; there are: {', '.join(SCENARIOS)}")
    return SCENARIOS[name]


def _peers(text: str) -> frozenset[str]:
    names = frozenset(filter(None, text.split(",")))
    unknown = names - {peer.name for peer in PEERS}
    if unknown:
        raise argparse.ArgumentTypeError(f"no such peer: {', '.join(sorted(unknown))}")
    return names


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0")
    return value


def _positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
