"""Whether numbers look as if they were drawn at random, with bounds that an honest draw crosses once in 1e10 runs."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

_NATS = 25.0  # exp(-25) is 1.4e-11


def assert_uniform(bins: Sequence[Hashable], size: int) -> None:
    """Assert that things fall into ``size`` bins alike, by Pearson's chi-squared test."""
    expected = len(bins) / size
    counts = Counter(bins)
    assert len(counts) <= size
    statistic = sum((count - expected) ** 2 for count in counts.values()) / expected
    statistic += (size - len(counts)) * expected
    freedom = size - 1
    # Laurent and Massart (2000), lemma 1: the bound that chi-squared exceeds with a probability of exp(-x) at most.
    assert statistic < freedom + 2 * math.sqrt(freedom * _NATS) + 2 * _NATS


def assert_rarely_repeated(drawn: Sequence[Hashable], size: int) -> None:
    """Assert that draws from ``size`` values repeat no more often than chance has it."""
    expected = size * (1 - (1 - 1 / size) ** len(drawn))
    # McDiarmid's inequality: one draw more or less changes how many differ by one at most.
    assert len(set(drawn)) > expected - math.sqrt(len(drawn) * _NATS / 2)
