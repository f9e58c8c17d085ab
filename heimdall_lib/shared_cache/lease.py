"""Reading values, and in the same round trip the lease on fetching what is not there.

Of the replicas that miss a name within a moment, the first to read takes the lease and asks upstream; the others find
its answer a little later. A lease is a key that expires by itself: who dies holding one costs the others that long.

Rules: one script reads, and takes a lease where there is nothing usable; where no script can do that (in a Cluster, or
for a user who may run none) a lease is taken at every read, which does no harm; a Redis that takes no writes gives no
leases, and everybody fetches.
"""

import hashlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

import redis
from redis.cluster import RedisCluster
from redis.exceptions import NoPermissionError, NoScriptError

from heimdall_lib.shared_cache.client import Client, Command, bulk, converse, encode, one_each, pipelined, value_of

log = logging.getLogger("heimdall.redis")

LEASE = ":lease"
"""What follows the name of a key in the name of the lease on it."""

# Reads the head of a value as codec.py writes it: magic and version, two octets that do not matter here, when it was
# stored, and the lifetime. `pcall`, because a key may hold another type, which is a miss, and Redis may take no writes.
_SCRIPT = b"""
local now, ages, found, states = tonumber(ARGV[1]), string.gmatch(ARGV[3], '%d+'), {}, {}
for i = 1, #KEYS, 2 do
  local value, age, good, held = redis.pcall('GET', KEYS[i]), tonumber(ages()), false, '0'
  if type(value) == 'table' then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then return value end
    value = false
  end
  if value and #value > 19 and string.sub(value, 1, 3) == 'HD\\1' then
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


class Leases:
    """Reads values and takes leases in one round trip, by script while Redis runs any for us."""

    def __init__(self) -> None:
        """Believe that it does."""
        self._by_script = True
        self._told = False

    def read(
        self, client: Client, wanted: Sequence[Wanted], *, now: int, lease: int
    ) -> Sequence[tuple[bytes | None, bool]]:
        """Return for each name its value, if any, and whether another replica holds the lease on fetching it anew.

        Where the value is missing, past its lifetime or too old at ``now`` (ms of Redis's clock), whoever comes first
        takes the lease for ``lease`` ms.
        """
        refusal = ""
        if self._by_script and not isinstance(client, RedisCluster):  # whose scripts see one slot only
            try:
                return _read_by_script(client, wanted, now, lease)
            except redis.ResponseError as error:
                if not _runs_no_script(error):
                    raise
                refusal = str(error)
        try:
            found = _read_without_script(client, wanted, lease)
        except Exception:
            self._by_script = True  # the next connection may be another server's or user's
            raise
        if refusal:
            self._do_without(refusal)
        return found

    def _do_without(self, refusal: str) -> None:
        self._by_script = False
        if not self._told:
            self._told = True
            log.warning("Redis runs no scripts for Heimdall (%s); taking leases without", refusal)


def _runs_no_script(error: redis.ResponseError) -> bool:
    """Say whether an ACL (which may allow EVALSHA and not SCRIPT LOAD) or a proxy lets no script through."""
    return isinstance(error, (NoPermissionError, NoScriptError)) or "unknown command" in str(error)


def _read_by_script(
    client: Client, wanted: Sequence[Wanted], now: int, lease: int
) -> Sequence[tuple[bytes | None, bool]]:
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
    if isinstance(reply, NoScriptError):
        _, reply = converse(client, [encode("SCRIPT", "LOAD", _SCRIPT), command], replies=2)
    if isinstance(reply, Exception):
        raise reply
    *values, held = one_each(reply, count + 1)
    if not isinstance(held, bytes) or len(held) != count:
        raise redis.InvalidResponse("not a state for each value")
    return [(value_of(value), state == _HELD) for value, state in zip(values, held, strict=True)]


def _read_without_script(client: Client, wanted: Sequence[Wanted], lease: int) -> Sequence[tuple[bytes | None, bool]]:
    commands: list[Command] = []
    for name, _ in wanted:
        commands += [("GET", name), ("SET", name + LEASE, b"", "NX", "PX", lease)]
    replies = pipelined(client, commands)
    return [(value_of(value), taken is None) for value, taken in zip(replies[::2], replies[1::2], strict=True)]
