"""Names that clients ask for most, in words: for a person who looks, and for another process that adds them up.

Rules: a name is written escaped; lists are bounded; what differs only in DO and CD is one question.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

from heimdall_lib import wire
from heimdall_lib.names import type_name
from heimdall_lib.query import question_of

MOST = 20
"""How many names a list has at most."""

KINDS = ("asked", "missed")
"""Found in L1; not found there."""


class Asked(NamedTuple):
    """A question and how often it was asked of late, in numbers that fade."""

    name: str
    type: str
    times: float


TopNames = Mapping[str, Sequence[Asked]]
"""Lists by ``KINDS``; across a channel, an ``Asked`` is a list of its fields."""


def in_words(counts: Iterable[tuple[bytes, float]]) -> list[Asked]:
    """Return the questions with the highest counts, given those of cache keys."""
    by_question: defaultdict[bytes, float] = defaultdict(float)
    for key, count in counts:
        by_question[question_of(key)] += count
    most = nlargest(MOST, by_question.items(), key=lambda each: each[1])
    return [
        Asked(wire.presentation(question), type_name(wire.UINT16.unpack_from(question, len(question) - 4)[0]), count)
        for question, count in most
    ]


def total(lists: Iterable[TopNames]) -> TopNames:
    """Return the sums over several processes, each list as long as one process's."""
    sums: dict[str, defaultdict[tuple[str, str], float]] = {kind: defaultdict(float) for kind in KINDS}
    for each in lists:
        for kind, asked in each.items():
            for name, qtype, count in asked:
                sums[kind][name, qtype] += count
    return {
        kind: [Asked(*question, count) for question, count in nlargest(MOST, counts.items(), key=lambda one: one[1])]
        for kind, counts in sums.items()
    }
