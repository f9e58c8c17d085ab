"""Query bytes to answer bytes, and the one place where a failure becomes a response code.

Rules: ``begin`` never blocks and never raises, whatever the bytes, so that it can run where datagrams are read;
``finish`` blocks until the query's deadline at most and never raises; what a client that may not ask, is over its rate,
or cannot be understood gets is no larger than its query.
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from heimdall_lib import cookies, wire
from heimdall_lib import entry as entries
from heimdall_lib.access import AllowList, RateLimiter
from heimdall_lib.entry import Entry
from heimdall_lib.names import ChaosAnswers, class_name, rcode_name, type_name
from heimdall_lib.query import Query, parse
from heimdall_lib.ready import ReadyAnswers
from heimdall_lib.resolver import Outcome, Resolver
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.responder")
query_log = logging.getLogger("heimdall.query")

# Extended DNS Errors (RFC 8914, section 4).
_STALE_ANSWER, _CACHED_ERROR, _STALE_NXDOMAIN = 3, 13, 19
_NOT_AUTHORITATIVE, _NOT_SUPPORTED, _OTHER = 20, 21, 0
_SHED = Outcome("local", failure=(_OTHER, "overloaded"))

P = TypeVar("P")

NO_ANSWER = b""
"""What ``begin`` and ``finish`` return for a query that deserves silence."""


@dataclass(frozen=True, slots=True)
class ResponderPolicy:
    """The operator's choices: who may ask, how often, how large an answer over UDP may be (bytes), and the rest.

    ``tcp_idle_timeout`` (seconds) is what the TCP listener goes by and its clients are told (RFC 7828).
    """

    allow: AllowList
    limiter: RateLimiter
    udp_size: int = 1232
    stale_reply_ttl: int = 30
    tcp_idle_timeout: float = 10.0
    query_log: bool = False


class Responder:
    """Answers queries that came over any transport."""

    def __init__(
        self,
        *,
        policy: ResponderPolicy,
        resolver: Resolver,
        ready: Mapping[str, ReadyAnswers],
        chaos: ChaosAnswers,
        stats: Stats,
    ) -> None:
        """Answer from ``resolver``, from a transport's ``ready`` what it just answered, from ``chaos`` in class CH."""
        self._ready = ready
        self._resolver = resolver
        self._chaos = chaos
        self._stats = stats
        self._secret = secrets.token_bytes(16)
        self.configure(policy)

    def configure(self, policy: ResponderPolicy) -> None:
        """Go by ``policy`` from the next query on."""
        self.policy = policy
        for ready in self._ready.values():
            ready.configure(policy.udp_size)

    def ready(
        self, batch: Sequence[tuple[bytes, P]], host: Callable[[P], str], transport: str
    ) -> tuple[list[tuple[bytes, P]], Sequence[tuple[bytes, P]]]:
        """Split a batch of queries with their peers into answers that are ready and queries for ``begin``.

        ``host`` tells a peer's address, ``transport`` is ``udp`` or ``tcp``. Never blocks and never raises.
        """
        if self.policy.query_log:
            return [], batch
        allow, limiter, now = self.policy.allow, self.policy.limiter, time.monotonic()
        known: set[P] = set()

        def admits(peer: P, now: float) -> bool:
            client = host(peer)
            if not allow.allows(client):
                return False
            if limiter.rate:
                return limiter.allows(client, now, transport)
            known.add(peer)
            return True

        answers, rcodes, rest = self._ready[transport].split(batch, now, known, admits)
        for rcode in rcodes:
            self._stats.responses[rcode] += 1
        hits = len(answers)
        self._stats.queries[transport] += hits
        self._stats.cache_hits += hits
        self._stats.durations["l1"].observe_many(time.monotonic() - now, hits)
        return answers, rest

    def begin(self, data: bytes, client: str, transport: str) -> bytes | Query:
        """Return the answer to ``data`` if it can be told at once, else the query for ``finish``.

        ``client`` is the peer's address as text, ``transport`` is ``udp`` or ``tcp``.
        """
        try:
            return self._begin(data, client, transport)
        except Exception:
            log.exception("a query could not be read")
            self._stats.dropped["malformed"] += 1
            return NO_ANSWER

    def finish(self, query: Query) -> bytes:
        """Return the answer to a query that ``begin`` left open."""
        try:
            return self._answer(query, self._resolver.resolve(query))
        except Exception:
            log.exception("a query could not be answered")
            return self._error(query, wire.SERVFAIL)

    def shed(self, query: Query) -> bytes:
        """Return the answer to a query for which there is no room: stale (RFC 8767) where L1 has one, else SERVFAIL."""
        self._stats.dropped["overload"] += 1
        return self._answer(query, self._resolver.stale(query.key) or _SHED)

    def _begin(self, data: bytes, client: str, transport: str) -> bytes | Query:
        self._stats.queries[transport] += 1
        query = parse(data)
        if query is None:
            self._stats.dropped["malformed"] += 1
            return NO_ANSWER
        query.client, query.transport, query.received_at = client, transport, time.monotonic()
        if not self.policy.allow.allows(client):
            return self._curt(query, wire.REFUSED)
        if not self.policy.limiter.allows(client, query.received_at, transport):
            return self._slip(query)
        if query.problem == wire.FORMERR:
            return self._curt(query, wire.FORMERR)
        if query.problem is not None:
            return self._error(query, query.problem)
        if query.qclass == wire.CLASS_CH:  # never kept, so never looked for: a probe is no miss of L1's
            return self._own(query)
        entry = self._resolver.lookup(query)
        if entry is not None:
            answer = self._render(query, "l1", entry)
            self._ready[transport].keep(data, query, entry, answer, query.received_at)
            return answer
        return self._local(query) or query

    def _slip(self, query: Query) -> bytes:
        """Drop what exceeds a client's rate, but answer every second UDP query with TC: a real client comes by TCP."""
        self._stats.dropped["rate_limit"] += 1
        if query.transport != "udp" or not self.policy.limiter.slips(query.client):
            return NO_ANSWER
        return self._curt(query, wire.NOERROR, flags=wire.TC)

    def _curt(self, query: Query, rcode: int, *, flags: int = 0) -> bytes:
        """Return an answer that is no larger than the query: without the options that it may have asked for."""
        query.cookie, query.keepalive = b"", False
        return self._error(query, rcode, flags=flags)

    def _own(self, query: Query) -> bytes:
        """Answer what is asked in class CH: it is about Heimdall itself."""
        message = self._chaos.find(query)
        if message is None:
            return self._error(query, wire.REFUSED)
        return self._render(query, "local", entries.make(message, (), stored_at=0.0, lifetime=0.0, stale=0.0))

    def _local(self, query: Query) -> bytes:
        """Answer what is never asked of L2 or upstream; empty when there is no such reason."""
        if query.qtype in (wire.TYPE_AXFR, wire.TYPE_IXFR):
            return self._error(query, wire.NOTIMP, (_NOT_SUPPORTED, ""))
        if query.qtype == wire.TYPE_OPT:
            return self._error(query, wire.FORMERR)
        if not query.recursion_desired:  # RFC 8914, section 4.21
            return self._error(query, wire.REFUSED, (_NOT_AUTHORITATIVE, ""))
        return NO_ANSWER

    def _answer(self, query: Query, outcome: Outcome) -> bytes:
        if outcome.entry is not None:
            return self._render(query, outcome.source, outcome.entry)
        errors = [outcome.failure] if outcome.failure else []
        if outcome.remembered:
            errors.insert(0, (_CACHED_ERROR, ""))
        return self._error(query, wire.SERVFAIL, *errors, source=outcome.source)

    def _render(self, query: Query, source: str, entry: Entry) -> bytes:
        if source != "stale":
            message, option = entries.render(entry, query, time.monotonic()), b""
        else:
            self._stats.cache_stale_answers += 1
            message = entries.render(entry, query, 0.0, stale_ttl=self.policy.stale_reply_ttl)
            missing = message[3] & wire.RCODE_MASK == wire.NXDOMAIN
            option = wire.extended_error(_STALE_NXDOMAIN if missing else _STALE_ANSWER)
        return self._sent(query, source, message, option)

    def _error(
        self, query: Query, rcode: int, *errors: tuple[int, str], flags: int = 0, source: str = "local"
    ) -> bytes:
        """Return an answer without records: header, the question if it could be read, OPT for an EDNS client."""
        message = bytearray(query.id)
        message.append(wire.QR | query.opcode | flags | query.recursion_desired)
        message.append(wire.RA | query.checking_disabled | rcode & wire.RCODE_MASK)
        message += wire.COUNTS.pack(1 if query.question else 0, 0, 0, 0) + query.question
        option = b"".join(wire.extended_error(*error) for error in errors)
        return self._sent(query, source, message, option, extended_rcode=rcode >> 4)

    def _sent(
        self, query: Query, source: str, message: bytearray, option: bytes = b"", *, extended_rcode: int = 0
    ) -> bytes:
        """Add OPT for a client that sent one, cut the answer to the client's size, and count it."""
        opt = b""
        if query.edns:
            if query.cookie:
                option += cookies.option(self._secret, query.cookie, query.client)
            if query.keepalive and query.transport == "tcp":
                option += wire.keepalive(self.policy.tcp_idle_timeout)
            opt = wire.opt_record(
                self.policy.udp_size, dnssec_ok=query.dnssec_ok, extended_rcode=extended_rcode, data=option
            )
        limit = wire.MAX_MESSAGE_SIZE if query.transport == "tcp" else min(query.udp_size, self.policy.udp_size)
        if len(message) + len(opt) > limit:
            message = wire.truncate(message, limit - len(opt))
        rcode = extended_rcode << 4 | message[3] & wire.RCODE_MASK
        if opt:
            message += opt
            wire.UINT16.pack_into(message, 10, wire.UINT16.unpack_from(message, 10)[0] + 1)
        self._stats.responses[rcode] += 1
        seconds = time.monotonic() - query.received_at
        self._stats.durations[source].observe(seconds)
        if self.policy.query_log:
            _log_query(query, rcode, source, seconds)
        return bytes(message)


def _log_query(query: Query, rcode: int, source: str, seconds: float) -> None:
    name = wire.presentation(query.key) if query.key else "-"
    fields = {
        "client": query.client,
        "transport": query.transport,
        "name": name,
        "type": type_name(query.qtype),
        "class": class_name(query.qclass),
        "rcode": rcode_name(rcode),
        "source": source,
        "microseconds": round(seconds * 1e6),
    }
    query_log.info("query %s", " ".join(f"{key}={value}" for key, value in fields.items()), extra={"query": fields})
