"""The tiers in order: L1, then one flight for all who ask the same, then L2 within its budget, then upstream.

Rules: a failure never takes the place of a good answer; every caller has an outcome by its own deadline, whatever
becomes of the flight it waits for; what is read from L2 is examined like an upstream's reply before it is believed.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.errors import NoAnswerError, WireError
from heimdall_lib.flight import Flight, Flights
from heimdall_lib.lifetime import TtlPolicy, bounded_message, lifetime
from heimdall_lib.memory_cache import Failure, FailureCache, MemoryCache
from heimdall_lib.popularity import Popularity
from heimdall_lib.query import Query, question_of
from heimdall_lib.reply import Kind, Reply, examine
from heimdall_lib.shared_cache.cache import Found, SharedCache
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.resolver")

_CRASHED: Failure = (0, "internal error")
_TOO_LATE: Failure = (22, "no upstream server answered in time")


class Outcome(NamedTuple):
    """What came of a query: an entry to render and where it is from, or why there is none (SERVFAIL)."""

    source: str
    entry: Entry | None = None
    failure: Failure | None = None
    remembered: bool = False
    """The failure is an earlier query's, remembered (RFC 9520)."""


Stage = Callable[[Flight[Outcome], bytes, float], None]


@dataclass(frozen=True, slots=True)
class ResolverPolicy:
    """The operator's choices; seconds throughout. ``view`` replaces the views told from upstreams unless empty."""

    ttl: TtlPolicy = TtlPolicy()
    failure_ttl: float = 5.0
    query_timeout: float = 4.5
    stale_client_timeout: float = 1.8
    read_budget: float = 0.02
    prefetch: bool = True
    max_refreshes: int = 4096
    view: str = ""


class Upstreams(Protocol):
    """What the resolver needs of the upstream room."""

    def view(self, key: bytes) -> str:
        """Return a fingerprint of the servers that answer for a cache key's name."""

    def views(self) -> Collection[str]:
        """Return every view that a name may have."""

    def all_resting(self, key: bytes) -> bool:
        """Say whether every server for a cache key's name is known to be down."""

    def ask(self, key: bytes, deadline: float) -> Reply:
        """Return a usable reply, or raise NoAnswerError by ``deadline``."""


class Resolver:
    """Answers queries from the tiers."""

    def __init__(
        self,
        *,
        policy: ResolverPolicy,
        memory: MemoryCache,
        shared: SharedCache,
        upstreams: Upstreams,
        spawn: Callable[..., object],
        stats: Stats,
    ) -> None:
        """Use these tiers; ``spawn(function, *args)`` runs a function beside the caller."""
        self.policy = policy
        self._memory = memory
        self._failures = FailureCache()
        self._popularity = Popularity()
        self._shared = shared
        self._upstreams = upstreams
        self._spawn = spawn
        self._stats = stats
        self._flights: Flights[Outcome] = Flights()

    def lookup(self, query: Query) -> Entry | None:
        """Return L1's fresh answer, if there is one: never blocks. A popular one near its end is refreshed beside."""
        entry = self._memory.get(query.key)
        if entry is None or query.received_at >= entries.expires_at(entry):
            self._stats.cache_misses += 1
            return None
        self._stats.cache_hits += 1
        self._popularity[query.key] += 1
        if self.policy.prefetch and entries.wants_refresh(entry, query.received_at):
            self._refresh(query.key)
        return entry

    def resolve(self, query: Query) -> Outcome:
        """Return what comes of a query that ``lookup`` had nothing for; blocks until its deadline at most."""
        key, now = query.key, time.monotonic()
        entry = self._memory.get(key)
        if entry is not None and now < entries.expires_at(entry):
            return Outcome("l1", entry)  # another query brought it since
        stale = Outcome("stale", entry) if entry is not None and now < entries.stale_until(entry) else None
        failure = self._failures.get(key, now)
        if failure is not None:
            return stale or Outcome("l1", failure=failure, remembered=True)
        deadline = query.received_at + self.policy.query_timeout
        outcome = self._fly(key, deadline, stale=stale)
        if outcome is None or outcome.entry is None:
            return stale or outcome or Outcome("upstream", failure=_TOO_LATE)
        return outcome

    def views(self) -> Collection[str]:
        """Return every view in which this replica shares answers."""
        return {self.policy.view} if self.policy.view else self._upstreams.views()

    def popular(self, most: int) -> list[tuple[bytes, str, int]]:
        """Return the cache keys that ``lookup`` found most since the last call, the highest first: key, view, count."""
        return [(key, self._view(key), count) for key, count in self._popularity.take(most)]

    def wants(self, key: bytes, view: str) -> bool:
        """Say whether an answer that stands in L2 in ``view`` is ours to take, and L1 has none."""
        return key not in self._memory and self._view(key) == view

    def keep(self, key: bytes, found: Found) -> bool:
        """Keep in L1 what was read from L2 though nobody asks, unless L1 has something; say whether it was kept."""
        return key not in self._memory and self._promote(key, found) is not None

    def _fly(self, key: bytes, deadline: float, *, stale: Outcome | None) -> Outcome | None:
        """Join or lead the flight for ``key`` and wait for it: until the deadline, or only a while with ``stale``."""
        flight, leads = self._flights.join(key)
        if not leads:
            self._stats.coalesced_queries += 1
        if stale is None:
            if leads:
                self._guarded(self._lead, flight, key, deadline)
            return flight.wait(deadline - time.monotonic())
        if leads:
            self._spawn(self._guarded, self._lead, flight, key, deadline)
        patience = 0.0 if self._upstreams.all_resting(key) else self.policy.stale_client_timeout
        return flight.wait(min(patience, deadline - time.monotonic()))

    def _refresh(self, key: bytes) -> None:
        """Ask upstream for ``key`` beside the queries, unless that is under way or has just failed."""
        busy = key in self._flights or len(self._flights) >= self.policy.max_refreshes
        if busy or self._failures.get(key, time.monotonic()) is not None:
            return
        self._stats.cache_prefetches += 1
        flight, _ = self._flights.join(key)
        deadline = time.monotonic() + self.policy.query_timeout
        self._spawn(self._guarded, self._ask_upstream, flight, key, deadline)

    def _guarded(self, stage: Stage, flight: Flight[Outcome], key: bytes, deadline: float) -> None:
        """Run a stage of a flight; when it dies, of a bug or of being killed, nobody who waits is stranded."""
        try:
            stage(flight, key, deadline)
        except BaseException as error:
            self._flights.land(key, flight, Outcome("upstream", failure=_CRASHED))
            if not isinstance(error, Exception):
                raise
            log.exception("a query failed inside Heimdall")

    def _lead(self, flight: Flight[Outcome], key: bytes, deadline: float) -> None:
        """Bring the flight down: from L2 within its budget, else from upstream; past the budget from either."""
        read = self._shared.read(key, self._view(key))
        found = read.wait(self.policy.read_budget) if read is not None else None
        entry = self._promote(key, found) if found is not None else None
        if entry is not None:
            self._flights.land(key, flight, Outcome("l2", entry))
        elif read is None or found is not None:
            self._ask_upstream(flight, key, deadline)
        else:
            self._stats.redis_budget_exceeded += 1
            read.then(lambda late: self._land_late(flight, key, late))
            self._spawn(self._guarded, self._ask_upstream, flight, key, deadline)

    def _land_late(self, flight: Flight[Outcome], key: bytes, found: Found) -> None:
        """Take an L2 answer that came after its budget, unless upstream was faster still."""
        current = self._memory.get(key)
        if current is None or time.monotonic() >= entries.expires_at(current):
            entry = self._promote(key, found)
            if entry is not None:
                self._flights.land(key, flight, Outcome("l2", entry))

    def _promote(self, key: bytes, found: Found) -> Entry | None:
        """Keep in L1 what L2 had, for the rest of its life; None when it had nothing that can be believed."""
        if not found.message:
            return None
        try:
            if not _answers(found.message, key):
                self._shared.reject("question")
                return None
            reply = examine(found.message, question_of(key))
        except WireError:
            self._shared.reject("message")
            return None
        if reply.kind in (Kind.FAILURE, Kind.OTHER) or reply.ttl is None:
            self._shared.reject("message")
            return None
        whole = min(lifetime(reply, self.policy.ttl), found.lifetime)
        if found.age >= whole:
            return None
        entry = self._entry(reply, whole, time.monotonic() - found.age)
        self._memory.put(key, entry)
        return entry

    def _ask_upstream(self, flight: Flight[Outcome], key: bytes, deadline: float) -> None:
        try:
            outcome = self._answer(key, self._upstreams.ask(key, deadline))
        except NoAnswerError as error:
            failure = (error.code, error.text)
            self._failures.put(key, failure, time.monotonic() + self.policy.failure_ttl)
            outcome = Outcome("upstream", failure=failure)
        self._flights.land(key, flight, outcome)

    def _answer(self, key: bytes, reply: Reply) -> Outcome:
        """Keep an upstream's reply in both tiers, if it may be kept."""
        seconds = lifetime(reply, self.policy.ttl)
        entry = self._entry(reply, seconds, time.monotonic())
        if seconds:
            self._failures.remove(key)
            self._memory.put(key, entry)
            self._shared.write(key, self._view(key), entries.message_of(entry), seconds)
        return Outcome("upstream", entry)

    def _entry(self, reply: Reply, seconds: int, stored_at: float) -> Entry:
        message = bounded_message(reply, self.policy.ttl)
        stale = self.policy.ttl.serve_stale if seconds else 0
        return entries.make(message, reply.ttl_offsets, stored_at=stored_at, lifetime=seconds, stale=stale)

    def _view(self, key: bytes) -> str:
        return self.policy.view or self._upstreams.view(key)


def _answers(message: bytes, key: bytes) -> bool:
    """Say whether a stored message answers a cache key's question; WireError when it cannot be read."""
    if len(message) < wire.HEADER_SIZE or message[4:6] != b"\0\1":
        raise WireError("not one question")
    question = message[wire.HEADER_SIZE : wire.question_end(message)]
    return question[:-4].lower() + question[-4:] == question_of(key)
