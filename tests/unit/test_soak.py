"""The parts of the soak that can be wrong and stay unnoticed: the verdict, and what its upstream answers."""

import random
import subprocess
import sys

import dns.message
import pytest

from benchmarks.soak_judge import FIGURES, judge, slope, table
from benchmarks.soak_upstream import answer
from tests.support.client import query, rcode, ttl
from tests.support.processes import REPOSITORY, environment

STEADY = dict.fromkeys(FIGURES, 100.0)
MIB = 1024.0 * 1024.0


def samples(**changing: list[float]) -> list[dict[str, float]]:
    """Return a sample every 5 s, steady but for what is given."""
    length = max(map(len, changing.values()))
    return [
        {"at": 5.0 * number, **STEADY, **{key: values[number] for key, values in changing.items()}}
        for number in range(length)
    ]


def growing(taken: list[dict[str, float]], warm_up: float = 0.0) -> set[str]:
    return {key for key, verdict in judge(taken, warm_up).items() if verdict.grows}


def test_what_stays_or_shrinks_does_not_grow() -> None:
    assert growing(samples(fds=[20.0] * 50, rss=[float(200 - number) * MIB for number in range(50)])) == set()


def test_a_slow_leak_grows_and_nothing_else_does() -> None:
    leak = [(60 + 0.2 * number) * MIB for number in range(100)]
    assert growing(samples(rss=leak)) == {"rss"}


def test_one_descriptor_a_minute_grows() -> None:
    assert growing(samples(fds=[20.0 + number // 12 for number in range(120)])) == {"fds"}


def test_what_comes_and_goes_does_not_grow() -> None:
    chance = random.Random(4)
    outages = [60.0 + chance.random() + (200.0 if number % 24 < 3 else 0.0) for number in range(240)]
    assert growing(samples(greenlets=outages)) == set()


def test_what_fills_up_between_one_flush_and_the_next_does_not_grow_but_a_leak_beneath_it_does() -> None:
    filling = [1.0 * MIB + (number % 24) * 0.1 * MIB for number in range(100)]
    assert growing(samples(l1_bytes=filling)) == set()
    assert growing(samples(l1_bytes=[value + number * 0.02 * MIB for number, value in enumerate(filling)])) == {
        "l1_bytes"
    }


def test_growth_in_the_warm_up_is_none() -> None:
    taken = samples(rss=[min(60 + number, 120) * MIB for number in range(100)])
    assert growing(taken) == {"rss"}
    assert growing(taken, warm_up=300.0) == set()


def test_a_slope_is_the_same_whether_all_pairs_are_taken_or_some() -> None:
    points = [(5.0 * number, 15.0 * number) for number in range(1001)]
    assert slope(points) == 3.0
    assert slope(points[:100]) == 3.0
    assert slope(points[:1]) == 0.0


def test_the_table_has_a_row_for_every_figure() -> None:
    rows = table(judge(samples(rss=[60.0 * MIB, 90.0 * MIB]), 0.0)).splitlines()[2:]
    assert len(rows) == len(FIGURES)
    assert rows[0] == "| resident memory (MiB) | 60.0 | 75.0 | 90.0 | 90.0 | 30.0 | 4.2 | **grows** |"
    assert all(row.endswith("| steady |") for row in rows[1:])


@pytest.mark.parametrize(
    ("name", "code", "lifetime", "records"),
    [
        ("kept-1", "NOERROR", 20, 1),
        ("brief-2", "NOERROR", 2, 1),
        ("new-3", "NOERROR", 60, 1),
        ("nx-4", "NXDOMAIN", 3, 0),
    ],
)
def test_the_upstream_answers_as_the_name_says(name: str, code: str, lifetime: int, records: int) -> None:
    asked = query(f"{name}.soak.example")
    message = dns.message.from_wire(answer(asked.to_wire(), truncate=True))
    assert (rcode(message), ttl(message), sum(map(len, message.answer))) == (code, lifetime, records)
    assert message.question == asked.question


def test_what_is_big_is_cut_short_over_udp_only() -> None:
    asked = query("big-5.soak.example").to_wire()
    assert dns.message.from_wire(answer(asked, truncate=True)).flags & dns.flags.TC
    whole = answer(asked, truncate=False)
    assert len(whole) > 4000
    assert len(dns.message.from_wire(whole).answer[0]) == 250


def test_a_short_soak_ends_by_itself_with_a_verdict() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.1", "--rate", "50"]
    finished = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode in {0, 1}, finished.stderr
    assert "| open files |" in finished.stdout
    assert finished.stdout.count("| steady |") + finished.stdout.count("| **grows** |") == len(FIGURES)
