"""What Redis knows of its own contents: which keys are popular, and which are there at all.

Replicas add up how often they answer a name in sorted sets, ``<prefix>:1:popular:<view>:<day>``, whose members are the
names of the keys that hold the answers. A day is one of Redis's clock, in UTC, counted from 1970.

Rules: each function is one round trip, short for Redis; a set is bounded and expires by itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

from redis.cluster import RedisCluster

from heimdall_lib.shared_cache.client import Client
from heimdall_lib.shared_cache.codec import SCHEMA

PAGE = 200
"""How many members are read at once, and how many keys a step of a walk looks at."""

DAY_MILLISECONDS = 86_400_000
_EXPIRES_SECONDS = 2 * 86_400
_MAX_MEMBERS = 20_000


def ranking_key(prefix: str, view: str, day: int) -> str:
    """Return the name of a day's sorted set."""
    return f"{prefix}:{SCHEMA}:popular:{view}:{day}"


def add(client: Client, ranking: str, counts: Sequence[tuple[str, int]]) -> Exception | None:
    """Add to the counts of some keys, bound the set and let it expire; return why Redis refused, if it did."""
    pipeline = client.pipeline(transaction=False)
    for name, count in counts:
        pipeline.zincrby(ranking, count, name)
    pipeline.zremrangebyrank(ranking, 0, -_MAX_MEMBERS - 1)
    pipeline.expire(ranking, _EXPIRES_SECONDS)
    results = pipeline.execute(raise_on_error=False)
    return next((result for result in results if isinstance(result, Exception)), None)


def page(client: Client, ranking: str, start: int) -> list[tuple[float, str]]:
    """Return up to ``PAGE`` scores and names of keys from rank ``start`` on, the most popular first."""
    ranked = client.zrevrange(ranking, start, start + PAGE - 1, withscores=True)
    return [(float(score), _text(name)) for name, score in ranked]


class Place(NamedTuple):
    """Where a walk through the keys is: on which server (a Cluster has several), and the cursor that it gave."""

    server: int = 0
    cursor: int = 0


def walk(client: Client, pattern: str, place: Place) -> tuple[list[str], Place | None]:
    """Return some keys that match ``pattern``, perhaps none, and where to go on; None when that was the last step."""
    servers = [client]
    if isinstance(client, RedisCluster):
        servers = [client.get_redis_connection(node) for node in client.get_primaries()]
    cursor, names = servers[place.server].scan(place.cursor, match=pattern, count=PAGE)
    following = Place(place.server, cursor) if cursor else Place(place.server + 1)
    return [_text(name) for name in names], following if following.server < len(servers) else None


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")
