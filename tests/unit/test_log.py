"""The log: one line an event, on standard error."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from heimdall_lib import log

FORGED = "x\n2026-01-01T00:00:00.000Z INFO heimdall.app: all is well\r\x1b[2J\u2028\x85"


@pytest.fixture(autouse=True)
def fixture_root() -> Iterator[logging.Logger]:
    """Give Heimdall's root logger back as it was."""
    root = logging.getLogger(log.ROOT)
    before = root.level, root.propagate, root.handlers[:]
    yield root
    root.level, root.propagate, root.handlers[:] = before
    root.setLevel(before[0])


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    captured = capfd.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def logger(form: str, level: str = "info") -> logging.Logger:
    log.configure(level, form)
    return logging.getLogger("heimdall.test")


# Text


def test_a_line_says_when_how_grave_who_and_what(capfd: pytest.CaptureFixture[str]) -> None:
    before = datetime.now(UTC)
    logger("text").warning("%d of %s", 3, "them")
    (line,) = lines(capfd)
    instant, _, rest = line.partition(" ")
    assert rest == "WARNING heimdall.test: 3 of them"
    assert instant.endswith("Z")
    assert len(instant) == len("2026-01-31T12:00:00.000Z")
    assert abs((datetime.fromisoformat(instant) - before).total_seconds()) < 60


def test_nothing_in_a_message_makes_a_second_line_of_text(capfd: pytest.CaptureFixture[str]) -> None:
    logger("text").info("query for %s", FORGED)
    (line,) = lines(capfd)
    assert line.isprintable()
    assert line.endswith(r"query for x\n2026-01-01T00:00:00.000Z INFO heimdall.app: all is well\r\x1b[2J\u2028\x85")


def test_letters_of_any_language_stay_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    logger("text").info("Grüße 世界")
    assert lines(capfd)[0].endswith(": Grüße 世界")


def test_an_exception_is_in_the_same_line_of_text(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger("text").exception("it failed")
    (line,) = lines(capfd)
    assert "ERROR heimdall.test: it failed | Traceback" in line
    assert "ValueError: x\\n2026" in line
    assert line.isprintable()


# JSON


def test_a_line_of_json_holds_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    logger("json").warning("%d of %s", 3, "them")
    (line,) = lines(capfd)
    read = json.loads(line)
    assert datetime.fromisoformat(read.pop("time")).tzinfo is not None
    assert read == {"level": "warning", "logger": "heimdall.test", "message": "3 of them"}


def test_nothing_in_a_message_makes_a_second_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    logger("json").info("query for %s", FORGED)
    (line,) = lines(capfd)
    assert json.loads(line)["message"] == "query for " + FORGED


def test_an_exception_is_in_the_same_line_of_json(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger("json").exception("it failed")
    (line,) = lines(capfd)
    assert json.loads(line)["exception"].startswith("Traceback")
    assert json.loads(line)["exception"].endswith("ValueError: " + FORGED)


def test_a_query_is_an_object_in_json_and_only_a_message_in_text(capfd: pytest.CaptureFixture[str]) -> None:
    fields = {"name": "www.example.com", "microseconds": 12}
    logger("json").info("query", extra={"query": fields})
    logger("text").info("query name=www.example.com", extra={"query": fields})
    in_json, in_text = lines(capfd)
    assert json.loads(in_json)["query"] == fields
    assert in_text.endswith(": query name=www.example.com")


def test_a_workers_lines_say_whose_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    for form in ("text", "json"):
        log.configure("info", form, worker=2)
        logging.getLogger("heimdall.test").info("at work")
    in_text, in_json = lines(capfd)
    assert in_text.partition(" ")[2] == "INFO [worker 2] heimdall.test: at work"
    assert json.loads(in_json)["worker"] == 2


# Levels


@pytest.mark.parametrize(
    ("level", "logged"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_not_logged(
    level: str, logged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    one = logger("json", level)
    for name in ("debug", "info", "warning", "error"):
        getattr(one, name)("message")
    assert [json.loads(line)["level"] for line in lines(capfd)] == logged


def test_the_level_can_be_changed_later(capfd: pytest.CaptureFixture[str]) -> None:
    one = logger("text", "error")
    log.set_level("debug")
    one.debug("seen")
    log.set_level("error")
    one.warning("not seen")
    assert len(lines(capfd)) == 1


def test_configuring_again_takes_the_place_of_what_was(capfd: pytest.CaptureFixture[str]) -> None:
    logger("text")
    logger("json").info("once")
    assert [json.loads(line)["message"] for line in lines(capfd)] == ["once"]


def test_nobody_elses_handlers_see_the_lines(capfd: pytest.CaptureFixture[str]) -> None:
    one = logger("text")
    foreign = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(foreign)
    try:
        one.info("once")
    finally:
        logging.getLogger().removeHandler(foreign)
    assert len(lines(capfd)) == 1


# A reader that does not keep up


def full_pipe(handler: log.Lines, reader: int) -> int:
    """Log lines until they are dropped; return how many."""
    os.set_blocking(reader, False)
    count = 0
    while not handler.dropped:
        handler.emit(record(f"line {count}"))
        count += 1
    return count


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("heimdall.test", logging.INFO, "file", 1, message, (), None)


@pytest.fixture
def pipe() -> Iterator[tuple[int, log.Lines]]:
    """The reader's end, and a handler that writes to the other."""
    reader, writer = os.pipe()
    handler = log.Lines(writer)
    handler.setFormatter(log.TextFormatter())
    yield reader, handler
    os.close(reader)
    os.close(writer)


def test_lines_that_nobody_reads_are_dropped_and_counted_in_the_next_that_is_taken(pipe: tuple[int, log.Lines]) -> None:
    reader, handler = pipe
    count = full_pipe(handler, reader)
    handler.emit(record("dropped too"))
    os.read(reader, 1 << 20)
    handler.emit(record("taken"))
    *rest, notice, last = os.read(reader, 1 << 20).decode().splitlines()
    assert rest == []
    assert notice.endswith("WARNING heimdall.log: 2 log lines were dropped: standard error did not take them")
    assert last.endswith("taken")
    assert count > 2


def test_a_line_that_is_cut_short_is_ended_before_the_next(pipe: tuple[int, log.Lines]) -> None:
    reader, handler = pipe
    handler.emit(record("long " * 100_000))
    assert handler.dropped == 1
    os.read(reader, 1 << 20)
    handler.emit(record("next"))
    torn, notice, last = os.read(reader, 1 << 20).decode().split("\n", 3)[:3]
    assert torn == ""
    assert "1 log lines were dropped" in notice
    assert last.endswith("next")


def test_without_a_reader_lines_are_dropped() -> None:
    reader, writer = os.pipe()
    handler = log.Lines(writer)
    os.close(reader)
    handler.emit(record("nobody"))
    assert handler.dropped == 1
    os.close(writer)


def test_a_record_that_makes_no_line_costs_only_itself(
    pipe: tuple[int, log.Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, handler = pipe
    bad = record("%d")
    bad.args = ("no number",)
    handler.emit(bad)
    handler.emit(record("good"))
    assert os.read(reader, 1 << 20).decode().endswith("good\n")
    assert "Logging error" in capsys.readouterr().err


def test_closed_from_the_start_standard_error_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    logger("text").info("to nobody")
