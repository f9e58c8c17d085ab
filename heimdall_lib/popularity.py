"""Which answers are asked for most: a count for each cache key, cheap enough to be kept for every query.

Rules: no clock, no socket; counting is one operation on a dictionary (0.07 µs) and bounded; counts are taken away from
time to time, and start over; what was popular before that fades, and is shown until it has.
"""

from collections.abc import Mapping
from heapq import nlargest
from operator import itemgetter
from typing import TypeVar

FADE_SECONDS = 30.0
"""How often ``fade`` is to be called."""

_MAX_KEYS = 8192  # which take 1 to 2 ms to go through when they are taken away
_KEPT = 1000
_FADING = 0.8  # what is left of a count after FADE_SECONDS: half of it after a minute and a half
_GONE = 0.5
_count_of = itemgetter(1)

N = TypeVar("N", int, float)


class Popularity(dict[bytes, int]):
    """Counts by cache key: ``popularity[key] += 1``.

    When it is full, the newest key makes room for another: what is popular was there long before.
    """

    def __init__(self, max_keys: int = _MAX_KEYS) -> None:
        """Start with none; count ``max_keys`` at once."""
        super().__init__()
        self._max_keys = max_keys
        self._untaken: dict[bytes, int] = {}
        self._fading: dict[bytes, float] = {}

    def __missing__(self, _key: bytes) -> int:
        if len(self) >= self._max_keys:
            self.popitem()
        return 0

    def take(self, most: int) -> list[tuple[bytes, int]]:
        """Return the ``most`` keys with the highest counts since the last call, the highest first."""
        self._settle()
        taken, self._untaken = self._untaken, {}
        return nlargest(most, taken.items(), key=_count_of)

    def top(self, most: int) -> list[tuple[bytes, float]]:
        """Return the ``most`` keys with the highest counts of late, the highest first; nothing is taken away."""
        counts = _added(self._fading, self)
        return nlargest(most, counts.items(), key=_count_of)

    def fade(self) -> None:
        """Let what was counted until now weigh less; to be called every ``FADE_SECONDS``."""
        self._settle()
        faded = {key: count * _FADING for key, count in self._fading.items()}
        self._fading = {key: count for key, count in faded.items() if count >= _GONE}

    def _settle(self) -> None:
        """Count from zero again; what was counted is still to be taken, and to fade."""
        counts = dict(nlargest(_KEPT, self.items(), key=_count_of))
        self.clear()
        self._untaken = dict(nlargest(_KEPT, _added(self._untaken, counts).items(), key=_count_of))
        self._fading = dict(nlargest(_KEPT, _added(self._fading, counts).items(), key=_count_of))


def _added(counts: Mapping[bytes, N], more: Mapping[bytes, int]) -> dict[bytes, N]:
    added = dict(counts)
    for key, count in more.items():
        added[key] = added.get(key, 0) + count
    return added
