"""A worker's own side: it is told the settings by its supervisor, answers queries, and ends when it is told to.

Rules: signals are the supervisor's business and are ignored here, since a service manager sends them to every process
of a service; when the supervisor is gone, what is in flight is finished and the worker ends: none is left behind.
"""

import contextlib
import logging
import signal
import socket
from typing import Any

import gevent
from gevent.event import Event

from heimdall_lib import log as logs
from heimdall_lib.channel import Channel
from heimdall_lib.errors import ChannelError, ListenError
from heimdall_lib.process import Server
from heimdall_lib.server import listen
from heimdall_lib.settings import Settings
from heimdall_lib.tally import plain
from heimdall_lib.workers import ASK_SECONDS, unpacked, unpacked_flush

log = logging.getLogger("heimdall.worker")


class Supervised:
    """One worker, from the first word of its supervisor to the last."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        """Be worker ``number``, whose supervisor is at the other end of a connected socket."""
        self._number = number
        self._channel = Channel(sock, self._answer)
        self._told, self._stop = Event(), Event()
        self._settings: Settings | None = None
        self._server: Server | None = None

    def run(self) -> int:
        """Work until the supervisor says stop or is gone; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        gevent.spawn(self._listen)
        gevent.wait([self._told, self._stop], count=1)
        settings = self._settings
        if settings is None or self._stop.is_set():
            return 0
        logs.configure(settings.log_level, settings.log_format, self._number)
        try:
            with listen.all_or_none() as sockets:
                server = Server(settings, sockets, shared=True)
        except ListenError as error:
            self._say("refused", str(error))
            return 1
        server.start()
        self._server = server
        if self._settings is not settings:  # changed meanwhile
            self._apply()
        self._say("ready")
        self._stop.wait()
        server.stop()
        return 0

    def _listen(self) -> None:
        self._channel.run()
        if not self._stop.is_set():
            log.warning("the supervisor is gone")
            self._stop.set()

    def _apply(self) -> None:
        if self._server and self._settings:
            self._server.apply(self._settings)

    def _say(self, word: str, text: str = "") -> None:
        with contextlib.suppress(ChannelError):
            self._channel.ask(word, text, timeout=ASK_SECONDS)

    def _answer(self, wanted: str, argument: Any) -> object:  # noqa: ANN401 - what JSON carries
        if wanted == "settings":
            self._settings = unpacked(argument)
            self._told.set()
            self._apply()
        elif wanted == "stop":
            self._stop.set()
        elif wanted == "reading" and self._server:
            return plain(self._server.look())
        elif wanted == "names" and self._server:
            return self._server.names()
        elif wanted == "forget" and self._server:
            return self._server.forget(unpacked_flush(argument))
        elif wanted == "flush" and self._server:
            return self._server.flush(unpacked_flush(argument))
        elif wanted == "entry" and self._server:
            return self._server.entry(bytes.fromhex(argument[0]), argument[1])
        else:
            raise ChannelError(f"no {wanted} here yet")
        return None
