"""What waits for a thread to take it, in batches: whatever came while the thread was busy goes out together.

Rules: putting never blocks; with a bound, what does not fit is refused; nothing that was taken in is lost when it ends.
"""

import time
from typing import Generic, TypeVar

from heimdall_lib.pause import Pause

T = TypeVar("T")

# Waiting for ever is waiting until one instant that will not come: a loop keeps a place for each instant waited for.
_NEVER = 1e9  # seconds of the monotonic clock


class Batches(Generic[T]):
    """Items in the order in which they were put, for one thread or several."""

    def __init__(self, *, size: int, bound: int) -> None:
        """Hand out ``size`` items at once; let ``bound`` wait."""
        self._size = size
        self._bound = bound
        self._items: list[T] = []
        self._idle: list[Pause[bool]] = []
        self._ended = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Let ``item`` wait; False when there is no room."""
        if len(self._items) >= self._bound or self._ended:
            return False
        self._items.append(item)
        if self._idle:
            self._idle.pop().end(True)
        return True

    def take(self) -> list[T]:
        """Return what waits, in order; block until there is something, and return nothing once all is over."""
        while not self._items and not self._ended:
            pause: Pause[bool] = Pause()
            self._idle.append(pause)
            come = self._items or self._ended  # with threads, meanwhile
            pause.wait(0.0 if come else _NEVER - time.monotonic())
        batch = self._items[: self._size]
        del self._items[: len(batch)]
        return batch

    def end(self) -> None:
        """Take nothing more in; who takes gets what is left, then nothing."""
        self._ended = True
        while self._idle:
            self._idle.pop().end(True)
