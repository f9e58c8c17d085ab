"""The UDP listener.

Rules: what can be answered at once is answered where the datagram is read, without a greenlet; reading never waits for
anything; nothing raises out of ``do_read``, or gevent would stop reading for a while.
"""

import logging
import socket
from typing import Any

from gevent.server import DatagramServer

from heimdall_lib.query import Query
from heimdall_lib.responder import Responder
from heimdall_lib.server.misses import Misses
from heimdall_lib.stats import Stats
from heimdall_lib.wire import MAX_MESSAGE_SIZE

log = logging.getLogger("heimdall.server")

_BATCH = 64
Address = tuple[Any, ...]


class UdpServer(DatagramServer):  # type: ignore[misc]
    """Answers the datagrams of one socket."""

    def __init__(self, sock: socket.socket, responder: Responder, misses: Misses, stats: Stats) -> None:
        """Take over a bound socket; ``start`` begins to read."""
        self._responder = responder
        self._misses = misses
        self._stats = stats
        super().__init__(sock, spawn=None)

    def do_read(self) -> None:
        """Answer a batch of the datagrams that wait; the loop comes back for the rest."""
        receive = self._socket.recvfrom
        try:
            for _ in range(_BATCH):
                data, address = receive(MAX_MESSAGE_SIZE)
                answer = self._responder.begin(data, address[0], "udp")
                if isinstance(answer, Query):
                    self._open(answer, address)
                elif answer:
                    self._send(answer, address)
        except BlockingIOError:
            pass
        except OSError:
            log.exception("cannot read datagrams")

    def handle(self, _data: bytes, _address: Address) -> None:
        """Never called: ``do_read`` hands nothing on. gevent wants the method to be there."""

    def _open(self, query: Query, address: Address) -> None:
        if not self._misses.run(self._finish, query, address):
            self._send(self._responder.shed(query), address)

    def _finish(self, query: Query, address: Address) -> None:
        self._send_blocking(self._responder.finish(query), address)

    def _send(self, answer: bytes, address: Address) -> None:
        try:
            self._socket.sendto(answer, address)
        except BlockingIOError:
            if not self._misses.run(self._send_blocking, answer, address):
                self._stats.dropped["send"] += 1
        except OSError:  # the client's address cannot be reached, or is none (port 0)
            self._stats.dropped["send"] += 1

    def _send_blocking(self, answer: bytes, address: Address) -> None:
        try:
            self.socket.sendto(answer, address)
        except OSError:
            self._stats.dropped["send"] += 1
