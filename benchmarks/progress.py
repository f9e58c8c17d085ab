"""One line that says what is being measured: rewritten on a terminal, repeated in a log."""

import sys
import time
from typing import TextIO


class Progress:
    """Where the run is; ``done`` leaves the terminal's line clean."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        """Start the clock."""
        self._stream = stream
        self._terminal = stream.isatty()
        self._started = time.monotonic()
        self.scenario = ""

    def say(self, text: str) -> None:
        """Show what happens now."""
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        line = f"{minutes:2d}:{seconds:02d}  {self.scenario}: {text}"
        self._stream.write(f"\r\x1b[K{line[:110]}" if self._terminal else f"{line}\n")
        self._stream.flush()

    def done(self) -> None:
        """Make room for what is printed next."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
