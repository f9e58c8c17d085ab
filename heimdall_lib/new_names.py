"""Which answers that nobody here had before are worth a place in L2: a budget of new names for each zone.

Every name is new once, and its answer goes to L2, where other replicas find it. But somebody who asks for random names
of one zone would fill Redis with answers that nobody wants, for as long as they may serve stale. So a zone has a
budget; past it, a name's answer goes to L2 when it is fetched for the second time.

Rules: no clock (``now`` is an argument, in seconds), no socket; what is remembered is bounded; whoever answers for a
zone cannot spread it over many budgets.
"""

from heimdall_lib import wire
from heimdall_lib.buckets import TokenBuckets
from heimdall_lib.doorkeeper import Doorkeeper

_BURST = 50_000  # some 16 MB of Redis: more names than most zones have, when they meet an empty cache
_RATE = 1.0  # a second: 86,400 more in the day that an answer may serve stale
_ZONES = 4096

# Labels with their lengths, under which others register names: below a country's two letters, and in reverse zones.
_REGISTRIES = frozenset(
    bytes((len(label),)) + label.encode() for label in ("ac", "co", "com", "edu", "go", "gov", "ne", "net", "or", "org")
)
_REVERSE = (b"\x07in-addr\x04arpa\0", b"\x03ip6\x04arpa\0")


class NewNames:
    """The budgets of all zones."""

    def __init__(self, *, rate: float = _RATE, burst: float = _BURST) -> None:
        """Let ``burst`` new names of a zone through at once, and ``rate`` a second in the long run."""
        self._budgets = TokenBuckets(rate=rate, burst=burst, remembered=_ZONES)
        self._doorkeeper = Doorkeeper()

    def may_be_shared(self, key: bytes, message: bytes, now: float) -> bool:
        """Say whether a message that answers a cache key, unknown until ``now``, goes to L2."""
        return self._budgets.take(zone_of(key, message), now) or self._doorkeeper.knows(key)


def zone_of(key: bytes, message: bytes) -> bytes:
    """Return the zone whose budget a cache key's answer takes from: what somebody has registered, or what is above.

    That is the last two labels of the name, or three below a registry. Labels further in front are for whoever answers
    there to choose, and so are the zones he says they are in. Where the name does not exist, it may not be registered
    either: then the owner of the SOA record, if that is above, is who was asked in vain (RFC 2308, section 3).
    """
    starts = []
    offset = 0
    while length := key[offset]:
        starts.append(offset)
        offset += length + 1
    end = offset + 1
    labels = 3 if len(starts) > 2 and _is_registry(key[starts[-2] : end], key[starts[-1]]) else 2
    zone = key[starts[-labels] : end] if len(starts) > labels else key[:end]
    if message[3] & wire.RCODE_MASK == wire.NXDOMAIN:
        owner = _soa_owner(message)
        if zone.endswith(owner):
            return owner
    return zone


def _is_registry(parent: bytes, top_length: int) -> bool:
    return parent in _REVERSE or (top_length == 2 and parent[:-4] in _REGISTRIES)


def _soa_owner(message: bytes) -> bytes:
    """Return whose SOA record a negative answer has; one that may be cached has one."""
    for record in wire.records(message, wire.question_end(message)):
        if record.section == wire.AUTHORITY and record.type == wire.TYPE_SOA:
            return wire.name(message, record.start)
    return b"\0"
