"""What Redis knows of its own contents: which keys are popular, and which are there at all.

Replicas add up how often they answer a name in sorted sets, ``<prefix>:1:popular:<view>:<day>``, whose members are the
names of the keys that hold the answers. A day is one of Redis's clock, in UTC, counted from 1970.

Rules: each round trip is short for Redis; a set is bounded and expires by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import merge
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeVar

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.shared_cache.client import Client, Command, homes, pipelined
from heimdall_lib.shared_cache.codec import SCHEMA

T = TypeVar("T")

_PAGE = 200  # members that are read at once, and keys that a step of a walk looks at
_DAY_MILLISECONDS = 86_400_000
_EXPIRES_SECONDS = 2 * 86_400
_MAX_MEMBERS = 20_000
_score_of = itemgetter(0)


class Ask(Protocol):
    """Does one round trip, named for the statistics; raises SharedCacheError, and what else its owner likes."""

    def __call__(self, operation: str, call: Callable[[Client], T]) -> T:
        """Return ``call(client)``."""


def day_of(now: int) -> int:
    """Return the day of an instant of Redis's clock (milliseconds)."""
    return now // _DAY_MILLISECONDS


def ranking_key(prefix: str, view: str, day: int) -> str:
    """Return the name of a day's sorted set."""
    return f"{prefix}:{SCHEMA}:popular:{view}:{day}"


def add(client: Client, ranking: str, counts: Sequence[tuple[str, int]]) -> Exception | None:
    """Add to the counts of some keys, bound the set and let it expire; return why Redis refused, if it did."""
    commands: list[Command] = [("ZINCRBY", ranking, count, name) for name, count in counts]
    commands += [("ZREMRANGEBYRANK", ranking, 0, -_MAX_MEMBERS - 1), ("EXPIRE", ranking, _EXPIRES_SECONDS)]
    return next((reply for reply in pipelined(client, commands) if isinstance(reply, Exception)), None)


def page(client: Client, ranking: str, start: int) -> list[tuple[float, str]]:
    """Return up to 200 scores and names of keys from rank ``start`` on, the most popular first."""
    ranked = client.zrevrange(ranking, start, start + _PAGE - 1, withscores=True)
    return [(float(score), _text(name)) for name, score in ranked]


class Place(NamedTuple):
    """Where a walk through the keys is: on which server (a Cluster has several), and the cursor that it gave."""

    server: int = 0
    cursor: int = 0


def walk(client: Client, pattern: str, place: Place) -> tuple[list[str], Place | None]:
    """Return some keys that match ``pattern``, perhaps none, and where to go on; None when that was the last step."""
    servers = homes(client)
    cursor, names = servers[place.server].scan(place.cursor, match=pattern, count=_PAGE)
    following = Place(place.server, cursor) if cursor else Place(place.server + 1)
    return [_text(name) for name in names], following if following.server < len(servers) else None


def names_by_rank(ask: Ask, prefix: str, views: Sequence[str], now: int) -> Iterator[tuple[str, str]]:
    """Yield the names of keys with their views: those in the rankings of today and yesterday, then all there are.

    Some come twice, and some hold no answer (any more). ``now`` is the time on Redis's clock in milliseconds.
    """
    today = day_of(now)
    ranked = [_ranked(ask, prefix, view, day) for view in views for day in (today, today - 1)]
    for _, name, view in merge(*ranked, key=_score_of, reverse=True):
        yield name, view
    for view in views:
        place: Place | None = Place()
        while place is not None:
            names, place = ask("scan", partial(walk, pattern=f"{prefix}:{SCHEMA}:{view}:*", place=place))
            for name in names:
                yield name, view


def _ranked(ask: Ask, prefix: str, view: str, day: int) -> Iterator[tuple[float, str, str]]:
    ranking, start = ranking_key(prefix, view, day), 0
    while True:
        try:
            members = ask("rank", partial(page, ranking=ranking, start=start))
        except SharedCacheError as error:
            if error.reason != "response":
                raise
            return  # what stands there is no ranking
        for score, name in members:
            yield score, name, view
        if len(members) < _PAGE:
            return
        start += _PAGE


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")
