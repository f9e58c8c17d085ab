"""The queries that wait for an answer, each in a greenlet, and their bound.

Those that come while the process is short of CPU time are gathered for a moment and begin together: what they have to
send to Redis and upstream then goes out together, and so do the answers. That takes half of the time of one after the
other, so that a process at its limit answers later by a moment instead of by more and more.
"""

from collections.abc import Callable
from typing import Any

from gevent import get_hub

from heimdall_lib.server.runners import Runners
from heimdall_lib.stats import Stats

_MOMENT_SECONDS = 0.001
_MOST_GATHERED = 32

Call = tuple[Callable[..., None], tuple[object, ...]]


class Misses:
    """Runs what blocks, up to a bound; beyond it the newest is shed, so that a flood of misses never delays a hit."""

    def __init__(
        self,
        bound: int,
        stats: Stats,
        runners: Runners,
        *,
        pressed: Callable[[], bool],
        moment: float = _MOMENT_SECONDS,
    ) -> None:
        """Run at most ``bound`` at once; gather for ``moment`` seconds while ``pressed()`` says that time is short."""
        self.bound = bound
        self._stats = stats
        self._runners = runners
        self._pressed = pressed
        self._moment = moment
        self._gathered: list[Call] = []
        self._timer: Any = None

    def run(self, function: Callable[..., None], *args: object) -> bool:
        """Run ``function(*args)`` in a greenlet of its own; False, and nothing is run, when there is no room."""
        if self._stats.inflight >= self.bound:
            return False
        self._stats.inflight += 1
        if self._pressed():
            self._gather((function, args))
        else:
            self._runners.run(self._counted, function, args)
        return True

    def _gather(self, call: Call) -> None:
        self._gathered.append(call)
        if len(self._gathered) == 1:
            self._timer = get_hub().loop.timer(self._moment)
            self._timer.start(self._begin, update=True)  # from now, not from when this turn of the loop began
        elif len(self._gathered) == _MOST_GATHERED:
            self._timer.stop()
            self._begin()

    def _begin(self) -> None:
        gathered, self._gathered = self._gathered, []
        for function, args in gathered:
            self._runners.run(self._counted, function, args)

    def _counted(self, function: Callable[..., None], args: tuple[object, ...]) -> None:
        try:
            function(*args)
        finally:
            self._stats.inflight -= 1
