"""Reading values, and in the same round trip the lease on fetching what is not there.

Of the replicas that miss a name within a moment, the first to read takes the lease and asks upstream; the others find
its answer a little later. A lease is a key that expires by itself: who dies holding one costs the others that long.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import redis
from redis.cluster import RedisCluster

from heimdall_lib.shared_cache.client import Client, bulk, converse, encode, one_each

LEASE = ":lease"
"""What follows the name of a key in the name of the lease on it."""

# Reads the head of a value as codec.py writes it: ten octets of magic, version, flags, bits and when it was stored,
# then the lifetime. `pcall`, because a key may hold another type, and Redis may take no writes.
_SCRIPT = b"""
local now, ages, found, states = tonumber(ARGV[1]), string.gmatch(ARGV[3], '%d+'), {}, {}
for i = 1, #KEYS, 2 do
  local value, age, good, held = redis.pcall('GET', KEYS[i]), tonumber(ages()), false, '0'
  if type(value) ~= 'string' then value = false end
  if value and #value > 19 then
    local high, low, lifetime = struct.unpack('>I4I4I4', value, 6)
    local old = now - (high * 4294967296 + low)
    good = old < lifetime * 1000 and old < age
  end
  if not good and not redis.pcall('SET', KEYS[i + 1], '', 'NX', 'PX', ARGV[2]) then held = '1' end
  found[#found + 1], states[#states + 1] = value, held
end
found[#found + 1] = table.concat(states)
return found
"""
_SCRIPT_SHA = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()
_LEASE = LEASE.encode()
_HELD = ord("1")


class Wanted(NamedTuple):
    """A value to read: its key's name, and the age in milliseconds from which on it is of no use."""

    name: str
    max_age: int


def read_or_lease(
    client: Client, wanted: Sequence[Wanted], *, now: int, lease: int
) -> Sequence[tuple[bytes | None, bool]]:
    """Return for each name its value, if any, and whether another replica holds the lease on fetching it anew.

    Where the value is missing, past its lifetime or too old at ``now`` (ms of Redis's clock), whoever comes first takes
    the lease for ``lease`` ms. All in one round trip; a Cluster, whose scripts see one slot only, takes leases on
    values that are good, too, and they are no use to anybody.
    """
    if isinstance(client, RedisCluster):
        pipeline = client.pipeline()
        for name, _ in wanted:
            pipeline.get(name)
            pipeline.set(name + LEASE, b"", nx=True, px=lease)
        replies = one_each(pipeline.execute(raise_on_error=False), 2 * len(wanted))
        states = [reply is None for reply in replies[1::2]]
        return list(zip(map(_bytes_or_none, replies[::2]), states, strict=True))
    keys, ages = [], []
    for name, max_age in wanted:
        key = name.encode()
        keys.append(b"$%d\r\n%b\r\n$%d\r\n%b%b\r\n" % (len(key), key, len(key) + len(_LEASE), key, _LEASE))
        ages.append(b"%d" % max_age)
    count = len(wanted)
    head = b"*%d\r\n" % (6 + 2 * count) + b"".join(map(bulk, (b"EVALSHA", _SCRIPT_SHA, b"%d" % (2 * count))))
    tail = b"".join(map(bulk, (b"%d" % now, b"%d" % lease, b" ".join(ages))))
    command = head + b"".join(keys) + tail
    (reply,) = converse(client, [command], replies=1)
    if isinstance(reply, redis.exceptions.NoScriptError):
        _, reply = converse(client, [encode(b"SCRIPT", b"LOAD", _SCRIPT), command], replies=2)
    if isinstance(reply, Exception):
        raise reply
    *values, held = one_each(reply, count + 1)
    if not isinstance(held, bytes) or len(held) != count:
        raise redis.InvalidResponse("not a state for each value")
    return [(_bytes_or_none(value), state == _HELD) for value, state in zip(values, held, strict=True)]


def _bytes_or_none(reply: object) -> bytes | None:
    return reply if isinstance(reply, bytes) else None
