"""The shared cache in Redis, served by a few threads of its own.

Rules: reads that wait together go out together; the queue of writes is bounded and what does not fit is dropped and
counted; while the breaker is open Redis is asked on behalf of no query.
"""

import logging
import time
from collections.abc import Sequence
from threading import Thread
from typing import NamedTuple

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.flight import Flight
from heimdall_lib.shared_cache.batches import Batches
from heimdall_lib.shared_cache.cache import NOTHING, Found
from heimdall_lib.shared_cache.client import multi_get, multi_set, reason_of
from heimdall_lib.shared_cache.codec import Codec, RejectedValueError, StoredAnswer, redis_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.redis")

_READERS = 4
_BATCH = 128
_MAX_WAITING_READS = 65536  # there are never more than misses under way
_MAX_WAITING_WRITES = 4096


class _Read(NamedTuple):
    key: bytes
    redis_key: str
    flight: Flight[Found]


class _Write(NamedTuple):
    redis_key: str
    value: bytes
    lifetime: int


class RedisCache:
    """Reads and writes through a link to Redis."""

    def __init__(self, link: Link, *, codec: Codec, prefix: str, stats: Stats) -> None:
        """Be ready to start; ``prefix`` is the first part of every key."""
        self._link = link
        self._codec = codec
        self._prefix = prefix
        self._stats = stats
        self._write_fault = ""
        self._reads: Batches[_Read] = Batches(size=_BATCH, bound=_MAX_WAITING_READS)
        self._writes: Batches[_Write] = Batches(size=_BATCH, bound=_MAX_WAITING_WRITES)
        targets = [self._serve_reads] * _READERS + [self._serve_writes, link.keep]
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
        *workers, keeper = self._threads
        for thread in workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._link.stop()
        keeper.join(max(0.0, deadline - time.monotonic()))
        if self._writes:
            log.warning("Redis takes no writes: %d answers not shared", len(self._writes))

    def read(self, key: bytes, view: str) -> Flight[Found] | None:
        """Begin to read a cache key in a view; None while the breaker is open."""
        if self._link.open:
            return None
        flight: Flight[Found] = Flight()
        waits = self._reads.put(_Read(key, redis_key(self._prefix, view, key), flight))
        return flight if waits else None

    def write(self, key: bytes, view: str, message: bytes, lifetime: int) -> None:
        """Queue a message for storing; dropped and counted when the queue is full or the breaker open."""
        if self._link.open:
            self._stats.redis_dropped_writes += 1
            return
        name = redis_key(self._prefix, view, key)
        value, saved = self._codec.encode(name, key, StoredAnswer(message, self._link.now(), lifetime))
        if self._writes.put(_Write(name, value, lifetime)):
            self._stats.redis_bytes_saved += saved
        else:
            self._stats.redis_dropped_writes += 1

    def reject(self, reason: str) -> None:
        """Count a value that was found but turned out not to be believed."""
        self._stats.redis_rejected[reason] += 1

    def believed(self, name: str, key: bytes, value: bytes) -> Found:
        """Return what a value holds; nothing when its time is over, or it is not to be believed, which is counted."""
        try:
            stored = self._codec.decode(name, key, value)
        except RejectedValueError as error:
            self.reject(error.reason)
            return NOTHING
        age = max(0, self._link.now() - stored.stored_at) / 1000
        return Found(stored.message, age, stored.lifetime) if age < stored.lifetime else NOTHING

    def _serve_reads(self) -> None:
        while batch := self._reads.take():
            self._read_batch(batch)

    def _read_batch(self, batch: Sequence[_Read]) -> None:
        values: Sequence[bytes | None] = [None] * len(batch)
        try:
            if not self._link.open:
                values = self._link.run("get", lambda client: multi_get(client, [read.redis_key for read in batch]))
        except SharedCacheError:
            pass  # counted by the link; to the queries that wait it is a miss
        for read, value in zip(batch, values, strict=True):
            read.flight.land(self._found(read, value))

    def _found(self, read: _Read, value: bytes | None) -> Found:
        found = NOTHING if value is None else self.believed(read.redis_key, read.key, value)
        if found.message:
            self._stats.redis_hits += 1
        else:
            self._stats.redis_misses += 1
        return found

    def _serve_writes(self) -> None:
        while batch := self._writes.take():
            self._write_batch(batch)

    def _write_batch(self, batch: Sequence[_Write]) -> None:
        results: Sequence[Exception | None] = ()
        try:
            if not self._link.open:
                values = [(write.redis_key, write.value, write.lifetime) for write in batch]
                results = self._link.run("set", lambda client: multi_set(client, values))
        except SharedCacheError:
            pass  # counted by the link
        refused = [reason_of(result) for result in results if result is not None]
        self._stats.redis_dropped_writes += len(batch) - len(results) + len(refused)
        for reason in refused:
            self._stats.redis_errors[reason] += 1
        if results:
            self._note_refusal(refused[0] if refused else "")

    def _note_refusal(self, reason: str) -> None:
        """Log when Redis begins or ends to refuse writes: full, read-only, unable to persist."""
        if reason != self._write_fault:
            self._write_fault = reason
            if reason:
                log.warning("Redis refuses writes (%s); answering without sharing them", reason)
            else:
                log.info("Redis takes writes again")
