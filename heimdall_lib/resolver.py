"""The tiers in order: L1, then one flight for all who ask the same, then L2 within its budget, then upstream.

Rules: a failure never takes the place of a good answer; every caller has an outcome by its own deadline, whatever
becomes of the flight it waits for; what is kept of an answer, and for how long, is decided in ``keeping``.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from heimdall_lib import entry as entries
from heimdall_lib.entry import Entry
from heimdall_lib.errors import NoAnswerError
from heimdall_lib.flight import Flight, Flights
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.keeping import Keeping
from heimdall_lib.lifetime import TtlPolicy
from heimdall_lib.memory_cache import Failure, FailureCache, MemoryCache
from heimdall_lib.pause import TICK_SECONDS, Pause
from heimdall_lib.popularity import Popularity
from heimdall_lib.query import Query
from heimdall_lib.reply import Reply
from heimdall_lib.shared_cache.cache import ANY_AGE, LEASE_SECONDS, Found, SharedCache
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.resolver")

_CRASHED: Failure = (0, "internal error")
_FIRST_LOOK_SECONDS, _MAX_LOOK_SECONDS = 0.005, 0.02  # between looks for what another replica is fetching
_TOO_LATE: Failure = (22, "no upstream server answered in time")


class Outcome(NamedTuple):
    """What came of a query: an entry to render and where it is from, or why there is none (SERVFAIL)."""

    source: str
    entry: Entry | None = None
    failure: Failure | None = None
    remembered: bool = False
    """The failure is an earlier query's, remembered (RFC 9520)."""


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
        invalidations: Invalidations,
        upstreams: Upstreams,
        spawn: Callable[..., object],
        stats: Stats,
    ) -> None:
        """Use these tiers; ``spawn(function, *args)`` runs a function beside the caller."""
        self._memory = memory
        self._failures = FailureCache()
        self.popularity, self.missed = Popularity(), Popularity()
        self._shared = shared
        self._keeping = Keeping(memory=memory, shared=shared, invalidations=invalidations)
        self._upstreams = upstreams
        self._spawn = spawn
        self._stats = stats
        self._flights: Flights[Outcome] = Flights()
        self.configure(policy)

    def configure(self, policy: ResolverPolicy) -> None:
        """Go by ``policy`` from the next query on."""
        self.policy = policy
        self._keeping.ttl = policy.ttl

    def lookup(self, query: Query) -> Entry | None:
        """Return L1's fresh answer, if there is one: never blocks. A popular one near its end is refreshed beside."""
        entry = self._memory.get(query.key) or self._memory.admit(query.key)
        if entry is None or query.received_at >= entries.expires_at(entry):
            self._stats.cache_misses += 1
            return None
        self._stats.cache_hits += 1
        self.popularity[query.key] += 1
        if self.policy.prefetch and entries.wants_refresh(entry, query.received_at):
            self._refresh(query.key, entry)
        return entry

    def resolve(self, query: Query) -> Outcome:
        """Return what comes of a query that ``lookup`` had nothing for; blocks until its deadline at most."""
        key, now = query.key, time.monotonic()
        entry = self._memory.held(key)
        if entry is not None and now < entries.expires_at(entry):
            return Outcome("l1", entry)  # another query brought it since
        self.missed[key] += 1
        failure = self._failures.get(key, now)
        if failure is not None:
            return self.stale(key) or Outcome("l1", failure=failure, remembered=True)
        outcome = self._fly(key, query.received_at + self.policy.query_timeout)
        if outcome is None or outcome.entry is None:
            return self.stale(key) or outcome or Outcome("upstream", failure=_TOO_LATE)
        return outcome

    def forget(self) -> None:
        """Forget what failed, and let no query join what began before now: something was flushed."""
        self._failures.clear()
        self._flights.detach()

    def failed(self, key: bytes) -> bool:
        """Say whether a failure is remembered, for which a query would have a stale answer or SERVFAIL at once."""
        return self._failures.get(key, time.monotonic()) is not None

    def view(self, key: bytes) -> str:
        """Return the view in which L2 has the answers for a cache key."""
        return self.policy.view or self._upstreams.view(key)

    def views(self) -> Collection[str]:
        """Return every view in which this replica shares answers."""
        return {self.policy.view} if self.policy.view else self._upstreams.views()

    def popular(self, most: int) -> list[tuple[bytes, str, int]]:
        """Return the cache keys that ``lookup`` found most since the last call, the highest first: key, view, count."""
        return [(key, self.view(key), count) for key, count in self.popularity.take(most)]

    def wants(self, key: bytes, view: str) -> bool:
        """Say whether an answer that stands in L2 in ``view`` is ours to take, and L1 has none."""
        return key not in self._memory and self.view(key) == view

    def keep(self, key: bytes, found: Found) -> bool:
        """Keep in L1 what was read from L2 though nobody asks, unless L1 has something; say whether it is fresh."""
        return key not in self._memory and self._keeping.promote(key, found, ANY_AGE) is not None

    def _fly(self, key: bytes, deadline: float) -> Outcome | None:
        """Join or lead the flight for ``key`` and wait for it: until the deadline, or only a while with a stale entry.

        A stale entry is better than a failure, but worse than waiting a little (RFC 8767, section 5).
        """
        flight, leads = self._flights.join(key)
        if not leads:
            self._stats.coalesced_queries += 1
        elif self.stale(key) is None:
            self._guarded(self._lead, flight, key, deadline, ANY_AGE)
        else:
            self._spawn(self._guarded, self._lead, flight, key, deadline, ANY_AGE)
        if flight.outcome is not None:
            return flight.outcome
        patience = deadline - time.monotonic()
        if self.stale(key) is not None:
            patience = min(patience, 0.0 if self._upstreams.all_resting(key) else self.policy.stale_client_timeout)
        return flight.wait(patience)

    def stale(self, key: bytes) -> Outcome | None:
        """Return what L1 can still say about ``key`` though its time is over."""
        entry = self._memory.held(key)
        return Outcome("stale", entry) if entry is not None and time.monotonic() < entries.stale_until(entry) else None

    def _refresh(self, key: bytes, entry: Entry) -> None:
        """Fetch ``key`` anew beside the queries, unless that is under way or has just failed."""
        busy = key in self._flights or len(self._flights) >= self.policy.max_refreshes
        if busy or self._failures.get(key, time.monotonic()) is not None:
            return
        self._stats.cache_prefetches += 1
        flight, _ = self._flights.join(key)
        deadline = time.monotonic() + self.policy.query_timeout
        # What L2 has is as old as ours, unless another replica has just refreshed it.
        max_age = (entries.expires_at(entry) - entries.stored_at(entry)) / 2
        self._spawn(self._guarded, self._lead, flight, key, deadline, max_age)

    def _guarded(
        self, stage: Callable[..., None], flight: Flight[Outcome], key: bytes, deadline: float, *more: float
    ) -> None:
        """Run a stage of a flight; when it dies, of a bug or of being killed, nobody who waits is stranded."""
        try:
            stage(flight, key, deadline, *more)
        except BaseException as error:
            self._flights.land(key, flight, Outcome("upstream", failure=_CRASHED))
            if not isinstance(error, Exception):
                raise
            log.exception("a query failed inside Heimdall")

    def _lead(self, flight: Flight[Outcome], key: bytes, deadline: float, max_age: float) -> None:
        """Bring the flight down: from L2 within its budget, else from upstream; past the budget from either.

        While another replica fetches the same, look into L2 again and again for as long as its lease may last.
        """
        view, beside = self.view(key), False
        budget, waited = self.policy.read_budget, time.monotonic() - (deadline - self.policy.query_timeout)
        # A wait may end two ticks late, and asking upstream takes its turn: both are within the budget, too.
        patience = max(budget - waited - 4 * TICK_SECONDS, budget / 2)
        lease_over_at, pause = min(time.monotonic() + LEASE_SECONDS, deadline), _FIRST_LOOK_SECONDS
        while (read := self._shared.read(key, view, max_age)) is not None:
            found = read.wait(patience)
            if found is None:
                self._stats.redis_budget_exceeded += 1
                read.then(lambda late: self._land_late(flight, key, late, max_age))
                beside = True
                break
            entry = self._keeping.promote(key, found, max_age)
            if entry is not None:
                self._flights.land(key, flight, Outcome("l2", entry))
                return
            stale = bool(found.message) and self.stale(key) is not None
            if not found.elsewhere or time.monotonic() >= lease_over_at or (stale and self._upstreams.all_resting(key)):
                beside = stale  # who has something stale to serve is less patient
                if found.elsewhere:
                    self._stats.redis_misses += 1
                break
            Pause[None]().wait(pause)
            pause = min(2 * pause, _MAX_LOOK_SECONDS)
        if beside:
            self._spawn(self._guarded, self._ask_upstream, flight, key, deadline)
        else:
            self._ask_upstream(flight, key, deadline)

    def _land_late(self, flight: Flight[Outcome], key: bytes, found: Found, max_age: float) -> None:
        """Take an L2 answer that came after its budget, unless upstream was faster still."""
        if flight.outcome is None or flight.outcome.entry is None:
            entry = self._keeping.promote(key, found, max_age)
            if entry is not None:
                self._flights.land(key, flight, Outcome("l2", entry))

    def _ask_upstream(self, flight: Flight[Outcome], key: bytes, deadline: float) -> None:
        asked_at = time.monotonic()
        try:
            reply = self._upstreams.ask(key, deadline)
        except NoAnswerError as error:
            failure = (error.code, error.text)
            self._failures.put(key, failure, time.monotonic() + self.policy.failure_ttl)
            outcome = Outcome("upstream", failure=failure)
            self._shared.release(key, self.view(key))
        else:
            entry, kept = self._keeping.store(key, self.view(key), reply, asked_at)
            if kept:
                self._failures.remove(key)
            outcome = Outcome("upstream", entry)
        self._flights.land(key, flight, outcome)
