"""The workers as their supervisor sees them: processes that are started, watched, and started again when they end.

Rules: a worker is a new process, never a fork of a warm one; it is told everything over its channel and obeys no
signal; what it says is data, never an object; one that hangs is waited for briefly, then ended and replaced. Plain
blocking code, a thread for each worker.
"""

import base64
import contextlib
import logging
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

from heimdall_lib.channel import Channel
from heimdall_lib.errors import ChannelError
from heimdall_lib.invalidations import Flush
from heimdall_lib.settings import Settings
from heimdall_lib.tally import Plain, Tally, WorkerState, is_cold, queries

log = logging.getLogger("heimdall.workers")

WORKER = "worker"
"""The first word on a worker's command line; its number and the descriptor of its channel follow."""

ASK_SECONDS = 1.0
_PROGRAM = Path(__file__).parents[1] / "heimdall.py"
_READ_EVERY_SECONDS = 1.0
_START_SECONDS = 30.0
_HUNG_AFTER, _HUNG_AT_START_AFTER = 5, 30  # readings in a row that it did not answer
_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.5, 10.0
_LONG_LIFE_SECONDS = 60.0


def packed(settings: Settings) -> str:
    """Return settings as text that a channel can carry."""
    return base64.b64encode(pickle.dumps(settings)).decode()


def unpacked(text: str) -> Settings:
    """Return the settings that a supervisor has packed: a worker trusts it, never the other way round."""
    settings: Settings = pickle.loads(base64.b64decode(text))  # noqa: S301 - see above
    return settings


def packed_flush(flush: Flush) -> list[object]:
    """Return what is to be forgotten as a channel can carry it."""
    return [flush.name.hex(), flush.qtype, flush.subtree]


def unpacked_flush(fields: Sequence[Any]) -> Flush:
    """Return what ``packed_flush`` has packed."""
    return Flush(bytes.fromhex(fields[0]), fields[1], fields[2])


class Patience:
    """How long to wait before a worker is replaced: longer and longer while its processes live only briefly."""

    def __init__(self) -> None:
        """Replace the first one at once."""
        self._next = 0.0

    def after(self, lived_seconds: float) -> float:
        """Return the seconds to wait after a process that lived so long."""
        delay = 0.0 if lived_seconds >= _LONG_LIFE_SECONDS else self._next
        self._next = min(max(2 * delay, _FIRST_DELAY_SECONDS), _MAX_DELAY_SECONDS)
        return delay


class Worker:
    """One of the workers, whatever process it is at the moment."""

    def __init__(
        self,
        number: int,
        *,
        settings: Callable[[], Settings],
        tally: Tally,
        on_ready: Callable[[], None],
        replaced: Callable[[str], bool],
    ) -> None:
        """Start nothing yet.

        ``settings`` returns what to go by now. ``on_ready`` is called when a process has begun to answer; ``replaced``
        is told why one has ended and says whether another is wanted.
        """
        self.number = number
        self.ready = False
        self.reading: Plain | None = None
        """What its process counted until it was read last."""
        self._settings = settings
        self._tally = tally
        self._on_ready = on_ready
        self._replaced = replaced
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._answered = False
        self._refused = ""
        self._started_at = 0.0
        self._restarts = 0
        self._stopping = Event()

    @property
    def pid(self) -> int:
        """The id of its process; 0 while there is none."""
        return self._process.pid if self._process else 0

    @property
    def up(self) -> bool:
        """Whether it is at work and answered when it was asked last."""
        return self.ready and self._answered

    @property
    def cold(self) -> bool:
        """Whether clients should rather go elsewhere, as it was when it was read last."""
        return self.reading is not None and is_cold(self.reading)

    def run(self) -> None:
        """Start a process, and another whenever one has ended, until ``stop``."""
        patience = Patience()
        while not self._stopping.is_set():
            self._started_at = time.monotonic()
            why = self._live()
            lived = time.monotonic() - self._started_at
            if self._stopping.is_set() or not self._replaced(why):
                return
            delay = patience.after(lived)
            log.error("worker %d ended after %.1f s (%s), it is replaced in %g s", self.number, lived, why, delay)
            self._stopping.wait(delay)
            self._restarts += 1

    def ask(self, wanted: str, argument: object = None, *, timeout: float = ASK_SECONDS) -> Any:  # noqa: ANN401
        """Return the worker's answer; raises ChannelError when there is none in time."""
        if self._channel is None:
            raise ChannelError("it is not running")
        return self._channel.ask(wanted, argument, timeout=timeout)

    def read(self) -> bool:
        """Read what its process has counted; say whether it answered. What was read before stays otherwise."""
        channel = self._channel
        try:
            reading = self.ask("reading")
        except ChannelError:
            reading = None
        if channel is self._channel:  # or the answer is that of a process that has been counted as ended
            self.reading = reading or self.reading
            self._answered = reading is not None
        return reading is not None

    def state(self) -> WorkerState:
        """Return what is known of it."""
        return WorkerState(
            number=self.number,
            pid=self.pid,
            up=self.up,
            uptime_seconds=round(time.monotonic() - self._started_at, 3) if self._process else 0.0,
            queries=queries(self.reading) if self.reading else 0,
            restarts=self._restarts,
        )

    def stop(self) -> None:
        """Let its process finish what is in flight and end, and start no other."""
        self._stopping.set()
        with contextlib.suppress(ChannelError):
            self.ask("stop")

    def kill(self) -> None:
        """End its process at once if there is one."""
        if self._process:
            log.error("worker %d (pid %d) hangs and is killed", self.number, self.pid)
            self._process.kill()

    def _live(self) -> str:
        """Be one process from its start to its end; return how it ended."""
        try:
            process, channel = self._start()
        except OSError as error:
            return f"it could not be started: {error}"
        self._process, self._channel = process, channel
        if self._stopping.is_set():  # while it was started
            self.stop()
        with contextlib.suppress(ChannelError):
            channel.ask("settings", packed(self._settings()), timeout=_START_SECONDS)
        why = self._watch(process)
        channel.close()
        if self.reading:
            self._tally.end(self.reading)
        self._process = self._channel = self.reading = None
        self.ready = self._answered = False
        return why

    def _start(self) -> tuple[subprocess.Popen[bytes], Channel]:
        self._refused = ""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, str(_PROGRAM), WORKER, str(self.number), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # an interrupt that is typed reaches the supervisor alone
                )
            except OSError:
                ours.close()
                raise
        channel = Channel(ours, self._answer)
        Thread(target=channel.run, name=f"worker-{self.number}", daemon=True).start()
        return process, channel

    def _watch(self, process: "subprocess.Popen[bytes]") -> str:
        missed = 0
        while True:
            try:
                status = process.wait(_READ_EVERY_SECONDS)
            except subprocess.TimeoutExpired:
                missed = 0 if self.read() else missed + 1
            else:
                return self._refused or _words(status)
            if missed == 1 and self.ready:
                log.warning("worker %d (pid %d) does not answer", self.number, process.pid)
            if missed >= (_HUNG_AFTER if self.ready else _HUNG_AT_START_AFTER):
                self.kill()

    def _answer(self, wanted: str, argument: Any) -> None:  # noqa: ANN401 - what JSON carries
        if wanted == "ready":
            self.ready = True
            self.read()
            self._on_ready()
        elif wanted == "refused":
            self._refused = str(argument)
        else:
            raise ChannelError(f"{wanted} is not known here")


def _words(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}, {signal.strsignal(-status)}"
