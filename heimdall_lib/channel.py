"""A line between two processes on which each may ask and the other answers: one JSON object a line, over a socket.

Rules: who asks says how long it waits; what the other side has not answered yet is bounded, and so is a line; when the
socket breaks, or what comes over it cannot be read, the channel ends and every ask that waits ends with it. Plain
blocking code, each answer in a thread of its own: a slow one holds up no other.
"""

import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterator
from itertools import count
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from heimdall_lib.errors import ChannelError

log = logging.getLogger("heimdall.channel")

MAX_LINE = 4 * 1024 * 1024  # bytes
_MAX_UNANSWERED = 64
_SEND_SECONDS = 5.0
_READ_SIZE = 65536

Answerer = Callable[[str, Any], object]
"""Answers what the other side asks: a word for what is wanted and an argument, both ways whatever JSON can carry."""


class Channel:
    """One end of the line; ``run`` reads it."""

    def __init__(self, sock: socket.socket, answer: Answerer) -> None:
        """Take over a connected stream socket."""
        sock.settimeout(_SEND_SECONDS)
        self._sock = sock
        self._answer = answer
        self._sending = Lock()
        self._numbers = count(1)
        self._unanswered: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._open = True

    def ask(self, wanted: str, argument: object = None, *, timeout: float) -> Any:  # noqa: ANN401 - what JSON carries
        """Return the other side's answer; raises ChannelError when there is none within ``timeout`` seconds."""
        if not self._open:
            raise ChannelError("the channel is closed")
        # What was given up still counts: a process that hangs is not buried in lines that it does not read.
        if len(self._unanswered) >= _MAX_UNANSWERED:
            raise ChannelError(f"{_MAX_UNANSWERED} earlier questions are not answered")
        number = next(self._numbers)
        answer: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._unanswered[number] = answer
        self._send({"ask": wanted, "with": argument, "number": number})
        try:
            line = answer.get(timeout=timeout)
        except Empty:
            raise ChannelError(f"no answer within {timeout:g} s") from None
        if "answer" not in line:
            raise ChannelError(str(line.get("error", "neither an answer nor a reason")))
        return line["answer"]

    def run(self) -> None:
        """Read until the other side is gone; then end every ask that waits."""
        try:
            for line in self._lines():
                self._take(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            log.warning("the channel broke: %s", error)
        finally:
            self.close()
            for answer in self._unanswered.values():
                answer.put({"error": "the other side is gone"})

    def close(self) -> None:
        """Hang up; ``run`` returns."""
        self._open = False
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _lines(self) -> Iterator[bytes]:
        buffer = b""
        while data := self._receive():
            *lines, buffer = (buffer + data).split(b"\n")
            yield from lines
            if len(buffer) > MAX_LINE:
                raise ValueError(f"a line of more than {MAX_LINE} bytes")

    def _receive(self) -> bytes:
        while True:
            try:
                return self._sock.recv(_READ_SIZE)
            except TimeoutError:  # which is for sending: silence is no fault
                continue
            except OSError:  # gone, or hung up on
                return b""

    def _take(self, line: dict[str, Any]) -> None:
        if "ask" in line:
            Thread(target=self._reply, args=(line["ask"], line["with"], line["number"]), daemon=True).start()
        elif waiting := self._unanswered.pop(line["number"], None):
            waiting.put(line)

    def _reply(self, wanted: str, argument: object, number: int) -> None:
        try:
            line = {"answer": self._answer(wanted, argument), "number": number}
        except ChannelError as error:
            line = {"error": str(error), "number": number}
        except Exception as error:
            log.exception("%s could not be answered", wanted)
            line = {"error": f"{type(error).__name__}: {error}", "number": number}
        with contextlib.suppress(ChannelError):
            self._send(line)

    def _send(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            with self._sending:
                self._sock.sendall(data)
        except OSError as error:  # part of a line may be out: nothing that follows could be read
            self.close()
            raise ChannelError(f"cannot be reached: {error}") from error
