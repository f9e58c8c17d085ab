"""What this replica's clients ask for most, added to the rankings from which replicas warm.

Rules: only the thread that calls ``share`` waits for Redis; what Redis does not take is lost and nobody minds.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.shared_cache import ranking
from heimdall_lib.shared_cache.client import reason_of
from heimdall_lib.shared_cache.codec import redis_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.redis")

_MOST = 1000  # keys at a time
_BATCH = 50  # keys in a round trip, which are made and sent in half a millisecond

Take = Callable[[int], Sequence[tuple[bytes, str, int]]]
"""Returns so many cache keys that were asked for most since the last call, the highest first: key, view, count."""


class PopularKeys:
    """The counts of one process on their way to Redis."""

    def __init__(self, link: Link, *, prefix: str, take: Take, stats: Stats) -> None:
        """Send what ``take`` returns; ``prefix`` is the first part of every key."""
        self._link = link
        self._prefix = prefix
        self._take = take
        self._stats = stats
        self._refusal = ""

    def share(self) -> None:
        """Add what was asked for since the last time to Redis's rankings; while Redis is down that is lost."""
        by_view: defaultdict[str, list[tuple[bytes, int]]] = defaultdict(list)
        for key, view, count in self._take(_MOST):
            by_view[view].append((key, count))
        for view, counts in by_view.items():
            for start in range(0, len(counts), _BATCH):
                if self._link.open or not self._add(view, counts[start : start + _BATCH]):
                    return

    def _add(self, view: str, counts: Sequence[tuple[bytes, int]]) -> bool:
        """Add some counts to today's ranking; False when Redis does not take them."""
        today = ranking.ranking_key(self._prefix, view, ranking.day_of(self._link.now()))
        named = [(redis_key(self._prefix, view, key), count) for key, count in counts]
        try:
            refusal = self._link.run("popular", lambda client: ranking.add(client, today, named), bulk=True)
        except SharedCacheError:
            return False  # counted by the link
        reason = reason_of(refusal) if refusal is not None else ""
        if reason:
            self._stats.redis_errors[reason] += 1
            if reason != self._refusal:
                log.warning("Redis does not take which names are popular (%s: %s)", reason, refusal)
        self._refusal = reason
        return not reason
