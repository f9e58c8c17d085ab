"""One upstream server: how it is asked, how fast it answers and whether it is well.

Rules: any matching reply counts as life, whatever its response code; a server that fails ``_FAILURES_TO_REST`` times in
a row rests, is asked only when the others fail too, and is probed off the query path until it answers.
"""

import logging
import ssl
import time
from collections.abc import Callable

from heimdall_lib import wire
from heimdall_lib.breaker import Breaker
from heimdall_lib.errors import UpstreamError, WireError
from heimdall_lib.query import CD_BIT, DO_BIT, question_of
from heimdall_lib.reply import Kind, Reply, examine, has_opt, is_truncated
from heimdall_lib.settings import UpstreamServer
from heimdall_lib.stats import UpstreamStats
from heimdall_lib.upstream.datagram import DatagramPool
from heimdall_lib.upstream.stream import StreamPool

log = logging.getLogger("heimdall.upstream")

_FAILURES_TO_REST = 3
_FIRST_PROBE_SECONDS, _MAX_PROBE_SECONDS = 1.0, 15.0
_RTT_WEIGHT = 0.3  # of the newest round trip in the smoothed one
_DECAY = 0.98  # of a smoothed round trip for each query that went to another server, so that it is tried again
_PLAIN_SECONDS = 900.0  # for how long a server that knows no EDNS is spared it (RFC 6891, section 6.2.2)
_UNREAD = (wire.FORMERR, wire.NOTIMP)  # what a server may say to a query with an OPT that it does not know
_PROBE_KEY = b"\0" + wire.UINT16.pack(wire.TYPE_NS) + wire.UINT16.pack(wire.CLASS_IN) + b"\0"

# What stands before the question, by CD and whether no OPT follows. AD in a query asks for AD in the answer without DO
# (RFC 6840, section 5.7): whether a client sees it is decided for each client.
_HEADS = {
    (bits, plain): bytes((wire.RD, wire.AD | (wire.CD if bits else 0))) + wire.COUNTS.pack(1, 0, 0, not plain)
    for bits in (0, CD_BIT)
    for plain in (False, True)
}


class Upstream:
    """One server with its health, its smoothed round trip (seconds) and its open connections."""

    def __init__(self, server: UpstreamServer, *, udp_size: int, stats: UpstreamStats) -> None:
        """Know nothing yet; ``udp_size`` (bytes) is what queries say that Heimdall takes over UDP."""
        self.server = server
        self.round_trip = 0.0
        self._opts = tuple(wire.opt_record(udp_size, dnssec_ok=bool(bits)) for bits in range(DO_BIT + 1))
        self._stats = stats
        self._breaker = Breaker(
            threshold=_FAILURES_TO_REST, first_delay=_FIRST_PROBE_SECONDS, max_delay=_MAX_PROBE_SECONDS
        )
        self._plain_until = 0.0
        self._datagrams = DatagramPool(server)
        self._stream = StreamPool(server, ssl.create_default_context() if server.transport == "tls" else None)
        self._send: Callable[[bytes, bytes, float], bytes] = (
            self._udp_then_tcp if server.transport == "udp" else self._stream.exchange
        )

    @property
    def resting(self) -> bool:
        """Whether the server failed again and again and has not answered since."""
        return self._breaker.open

    def probe_due(self, now: float) -> bool:
        """Say whether the server rests and is to be probed now."""
        return self._breaker.probe_due(now)

    def passed_over(self) -> None:
        """Take note that another server was asked first."""
        self.round_trip *= _DECAY

    def probe(self, timeout: float) -> bool:
        """Ask for the root's name servers; say whether any answer came within ``timeout`` seconds."""
        try:
            self.ask(_PROBE_KEY, timeout)
        except UpstreamError:
            return False
        return True

    def ask(self, key: bytes, timeout: float) -> Reply:
        """Ask the question of a cache key and return the examined reply.

        Raises UpstreamError when there is none within ``timeout`` seconds, or none that can be read.
        """
        started = time.monotonic()
        plain = started < self._plain_until
        reply, spoke_edns = self._ask_once(key, timeout, plain=plain)
        if reply.rcode in _UNREAD and not spoke_edns and not plain:
            reply, _ = self._ask_once(key, max(0.0, started + timeout - time.monotonic()), plain=True)
            if reply.rcode not in _UNREAD:
                self._plain_until = started + _PLAIN_SECONDS
        if reply.kind is Kind.FAILURE:
            self._stats.failures["rcode"] += 1
        return reply

    def describe(self) -> dict[str, object]:
        """Return how the server does, for people; the smoothed round trip is in milliseconds."""
        return {
            "server": str(self.server),
            "up": not self.resting,
            "round_trip_ms": round(self.round_trip * 1000, 3),
            "queries": self._stats.queries,
            "failures": dict(self._stats.failures),
        }

    def close(self) -> None:
        """Close the connections that are open."""
        self._datagrams.close()
        self._stream.close()

    def _ask_once(self, key: bytes, timeout: float, *, plain: bool) -> tuple[Reply, bool]:
        question = question_of(key)
        self._stats.queries += 1
        started = time.monotonic()
        try:
            data = self._send(question, self._query(question, key[-1], plain=plain), timeout)
            reply = examine(data, question)
        except WireError as error:
            self._failed("malformed")
            raise UpstreamError("malformed", f"{self.server}: {error}") from error
        except UpstreamError as error:
            self._failed(error.reason)
            raise
        self._answered(time.monotonic() - started)
        return reply, reply.kind is not Kind.FAILURE or has_opt(data)

    def _query(self, question: bytes, bits: int, *, plain: bool) -> bytes:
        """Return a query, all but its id, for a question and its key's DO and CD bits."""
        head, opt = _HEADS[bits & CD_BIT, plain], self._opts[bits & DO_BIT]
        return head + question if plain else head + question + opt

    def _udp_then_tcp(self, question: bytes, query: bytes, timeout: float) -> bytes:
        started = time.monotonic()
        reply = self._datagrams.exchange(question, query, timeout)
        if not is_truncated(reply):
            return reply
        return self._stream.exchange(question, query, started + timeout - time.monotonic())

    def _answered(self, seconds: float) -> None:
        self._stats.duration.observe(seconds)
        self.round_trip += (_RTT_WEIGHT if self.round_trip else 1.0) * (seconds - self.round_trip)
        if self._breaker.open:
            log.info("upstream %s answers again", self.server)
        self._breaker.succeeded()
        self._stats.up = True

    def _failed(self, reason: str) -> None:
        self._stats.failures[reason] += 1
        self.round_trip = min(max(self.round_trip * 2, 0.1), 10.0)
        if self._breaker.failed(time.monotonic()):
            self._stats.up = False
            log.warning("upstream %s rests after %d failures (%s)", self.server, _FAILURES_TO_REST, reason)
