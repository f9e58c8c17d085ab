"""The shared cache as the resolver sees it: a read that lands some time, a write that nobody waits for."""

from typing import NamedTuple, Protocol

from heimdall_lib.flight import Flight


class Found(NamedTuple):
    """What a read found: a message with its age and lifetime in seconds, or nothing at all (``message`` empty)."""

    message: bytes = b""
    age: float = 0.0
    lifetime: int = 0


NOTHING = Found()


class SharedCache(Protocol):
    """What the resolver needs of a shared cache. No call blocks or raises."""

    def read(self, key: bytes, view: str) -> Flight[Found] | None:
        """Begin to read a cache key in a view; None when there is no point in waiting."""

    def write(self, key: bytes, view: str, message: bytes, lifetime: int) -> None:
        """Store a message whose TTLs are true now, for ``lifetime`` seconds (at least 1), some time soon."""

    def reject(self, reason: str) -> None:
        """Count a value that was found but turned out not to be believed."""


class NoSharedCache:
    """A replica on its own: there is never anything to wait for, and nothing is kept."""

    def read(self, _key: bytes, _view: str) -> None:
        """Return None."""

    def write(self, _key: bytes, _view: str, _message: bytes, _lifetime: int) -> None:
        """Keep nothing."""

    def reject(self, _reason: str) -> None:
        """Count nothing."""
