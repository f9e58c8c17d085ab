"""``python -m tests.fuzz``: run the targets, try one input again, or write the corpus."""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import corpus, runner, seeds
from tests.fuzz.target import Tally, try_all
from tests.fuzz.targets import TARGETS

_OUTCOMES = 40
_TELL_SECONDS = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit status: 0, or 1 when something failed."""
    options = _parser().parse_args(argv)
    if options.write_corpus:
        seeds.write_all(corpus.DIRECTORY)
        return 0
    names = tuple(options.target or TARGETS)
    if options.input is not None or options.corpus:
        return _again(names, options)
    plan = runner.Plan(
        targets=names,
        seed=options.seed or str(time.time_ns() // 1_000_000),
        seconds=options.seconds,
        count=options.count,
        first_block=options.first_block,
        processes=options.processes,
    )
    print(f"seed {plan.seed}", flush=True)
    run, told_at = runner.Run(plan), time.monotonic()
    told: set[tuple[str, str]] = set()
    for tally in run.run():
        for line in runner.keep_failures(tally.failures, told):
            print(line, flush=True)
        if time.monotonic() - told_at > _TELL_SECONDS:
            told_at = time.monotonic()
            print(runner.table(run.tallies), flush=True)
    print(runner.table(run.tallies, _OUTCOMES))
    return 1 if told else 0


def _again(names: Sequence[str], options: Namespace) -> int:
    """Try one input, or all that are in the corpus, in this process."""
    tallies: dict[str, Tally] = {}
    for name in names:
        kept = runner.inputs(name)
        target = TARGETS[name](kept)
        try:
            tallies[name] = try_all(target, iter(kept if options.input is None else [_read(options.input)]))
        finally:
            target.close()
    print(runner.table(tallies, _OUTCOMES))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    for failure in failures:
        print(runner.told_of(failure))
    return 1 if failures else 0


def _read(words: str) -> bytes:
    """Return the input that is written in hexadecimal, or in a file of the corpus."""
    return corpus.read(Path(words).read_text("ascii"))[0].data if words.endswith(".txt") else bytes.fromhex(words)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m tests.fuzz", description="Tries inputs that nobody would send in good faith."
    )
    parser.add_argument("target", nargs="*", choices=[[], *TARGETS], help="what to try (all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, for all targets together (60)")
    parser.add_argument("--count", type=int, default=0, help="how many inputs for each target, however long it takes")
    parser.add_argument("--seed", default="", help="begin with this seed (the time)")
    parser.add_argument("--first-block", type=int, default=0, help="begin with this block of inputs (0)")
    parser.add_argument("--processes", type=int, default=0, help="how many at once (one for each core)")
    parser.add_argument("--input", help="try one input, in hexadecimal or the .txt file in which it was kept")
    parser.add_argument("--corpus", action="store_true", help="try what is in the corpus, as it is")
    parser.add_argument("--write-corpus", action="store_true", help="write the inputs of seeds.py into the corpus")
    return parser


if __name__ == "__main__":
    sys.exit(main())
