"""The greenlets in which queries wait for an answer, and their bound."""

from collections.abc import Callable

import gevent

from heimdall_lib.stats import Stats


class Misses:
    """Runs what blocks, up to a bound; beyond it the newest is shed, so that a flood of misses never delays a hit."""

    def __init__(self, bound: int, stats: Stats) -> None:
        """Run at most ``bound`` at once."""
        self.bound = bound
        self._stats = stats

    def run(self, function: Callable[..., None], *args: object) -> bool:
        """Run ``function(*args)`` in a greenlet of its own; False, and nothing is run, when there is no room."""
        if self._stats.inflight >= self.bound:
            return False
        self._stats.inflight += 1
        gevent.spawn_raw(self._counted, function, args)
        return True

    def wait(self, timeout: float) -> bool:
        """Wait for ``timeout`` seconds at most until none is left; say whether that is so."""
        with gevent.Timeout(timeout, False):
            while self._stats.inflight:
                gevent.sleep(0.01)
        return not self._stats.inflight

    def _counted(self, function: Callable[..., None], args: tuple[object, ...]) -> None:
        try:
            function(*args)
        finally:
            self._stats.inflight -= 1
