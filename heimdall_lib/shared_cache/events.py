"""What replicas tell each other over pub/sub: one JSON object a message.

Rules: no clock, no socket; whatever is not understood to the last field is no message; the worst that a forged one can
do is to make a replica forget what it holds.
"""

import json
from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

from heimdall_lib import wire
from heimdall_lib.errors import WireError
from heimdall_lib.invalidations import Flush
from heimdall_lib.names import type_name, type_number

VERSION = 1
MAX_SIZE = 4096  # bytes; a name has 1003 characters at most, each backslash of which JSON writes twice
_KEY_END = Struct("!HHB")  # type, class, DO and CD bits
_ID = frozenset("0123456789abcdef")
_ID_SIZE = 16


class Flushed(NamedTuple):
    """Replica ``origin`` has flushed something at ``generation`` (ms of Redis's clock).

    It waits for everyone's ack under ``number``.
    """

    origin: str
    number: str
    generation: int
    flush: Flush


class Acked(NamedTuple):
    """Replica ``origin`` holds nothing more of what flush ``number`` is about."""

    origin: str
    number: str


class Changed(NamedTuple):
    """Replica ``origin`` has a new answer under a cache key; what was stored up to ``at`` is outdated."""

    origin: str
    key: bytes
    at: int


class Generation(NamedTuple):
    """Replica ``origin`` knows of a flush at ``generation`` that Redis has forgotten."""

    origin: str
    generation: int


Event = Flushed | Acked | Changed | Generation


def channel(prefix: str) -> str:
    """Return the channel that every replica listens to."""
    return f"{prefix}:events"


def ack_channel(prefix: str, replica: str) -> str:
    """Return the channel on which a replica is answered."""
    return f"{prefix}:acks:{replica}"


def encode(event: Event) -> bytes:
    """Return a message."""
    fields: dict[str, Any] = {"v": VERSION, "kind": type(event).__name__.lower(), **event._asdict()}
    if isinstance(event, Flushed):
        name, qtype, subtree = fields.pop("flush")
        fields |= {"name": wire.presentation(name) if name else "", "subtree": subtree}
        fields["type"] = "" if qtype is None else type_name(qtype)
    elif isinstance(event, Changed):
        qtype, qclass, bits = _KEY_END.unpack(fields.pop("key")[-_KEY_END.size :])
        fields |= {"name": wire.presentation(event.key), "type": type_name(qtype), "class": qclass, "bits": bits}
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(message: object) -> Event | None:
    """Return what a message says; None when it says nothing that this version understands."""
    if not isinstance(message, bytes) or len(message) > MAX_SIZE:
        return None
    try:
        fields = json.loads(message)
        return _READERS[fields["kind"]](fields) if fields["v"] == VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, WireError):
        return None


def _flushed(fields: dict[str, Any]) -> Flushed:
    name = wire.from_presentation(fields["name"]) if _is(fields["name"], str) else b""
    qtype = type_number(fields["type"]) if _is(fields["type"], str) else None
    flush = Flush(name, qtype, _is(fields["subtree"], bool))
    return Flushed(_id(fields["origin"]), _id(fields["number"]), _instant(fields["generation"]), flush)


def _acked(fields: dict[str, Any]) -> Acked:
    return Acked(_id(fields["origin"]), _id(fields["number"]))


def _changed(fields: dict[str, Any]) -> Changed:
    qclass, bits = _is(fields["class"], int), _is(fields["bits"], int)
    if not (0 <= qclass < 65536 and 0 <= bits < 4):
        raise ValueError("no such class or bits")
    end = _KEY_END.pack(type_number(fields["type"]), qclass, bits)
    return Changed(_id(fields["origin"]), wire.from_presentation(fields["name"]) + end, _instant(fields["at"]))


def _generation(fields: dict[str, Any]) -> Generation:
    return Generation(_id(fields["origin"]), _instant(fields["generation"]))


_READERS: dict[str, Callable[[dict[str, Any]], Event]] = {
    "flushed": _flushed,
    "acked": _acked,
    "changed": _changed,
    "generation": _generation,
}


def _instant(milliseconds: int) -> int:
    if not 0 <= _is(milliseconds, int) < 1 << 53:
        raise ValueError("no time")
    return milliseconds


def _id(text: str) -> str:
    if len(_is(text, str)) != _ID_SIZE or set(text) - _ID:
        raise ValueError("no id of a replica or a flush")
    return text


def _is(value: Any, kind: type) -> Any:  # noqa: ANN401 - what JSON carries
    if type(value) is not kind:  # True is an int
        raise TypeError(f"no {kind.__name__}")
    return value
