"""Greenlets that are used again.

A new one costs more than the rest of a miss, most of it memory that the kernel has to hand out and take back; so those
that are done wait for the next call.
"""

import logging
from collections.abc import Callable
from typing import Any

from gevent import get_hub
from greenlet import getcurrent, greenlet

log = logging.getLogger("heimdall.server")

_MAX_IDLE = 512  # kept for the next burst; a greenlet holds some 20 kB


class Runners:
    """Runs what blocks beside its caller."""

    def __init__(self) -> None:
        """Have none yet."""
        self._idle: list[greenlet] = []

    def run(self, function: Callable[..., None], *args: object) -> None:
        """Run ``function(*args)`` in a greenlet of its own: at once when called by the loop, else in its next turn."""
        hub = get_hub()
        runner = self._idle.pop() if self._idle else greenlet(self._run, hub)
        if getcurrent() is hub:
            runner.switch(function, args)
        else:  # it would come back to the loop, not here
            hub.loop.run_callback(runner.switch, function, args)

    def _run(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Run one call after the other, waiting in the loop in between, while there is room among the idle."""
        this, hub, idle = getcurrent(), get_hub(), self._idle
        while True:
            try:
                function(*args)
            except Exception:
                log.exception("a query was left unanswered")
            if len(idle) >= _MAX_IDLE:
                return
            idle.append(this)
            function, args = hub.switch()
