"""A greenlet's wait for one thing, made cheap enough to stand in the way of every miss.

An event and a timer of the loop for each wait cost more than all else that a miss needs. Here the greenlet is switched
to by whoever ends its wait, and one timer a loop serves all whose time will be over.

Rules: a pause is waited for once, by whoever made it, and ended from anywhere, another thread included; what ends it
first counts; a wait lasts its timeout at least, and ``2 * TICK_SECONDS`` more at most.
"""

import time
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from gevent import get_hub, getcurrent, monkey
from greenlet import greenlet

T = TypeVar("T")

TICK_SECONDS = 0.001
"""How finely time is told."""

_thread = monkey.get_original("_thread", "get_ident")
_ThreadLocal = monkey.get_original("threading", "local")


class Pause(Generic[T]):
    """One wait. ``value`` is what ended it, None until then and when its time was over."""

    __slots__ = ("_alarms", "_greenlet", "_thread", "value")

    def __init__(self) -> None:
        """Belong to the greenlet that is running."""
        self.value: T | None = None
        self._greenlet: greenlet | None = None
        self._thread = _thread()
        self._alarms = _alarms()

    def wait(self, timeout: float) -> T | None:
        """Return what ends the pause, or None when nothing does within ``timeout`` seconds."""
        if self.value is None and timeout > 0:
            others = self._alarms.at(time.monotonic() + timeout)
            others.add(self)
            self._greenlet = getcurrent()
            try:
                if self.value is None:  # with threads, it may have been ended meanwhile
                    self._alarms.hub.switch()
            finally:  # whoever is killed while it waits must not be woken where it waits next
                self._greenlet = None
                others.discard(self)
        return self.value

    def end(self, value: T) -> None:
        """End the pause with ``value``, which is not None."""
        if self.value is None:
            self.value = value
            if self._greenlet is not None:
                if self._thread == _thread():
                    self._alarms.loop.run_callback(self.resume)
                else:
                    self._alarms.loop.run_callback_threadsafe(self.resume)

    def end_now(self, value: T) -> None:
        """End the pause and run the greenlet until it waits again; only for what the loop itself calls."""
        if self.value is None:
            self.value = value
            self.resume()

    def resume(self) -> None:
        """Go on with the greenlet if it still waits; only for what the loop itself calls."""
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is not None:
            greenlet.switch()


class _Alarms:
    """The waits of one thread's loop by the tick in which their time is over."""

    def __init__(self) -> None:
        self.hub = get_hub()
        self.loop = self.hub.loop
        self._waits: dict[int, set[Pause[Any]]] = {}
        self._ticks: list[int] = []  # a heap
        self._timer = self.loop.timer(0.0)

    def at(self, deadline: float) -> set[Pause[Any]]:
        """Return those whose time is over at ``deadline``, for one more to join."""
        tick = int(deadline / TICK_SECONDS) + 1
        waits = self._waits.get(tick)
        if waits is None:
            waits = self._waits[tick] = set()
            heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._set()
        return waits

    def _set(self) -> None:
        """Let the timer go off at the next tick in which a time is over."""
        self._timer.stop()
        self._timer = self.loop.timer(max(0.0, self._ticks[0] * TICK_SECONDS - time.monotonic()))
        self._timer.start(self._ring)

    def _ring(self) -> None:
        now = time.monotonic() / TICK_SECONDS
        while self._ticks and self._ticks[0] <= now:
            over = self._waits.pop(heappop(self._ticks))
            while over:
                over.pop().resume()
        # Most waits have ended long before their time: nothing is to go off for a tick in which nobody waits.
        while self._ticks and not self._waits[self._ticks[0]]:
            del self._waits[heappop(self._ticks)]
        if self._ticks:
            self._set()


class _Local(_ThreadLocal):  # type: ignore[misc, valid-type]
    alarms: _Alarms | None = None


_local = _Local()


def _alarms() -> _Alarms:
    alarms = _local.alarms
    if alarms is None:
        alarms = _local.alarms = _Alarms()
    return alarms
