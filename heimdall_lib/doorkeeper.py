"""Which keys came by of late: what tells a name that is asked for again from one that is asked for once.

Rules: no clock, no socket; a fixed table of marks, whatever comes by. A key is remembered until another falls into its
place, on average for as many keys as there are places; one that never came by is taken for known once in 65,536 times.
Nobody can choose keys that share a place: Python's hashes of bytes are keyed with a random number of each process.
"""

from array import array

_PLACES = 1 << 18  # of two bytes each: the names of a minute, when a flood brings 4,000 a second


class Doorkeeper:
    """Remembers whom it has seen."""

    def __init__(self, places: int = _PLACES) -> None:
        """Start with nobody."""
        self._places = places
        self._marks = array("H", [0]) * places

    def knows(self, key: bytes) -> bool:
        """Say whether ``key`` came by of late, and remember that it has."""
        number = hash(key)
        place, mark = number % self._places, number >> 32 & 0xFFFF or 1  # 0 is a place where nobody was
        known = self._marks[place] == mark
        self._marks[place] = mark
        return known
