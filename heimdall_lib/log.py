"""How the process logs: one line an event on standard error, as text or as JSON.

Rules: a line is one line whatever is in it, so that no name or peer can forge another; nothing here logs by itself.
"""

import json
import logging
import sys
from datetime import UTC, datetime

ROOT = "heimdall"


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


def configure(level: str, form: str, worker: int = 0) -> None:
    """Send every Heimdall log line of ``level`` and above to standard error, as ``text`` or ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(worker) if form == "json" else TextFormatter(worker))
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """Log ``level`` (``debug``, ``info``, ``warning``, ``error``) and above."""
    logging.getLogger(ROOT).setLevel(level.upper())


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
