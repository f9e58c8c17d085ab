"""What was found out a moment ago, so that whoever asks often does not have it found out each time.

Rules: one finds out while others wait for what it finds; nothing is known that is older than was said.
"""

import time
from collections.abc import Callable
from threading import Lock


class Recent:
    """The outcome of ``find_out``, which is called at most once in so many seconds."""

    def __init__(
        self, find_out: Callable[[], str], *, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep each outcome for ``seconds``, counted from when it was there."""
        self._find_out = find_out
        self._seconds = seconds
        self._clock = clock
        self._lock = Lock()
        self._outcome = ""
        self._expires_at = float("-inf")

    def __call__(self) -> str:
        """Return the outcome, found out now unless it is recent."""
        with self._lock:
            if self._clock() >= self._expires_at:
                self._outcome = self._find_out()
                self._expires_at = self._clock() + self._seconds
            return self._outcome
