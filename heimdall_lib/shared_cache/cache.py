"""The shared cache as the resolver sees it: a read that lands some time, a write that nobody waits for."""

from typing import NamedTuple, Protocol

from heimdall_lib.flight import Flight


class Found(NamedTuple):
    """What a read found: a message with its age and lifetime in seconds, or nothing at all (``message`` empty).

    A message may be past its lifetime, to serve stale. ``elsewhere`` says that another replica is fetching a new one:
    it will be there in a moment.
    """

    message: bytes = b""
    age: float = 0.0
    lifetime: int = 0
    elsewhere: bool = False


NOTHING = Found()
LEASE_SECONDS = 0.3
"""How long the other replicas wait for the one that fetches; what takes longer is fetched by each."""

ANY_AGE = float("inf")


class SharedCache(Protocol):
    """What the resolver needs of a shared cache. No call blocks or raises."""

    def read(self, key: bytes, view: str, max_age: float) -> Flight[Found] | None:
        """Begin to read a cache key in a view; None when there is no point in waiting.

        When there is nothing fresh and younger than ``max_age`` seconds, the first replica that reads takes a lease on
        fetching it, in the same round trip; the others are told ``elsewhere`` until it writes, releases or is late.
        """

    def write(
        self,
        key: bytes,
        view: str,
        message: bytes,
        lifetime: int,
        stale: int,
        *,
        changed: bool = False,
        new: bool = False,
    ) -> None:
        """Store a message whose TTLs are true now, for ``lifetime`` and ``stale`` seconds more, some time soon.

        With ``changed`` it says something else than what was known before: the other replicas hear of it afterwards.
        With ``new`` nothing was known before; then it may have to wait until the name is asked for again.
        """

    def release(self, key: bytes, view: str) -> None:
        """Let other replicas fetch a key: this one has got nothing that it could write."""

    def reject(self, reason: str) -> None:
        """Count a value that was found but turned out not to be believed."""


class NoSharedCache:
    """A replica on its own: there is never anything to wait for, and nothing is kept."""

    def read(self, _key: bytes, _view: str, _max_age: float) -> None:
        """Return None."""

    def write(
        self,
        _key: bytes,
        _view: str,
        _message: bytes,
        _lifetime: int,
        _stale: int,
        *,
        changed: bool = False,
        new: bool = False,
    ) -> None:
        """Keep nothing."""

    def release(self, _key: bytes, _view: str) -> None:
        """Hold nothing."""

    def reject(self, _reason: str) -> None:
        """Count nothing."""
