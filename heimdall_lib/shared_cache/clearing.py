"""What a flush does to L2: deletes the keys that it covers, whoever wrote them.

Rules: in small steps, so that Redis serves others in between; within a time; a key is deleted because its whole name
says so, never because a pattern matches.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from heimdall_lib import wire
from heimdall_lib.invalidations import Flush
from heimdall_lib.names import type_name
from heimdall_lib.shared_cache.client import Client, converse, encode, home, homes
from heimdall_lib.shared_cache.codec import SCHEMA, cache_key
from heimdall_lib.shared_cache.link import Link

_STEP = 500  # keys that Redis looks at in one go: well under a millisecond


class Cleared(NamedTuple):
    """How many keys went, and whether all were looked at in time."""

    removed: int
    complete: bool


def pattern(prefix: str, flush: Flush) -> str:
    r"""Return a glob that matches every key that a flush covers, and some others.

    Of what is special in a glob only ``\`` can stand in a name.
    """
    head = f"{prefix}:{SCHEMA}:*"
    if not flush.name or flush.name == b"\0":
        return head
    name = wire.presentation(flush.name).replace("\\", "\\\\")
    qtype = "*" if flush.qtype is None else type_name(flush.qtype)
    return f"{head}{'' if flush.subtree else ':'}{name}:{qtype}:*"


def clear(link: Link, prefix: str, flush: Flush, *, known: Sequence[str], seconds: float) -> Cleared:
    """Delete what a flush covers: ``known`` keys first, then what else is found within ``seconds``.

    Raises SharedCacheError when Redis fails.
    """
    until, glob = time.monotonic() + seconds, pattern(prefix, flush)
    removed = link.run("unlink", lambda client: sum(_unlink(home(client, name), [name]) for name in known))
    for server in link.run("scan", homes):
        cursor = -1
        while cursor:
            if time.monotonic() > until:
                return Cleared(removed, complete=False)
            cursor, names = _look(link, server, max(cursor, 0), glob)
            removed += _delete(link, server, [name for name in names if _covers(flush, prefix, name)])
    return Cleared(removed, complete=True)


def _look(link: Link, server: Client, cursor: int, glob: str) -> tuple[int, list[str]]:
    return link.run("scan", lambda _: _scan(server, cursor, glob), bulk=True)


def _scan(server: Client, cursor: int, glob: str) -> tuple[int, list[str]]:
    following, found = server.scan(cursor, match=glob, count=_STEP)
    return int(following), [name.decode("ascii", "replace") for name in found]


def _delete(link: Link, server: Client, names: Sequence[str]) -> int:
    return link.run("unlink", lambda _: _unlink(server, names), bulk=True) if names else 0


def _unlink(server: Client, names: Sequence[str]) -> int:
    """Delete keys in one round trip, each in a command of its own: a Cluster may have them in different slots."""
    replies = converse(server, [encode(b"UNLINK", name) for name in names], replies=len(names))
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return sum(reply for reply in replies if isinstance(reply, int))


def _covers(flush: Flush, prefix: str, name: str) -> bool:
    view = name.removeprefix(f"{prefix}:{SCHEMA}:").partition(":")[0]
    key = cache_key(prefix, view, name)
    return key is not None and flush.covers(key)
