"""The greenlets in which queries wait for an answer, and their bound.

A new greenlet costs more than the rest of a miss, most of it memory that the kernel has to hand out and take back; so
those that are done wait for the next query.
"""

import logging
from collections.abc import Callable
from typing import Any

import gevent
from greenlet import getcurrent, greenlet

from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.server")

_MAX_IDLE = 512  # kept for the next burst; a greenlet holds some 20 kB


class Misses:
    """Runs what blocks, up to a bound; beyond it the newest is shed, so that a flood of misses never delays a hit."""

    def __init__(self, bound: int, stats: Stats) -> None:
        """Run at most ``bound`` at once."""
        self.bound = bound
        self._stats = stats
        self._idle: list[greenlet] = []

    def run(self, function: Callable[..., None], *args: object) -> bool:
        """Run ``function(*args)`` in a greenlet of its own; False, and nothing is run, when there is no room."""
        if self._stats.inflight >= self.bound:
            return False
        self._stats.inflight += 1
        hub = gevent.get_hub()
        runner = self._idle.pop() if self._idle else greenlet(self._run, hub)
        if getcurrent() is hub:
            runner.switch(function, args)
        else:  # it would come back to the loop, not here
            hub.loop.run_callback(runner.switch, function, args)
        return True

    def _run(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Run one call after the other, waiting in the loop in between, while there is room among the idle."""
        this, hub, idle = getcurrent(), gevent.get_hub(), self._idle
        while True:
            try:
                function(*args)
            except Exception:
                log.exception("a query was left unanswered")
            finally:
                self._stats.inflight -= 1
            if len(idle) >= _MAX_IDLE:
                return
            idle.append(this)
            function, args = hub.switch()
