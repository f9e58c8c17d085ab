"""The shared cache in Redis, served by a few threads of its own.

Rules: reads that wait together go out together, and so do writes of the same few milliseconds; the queue of writes is
bounded and what does not fit is dropped and counted; while the breaker is open Redis is asked on behalf of no query; a
zone's new names are stored within a budget.
"""

import logging
import time
from collections.abc import Sequence
from threading import Thread
from typing import NamedTuple

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.flight import Flight
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.new_names import NewNames
from heimdall_lib.shared_cache import events
from heimdall_lib.shared_cache.batches import Batches
from heimdall_lib.shared_cache.cache import LEASE_SECONDS, NOTHING, Found
from heimdall_lib.shared_cache.client import multi_delete, multi_set, publish, reason_of
from heimdall_lib.shared_cache.codec import Codec, RejectedValueError, StoredAnswer, redis_key
from heimdall_lib.shared_cache.lease import LEASE, Leases, Wanted
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.redis")

_READERS = 4
_BATCH = 128
_WRITE_PAUSE_SECONDS = 0.002
_MAX_WAITING_READS = 65536  # there are never more than misses under way
_MAX_WAITING_WRITES = 4096
_LEASE_MILLISECONDS = int(LEASE_SECONDS * 1000)
_ANY_AGE = 1 << 50  # milliseconds
_NO_VALUE = b""


class _Read(NamedTuple):
    key: bytes
    wanted: Wanted
    flight: Flight[Found]


class _Write(NamedTuple):
    """A value to store; no value at all deletes the key."""

    redis_key: str
    value: bytes
    seconds: int
    key: bytes
    queued_at: float
    event: bytes = b""
    """What the other replicas are told once it is stored."""


class RedisCache:
    """Reads and writes through a link to Redis."""

    def __init__(
        self,
        link: Link,
        *,
        codec: Codec,
        prefix: str,
        replica: str,
        invalidations: Invalidations,
        stats: Stats,
        new_names: NewNames | None = None,
    ) -> None:
        """Be ready to start; ``prefix`` is the first part of every key, ``replica`` this one's name on the bus."""
        self._new_names = new_names or NewNames()
        self._link = link
        self._codec = codec
        self._prefix = prefix
        self._replica = replica
        self._invalidations = invalidations
        self._stats = stats
        self._leases = Leases()
        self._write_fault = ""
        self._reads: Batches[_Read] = Batches(size=_BATCH, bound=_MAX_WAITING_READS)
        self._writes: Batches[_Write] = Batches(size=_BATCH, bound=_MAX_WAITING_WRITES)
        targets = [self._serve_reads] * _READERS + [self._serve_writes, link.watch, link.keep]
        self._threads = [Thread(target=target, name=f"redis-{target.__name__}", daemon=True) for target in targets]

    def start(self) -> None:
        """Connect in the background and serve from then on."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Write what is queued, then let go of Redis; returns after ``timeout`` seconds at most."""
        deadline = time.monotonic() + timeout
        self._reads.end()
        self._writes.end()
        *workers, watcher, keeper = self._threads
        for thread in workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._link.stop()
        for thread in (watcher, keeper):
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._writes:
            log.warning("Redis takes no writes: %d answers not shared", len(self._writes))

    def read(self, key: bytes, view: str, max_age: float) -> Flight[Found] | None:
        """Begin to read a cache key in a view, or to take the lease on it; None while the breaker is open."""
        if not self._link.ready():
            return None
        flight: Flight[Found] = Flight()
        wanted = Wanted(redis_key(self._prefix, view, key), int(min(max_age * 1000, _ANY_AGE)))
        return flight if self._reads.put(_Read(key, wanted, flight)) else None

    def write(
        self,
        key: bytes,
        view: str,
        message: bytes,
        lifetime: int,
        stale: int,
        *,
        changed: bool = False,
        new: bool = False,
    ) -> None:
        """Queue a message for storing; dropped and counted when the queue is full or the breaker open.

        A ``new`` one past its zone's budget is not stored but counted, and the lease on it ends.
        """
        if self._link.open:
            self._stats.redis_dropped_writes += 1
            return
        if new and not self._new_names.may_be_shared(key, message, time.monotonic()):
            self._stats.redis_held_back_writes += 1
            self.release(key, view)
            return
        name = redis_key(self._prefix, view, key)
        stored_at = self._link.now()
        value, saved = self._codec.encode(name, key, StoredAnswer(message, stored_at, lifetime))
        event = events.encode(events.Changed(self._replica, key, stored_at - 1)) if changed else b""
        if self._writes.put(_Write(name, value, lifetime + stale, key, time.monotonic(), event)):
            self._stats.redis_bytes_saved += saved
        else:
            self._stats.redis_dropped_writes += 1

    def release(self, key: bytes, view: str) -> None:
        """Queue the end of a lease that this replica may have."""
        if not self._link.open:
            name = redis_key(self._prefix, view, key) + LEASE
            self._writes.put(_Write(name, _NO_VALUE, 0, key, time.monotonic()))

    def reject(self, reason: str) -> None:
        """Count a value that was found but turned out not to be believed."""
        self._stats.redis_rejected[reason] += 1

    def believed(self, name: str, key: bytes, value: bytes) -> Found:
        """Return what the value under a Redis key holds for a cache key, fresh or past its life.

        Raises RejectedValueError when it is not to be believed; the message itself is still to be examined.
        """
        stored = self._codec.decode(name, key, value)
        age = max(0, self._link.now() - stored.stored_at) / 1000
        if time.monotonic() - age <= self._invalidations.floor(key):
            raise RejectedValueError("flushed")
        return Found(stored.message, age, stored.lifetime)

    def _serve_reads(self) -> None:
        while batch := self._reads.take():
            self._read_batch(batch)

    def _read_batch(self, batch: Sequence[_Read]) -> None:
        results: Sequence[tuple[bytes | None, bool]] = [(None, False)] * len(batch)
        try:
            if not self._link.open:
                wanted, now = [read.wanted for read in batch], self._link.now()
                results = self._link.run(
                    "get", lambda client: self._leases.read(client, wanted, now=now, lease=_LEASE_MILLISECONDS)
                )
        except SharedCacheError:
            pass  # counted by the link; to the queries that wait it is a miss
        for read, (value, elsewhere) in zip(batch, results, strict=True):
            read.flight.land(self._found(read, value, elsewhere=elsewhere))

    def _found(self, read: _Read, value: bytes | None, *, elsewhere: bool) -> Found:
        """Say what a read found, and count it; one that is told to look again is counted when it does."""
        found = NOTHING
        if value is not None:
            try:
                found = self.believed(read.wanted.name, read.key, value)
            except RejectedValueError as error:
                if not elsewhere:
                    self.reject(error.reason)
        if found.message and found.age < min(found.lifetime, read.wanted.max_age / 1000):
            self._stats.redis_hits += 1
        elif not elsewhere:
            self._stats.redis_misses += 1
        return found._replace(elsewhere=True) if elsewhere else found

    def _serve_writes(self) -> None:
        while batch := self._writes.take():
            # What was flushed while it waited would undo the flush.
            wanted = [write for write in batch if write.queued_at > self._invalidations.floor(write.key)]
            self._write_batch(wanted)
            self._tell_of_changes([write.event for write in wanted if write.event])
            if len(self._writes) < _BATCH:  # nobody waits for them, and a round trip costs the same for many
                time.sleep(_WRITE_PAUSE_SECONDS)

    def _write_batch(self, batch: Sequence[_Write]) -> None:
        values = [(write.redis_key, write.value, write.seconds) for write in batch if write.value]
        ended = [write.redis_key for write in batch if not write.value]
        stored: Sequence[Exception | None] = ()
        deleted: Sequence[Exception | None] = ()
        try:
            if values and not self._link.open:
                stored = self._link.run("set", lambda client: multi_set(client, values))
            if ended and not self._link.open:
                deleted = self._link.run("del", lambda client: multi_delete(client, ended))
        except SharedCacheError:
            pass  # counted by the link
        refused = [reason_of(error) for error in stored if error is not None]
        self._stats.redis_dropped_writes += len(values) - len(stored) + len(refused)
        for reason in (*refused, *(reason_of(error) for error in deleted if error is not None)):
            self._stats.redis_errors[reason] += 1
        if stored:
            self._note_refusal(refused[0] if refused else "")

    def _tell_of_changes(self, messages: Sequence[bytes]) -> None:
        """Let the other replicas forget what they have from before; who does not hear it keeps it for its TTL."""
        if not messages or self._link.open:
            return
        channel = events.channel(self._prefix)
        try:
            replies = self._link.run("publish", lambda client: publish(client, channel, messages))
        except SharedCacheError:
            return  # counted by the link
        for reply in replies:
            if isinstance(reply, Exception):
                self._stats.redis_errors[reason_of(reply)] += 1
            else:
                self._stats.redis_invalidations["sent"] += 1

    def _note_refusal(self, reason: str) -> None:
        """Log when Redis begins or ends to refuse writes: full, read-only, unable to persist."""
        if reason != self._write_fault:
            self._write_fault = reason
            if reason:
                log.warning("Redis refuses writes (%s); answering without sharing them", reason)
            else:
                log.info("Redis takes writes again")
