"""How much of the machine others took meanwhile: figures from a busy machine are not worth keeping."""

import os
import resource
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and iowait, in the order of proc(5)'s /proc/stat
_GUEST = 8  # guest time is part of user time


class Neighbours:
    """Compares what the cores did with what this process and its ended children account for."""

    def __init__(self) -> None:
        """Start to look."""
        self._cores, self._ours = _cores(), _ours()

    def percent(self) -> float:
        """Return the share of the cores' time that went to others, in the kernel's account."""
        cores, ours = _cores(), _ours()
        everything = cores[0] - self._cores[0]
        others = (cores[1] - self._cores[1]) - (ours - self._ours)
        return max(0.0, 100 * others / everything) if everything else 0.0


def _cores() -> tuple[float, float]:
    """Return the seconds that all cores have had, and those that they were not idle."""
    lines = Path("/proc/stat").read_text().splitlines()
    fields = [int(field) for field in lines[0].split()[1:]][:_GUEST]
    busy = sum(value for number, value in enumerate(fields) if number not in _IDLE)
    return sum(fields) / _TICKS_PER_SECOND, busy / _TICKS_PER_SECOND


def _ours() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
