"""One upstream server: how it is asked, how fast it answers and whether it is well.

Rules: any matching reply counts as life, whatever its response code; a server that fails ``_FAILURES_TO_REST`` times in
a row rests, is asked only when the others fail too, and is probed off the query path until it answers; what over UDP
is truncated, or does not prove that the server has seen the query, is asked for over TCP within the same attempt.
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
from heimdall_lib.upstream.proof import Proof
from heimdall_lib.upstream.stream import StreamPool

log = logging.getLogger("heimdall.upstream")

_FAILURES_TO_REST = 3
_FIRST_PROBE_SECONDS, _MAX_PROBE_SECONDS = 1.0, 15.0
_RTT_WEIGHT = 0.3  # of the newest round trip in the smoothed one
_DECAY = 0.98  # of a smoothed round trip for each query that went to another server, so that it is tried again
_PLAIN_SECONDS = 900.0  # for how long a server that knows no EDNS is spared it (RFC 6891, section 6.2.2)
_UNREAD = (wire.FORMERR, wire.NOTIMP)  # what a server may say to a query with an OPT or a cookie that it does not know
_COOKIE, _BARE, _PLAIN = range(3)  # what a query has of EDNS: OPT with a cookie, OPT, nothing
_SHARE_OF_DOUBT = 1 / 3  # of an attempt's time: how long TCP may take that only settles what sort of server this is
_PROBE_KEY = b"\0" + wire.UINT16.pack(wire.TYPE_NS) + wire.UINT16.pack(wire.CLASS_IN) + b"\0"

# What stands before the question, by CD and whether no OPT follows. AD in a query asks for AD in the answer without DO
# (RFC 6840, section 5.7): whether a client sees it is decided for each client.
_HEADS = {
    (bits, plain): bytes((wire.RD, wire.AD | (wire.CD if bits else 0))) + wire.COUNTS.pack(1, 0, 0, not plain)
    for bits in (0, CD_BIT)
    for plain in (False, True)
}

Send = Callable[[bytes, int, int, float], bytes]
"""Asks a question, with a cache key's bits and so much of EDNS, and returns the reply that came within the timeout."""


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
        self._proof = Proof(str(server), udp_size=udp_size, stats=stats)
        udp = server.transport == "udp"
        self._send: Send = self._over_udp if udp else self._over_stream
        self._most_edns = _COOKIE if udp else _BARE

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
        edns = self._edns(started)
        reply, data = self._ask_once(key, edns, timeout, self._send)
        if reply.kind is Kind.FAILURE:
            reply = self._ask_differently(key, edns, started + timeout, reply, data)
        return reply

    def describe(self) -> dict[str, object]:
        """Return how the server does, for people; the smoothed round trip is in milliseconds."""
        return {
            "server": str(self.server),
            "up": not self.resting,
            "round_trip_ms": round(self.round_trip * 1000, 3),
            "queries": self._stats.queries,
            "failures": dict(self._stats.failures),
            "cookies": self._stats.cookies,
            "lower_case": self._stats.lower_case,
        }

    def close(self) -> None:
        """Close the connections that are open."""
        self._datagrams.close()
        self._stream.close()

    def _edns(self, now: float) -> int:
        """Return how much of EDNS the server takes, as far as is known."""
        if now < self._plain_until:
            return _PLAIN
        return _BARE if now < self._proof.cookies.spared_until else self._most_edns

    def _ask_once(self, key: bytes, edns: int, timeout: float, send: Send) -> tuple[Reply, bytes]:
        question = question_of(key)
        self._stats.queries += 1
        started = time.monotonic()
        try:
            data = send(question, key[-1], edns, timeout)
            reply = examine(data, question)
        except WireError as error:
            self._failed("malformed")
            raise UpstreamError("malformed", f"{self.server}: {error}") from error
        except UpstreamError as error:
            self._failed(error.reason)
            raise
        self._answered(time.monotonic() - started)
        return reply, data

    def _ask_differently(self, key: bytes, edns: int, deadline: float, reply: Reply, data: bytes) -> Reply:
        """Ask again where a failure may be due to what the query had of EDNS; ``deadline`` is an instant.

        BADCOOKIE brought the cookie to ask with; where that one is not good either, TCP needs none (RFC 7873, section
        5.3). A server that cannot read a query has less in the next one (RFC 6891, section 6.2.2).
        """
        asked_with = edns
        if reply.rcode == wire.BADCOOKIE and edns == _COOKIE:
            reply, data = self._ask_once(key, edns, _left(deadline), self._send)
            if reply.rcode == wire.BADCOOKIE:
                reply, data = self._ask_once(key, _BARE, _left(deadline), self._over_stream)
        while reply.rcode in _UNREAD and edns < _PLAIN and not self._was_read(edns, data):
            edns += 1
            reply, data = self._ask_once(key, edns, _left(deadline), self._send)
        if edns > asked_with and reply.rcode not in _UNREAD:
            self._spare(edns)
        if reply.kind is Kind.FAILURE:
            self._stats.failures["rcode"] += 1
        return reply

    def _was_read(self, edns: int, data: bytes) -> bool:
        """Say whether the server understood what the query had of EDNS, so that it means the error that it gives."""
        return bool(self._proof.cookie.in_reply(data)) if edns == _COOKIE else has_opt(data)

    def _spare(self, edns: int) -> None:
        """Send no more than ``edns`` for a while."""
        now = time.monotonic()
        if edns == _PLAIN:
            self._plain_until = now + _PLAIN_SECONDS
        else:
            self._proof.spare_cookies(now)

    def _over_udp(self, question: bytes, bits: int, edns: int, timeout: float) -> bytes:
        now = time.monotonic()
        asked = self._proof.question(question, now)
        opt = self._proof.cookie.opt(bits, now) if edns == _COOKIE else self._opt(bits, edns)
        reply = self._datagrams.exchange(asked, _query(asked, bits, opt), timeout)
        if is_truncated(reply):
            return self._over_stream(question, bits, edns, _left(now + timeout))
        if self._proof.given(reply, asked, cookie=edns == _COOKIE):
            return reply
        left = _left(now + timeout)
        if not self._proof.case.kept:  # it may be one that cannot prove itself, and has no TCP either
            left = min(left, timeout * _SHARE_OF_DOUBT)
        try:
            return self._over_stream(question, bits, edns, left)
        except UpstreamError as error:  # there was no reply, then, and the next attempt may bring one
            raise UpstreamError("timeout", f"{self.server}: no reply that can be believed ({error})") from error

    def _over_stream(self, question: bytes, bits: int, edns: int, timeout: float) -> bytes:
        return self._stream.exchange(question, _query(question, bits, self._opt(bits, edns)), timeout)

    def _opt(self, bits: int, edns: int) -> bytes:
        return b"" if edns == _PLAIN else self._opts[bits & DO_BIT]

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


def _left(deadline: float) -> float:
    """Return the seconds that are left until an instant."""
    return max(0.0, deadline - time.monotonic())


def _query(question: bytes, bits: int, opt: bytes) -> bytes:
    """Return a query, all but its id, for a question and its key's CD bit."""
    return _HEADS[bits & CD_BIT, not opt] + question + opt
