"""How long an answer may live, and the TTLs it carries while it does.

Rules: no clock, no socket; all durations are whole seconds; failures have no lifetime here (they are remembered apart,
outside the clamps, so that no minimum TTL can pin them: RFC 9520).
"""

from dataclasses import dataclass

from heimdall_lib import wire
from heimdall_lib.reply import Kind, Reply

_MAX_TTL = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class TtlPolicy:
    """The operator's bounds, in seconds; ``serve_stale`` is how long past expiry an answer may serve (RFC 8767)."""

    min_ttl: int = 0
    max_ttl: int = 86400
    max_negative_ttl: int = 3600
    serve_stale: int = 86400


def lifetime(reply: Reply, policy: TtlPolicy) -> int:
    """Return for how many seconds ``reply`` may be cached; 0 means not at all."""
    if reply.ttl is None:
        return 0
    if reply.kind is Kind.ANSWER:
        return min(max(reply.ttl, policy.min_ttl), policy.max_ttl)
    return min(reply.ttl, policy.max_negative_ttl)


def bounded_message(reply: Reply, policy: TtlPolicy) -> bytes:
    """Return the reply's message with every TTL inside the policy's bounds.

    A negative answer's SOA carries no more than the answer's own lifetime (RFC 2308, section 5), so that a cache
    behind this one does not keep it longer.
    """
    if reply.ttl is not None and reply.kind is not Kind.ANSWER:
        least, most = 0, lifetime(reply, policy)
    else:
        least, most = policy.min_ttl if reply.ttl is not None else 0, policy.max_ttl
    changed: list[tuple[int, int]] = []
    for offset in reply.ttl_offsets:
        ttl = wire.UINT32.unpack_from(reply.message, offset)[0]
        bounded = min(max(ttl if ttl <= _MAX_TTL else 0, least), most)
        if bounded != ttl:
            changed.append((offset, bounded))
    if not changed:
        return reply.message
    message = bytearray(reply.message)
    for offset, ttl in changed:
        wire.UINT32.pack_into(message, offset, ttl)
    return bytes(message)
