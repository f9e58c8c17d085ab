"""What an operator can do to the cache, in plain data: flush a part of it on every replica, look at one entry.

Rules: nothing here is on a query's way; what could not be done is said in the answer, never raised.
"""

import time
from typing import Any

from heimdall_lib import entry as entries
from heimdall_lib import wire
from heimdall_lib.entry import Entry
from heimdall_lib.invalidations import Flush
from heimdall_lib.names import rcode_name, type_name
from heimdall_lib.query import CD_BIT, DO_BIT, KEY_FLAGS
from heimdall_lib.replica import Replica
from heimdall_lib.shared_cache.cache import Found
from heimdall_lib.shared_cache.fleet import OFF, OK, Fleet

_IN = wire.UINT16.pack(wire.CLASS_IN)


class CacheCommands:
    """The commands."""

    def __init__(self, replica: Replica, fleet: Fleet) -> None:
        """Act on this replica and on the others."""
        self._replica = replica
        self._fleet = fleet

    def flush(self, flush: Flush) -> dict[str, Any]:
        """Forget in L1 and L2, on every replica; ``complete`` says whether nothing was left over."""
        removed = self._replica.forget(flush, time.monotonic())
        exact = bool(flush.name) and flush.qtype is not None and not flush.subtree
        keys = _variants(flush.name, flush.qtype or 0) if exact else []
        redis, told, cleared = self._fleet.flush(flush, keys, self._replica.view(keys[0]) if keys else "")
        return {
            "l1_removed": removed,
            "l2_removed": cleared.removed,
            "replicas": told._asdict(),
            "redis": redis,
            "complete": redis in (OK, OFF) and told.acknowledged >= told.expected and cleared.complete,
        }

    def entry(self, name: bytes, qtype: int) -> dict[str, Any]:
        """Say where the answers to a question are, with and without DO and CD, and what a query would get now."""
        keys = _variants(name, qtype)
        redis, found = self._fleet.look(keys, self._replica.view(keys[0]))
        variants = [self._variant(*each) for each in zip(keys, found, strict=True)]
        plain = {field: variants[0][field] for field in ("where", "now", "age", "ttl", "size")}
        question = {"name": wire.presentation(name), "type": type_name(qtype)}
        return {**question, **plain, "redis": redis, "variants": variants}

    def _variant(self, key: bytes, found: Found) -> dict[str, Any]:
        now = time.monotonic()
        entry = self._replica.held(key)
        l1 = _l1(entry, now) if entry is not None and now < entries.stale_until(entry) else None
        l2 = _l2(found) if found.message and self._replica.believes(key, now - found.age) else None
        where = _where(l1, l2)
        source = (l2 if where == "l2" else l1) or {}
        return {
            "dnssec_ok": bool(key[-1] & DO_BIT),
            "checking_disabled": bool(key[-1] & CD_BIT),
            "where": where,
            "now": _what_happens(where, failed=self._replica.failed(key)),
            **{field: source.get(field) for field in ("age", "ttl", "size")},
            "l1": l1,
            "l2": l2,
        }


def _variants(name: bytes, qtype: int) -> list[bytes]:
    return [name + wire.UINT16.pack(qtype) + _IN + bits for bits in KEY_FLAGS]


def _l1(entry: Entry, now: float) -> dict[str, Any]:
    message = entries.message_of(entry)
    return _described(message, now - entries.stored_at(entry), entries.expires_at(entry) - now)


def _l2(found: Found) -> dict[str, Any]:
    return _described(found.message, found.age, found.lifetime - found.age)


def _described(message: bytes, age: float, left: float) -> dict[str, Any]:
    return {
        "fresh": left > 0,
        "age": round(age, 3),
        "ttl": max(0, int(left)),
        "size": len(message),
        "rcode": rcode_name(message[3] & wire.RCODE_MASK),
    }


def _where(l1: dict[str, Any] | None, l2: dict[str, Any] | None) -> str:
    in_l1, in_l2 = bool(l1 and l1["fresh"]), bool(l2 and l2["fresh"])
    if in_l1 or in_l2:
        return "both" if in_l1 and in_l2 else "l1" if in_l1 else "l2"
    return "stale" if l1 else "nowhere"


def _what_happens(where: str, *, failed: bool) -> str:
    if where in ("both", "l1"):
        return "answered from L1"
    if failed:
        return "answered with the stale answer" if where == "stale" else "SERVFAIL, which is remembered"
    if where == "l2":
        return "answered from L2"
    return "asked upstream" + (", with the stale answer in reserve" if where == "stale" else "")
