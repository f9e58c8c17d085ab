"""A circuit breaker: when something fails or crawls again and again, stop asking it until a probe says it is well.

Rules: no clock (``now`` is an argument, in seconds), no socket, no thread.
"""


class Breaker:
    """Open after ``threshold`` faults without a success in between; then probes, further and further apart.

    A fault is an error or slowness: the caller decides what counts as which.
    """

    def __init__(self, *, threshold: int, first_delay: float, max_delay: float, open_at_start: bool = False) -> None:
        """Start closed, or open with the first probe due at once; delays are seconds between probes."""
        self._threshold = threshold
        self._first_delay = first_delay
        self._max_delay = max_delay
        self._delay = first_delay
        self._faults = 0
        self._probe_at = 0.0
        self.open = open_at_start

    def succeeded(self) -> None:
        """Count a success: forget the faults before it, and close."""
        self._faults = 0
        self._delay = self._first_delay
        self.open = False

    def failed(self, now: float) -> bool:
        """Count a fault; say whether this one opened the breaker."""
        if self.open:
            return False
        self._faults += 1
        if self._faults < self._threshold:
            return False
        self.open = True
        self._schedule(now)
        return True

    def probe_due(self, now: float) -> bool:
        """Say whether the breaker is open and its next trial due; the one after that is due twice as late."""
        if not self.open or now < self._probe_at:
            return False
        self._schedule(now)
        return True

    def _schedule(self, now: float) -> None:
        self._probe_at = now + self._delay
        self._delay = min(self._delay * 2, self._max_delay)
