"""The other replicas, and L2, as a flush and a look at an entry need them.

Rules: nothing here is on a query's way; every call blocks for a bounded time; Redis's failure is a word in the answer.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.invalidations import Flush
from heimdall_lib.shared_cache.bus import NOT_IN_USE, Bus, Told
from heimdall_lib.shared_cache.cache import NOTHING, Found
from heimdall_lib.shared_cache.clearing import Cleared, clear
from heimdall_lib.shared_cache.client import Client, converse, encode, home
from heimdall_lib.shared_cache.codec import Codec, RejectedValueError, redis_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.roster import Roster
from heimdall_lib.tally import ReplicaState

CLEAR_SECONDS = 10.0
OK, OFF = "ok", "off"


class Flushed(NamedTuple):
    """What came of a flush beyond this replica; ``redis`` is ``ok``, ``off``, or why it failed."""

    redis: str
    told: Told = Told(1, 1)
    cleared: Cleared = Cleared(0, complete=True)


class Fleet(Protocol):
    """The others."""

    def flush(self, flush: Flush, keys: Sequence[bytes], view: str) -> Flushed:
        """Let all other replicas forget, and L2: ``keys`` in ``view`` before all else that the flush covers."""

    def look(self, keys: Sequence[bytes], view: str) -> tuple[str, Sequence[Found]]:
        """Return how Redis is, and what L2 has under cache keys in a view."""

    def replicas(self) -> list[ReplicaState]:
        """Return all who share, this one included, as they were known last; nobody is asked."""

    def leave(self, timeout: float) -> None:
        """Let nobody count on this replica any more; returns after ``timeout`` seconds at most."""


class NoFleet:
    """A replica on its own."""

    def flush(self, _flush: Flush, _keys: Sequence[bytes], _view: str) -> Flushed:
        """Tell nobody."""
        return Flushed(OFF)

    def look(self, keys: Sequence[bytes], _view: str) -> tuple[str, Sequence[Found]]:
        """Find nothing."""
        return OFF, [NOTHING] * len(keys)

    def replicas(self) -> list[ReplicaState]:
        """Know of nobody."""
        return []

    def leave(self, _timeout: float) -> None:
        """Leave nobody."""


class RedisFleet:
    """Those who share a Redis."""

    def __init__(self, link: Link, bus: Bus, roster: Roster, *, codec: Codec, prefix: str) -> None:
        """Use the link, the bus and the roster of this replica."""
        self._link = link
        self._bus = bus
        self._roster = roster
        self._codec = codec
        self._prefix = prefix

    def flush(self, flush: Flush, keys: Sequence[bytes], view: str) -> Flushed:
        """Tell the others first: once they have acknowledged, none puts back into L2 what is deleted there."""
        told, cleared = Told(1, 1), Cleared(0, complete=False)
        try:
            told = self._bus.tell(flush, () if self._link.open else self._roster.present())
            known = [redis_key(self._prefix, view, key) for key in keys]
            cleared = clear(self._link, self._prefix, flush, known=known, seconds=CLEAR_SECONDS)
        except SharedCacheError as error:
            return Flushed(f"{error.reason}: {error}", told, cleared)
        return Flushed(OK, told, cleared)

    def look(self, keys: Sequence[bytes], view: str) -> tuple[str, Sequence[Found]]:
        """Read values as a query would, but count and keep nothing."""
        names = [redis_key(self._prefix, view, key) for key in keys]
        try:
            if self._link.open:
                raise SharedCacheError("connection", NOT_IN_USE)
            values = self._link.run("get", lambda client: [_get(client, name) for name in names])
        except SharedCacheError as error:
            return f"{error.reason}: {error}", [NOTHING] * len(keys)
        return OK, [self._found(*found) for found in zip(names, keys, values, strict=True)]

    def replicas(self) -> list[ReplicaState]:
        """Return those whom the roster has."""
        return self._roster.describe()

    def leave(self, timeout: float) -> None:
        """Leave the roster."""
        self._roster.leave(timeout)

    def _found(self, name: str, key: bytes, value: bytes) -> Found:
        try:
            stored = self._codec.decode(name, key, value)
        except RejectedValueError:
            return NOTHING
        return Found(stored.message, max(0, self._link.now() - stored.stored_at) / 1000, stored.lifetime)


def _get(client: Client, name: str) -> bytes:
    """Return a value, empty when there is none."""
    (value,) = converse(home(client, name), [encode(b"GET", name)], replies=1)
    return value if isinstance(value, bytes) else b""
