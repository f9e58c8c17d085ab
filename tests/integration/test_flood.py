"""A flood of random names, and what it leaves in Redis."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from heimdall_lib.invalidations import Invalidations
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.new_names import NewNames
from heimdall_lib.reply import Reply
from heimdall_lib.resolver import Resolver, ResolverPolicy
from heimdall_lib.shared_cache.client import ClientOptions, connect
from heimdall_lib.shared_cache.codec import Codec
from heimdall_lib.shared_cache.lease import LEASE
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.stats import Stats
from tests.fakes import PATIENCE, ScriptedUpstreams, Threads, ask, eventually, examined, good_reply, parsed
from tests.integration.conftest import RedisServer

BUDGET = 50
FLOOD = 400
PREFIX = "heimdall:dns:cache"


def answer(key: bytes) -> Reply:
    """Names of the zone that is flooded do not exist, all others do."""
    if b"\x06victim" in key:
        return examined(key, authority=["victim.example. 300 SOA ns.example. host.example. 1 2 3 4 300"], rcode=3)
    return good_reply(key)


class Replica:
    """The tiers of one process, its budget for a zone's new names small; Redis is slow to nobody's harm."""

    def __init__(self, server: RedisServer) -> None:
        self.stats = Stats()
        link = Link(
            lambda: connect(server.target, ClientOptions(timeout=5.0)),
            name="the test's",
            slow_seconds=5.0,
            expected=True,
            stats=self.stats,
        )
        invalidations = Invalidations()
        self.shared = RedisCache(
            link,
            codec=Codec(),
            prefix=PREFIX,
            replica=secrets.token_hex(8),
            invalidations=invalidations,
            stats=self.stats,
            new_names=NewNames(rate=0, burst=BUDGET),
        )
        self.memory = MemoryCache(max_entries=10_000, max_bytes=1 << 24, purge_interval=30, stats=self.stats)
        self.upstreams = ScriptedUpstreams(answer)
        self.resolver = Resolver(
            policy=ResolverPolicy(read_budget=PATIENCE, query_timeout=2 * PATIENCE),
            memory=self.memory,
            shared=self.shared,
            invalidations=invalidations,
            upstreams=self.upstreams,
            spawn=Threads(),
            stats=self.stats,
        )

    def asked(self, name: str) -> str:
        """Where the answer for a name comes from."""
        query = parsed(ask(name))
        return "l1" if self.resolver.lookup(query) else self.resolver.resolve(query).source

    def forget(self, name: str) -> None:
        self.memory.remove(parsed(ask(name)).key)


@pytest.fixture
def replica_of(redis_server: RedisServer) -> Iterator[Callable[[], Replica]]:
    with ExitStack() as stack:

        def make() -> Replica:
            made = Replica(redis_server)
            stack.callback(made.shared.stop, PATIENCE)
            made.shared.start()
            eventually(lambda: made.stats.redis_up)
            return made

        yield make


def answers_in(server: RedisServer, zone: str) -> list[str]:
    """The names of the keys that Redis has for names below a zone, leases apart."""
    names = [name.decode() for name in server.admin.scan_iter(match=f"*.{zone}:*", count=1000)]
    return [name for name in names if not name.endswith(LEASE)]


def test_a_flood_leaves_no_more_in_redis_than_the_budget_of_its_zone_and_others_are_shared_as_ever(
    redis_server: RedisServer, replica_of: Callable[[], Replica]
) -> None:
    flooded, other = replica_of(), replica_of()
    for number in range(FLOOD):
        flooded.asked(f"x{secrets.token_hex(4)}.y{number}.victim.example.")
        if number % 20 == 0:
            assert flooded.asked(f"www{number}.example.com.") == "upstream"
    assert flooded.stats.redis_held_back_writes == FLOOD - BUDGET
    assert flooded.stats.redis_dropped_writes == 0
    eventually(lambda: len(answers_in(redis_server, "example.com")) == FLOOD // 20)
    for number in range(0, FLOOD, 20):
        assert other.asked(f"www{number}.example.com.") == "l2"
    assert len(answers_in(redis_server, "victim.example")) == BUDGET


def test_leases_on_what_is_held_back_are_ended(redis_server: RedisServer, replica_of: Callable[[], Replica]) -> None:
    flooded = replica_of()
    for number in range(BUDGET + 10):
        flooded.asked(f"x{number}.victim.example.")
    eventually(lambda: redis_server.calls("del") + redis_server.calls("unlink") == 10)


def test_a_name_that_is_held_back_is_shared_when_it_is_fetched_again(
    redis_server: RedisServer, replica_of: Callable[[], Replica]
) -> None:
    flooded, other = replica_of(), replica_of()
    for number in range(BUDGET):
        flooded.asked(f"x{number}.victim.example.")
    for _ in range(2):
        assert flooded.asked("wanted.victim.example.") == "upstream"
        flooded.forget("wanted.victim.example.")
    eventually(lambda: len(answers_in(redis_server, "victim.example")) == BUDGET + 1)
    assert other.asked("wanted.victim.example.") == "l2"
    assert flooded.stats.redis_held_back_writes == 1
