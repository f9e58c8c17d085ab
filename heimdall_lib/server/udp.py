"""The UDP listener.

Rules: what can be answered at once is answered where datagrams are read, without a greenlet; reading never waits for
anything; nothing raises out of ``do_read``, or gevent would stop reading for a while.
"""

import logging
import socket
from collections.abc import Sequence

from gevent.server import DatagramServer
from gevent.socket import wait_write

from heimdall_lib.datagrams import Peer, datagrams
from heimdall_lib.mmsg import BATCH
from heimdall_lib.query import Query
from heimdall_lib.responder import Responder
from heimdall_lib.server.misses import Misses
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.server")

_SEND_SECONDS = 1.0  # how long answers wait for a socket that takes no more
_MAX_WAITING = 16384  # datagrams: more than a receive buffer holds, so that a flood does not hold up the end


class UdpServer(DatagramServer):  # type: ignore[misc]
    """Answers the datagrams of one socket."""

    def __init__(self, sock: socket.socket, responder: Responder, misses: Misses, stats: Stats) -> None:
        """Take over a bound socket; ``start`` begins to read."""
        self._responder = responder
        self._misses = misses
        self._stats = stats
        self._outbox: list[tuple[bytes, Peer]] = []
        self._shedding = False
        super().__init__(sock, spawn=None)

    def init_socket(self) -> None:
        """Take the socket from under gevent: what is read and written in the loop never waits."""
        super().init_socket()
        self.io = datagrams(self._socket)

    def do_read(self) -> None:
        """Answer a batch of the datagrams that wait; the loop comes back for the rest."""
        self._answer_batch()

    def answer_waiting(self) -> None:
        """Answer all datagrams that wait."""
        for _ in range(_MAX_WAITING // BATCH):
            if not self._answer_batch():
                return

    def shed_misses(self) -> None:
        """From now on answer what is in memory, and everything else SERVFAIL."""
        self._shedding = True

    def _answer_batch(self) -> bool:
        """Answer a batch of the datagrams that wait; say whether there were any."""
        io, begin = self.io, self._responder.begin
        try:
            batch = io.receive()
        except OSError:
            log.exception("cannot read datagrams")
            return False
        shedding = self._shedding or (len(batch) == BATCH and io.crowded())
        answers, rest = self._responder.ready(batch, io.host, "udp")
        for data, peer in rest:
            answer = begin(data, io.host(peer), "udp")
            if isinstance(answer, Query):
                if not shedding and self._misses.run(self._finish, answer, peer):
                    continue
                answer = self._responder.shed(answer)
            if answer:
                answers.append((answer, peer))
        self._send(answers)
        return bool(batch)

    def handle(self, _data: bytes, _peer: Peer) -> None:
        """Never called: ``do_read`` hands nothing on. gevent wants the method to be there."""

    def _finish(self, query: Query, peer: Peer) -> None:
        answer = self._responder.finish(query)  # blocks: the outbox of before may be gone by then
        self._outbox.append((answer, peer))
        if len(self._outbox) == 1:
            self.loop.run_callback(self.flush)

    def flush(self) -> None:
        """Send the answers that queries came to in this turn of the loop, in as few calls as can be."""
        outbox, self._outbox = self._outbox, []
        for start in range(0, len(outbox), BATCH):
            self._send(outbox[start : start + BATCH])

    def _send(self, answers: Sequence[tuple[bytes, Peer]]) -> None:
        while answers:
            try:
                sent = self.io.send(answers)
            except OSError:  # this client's address cannot be reached, or is none (port 0)
                self._stats.dropped["send"] += 1
                sent = 1
            answers = answers[sent:]
            if not sent:
                if not self._misses.run(self._send_later, answers):
                    self._stats.dropped["send"] += len(answers)
                return

    def _send_later(self, answers: Sequence[tuple[bytes, Peer]]) -> None:
        try:
            wait_write(self.socket.fileno(), _SEND_SECONDS)
        except OSError:
            self._stats.dropped["send"] += len(answers)
        else:
            self._send(answers)
