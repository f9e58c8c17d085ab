"""Single flight: those who want the same thing at the same moment wait for one of them to fetch it.

Rules: whoever leads lands, whatever happens; what lands first counts; a waiter that gives up disturbs nobody.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from heimdall_lib.pause import Pause

T = TypeVar("T")


class Flight(Generic[T]):
    """A result that is under way."""

    __slots__ = ("_then", "_waiters", "outcome")

    def __init__(self) -> None:
        """Start under way."""
        self.outcome: T | None = None
        self._waiters: list[Pause[bool]] = []
        self._then: Callable[[T], None] | None = None

    def land(self, outcome: T) -> bool:
        """Hand ``outcome`` to everybody who waits; False when another outcome was there before."""
        if self.outcome is not None:
            return False
        self.outcome = outcome
        for waiter in self._waiters:
            waiter.end(True)
        if self._then is not None:
            self._then(outcome)
        return True

    def wait(self, timeout: float) -> T | None:
        """Return the outcome, or None when it has not landed within ``timeout`` seconds."""
        if self.outcome is None and timeout > 0:
            waiter: Pause[bool] = Pause()
            self._waiters.append(waiter)
            if self.outcome is None:  # with threads, it may have landed before the waiter was there to be told
                waiter.wait(timeout)
        return self.outcome

    def then(self, call: Callable[[T], None]) -> None:
        """Call ``call(outcome)`` when the outcome lands, or now when it has; one call a flight."""
        self._then = call
        if self.outcome is not None:
            call(self.outcome)


class Flights(Generic[T]):
    """The flights under way, by key."""

    def __init__(self) -> None:
        """Start with none."""
        self._under_way: dict[bytes, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, key: bytes) -> bool:
        return key in self._under_way

    def join(self, key: bytes) -> tuple[Flight[T], bool]:
        """Return the flight for ``key`` and whether the caller leads it, and so owes it a ``land``."""
        flight = self._under_way.get(key)
        if flight is not None:
            return flight, False
        flight = self._under_way[key] = Flight()
        return flight, True

    def land(self, key: bytes, flight: Flight[T], outcome: T) -> bool:
        """Land ``flight`` and make room for the next one; False when it had landed."""
        if self._under_way.get(key) is flight:
            del self._under_way[key]
        return flight.land(outcome)

    def detach(self) -> None:
        """Let nobody join the flights that are under way; they land for those who wait for them already."""
        self._under_way.clear()
