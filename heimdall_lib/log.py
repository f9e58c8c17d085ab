"""How the process logs: one line an event on standard error, as text or as JSON.

Rules: a line is one line whatever is in it, so that no name or peer can forge another; writing never waits, for a query
would wait with it: lines that standard error does not take are dropped, and counted in the next that it takes.
"""

import json
import logging
import os
import select
import sys
from datetime import UTC, datetime

from gevent import monkey

ROOT = "heimdall"

_ATOMIC = select.PIPE_BUF  # bytes that a pipe takes whole once it is writable, and without anybody else's in between
_poll = monkey.get_original("select", "poll")  # gevent's own would let others run, which the event loop must not


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO heimdall.app: message``; a worker's begin ``… INFO [worker 2] heimdall.app:``."""

    def __init__(self, worker: int = 0) -> None:
        """Name the worker that logs, if it is one: they are counted from 1."""
        super().__init__()
        self._worker = f"[worker {worker}] " if worker else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = f"{_instant(record)} {record.levelname} {self._worker}{record.name}: {record.getMessage()}"
        if record.exc_info:
            line += f" | {self.formatException(record.exc_info)}"
        return "".join(character if character.isprintable() else _escaped(character) for character in line)


class JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, message; ``worker`` for a worker's, ``query`` for query log lines."""

    def __init__(self, worker: int = 0) -> None:
        """Name the worker that logs, if it is one: they are counted from 1."""
        super().__init__()
        self._worker = {"worker": worker} if worker else {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        if hasattr(record, "query"):
            line["query"] = record.query
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Lines(logging.Handler):
    """Writes lines to a descriptor, as far as whoever reads it keeps up."""

    def __init__(self, descriptor: int) -> None:
        """Write to ``descriptor``, which stays in blocking mode: others may share it."""
        super().__init__()
        self._descriptor = descriptor
        self._writable = _poll()
        self._writable.register(descriptor, select.POLLOUT)
        self.dropped = 0
        """How many lines were not taken since the last that was."""
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, or drop it."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a record that cannot be put into words is logging's to complain of
            self.handleError(record)
            return
        if self.dropped and self._write(self.format(_missing(self.dropped))):
            self.dropped = 0
        if self.dropped or not self._write(line):
            self.dropped += 1

    def _write(self, line: str) -> bool:
        """Write a line; False when not all of it was taken, and then the next begins after a line break."""
        rest = ("\n" * self._torn + line + "\n").encode(errors="backslashreplace")
        size = len(rest)
        try:
            while rest and self._writable.poll(0):
                rest = rest[os.write(self._descriptor, rest[:_ATOMIC]) :]
        except OSError:  # nobody will ever read it, or its disk is full
            pass
        if len(rest) < size:
            self._torn = bool(rest)
        return not rest


def configure(level: str, form: str, worker: int = 0) -> None:
    """Send every Heimdall log line of ``level`` and above to standard error, as ``text`` or ``json``."""
    # Closed from the start, its number is that of any socket.
    handler = logging.NullHandler() if sys.stderr is None else Lines(sys.stderr.fileno())
    handler.setFormatter(JsonFormatter(worker) if form == "json" else TextFormatter(worker))
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """Log ``level`` (``debug``, ``info``, ``warning``, ``error``) and above."""
    logging.getLogger(ROOT).setLevel(level.upper())


def _missing(count: int) -> logging.LogRecord:
    text = "%d log lines were dropped: standard error did not take them"
    return logging.LogRecord(f"{ROOT}.log", logging.WARNING, __file__, 0, text, (count,), None)


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
