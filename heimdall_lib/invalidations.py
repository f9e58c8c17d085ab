"""What was flushed, and up to when what was kept of it is outdated.

An answer can come back after a flush: from a query that asked upstream before it, from a value that another replica
wrote to L2 a moment too late. ``floor`` says what is too old to be kept.

Rules: no clock, no socket; instants are seconds of one monotonic clock; bounded: what no longer fits makes more than
was asked for outdated, never less.
"""

from collections.abc import Iterator
from typing import NamedTuple

_MAX_NAMES, _MAX_SUBTREES, _MAX_CHANGES = 4096, 256, 4096
_AFTER_NAME, _AFTER_TYPE = -5, -3  # a cache key ends with type, class (two octets each) and bits

NEVER = float("-inf")


class Flush(NamedTuple):
    """What is to be forgotten: a name (wire format, lower case), of one type or of all.

    With ``subtree`` all names below it, too; without a name, everything.
    """

    name: bytes = b""
    qtype: int | None = None
    subtree: bool = False

    def covers(self, key: bytes) -> bool:
        """Say whether a cache key is to be forgotten."""
        name = key[:_AFTER_NAME]
        if self.qtype is not None and int.from_bytes(key[_AFTER_NAME:_AFTER_TYPE], "big") != self.qtype:
            return False
        if not self.subtree or not self.name:
            return not self.name or name == self.name
        return name.endswith(self.name) and self.name in _and_above(name)

    @property
    def outdates(self) -> bytes:
        """What a cache key begins with when it is covered, from the name's first label on or from a later one."""
        return self.name if self.qtype is None else self.name + self.qtype.to_bytes(2, "big")


EVERYTHING = Flush()


class Invalidations:
    """The floors below which nothing is believed."""

    def __init__(self) -> None:
        """Believe everything."""
        # Names end with the root's empty label, so that none is the beginning of another, with a type behind it or not.
        self._names: dict[bytes, float] = {}
        self._subtrees: dict[bytes, float] = {}
        self._changes: dict[bytes, float] = {}
        self._all = NEVER

    def flushed(self, flush: Flush, until: float) -> None:
        """Hold outdated what was kept of ``flush`` up to an instant."""
        if not flush.name:
            self._all = max(self._all, until)
        elif flush.subtree:
            self._raise_all(_put(self._subtrees, flush.outdates, until, most=_MAX_SUBTREES))
        else:
            self._raise_all(_put(self._names, flush.outdates, until, most=_MAX_NAMES))

    def changed(self, key: bytes, until: float) -> None:
        """Hold outdated what was kept under a cache key up to an instant: another replica has had a new answer since.

        The oldest of too many is forgotten: it matters to queries that are under way, for a moment.
        """
        _put(self._changes, key, until, most=_MAX_CHANGES)

    def floor(self, key: bytes) -> float:
        """Return the instant up to which whatever was kept under a cache key, or was asked for it, is outdated."""
        floor = max(self._all, self._changes.get(key, NEVER))
        if self._names:
            floor = max(floor, _of(self._names, key))
        if self._subtrees:
            ends = key[_AFTER_NAME:]
            floor = max(floor, *(_of(self._subtrees, name + ends) for name in _and_above(key[:_AFTER_NAME])))
        return floor

    def _raise_all(self, until: float) -> None:
        self._all = max(self._all, until)


def _put(floors: dict[bytes, float], what: bytes, until: float, *, most: int) -> float:
    """Raise a floor; return the one that had to go for it, the oldest."""
    floors[what] = max(floors.pop(what, NEVER), until)
    return floors.pop(next(iter(floors))) if len(floors) > most else NEVER


def _of(floors: dict[bytes, float], key: bytes) -> float:
    return max(floors.get(key[:_AFTER_NAME], NEVER), floors.get(key[:_AFTER_TYPE], NEVER))


def _and_above(name: bytes) -> Iterator[bytes]:
    """Yield a name and all names above it, up to the root."""
    while True:
        yield name
        if not name[0]:
            return
        name = name[name[0] + 1 :]
