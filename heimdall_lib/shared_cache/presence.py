"""What a replica says of itself to those who share its Redis: one JSON object under a key of its own.

Rules: no clock, no socket; what is not understood to the last field says nothing; every size and number has a bound.
"""

import json
import math
import re
from typing import Any, NamedTuple

VERSION = 1
MAX_SIZE = 2048  # bytes; a host's name has 253 characters at most, which JSON may write as six octets each
_MAX_HOST, _MAX_VERSION = 253, 64
_MAX_INSTANT = 1 << 53
_MAX_RATE = 1e9
_ID = re.compile(rb"[0-9a-f]{16}\Z")


class Presence(NamedTuple):
    """A replica as it was at ``seen_at``; instants are milliseconds of Redis's clock, ratios None before any query."""

    host: str
    version: str
    started_at: int
    seen_at: int
    queries_per_second: float
    l1_hit_ratio: float | None
    l2_hit_ratio: float | None


def key_of(prefix: str, replica: str) -> str:
    """Return the name of the key under which a replica keeps what it says."""
    return f"{prefix}:replica:{replica}"


def index_key(prefix: str) -> str:
    """Return the name of the sorted set of all replicas' ids, scored by when they were there last."""
    return f"{prefix}:replicas"


def replica_id(member: object) -> str:
    """Return the id that a member of the index is, empty when it is none."""
    return member.decode() if isinstance(member, bytes) and _ID.match(member) else ""


def encode(presence: Presence) -> bytes:
    """Return the value of a replica's key; what is too long in it is cut."""
    fields = presence._replace(host=presence.host[:_MAX_HOST], version=presence.version[:_MAX_VERSION])._asdict()
    return json.dumps({"v": VERSION, **fields}, separators=(",", ":")).encode()


def decode(value: bytes) -> Presence | None:
    """Return what a value says; None when it says nothing that this version understands."""
    if len(value) > MAX_SIZE:
        return None
    try:
        fields = json.loads(value)
        if fields.pop("v") != VERSION:
            return None
        presence = Presence(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return presence if _is_sound(presence) else None


def _is_sound(presence: Presence) -> bool:
    return (
        _is_text(presence.host, _MAX_HOST)
        and _is_text(presence.version, _MAX_VERSION)
        and all(type(each) is int and 0 <= each < _MAX_INSTANT for each in (presence.started_at, presence.seen_at))
        and _is_number(presence.queries_per_second, _MAX_RATE)
        and all(each is None or _is_number(each, 1.0) for each in (presence.l1_hit_ratio, presence.l2_hit_ratio))
    )


def _is_text(value: Any, most: int) -> bool:  # noqa: ANN401 - what JSON carries
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def _is_number(value: Any, most: float) -> bool:  # noqa: ANN401 - as above
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= most
