"""A short run of every target, the same in every run of the tests; and what the fuzzer itself must be able to do."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import corpus, runner, seeds
from tests.fuzz.corpus import Input
from tests.fuzz.mutation import Mutator
from tests.fuzz.target import Failure, Tally, Target, try_all, try_block
from tests.fuzz.targets import TARGETS

_INPUTS = 1500
_FEWER = 8  # times, for targets with sockets


def described(tally: Tally) -> list[str]:
    return [f"{failure.why}: {failure.data.hex()}" for failure in tally.failures]


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_in_the_corpus_comes_to_no_wrong_end(name: str) -> None:
    kept = runner.inputs(name)
    target = TARGETS[name](kept)
    try:
        tally = try_all(target, iter(kept))
    finally:
        target.close()
    assert described(tally) == []
    assert tally.inputs == len(kept) > 0


@pytest.mark.parametrize("name", TARGETS)
def test_nor_does_what_is_made_of_it(name: str) -> None:
    target = TARGETS[name]
    tally = try_block(target, runner.inputs(name), "the same in every run", 0, min(_INPUTS, target.block // _FEWER))
    assert described(tally) == []
    assert len(tally.outcomes) > 1


def test_the_corpus_is_what_its_script_makes() -> None:
    kept = {file.name: file.read_text("ascii") for file in corpus.DIRECTORY.glob("*.txt")}
    made = seeds.texts()
    # What zlib writes is another thing with every version of it.
    values = [[each.name for each in corpus.read(text.pop("value.txt"))] for text in (kept, made)]
    assert values[0] == values[1]
    assert kept == made


def test_an_input_is_read_as_it_was_written() -> None:
    text = (
        corpus.write("octets", [b"\x00\xff", (b"ab", 300), bytes(200)])
        + "\n"
        + corpus.write("text", [b'a"\xe4\n'], text=True)
    )
    assert corpus.read(text) == [Input("octets", b"\x00\xff" + b"ab" * 300 + bytes(200)), Input("text", b'a"\xe4\n')]


class Fragile(Target):
    """Fails for every input that has an 0x80 in it."""

    name = "fragile"

    def vary(self, random: Random) -> bytes:
        return Mutator([b"piece"]).vary(random, b"sound", self.inputs)

    def check(self, data: bytes) -> str:
        assert b"\x80" not in data, "has an 0x80"
        return "sound"


def test_the_same_seed_makes_the_same_inputs_and_the_same_failures() -> None:
    first, second = (try_block(Fragile, [b"input"], "seed", 3, 2000) for _ in range(2))
    assert first.failures == second.failures != []
    assert try_block(Fragile, [b"input"], "seed", 4, 2000).failures != first.failures
    failure = first.failures[0]
    assert try_block(Fragile, [b"input"], "seed", 3, failure.number + 1).failures == [failure]


def test_a_failure_is_kept_and_tried_again_from_then_on(tmp_path: Path) -> None:
    file = corpus.keep("fragile", b"\x80\x00", "AssertionError: has\nan 0x80", tmp_path)
    assert file.read_text().startswith("# AssertionError: has an 0x80\n")
    assert [each.data for each in corpus.load("fragile", tmp_path)] == [b"\x80\x00"]


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(corpus.keep, "__defaults__", (tmp_path,))
    (told,) = runner.keep_failures([Failure("query", b"\x80", "wrong", "a seed", 7, 11)] * 2, set())
    (kept,) = tmp_path.glob("found/*.txt")
    assert f"python -m tests.fuzz query --input {kept}" in told
    assert "python -m tests.fuzz query --seed a seed --first-block 7 --count 12" in told


class Slow(Fragile):
    name = "slow"
    seconds = 0.0

    def check(self, data: bytes) -> str:
        return str(sum(range(1000)))


def test_what_takes_too_long_is_a_failure() -> None:
    (told,) = described(try_all(Slow([]), iter([b"input"])))
    assert told.startswith("AssertionError: takes ")
