"""What is kept of an answer, in which tier and for how long, whether it came from L2 or from upstream.

Rules: what is read from L2 is examined like an upstream's reply before it is believed; nothing that was flushed comes
back; failures are not kept here.
"""

import time

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.errors import WireError
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.lifetime import TtlPolicy, bounded_message, lifetime
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.query import question_of
from heimdall_lib.reply import Kind, Reply, examine
from heimdall_lib.shared_cache.cache import ANY_AGE, Found, SharedCache


class Keeping:
    """Both tiers as one place to put answers into."""

    def __init__(self, *, memory: MemoryCache, shared: SharedCache, invalidations: Invalidations) -> None:
        """Use these tiers; ``ttl`` may be replaced at any time."""
        self.ttl = TtlPolicy()
        self._memory = memory
        self._shared = shared
        self._invalidations = invalidations

    def promote(self, key: bytes, found: Found, max_age: float) -> Entry | None:
        """Keep in L1 what L2 had, for the rest of its life, and return it if it is fresh and younger than ``max_age``.

        What is past its life is kept to serve stale, unless L1 has something that is better. Ages are seconds.
        """
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
        whole, now = min(lifetime(reply, self.ttl), found.lifetime), time.monotonic()
        stored_at = now - found.age
        if stored_at <= self._invalidations.floor(key):
            self._shared.reject("flushed")
            return None
        entry = self._entry(reply, whole, stored_at)
        if found.age < min(whole, max_age):
            self._memory.put(key, entry)
            return entry
        held = self._memory.held(key)
        best = entries.expires_at(held) if held is not None else -ANY_AGE
        if best < entries.expires_at(entry) <= now < entries.stale_until(entry):
            self._memory.put(key, entry)
        return None

    def store(self, key: bytes, view: str, reply: Reply, asked_at: float) -> tuple[Entry, bool]:
        """Keep an upstream's reply in both tiers, if it may be kept and nothing was flushed since it was asked for.

        Returns it as an entry, and whether it was kept; what is not kept releases the lease on it.
        """
        seconds = lifetime(reply, self.ttl)
        entry = self._entry(reply, seconds, time.monotonic())
        if not seconds or asked_at <= self._invalidations.floor(key):
            self._shared.release(key, view)
            return entry, False
        known = self._memory.held(key)
        changed = known is not None and not entries.same_answer(known, entry)
        self._memory.put(key, entry)
        message, stale = entries.message_of(entry), self.ttl.serve_stale
        self._shared.write(key, view, message, seconds, stale, changed=changed, new=known is None)
        return entry, True

    def _entry(self, reply: Reply, seconds: int, stored_at: float) -> Entry:
        message = bounded_message(reply, self.ttl)
        stale = self.ttl.serve_stale if seconds else 0
        return entries.make(message, reply.ttl_offsets, stored_at=stored_at, lifetime=seconds, stale=stale)


def _answers(message: bytes, key: bytes) -> bool:
    """Say whether a stored message answers a cache key's question; WireError when it cannot be read."""
    if len(message) < wire.HEADER_SIZE or message[4:6] != b"\0\1":
        raise WireError("not one question")
    question = message[wire.HEADER_SIZE : wire.question_end(message)]
    return question[:-4].lower() + question[-4:] == question_of(key)
