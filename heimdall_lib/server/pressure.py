"""Whether this thread is running out of CPU time."""

import time
from collections.abc import Callable

_WINDOW_SECONDS = 0.01
_MOST = 0.85  # of the time


class Pressure:
    """How much of its time the thread has worked lately, looked at as often as somebody asks, but not too often."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, worked: Callable[[], float] = time.thread_time
    ) -> None:
        """Begin at rest; ``worked`` tells how many seconds of ``clock`` the thread has been working."""
        self._clock, self._worked = clock, worked
        self._high = False
        self._since, self._worked_before = clock(), worked()

    def high(self) -> bool:
        """Say whether the thread had hardly any rest lately; 0.1 µs, or 1 µs when it looks."""
        now = self._clock()
        if now - self._since >= _WINDOW_SECONDS:
            worked = self._worked()
            self._high = worked - self._worked_before > _MOST * (now - self._since)
            self._since, self._worked_before = now, worked
        return self._high
