"""Which replicas share this Redis, whether or not they hear each other at the moment.

Each keeps a key of its own there, which expires by itself when nobody renews it, and stands in one index of all. So a
flush knows of those whom it cannot reach, and ``/stats`` shows the fleet.

Rules: renewed by the keeper of the link, two round trips in 10 s, and read by nobody's query or request but a flush;
bounded in replicas and in what each may say; the key counts, the index only says where to look.
"""

import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from threading import Thread

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.shared_cache import presence
from heimdall_lib.shared_cache.client import Command, multi_delete, multi_get, pipelined, reason_of
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.presence import Presence
from heimdall_lib.stats import Stats, ratio
from heimdall_lib.tally import ReplicaState

log = logging.getLogger("heimdall.redis")

LIFE_SECONDS = 30
"""How long a replica that says nothing counts as there."""

MAX_REPLICAS = 256


class Roster:
    """The place of this replica among the others, and what it knows of them."""

    def __init__(self, link: Link, *, prefix: str, replica: str, host: str, version: str, stats: Stats) -> None:
        """Say of ``replica`` (its id) where it runs and what it counts, as often as ``link`` has its clock measured."""
        self._link = link
        self._prefix = prefix
        self._replica = replica
        self._host = host or "?"
        self._version = version
        self._stats = stats
        self._key = presence.key_of(prefix, replica)
        self._index = presence.index_key(prefix)
        self._began_at = self._counted_at = time.monotonic()
        self._counted = 0
        self._present: Collection[str] = ()
        self._known: dict[str, Presence] = {}
        self._refusal = ""
        self._left = False
        link.attend(self._renew)

    def present(self) -> Collection[str]:
        """Return the ids of all replicas that are there; when Redis cannot say, those that it named last."""
        with suppress(SharedCacheError):  # counted by the link
            self._read(self._link.run("replicas", lambda client: pipelined(client, [self._listing()])))
        return self._present

    def describe(self) -> list[ReplicaState]:
        """Return the replicas that were there within ``LIFE_SECONDS``, as they were known last."""
        now = self._link.now()
        states = [_state(replica, known, now, here=replica == self._replica) for replica, known in self._known.items()]
        return sorted(
            (one for one in states if one.seen_seconds_ago <= LIFE_SECONDS), key=lambda one: (one.host, one.id)
        )

    def leave(self, timeout: float) -> None:
        """Let nobody count on this replica any more; returns after ``timeout`` seconds at most."""
        self._left = True
        if not self._link.open:
            leaving = Thread(target=self._delete, name="redis-roster", daemon=True)
            leaving.start()
            leaving.join(timeout)

    def _delete(self) -> None:
        with suppress(SharedCacheError):  # counted by the link; the key expires
            self._link.run("replicas", lambda client: multi_delete(client, [self._key]))

    def _renew(self) -> None:
        """Say that this replica is there, and read who else is."""
        if self._left:
            return
        value, now = presence.encode(self._presence()), self._link.now()
        commands: list[Command] = [
            ("SET", self._key, value, "EX", LIFE_SECONDS),
            ("ZADD", self._index, now, self._replica),
            ("ZREMRANGEBYRANK", self._index, 0, -MAX_REPLICAS - 1),
            ("EXPIRE", self._index, LIFE_SECONDS),
            self._listing(),
        ]
        with suppress(SharedCacheError):  # counted by the link
            self._read(self._link.run("replicas", lambda client: pipelined(client, commands)))

    def _listing(self) -> Command:
        return "ZREVRANGE", self._index, 0, MAX_REPLICAS - 1

    def _presence(self) -> Presence:
        now, count, stats = time.monotonic(), sum(self._stats.queries.values()), self._stats
        rate = (count - self._counted) / max(now - self._counted_at, 0.001)
        self._counted_at, self._counted = now, count
        return Presence(
            host=self._host,
            version=self._version,
            started_at=self._link.now() - int((now - self._began_at) * 1000),
            seen_at=self._link.now(),
            queries_per_second=round(rate, 1),
            l1_hit_ratio=ratio(stats.cache_hits, stats.cache_misses),
            l2_hit_ratio=ratio(stats.redis_hits, stats.redis_misses),
        )

    def _read(self, replies: Sequence[object]) -> None:
        """Take over who is there, from replies of which the last is the index."""
        self._note(replies)
        listed = replies[-1] if isinstance(replies[-1], list) else []
        replicas = [replica for member in listed[:MAX_REPLICAS] if (replica := presence.replica_id(member))]
        names = [presence.key_of(self._prefix, replica) for replica in replicas]
        values = self._link.run("replicas", lambda client: multi_get(client, names)) if names else []
        found = {replica: value for replica, value in zip(replicas, values, strict=True) if value is not None}
        self._present = found.keys()
        self._known = {replica: known for replica, value in found.items() if (known := presence.decode(value))}

    def _note(self, replies: Sequence[object]) -> None:
        """Count what Redis refuses; log once what the operator of an ACL has to know."""
        refusals = [reply for reply in replies if isinstance(reply, Exception)]
        for refusal in refusals:
            self._stats.redis_errors[reason_of(refusal)] += 1
        reason = reason_of(refusals[0]) if refusals else ""
        if reason == "auth" != self._refusal:
            log.warning("replicas may not know of each other (%s); a flush counts only those who hear it", refusals[0])
        self._refusal = reason


def _state(replica: str, known: Presence, now: int, *, here: bool) -> ReplicaState:
    return ReplicaState(
        id=replica,
        host=known.host,
        version=known.version,
        uptime_seconds=round(max(0, now - known.started_at) / 1000, 1),
        seen_seconds_ago=round(max(0, now - known.seen_at) / 1000, 1),
        queries_per_second=known.queries_per_second,
        l1_hit_ratio=known.l1_hit_ratio,
        l2_hit_ratio=known.l2_hit_ratio,
        here=here,
    )
