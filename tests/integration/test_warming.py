"""Warming from a real Redis: what L1 takes over, in which order, where it ends, and what it does not believe."""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from heimdall_lib.entry import message_of
from heimdall_lib.errors import SharedCacheError
from heimdall_lib.invalidations import EVERYTHING, Invalidations
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.reply import Reply
from heimdall_lib.resolver import Resolver, ResolverPolicy
from heimdall_lib.settings import Endpoint, RedisTarget, Secret
from heimdall_lib.shared_cache.cache import ANY_AGE
from heimdall_lib.shared_cache.client import ClientOptions, connect
from heimdall_lib.shared_cache.codec import Codec, StoredAnswer, redis_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.ranking import ranking_key
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.shared_cache.warming import NoWarming, Warming, WarmingBounds
from heimdall_lib.stats import Stats
from heimdall_lib.tally import WarmingState
from tests.fakes import PATIENCE, Lines, ScriptedUpstreams, Threads, address_in, ask, eventually, good_reply, parsed
from tests.integration.conftest import RedisServer, StartRedis, fill_up, start_cluster
from tests.support.engines import on_every_engine

PREFIX = "heimdall:dns:cache"
VIEW = "upstreams-view"
BOUNDS = WarmingBounds(entries=100_000, l1_entries=100_000, l1_bytes=1 << 30)
DAY_SECONDS = 86_400
AN_HOUR = 3600.0
ALL = "Redis has no more"
_TEMPLATE = good_reply(parsed(ask("n00000.example.com.")).key)


def key(number: int) -> bytes:
    return parsed(ask(f"n{number:05}.example.com.")).key


def name_of(question: bytes, view: str = VIEW) -> str:
    return redis_key(PREFIX, view, question)


def reply(number: int) -> Reply:
    """A reply to the question of ``key(number)``."""
    return _TEMPLATE._replace(message=_TEMPLATE.message.replace(b"n00000", b"n%05d" % number))


@dataclass
class Contents:
    """What other replicas have left in Redis; ``admin`` is a client of its server, or of one of a Cluster's."""

    admin: Any

    def now(self) -> float:
        seconds, microseconds = self.admin.time()
        return float(seconds) + float(microseconds) / 1e6

    def value(
        self, number: int = 0, *, age: float = 0.0, lifetime: int = 300, codec: Codec | None = None, view: str = VIEW
    ) -> bytes:
        answer = StoredAnswer(reply(number).message, int((self.now() - age) * 1000), lifetime)
        return (codec or Codec()).encode(name_of(key(number), view), key(number), answer)[0]

    def put(self, *numbers: int, view: str = VIEW) -> None:
        with self.admin.pipeline(transaction=False) as pipeline:
            for number in numbers:
                pipeline.set(name_of(key(number), view), self.value(number, view=view), ex=300)
            pipeline.execute()

    def put_many(self, count: int) -> None:
        stored_at, codec = int(self.now() * 1000), Codec()
        with self.admin.pipeline(transaction=False) as pipeline:
            for number in range(count):
                question = key(0).replace(b"n00000", b"n%05d" % number)
                answer = StoredAnswer(reply(number).message, stored_at, 300)
                pipeline.set(name_of(question), codec.encode(name_of(question), question, answer)[0], ex=300)
            pipeline.execute()

    def ranking(self, *, days_ago: int = 0, view: str = VIEW) -> str:
        return ranking_key(PREFIX, view, int(self.now() // DAY_SECONDS) - days_ago)

    def rank(self, counts: Mapping[int, int], *, days_ago: int = 0, view: str = VIEW) -> None:
        members = {name_of(key(number), view): count for number, count in counts.items()}
        self.admin.zadd(self.ranking(days_ago=days_ago, view=view), members)


class Replica:
    """The tiers of one process and its warming."""

    def __init__(
        self,
        target: RedisTarget,
        *,
        bounds: WarmingBounds = BOUNDS,
        policy: ResolverPolicy = ResolverPolicy(),  # noqa: B008 - frozen
        signing_keys: tuple[str, ...] = (),
        share_seconds: float = AN_HOUR,
        timeout: float = 5.0,
    ) -> None:
        self.stats = Stats()
        self.memory = MemoryCache(max_entries=200_000, max_bytes=1 << 31, purge_interval=30, stats=self.stats)
        self.link = Link(
            lambda: connect(target, ClientOptions(timeout)),
            name="the test's",
            slow_seconds=5.0,
            expected=True,
            stats=self.stats,
        )
        self.invalidations = Invalidations()
        self.shared = RedisCache(
            self.link,
            codec=Codec(signing_keys=signing_keys),
            prefix=PREFIX,
            replica=secrets.token_hex(8),
            invalidations=self.invalidations,
            stats=self.stats,
        )
        self.upstreams = ScriptedUpstreams()
        self.resolver = Resolver(
            policy=policy,
            memory=self.memory,
            shared=self.shared,
            invalidations=self.invalidations,
            upstreams=self.upstreams,
            spawn=Threads(),
            stats=self.stats,
        )
        self.warming = Warming(
            self.link,
            self.shared,
            prefix=PREFIX,
            tiers=self.resolver,
            memory=self.memory,
            bounds=bounds,
            stats=self.stats,
            share_seconds=share_seconds,
        )

    def start(self) -> None:
        self.shared.start()
        self.warming.start()

    def stop(self) -> None:
        self.warming.stop(PATIENCE)
        self.shared.stop(PATIENCE)

    def state(self) -> object:
        return self.warming.describe().state

    def entries(self) -> object:
        return self.warming.describe().entries

    def ended(self) -> str:
        """Wait for the end of warming, and say what brought it about."""
        eventually(lambda: self.state() == "done")
        return str(self.warming.describe().ended)

    def cold(self) -> bool:
        return self.warming.describe().cold

    def has(self) -> list[int]:
        """The numbers of the names that L1 has."""
        return [number for number in range(300) if key(number) in self.memory]

    def ask_for(self, number: int, times: int = 1) -> None:
        """Have clients ask for a name, and the answer in L1."""
        query = parsed(ask(f"n{number:05}.example.com."))
        if self.resolver.lookup(query) is None:
            self.resolver.resolve(query)
            times += 1
        for _ in range(times - 1):
            assert self.resolver.lookup(query) is not None


MakeReplica = Callable[..., Replica]


@pytest.fixture
def replica_of(redis_server: RedisServer) -> Iterator[MakeReplica]:
    """Make a replica of the test's Redis, or of another, and start it; it is stopped with the test."""
    with ExitStack() as stack:

        def make(target: RedisTarget | None = None, *, started: bool = True, **options: Any) -> Replica:
            made = Replica(target or redis_server.target, **options)
            if started:
                made.start()
                stack.callback(made.stop)
            return made

        yield make


@pytest.fixture
def contents(redis_server: RedisServer) -> Contents:
    return Contents(redis_server.admin)


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines("heimdall.redis") as collected:
        yield collected


class TestTakingOver:
    @on_every_engine
    def test_what_l2_has_is_in_l1_and_nobody_else_is_asked(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(*range(200))
        replica = replica_of()
        assert replica.ended() == ALL
        assert replica.has() == list(range(200))
        entry = replica.resolver.lookup(parsed(ask("N00007.example.com.")))
        assert entry is not None
        assert address_in(message_of(entry)) == "192.0.2.1"
        assert replica.upstreams.asked == []
        assert (replica.stats.redis_warmed_entries, replica.entries()) == (200, 200)
        assert (replica.stats.redis_hits, replica.stats.redis_misses) == (0, 0)  # no query has read anything

    def test_an_empty_redis_is_no_trouble(self, replica_of: MakeReplica) -> None:
        replica = replica_of()
        assert replica.ended() == ALL
        assert len(replica.memory) == 0

    def test_do_and_cd_variants_are_taken_over_as_what_they_are(
        self, contents: Contents, replica_of: MakeReplica
    ) -> None:
        questions = [parsed(ask(do=do, flags=flags)).key for do in (False, True) for flags in (0x0100, 0x0110)]
        for question in questions:
            answer = StoredAnswer(good_reply(question).message, int(contents.now() * 1000), 300)
            contents.admin.set(name_of(question), Codec().encode(name_of(question), question, answer)[0], ex=300)
        replica = replica_of()
        replica.ended()
        assert all(question in replica.memory for question in questions)

    def test_what_is_past_its_life_is_left_for_who_needs_something_stale(
        self, contents: Contents, replica_of: MakeReplica
    ) -> None:
        contents.admin.set(name_of(key(1)), contents.value(1, age=301, lifetime=300), ex=300)
        contents.put(2)
        replica = replica_of()
        assert replica.ended() == ALL
        assert replica.has() == [2]
        assert contents.admin.exists(name_of(key(1)))

    def test_what_l1_has_already_is_neither_read_nor_touched(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put(0)
        replica = replica_of(started=False)
        replica.upstreams.script = lambda question: good_reply(question, address="192.0.2.9")
        replica.ask_for(0)
        entry = replica.memory.get(key(0))
        redis_server.admin.config_resetstat()
        replica.start()
        assert replica.ended() == ALL
        replica.stop()
        assert replica.memory.get(key(0)) is entry
        assert redis_server.calls("get") == 0

    def test_only_the_views_of_this_replica_are_taken_over(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(1)
        contents.put(2, view="other")
        assert replica_of().ended() == ALL
        other = replica_of(policy=ResolverPolicy(view="other"))
        other.ended()
        assert other.has() == [2]

    def test_a_name_in_the_view_of_other_servers_than_its_own_is_left_there(
        self, contents: Contents, replica_of: MakeReplica
    ) -> None:
        """What a replica without this one's forward zone has stored: for the zone's names, others are asked here."""

        class TwoViews(ScriptedUpstreams):
            def views(self) -> set[str]:
                return {VIEW, "corp"}

            def view(self, question: bytes) -> str:
                return "corp" if question == key(1) else VIEW

        contents.put(0, 1, 2)
        contents.rank({1: 9})
        contents.put(3, view="corp")
        replica = replica_of(started=False)
        replica.resolver._upstreams = TwoViews()
        replica.start()
        replica.ended()
        assert replica.has() == [0, 2]
        contents.put(1, view="corp")
        again = replica_of(started=False)
        again.resolver._upstreams = TwoViews()
        again.start()
        again.ended()
        assert again.has() == [0, 1, 2]
        for each in (replica, again):
            each.stop()

    def test_of_a_cluster_every_primary_is_asked(self, start_redis: StartRedis, replica_of: MakeReplica) -> None:
        servers = start_cluster(start_redis)
        hosts = tuple(Endpoint("127.0.0.1", server.port) for server in servers)
        target = RedisTarget("cluster", hosts, "test")
        with ExitStack() as stack:
            client = connect(target, ClientOptions(5.0))
            stack.callback(client.close)
            contents = Contents(client)
            for number in range(60):
                client.set(name_of(key(number)), contents.value(number), ex=300)
        assert all(server.admin.dbsize() for server in servers)
        replica = replica_of(target, share_seconds=0.05)
        assert replica.ended() == ALL
        assert replica.has() == list(range(60))
        replica.ask_for(7, times=3)
        ranking = contents_of_day(servers[0])
        eventually(lambda: sum(server.admin.exists(ranking) for server in servers if holds(server, ranking)) == 1)
        first = replica_of(target, bounds=replace(BOUNDS, entries=1))
        first.ended()
        assert first.has() == [7]


def contents_of_day(server: RedisServer) -> str:
    return Contents(server.admin).ranking()


def holds(server: RedisServer, name: str) -> bool:
    """Whether a server of a Cluster is the one for a key."""
    slot = server.admin.execute_command("CLUSTER KEYSLOT", name)
    return any(
        int(first) <= slot <= int(last)
        for first, last, (_, port, *_) in (row[:3] for row in server.admin.execute_command("CLUSTER SLOTS"))
        if port == server.port
    )


class TestOrder:
    @on_every_engine
    def test_the_most_used_come_first(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(*range(250))
        contents.rank({number: number for number in range(230)})
        replica = replica_of(bounds=replace(BOUNDS, entries=10))
        replica.ended()
        assert replica.has() == list(range(220, 230))

    def test_yesterday_counts_too(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(*range(10))
        contents.rank({1: 5, 2: 1})
        contents.rank({3: 7, 1: 2}, days_ago=1)
        contents.rank({4: 100}, days_ago=2)
        replica = replica_of(bounds=replace(BOUNDS, entries=3))
        replica.ended()
        assert replica.has() == [1, 2, 3]

    def test_the_rankings_of_all_views_are_one(self, contents: Contents, replica_of: MakeReplica) -> None:
        class TwoViews(ScriptedUpstreams):
            def views(self) -> set[str]:
                return {VIEW, "corp"}

            def view(self, question: bytes) -> str:
                return "corp" if question in (key(2), key(3)) else VIEW

        contents.put(0, 1)
        contents.put(2, 3, view="corp")
        contents.rank({0: 10, 1: 1})
        contents.rank({2: 20, 3: 2}, view="corp")
        replica = replica_of(started=False, bounds=replace(BOUNDS, entries=3))
        replica.resolver._upstreams = TwoViews()
        replica.start()
        replica.ended()
        assert replica.has() == [0, 2, 3]
        replica.stop()

    def test_the_others_follow_while_there_is_room(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(*range(20))
        contents.rank({3: 1, 299: 5})  # one of which is no longer there
        replica = replica_of()
        assert replica.ended() == ALL
        assert replica.has() == list(range(20))


class TestBounds:
    @pytest.mark.parametrize(
        ("changes", "ended", "taken"),
        [
            ({"entries": 7}, "--warm-cache-entries is reached", {7}),
            ({"l1_entries": 11}, "L1 is half full", {11}),
            ({"l1_bytes": 5000}, "L1 is half full", set(range(8, 16))),
            ({"seconds": 0.0}, "0 s are over", {0}),
        ],
    )
    def test_it_ends_where_it_is_told_to(
        self, contents: Contents, replica_of: MakeReplica, changes: dict[str, Any], ended: str, taken: set[int]
    ) -> None:
        contents.put(*range(100))
        replica = replica_of(bounds=replace(BOUNDS, **changes))
        assert replica.ended() == ended
        assert len(replica.memory) in taken
        assert replica.stats.redis_warmed_entries == replica.entries() == len(replica.memory)

    def test_what_is_in_l1_already_counts(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(*range(100, 200))
        replica = replica_of(started=False, bounds=replace(BOUNDS, l1_entries=30))
        for number in range(20):
            replica.ask_for(number)
        replica.start()
        assert replica.ended() == "L1 is half full"
        assert (len(replica.memory), replica.entries()) == (30, 10)
        replica.stop()

    def test_it_is_done_in_small_steps(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put_many(20_000)
        contents.rank({number: number + 1 for number in range(1000)})
        redis_server.admin.config_resetstat()
        replica = replica_of()
        eventually(lambda: redis_server.admin.ping() and replica.state() == "done", 60.0)
        assert replica.entries() == 20_000
        assert redis_server.calls("zrevrange") >= 6  # 200 members each, and the end of both days
        assert redis_server.calls("get") >= 20_000 // 64
        assert redis_server.calls("scan") >= 19_000 // 250  # a step may find a few keys more than it looks for
        assert redis_server.calls("keys") == 0

    def test_the_log_says_that_it_began_and_how_it_ended(
        self, contents: Contents, replica_of: MakeReplica, lines: Lines
    ) -> None:
        contents.put(1, 2, 3)
        replica_of(bounds=replace(BOUNDS, entries=50)).ended()
        eventually(lambda: len(list(lines)) == 3)
        up, began, ended = lines
        assert up.endswith("is in use")
        assert began == "INFO L1 is warmed from Redis, up to 50 entries, the most used first"
        assert re.fullmatch(rf"INFO L1 has 3 entries from Redis after \d+\.\d+ s: {ALL}", ended)

    def test_stats_say_how_far_it_is(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put(1, 2, 3)
        replica = replica_of(started=False)
        assert replica.warming.describe() == WarmingState("waiting")
        replica.start()
        replica.ended()
        described = replica.warming.describe()
        assert described == WarmingState("done", cold=False, entries=3, seconds=described.seconds, ended=ALL)
        assert 0 < described.seconds < PATIENCE
        assert replica.warming.describe() == described
        replica.stop()


class TestLies:
    """What stands in Redis is no better than what a query would believe."""

    KEYS = ("a key of sixteen or more",)

    @pytest.mark.parametrize(
        ("lie", "reason"),
        [
            (lambda _: b"", "format"),
            (lambda _: b'{"a": "192.0.2.66"}', "format"),
            (lambda contents: contents.value(1)[:-1], "signature"),
            (lambda contents: contents.value(1), "signature"),
            (lambda contents: contents.value(1, codec=Codec(signing_keys=["another key of that size"])), "signature"),
            (lambda contents: contents.value(2, codec=Codec(signing_keys=TestLies.KEYS)), "signature"),
        ],
        ids=["empty", "foreign", "cut short", "unsigned", "another's", "of another name"],
    )
    def test_what_is_not_signed_for_this_name_is_not_believed(
        self, contents: Contents, replica_of: MakeReplica, lie: Callable[[Contents], bytes], reason: str
    ) -> None:
        self.check(contents, replica_of(started=False, signing_keys=self.KEYS), lie(contents), {reason: 1})

    @pytest.mark.parametrize(
        ("lie", "reasons"),
        [
            (lambda contents: contents.value(2), {"question": 1}),
            (lambda contents: contents.value(1)[:-4], {"size": 1}),
            (lambda contents: b"HD\x01\x00\x01" + contents.value(1)[5:], {"flags": 1}),
            (lambda contents: b"HD\x02" + contents.value(1)[3:], {"version": 1}),
            (lambda contents: contents.value(1, age=301), {}),
        ],
        ids=["of another name", "cut short", "another variant", "another version", "expired"],
    )
    def test_what_is_no_answer_to_this_name_is_not_believed(
        self, contents: Contents, replica_of: MakeReplica, lie: Callable[[Contents], bytes], reasons: dict[str, int]
    ) -> None:
        self.check(contents, replica_of(started=False), lie(contents), reasons)

    def test_what_is_from_before_a_flush_is_not_believed(self, contents: Contents, replica_of: MakeReplica) -> None:
        replica = replica_of(started=False)
        replica.invalidations.flushed(EVERYTHING, time.monotonic() - 50)
        self.check(contents, replica, contents.value(1, age=100), {"flushed": 1})

    def check(self, contents: Contents, replica: Replica, lie: bytes, reasons: dict[str, int]) -> None:
        codec = Codec(signing_keys=self.KEYS)
        contents.admin.set(name_of(key(1)), lie, ex=300)
        contents.admin.set(name_of(key(5)), contents.value(5, codec=codec), ex=300)
        replica.start()
        assert replica.ended() == ALL
        assert replica.has() == [5]
        assert replica.stats.redis_rejected == reasons
        assert replica.stats.redis_warmed_entries == 1
        replica.stop()

    def test_values_of_another_type_and_names_that_are_none_are_passed_over(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put(5)
        admin = redis_server.admin
        admin.hset(name_of(key(1)), "field", "value")
        for name in ("lease", "", "x:A:IN:more", "\N{SNOWMAN}:A:IN", "www.example.com:NOTYPE:IN"):
            admin.set(f"{PREFIX}:1:{VIEW}:{name}", contents.value(1), ex=300)
        admin.set(f"{name_of(key(5))}:lease", "token", ex=300)
        admin.set(b"\xff" + name_of(key(1)).encode(), contents.value(1), ex=300)
        replica = replica_of()
        assert replica.ended() == ALL
        assert replica.has() == [5]
        assert (replica.stats.redis_rejected, replica.stats.redis_errors) == ({}, {})

    def test_a_ranking_can_say_what_it_likes(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put(5)
        contents.put(6, view="other")
        redis_server.admin.set("secret", "of another application")
        members = {b"secret": 1e300, b"": 9, b"\xff\xfe": 8, name_of(key(6), "other").encode(): 7, b"x" * 100_000: 6}
        redis_server.admin.zadd(contents.ranking(), {**members, b"inf": "inf", b"-inf": "-inf"})
        redis_server.admin.config_resetstat()
        replica = replica_of()
        assert replica.ended() == ALL
        assert replica.has() == [5]
        assert redis_server.calls("get") == 1

    def test_a_ranking_that_is_none_is_passed_over(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put(5)
        redis_server.admin.set(contents.ranking(), "no sorted set")
        contents.rank({5: 1}, days_ago=1)
        replica = replica_of()
        assert replica.ended() == ALL
        assert replica.has() == [5]
        assert replica.stats.redis_errors == {"response": 1}


class TestWhenRedisIsIll:
    def test_killed_in_the_middle(self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica) -> None:
        contents.put_many(20_000)
        replica = replica_of()
        eventually(lambda: replica.state() == "running" and replica.stats.redis_warmed_entries >= 100)
        redis_server.kill()
        assert replica.ended().startswith(("Redis failed, connection: ", "Redis is not in use"))
        count = replica.stats.redis_warmed_entries
        assert 100 <= count < 20_000
        assert len(replica.memory) == count

    def test_hanging_in_the_middle(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put_many(20_000)
        replica = replica_of(timeout=0.25)
        eventually(lambda: replica.stats.redis_warmed_entries >= 100)
        redis_server.pause()
        assert replica.ended().startswith("Redis failed, timeout: ")
        redis_server.resume()

    def test_left_alone_since_queries_failed(self, contents: Contents, replica_of: MakeReplica) -> None:
        replica = replica_of(started=False)

        class Failing(ScriptedUpstreams):
            def view(self, question: bytes) -> str:
                while not replica.link.open:
                    with pytest.raises(SharedCacheError):
                        replica.link.run("get", lambda client: client.no_such_command())
                return VIEW

        contents.put(1)
        replica.resolver._upstreams = Failing()
        replica.start()
        assert replica.ended() == "Redis is not in use"
        assert replica.has() == []
        replica.stop()

    def test_absent_at_the_start(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica, lines: Lines
    ) -> None:
        redis_server.kill()
        replica = replica_of()
        eventually(lambda: replica.stats.redis_errors["connection"])
        assert replica.state() == "waiting"
        redis_server.start()
        contents.put(1, 2, 3)
        replica.ended()
        assert len([line for line in lines if "warmed" in line]) == 1

    def test_its_return_warms_nothing_again(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica, lines: Lines
    ) -> None:
        contents.put(1)
        replica = replica_of()
        replica.ended()
        redis_server.kill()
        eventually(lambda: (replica.shared.read(key(2), VIEW, ANY_AGE), replica.link.open)[1])
        redis_server.start()
        eventually(lambda: not replica.link.open)
        contents.put(2)
        assert len([line for line in lines if "warmed" in line]) == 1
        assert replica.has() == [1]

    def test_a_user_who_may_not_ends_it_and_redis_is_used_on(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put(1)
        redis_server.admin.execute_command(
            *f"ACL SETUSER reader on >pass ~{PREFIX}:* +get +set +time +select +ping".split()
        )
        target = replace(redis_server.target, username="reader", password=Secret("pass"))
        replica = replica_of(target)
        assert replica.ended().startswith("Redis failed, auth: ")
        assert replica.stats.redis_up
        assert replica.stats.redis_errors == {"auth": 1}

    def test_a_bug_ends_it_and_nothing_else(self, contents: Contents, replica_of: MakeReplica, lines: Lines) -> None:
        class Broken(ScriptedUpstreams):
            def view(self, question: bytes) -> str:
                raise ZeroDivisionError

        contents.put(1)
        replica = replica_of(started=False, share_seconds=0.05)
        replica.resolver._upstreams = Broken()
        replica.start()
        assert replica.ended() == "internal error"
        assert "ERROR warming failed inside Heimdall" in list(lines)
        replica.resolver._upstreams = replica.upstreams
        replica.ask_for(2, times=2)
        eventually(lambda: contents.admin.zcard(contents.ranking()) == 1)
        replica.stop()

    @on_every_engine
    def test_the_user_that_the_documentation_makes_may_do_all_of_it(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        documentation = Path(__file__).parents[2] / "docs" / "redis.md"
        command, *_ = re.findall(r"^ACL SETUSER .+$", documentation.read_text(), re.MULTILINE)
        redis_server.admin.execute_command(*command.split())
        contents.put(1)
        contents.rank({1: 5})
        replica = replica_of(replace(redis_server.target, username="heimdall", password=Secret("PASSWORD")))
        assert replica.ended() == ALL
        replica.ask_for(1, times=2)
        replica.stop()
        assert contents.admin.zscore(contents.ranking(), name_of(key(1))) == 7
        assert replica.stats.redis_errors == {}


class TestSharing:
    """What clients ask for becomes the order in which others warm."""

    @on_every_engine
    def test_replicas_add_up_what_their_clients_ask_for(self, contents: Contents, replica_of: MakeReplica) -> None:
        one, other = replica_of(), replica_of()
        for each in (one, other):
            each.ended()
        one.ask_for(1, times=3)
        one.ask_for(2, times=7)
        other.ask_for(1, times=10)
        for each in (one, other):
            each.stop()
        ranked = contents.admin.zrevrange(contents.ranking(), 0, -1, withscores=True)
        assert ranked == [(name_of(key(1)).encode(), 13.0), (name_of(key(2)).encode(), 7.0)]
        assert 0 < contents.admin.ttl(contents.ranking()) <= 2 * DAY_SECONDS

    def test_they_go_out_from_time_to_time(self, contents: Contents, replica_of: MakeReplica) -> None:
        replica = replica_of(share_seconds=0.05)
        for number in (1, 2, 3):
            replica.ask_for(number)
            replica.ask_for(number)
            eventually(partial(contents.admin.zscore, contents.ranking(), name_of(key(number))))

    def test_more_than_go_out_at_once_are_shared_too(self, contents: Contents, replica_of: MakeReplica) -> None:
        replica = replica_of()
        replica.ended()
        for number in range(120):
            replica.ask_for(number)
        replica.warming.stop(PATIENCE)
        assert contents.admin.zcard(contents.ranking()) == 120

    def test_the_set_is_bounded(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.admin.zadd(contents.ranking(), {f"member{number}": number + 2 for number in range(20_100)})
        replica = replica_of(share_seconds=0.05)
        replica.ask_for(1, times=30_000)
        eventually(lambda: contents.admin.zcard(contents.ranking()) == 20_000)
        assert contents.admin.zscore(contents.ranking(), name_of(key(1))) is not None
        assert contents.admin.zscore(contents.ranking(), "member99") is None

    def test_the_last_counts_are_shared_at_the_end(self, contents: Contents, replica_of: MakeReplica) -> None:
        replica = replica_of()
        replica.ended()
        replica.ask_for(1, times=4)
        replica.stop()
        assert contents.admin.zscore(contents.ranking(), name_of(key(1))) == 4

    def test_while_redis_is_down_they_are_lost_in_silence(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica, lines: Lines
    ) -> None:
        replica = replica_of(share_seconds=0.05)
        replica.ended()
        redis_server.kill()
        for turn in range(8):
            replica.ask_for(turn)
            eventually(lambda: not replica.resolver.popularity)
        redis_server.start()
        eventually(lambda: not replica.link.open)
        assert contents.admin.zcard(contents.ranking()) == 0
        assert not [line for line in lines if "popular" in line]

    def test_a_refusal_is_counted_and_said_once(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica, lines: Lines
    ) -> None:
        replica = replica_of(share_seconds=0.05)
        replica.ended()
        fill_up(redis_server)
        for _ in range(3):
            replica.ask_for(1)
            eventually(lambda: not replica.resolver.popularity)
        eventually(lambda: replica.stats.redis_errors["oom"] >= 3)
        assert replica.stats.redis_up
        redis_server.admin.config_set("maxmemory", "0")
        replica.ask_for(1)
        eventually(lambda: contents.admin.zcard(contents.ranking()) == 1)
        (said,) = [line for line in lines if "popular" in line]
        assert said.startswith("WARNING Redis does not take which names are popular (oom: ")


class TestReadiness:
    def test_who_is_warming_is_cold_and_who_is_warm_is_not(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put(1)
        replica = replica_of(started=False)
        redis_server.pause()
        replica.start()
        assert replica.cold()
        redis_server.resume()
        replica.ended()
        assert not replica.cold()
        replica.stop()

    def test_for_a_redis_that_is_not_there_nobody_waits_longer_than_a_second(
        self, contents: Contents, redis_server: RedisServer, replica_of: MakeReplica
    ) -> None:
        contents.put_many(2)
        redis_server.kill()
        started = time.monotonic()
        replica = replica_of()
        assert replica.cold()
        eventually(lambda: not replica.cold())
        assert 0.9 < time.monotonic() - started < PATIENCE
        redis_server.start()
        contents.put_many(5000)
        eventually(lambda: replica.state() != "waiting")
        assert not replica.cold()  # nor does it take its readiness back when Redis comes

    def test_without_warming_nobody_is_cold(self) -> None:
        warming: Warming | NoWarming = NoWarming()
        warming.start()
        assert warming.describe() == WarmingState("off", cold=False)
        warming.stop(PATIENCE)


class TestStop:
    def test_in_the_middle(self, contents: Contents, replica_of: MakeReplica) -> None:
        contents.put_many(20_000)
        replica = replica_of()
        eventually(lambda: replica.stats.redis_warmed_entries >= 100)
        replica.stop()
        assert replica.ended() == "Heimdall stops"
        assert not replica.warming._thread.is_alive()

    def test_before_redis_was_there(self, redis_server: RedisServer, replica_of: MakeReplica, lines: Lines) -> None:
        redis_server.kill()
        replica = replica_of()
        replica.stop()
        assert not replica.warming._thread.is_alive()
        assert replica.state() == "waiting"
        assert not [line for line in lines if "L1" in line]

    def test_a_hanging_redis_does_not_hold_it_up(self, redis_server: RedisServer, replica_of: MakeReplica) -> None:
        replica = replica_of(timeout=3.0)
        replica.ended()
        replica.ask_for(1)
        redis_server.pause()
        started = time.monotonic()
        replica.warming.stop(0.1)
        assert time.monotonic() - started < 2
        redis_server.resume()
