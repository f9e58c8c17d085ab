"""Leases in a real Redis: who is to fetch, in how many round trips, and what an ill or strict Redis makes of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.settings import RedisTarget, Secret
from heimdall_lib.shared_cache.client import Client, ClientOptions, connect, multi_delete, multi_set, translated
from heimdall_lib.shared_cache.codec import Codec, StoredAnswer
from heimdall_lib.shared_cache.lease import LEASE, Leases, Wanted
from tests.fakes import Lines, Threads, eventually, good_reply, parsed, unused_port
from tests.integration.conftest import RedisServer, StartRedis, Tls, fill_up, start_cluster
from tests.support.engines import on_every_engine

KEY = parsed().key
PASSWORD = "hunter2"
REPOSITORY = Path(__file__).parents[2]
NAME = "heimdall:dns:cache:1:view:www.example.com:A:IN"
LONG = 600_000  # milliseconds: a lease that a test never sees the end of
NEVER = 1 << 50  # milliseconds
NOW = 1_700_000_000_000  # the tests' own idea of Redis's clock
SCRIPTS = ["+evalsha", "+script|load"]

Result = tuple[bytes | None, bool]


def value(*, age: float = 0.0, lifetime: int = 300) -> bytes:
    """What a replica has stored ``age`` seconds before ``NOW``."""
    answer = StoredAnswer(good_reply(KEY).message, NOW - round(age * 1000), lifetime)
    return Codec().encode(NAME, KEY, answer)[0]


@dataclass
class Replica:
    """One replica's reads."""

    client: Client
    leases: Leases

    def read(self, name: str = NAME, *, max_age: int = NEVER, lease: int = LONG) -> Result:
        (result,) = self.read_all([Wanted(name, max_age)], lease=lease)
        return result

    def read_all(self, wanted: Sequence[Wanted], *, lease: int = LONG) -> Sequence[Result]:
        with translated():
            return self.leases.read(self.client, wanted, now=NOW, lease=lease)


Join = Callable[..., Replica]


@pytest.fixture
def replica_of() -> Iterator[Join]:
    """Make a replica of a target; its client is closed with the test."""
    with ExitStack() as stack:

        def make(target: RedisTarget, options: ClientOptions | None = None) -> Replica:
            client = connect(target, options or ClientOptions(timeout=5.0))
            stack.callback(client.close)
            return Replica(client, Leases())

        yield make


@pytest.fixture
def replica(redis_server: RedisServer, replica_of: Join) -> Replica:
    return replica_of(redis_server.target)


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines("heimdall.redis") as collected:
        yield collected


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(SharedCacheError) as caught:
        call()
    return caught.value.reason


def documented(beginning: str) -> list[list[str]]:
    """The commands in docs/redis.md that begin so, as words."""
    lines = (REPOSITORY / "docs" / "redis.md").read_text().splitlines()
    return [line.replace("PASSWORD", PASSWORD).split() for line in lines if line.startswith(beginning)]


def check_leases(one: Replica, other: Replica) -> None:
    """What holds in every layout."""
    assert one.read() == (None, False)
    assert [one.read(), other.read()] == [(None, True)] * 2
    good, stale = value(), value(age=301)
    assert multi_set(one.client, [("good", good, 60), ("stale", stale, 60)]) == [None, None]
    wanted = [Wanted(name, NEVER) for name in ("good", "stale", "none")]
    assert one.read_all(wanted) == [(good, False), (stale, False), (None, False)]
    assert [read[0] for read in other.read_all(wanted)] == [good, stale, None]
    assert [read[1] for read in other.read_all(wanted)][1:] == [True, True]


class TestWhoIsToFetch:
    @on_every_engine
    def test_the_first_who_finds_nothing(self, replica: Replica, replica_of: Join, redis_server: RedisServer) -> None:
        check_leases(replica, replica_of(redis_server.target))

    @on_every_engine
    def test_one_of_many_at_the_same_moment(self, replica: Replica) -> None:
        spawn, results = Threads(), list[Result]()
        replica.read("warm")
        for _ in range(20):
            spawn(lambda: results.append(replica.read()))
        spawn.join()
        assert spawn.deaths == []
        assert sorted(results, key=str) == [(None, False)] + [(None, True)] * 19

    @pytest.mark.parametrize("age", [0, 299, -60], ids=["new", "nearly over", "from the future"])
    def test_nobody_while_the_value_is_good(self, replica: Replica, redis_server: RedisServer, age: int) -> None:
        redis_server.admin.set(NAME, value(age=age))
        assert [replica.read(), replica.read()] == [(value(age=age), False)] * 2
        assert not redis_server.admin.exists(NAME + LEASE)

    @pytest.mark.parametrize("age", [300, 301, 86700])
    def test_the_first_who_finds_one_past_its_life(self, replica: Replica, redis_server: RedisServer, age: int) -> None:
        redis_server.admin.set(NAME, value(age=age))
        assert [replica.read(), replica.read()] == [(value(age=age), False), (value(age=age), True)]

    @pytest.mark.parametrize(("max_age", "leases"), [(20_001, 0), (20_000, 1), (0, 1)])
    def test_the_first_who_finds_one_too_old_for_it(
        self, replica: Replica, redis_server: RedisServer, max_age: int, leases: int
    ) -> None:
        redis_server.admin.set(NAME, value(age=20))
        assert replica.read(max_age=max_age) == (value(age=20), False)
        assert redis_server.admin.exists(NAME + LEASE) == leases

    def test_each_in_a_batch_by_its_own_age(self, replica: Replica, redis_server: RedisServer) -> None:
        for number in range(4):
            redis_server.admin.set(f"n{number}", value(age=20))
        wanted = [Wanted("n0", 10_000), Wanted("n1", NEVER), Wanted("n2", 30_000), Wanted("n3", 20_000)]
        replica.read_all(wanted)
        assert [result[1] for result in replica.read_all(wanted)] == [True, False, False, True]

    @on_every_engine
    def test_ages_to_the_millisecond_and_lifetimes_of_many_years(
        self, replica: Replica, redis_server: RedisServer
    ) -> None:
        random = Random(1)
        wanted, expected = [], []
        for number in range(128):
            lifetime = random.choice((1, 300, 86400, 2**30))
            max_age = random.choice((1, lifetime * 500, lifetime * 1000, NEVER))
            age = random.choice((lifetime * 1000, max_age if max_age < NEVER else 0)) + random.choice((-1, 0, 1))
            redis_server.admin.set(f"n{number}", value(age=age / 1000, lifetime=lifetime))
            wanted.append(Wanted(f"n{number}", max_age))
            expected.append(not (age < lifetime * 1000 and age < max_age))
        replica.read_all(wanted)
        assert [elsewhere for _, elsewhere in replica.read_all(wanted)] == expected
        assert 30 < sum(expected) < 100

    def test_a_batch_of_as_many_as_go_out_together(self, replica: Replica) -> None:
        wanted = [Wanted(f"n{number}", NEVER) for number in range(128)]
        assert replica.read_all(wanted) == [(None, False)] * 128
        assert replica.read_all(wanted) == [(None, True)] * 128

    def test_another_once_the_lease_is_over(self, replica: Replica) -> None:
        started = time.monotonic()
        assert not replica.read(lease=100)[1]
        eventually(lambda: not replica.read(lease=100)[1])
        assert time.monotonic() - started >= 0.09

    @on_every_engine
    def test_a_lease_is_over_by_itself(self, replica: Replica, redis_server: RedisServer) -> None:
        replica.read(lease=LONG)
        assert LONG - 5000 < redis_server.admin.pttl(NAME + LEASE) <= LONG


class TestRoundTrips:
    def watched(self, server: RedisServer, call: Callable[[], object]) -> list[str]:
        """The commands that came over a connection while ``call`` ran; those of a script are marked otherwise."""
        with server.admin.monitor() as monitor:
            call()
            server.admin.echo("over")
            seen = []
            while "over" not in (entry := monitor.next_command())["command"]:
                if entry["client_type"] != "lua":
                    seen.append(entry["command"].split()[0])
        return seen

    @on_every_engine
    def test_a_miss_costs_one(self, replica: Replica, redis_server: RedisServer) -> None:
        replica.read("warm")
        assert self.watched(redis_server, replica.read) == ["EVALSHA"]

    @pytest.mark.parametrize("age", [0, 400], ids=["good", "stale"])
    def test_a_value_costs_one(self, replica: Replica, redis_server: RedisServer, age: int) -> None:
        redis_server.admin.set(NAME, value(age=age))
        replica.read("warm")
        assert self.watched(redis_server, replica.read) == ["EVALSHA"]

    @on_every_engine
    def test_a_batch_costs_one(self, replica: Replica, redis_server: RedisServer) -> None:
        replica.read("warm")
        wanted = [Wanted(f"n{number}", NEVER) for number in range(100)]
        assert self.watched(redis_server, lambda: replica.read_all(wanted)) == ["EVALSHA"]

    def test_the_first_since_redis_started_costs_two(self, replica: Replica, redis_server: RedisServer) -> None:
        assert self.watched(redis_server, replica.read) == ["EVALSHA", "SCRIPT", "EVALSHA"]

    @on_every_engine
    def test_so_does_the_first_after_a_script_flush(self, replica: Replica, redis_server: RedisServer) -> None:
        replica.read("warm")
        redis_server.admin.script_flush()
        assert replica.read() == (None, False)
        assert replica.read() == (None, True)
        assert self.watched(redis_server, replica.read) == ["EVALSHA"]


class TestLayouts:
    def test_a_unix_socket(self, redis_server: RedisServer, replica_of: Join) -> None:
        target = RedisTarget("unix", (), "test", path=str(redis_server.socket))
        check_leases(replica_of(target), replica_of(target))

    def test_tls(self, start_redis: StartRedis, replica_of: Join, tls: Tls) -> None:
        server = start_redis(*tls.arguments(port := unused_port()))
        target = replace(server.target, hosts=(replace(server.target.hosts[0], port=port),), tls=True)
        options = ClientOptions(timeout=5.0, ca_cert=tls.ca)
        check_leases(replica_of(target, options), replica_of(target, options))

    def test_a_primary_that_a_sentinel_knows(
        self, redis_server: RedisServer, replica_of: Join, sentinel: Callable[..., int]
    ) -> None:
        hosts = (replace(redis_server.target.hosts[0], port=sentinel(redis_server.port)),)
        target = RedisTarget("sentinel", hosts, "test", service_name="mymaster")
        check_leases(replica_of(target), replica_of(target))

    @on_every_engine
    def test_a_cluster(self, start_redis: StartRedis, replica_of: Join) -> None:
        servers = start_cluster(start_redis)
        target = replace(servers[0].target, topology="cluster")
        one, other = replica_of(target), replica_of(target)
        check_leases(one, other)
        multi_set(one.client, [("list", b"", 60)])
        one.client.delete("list")
        one.client.lpush("list", "x")
        assert one.read("list") == (None, False)
        assert sum(server.calls("evalsha") for server in servers) == 0

    def test_a_cluster_that_has_lost_a_server_is_at_fault(self, start_redis: StartRedis, replica_of: Join) -> None:
        servers = start_cluster(start_redis)
        replica = replica_of(replace(servers[0].target, topology="cluster"), ClientOptions(0.5))
        servers[1].kill()
        wanted = [Wanted(f"n{number}", NEVER) for number in range(50)]
        assert reason(lambda: replica.read_all(wanted)) in ("connection", "timeout", "response")


class TestAnIllRedis:
    @on_every_engine
    def test_a_full_one_is_read_and_gives_no_leases(self, replica: Replica, redis_server: RedisServer) -> None:
        redis_server.admin.set(NAME, value())
        replica.read("warm")
        fill_up(redis_server)
        assert replica.read() == (value(), False)
        assert [replica.read("none"), replica.read("none")] == [(None, False)] * 2

    def test_a_full_one_that_has_lost_the_script_is_read(self, replica: Replica, redis_server: RedisServer) -> None:
        redis_server.admin.set(NAME, value())
        fill_up(redis_server)
        assert replica.read() == (value(), False)
        assert replica.read("none") == (None, False)

    def test_a_full_one_that_evicts_gives_leases(self, replica: Replica, redis_server: RedisServer) -> None:
        redis_server.admin.config_set("maxmemory-policy", "allkeys-lru")
        redis_server.admin.config_set("maxmemory", "20mb")
        for number in range(30):
            redis_server.admin.set(f"ballast{number}", bytes(1_000_000))
        assert redis_server.admin.info("stats")["evicted_keys"] >= 10
        assert [replica.read("none"), replica.read("none")] == [(None, False), (None, True)]

    @on_every_engine
    def test_a_read_only_replica_is_read_and_gives_no_leases(self, replica: Replica, redis_server: RedisServer) -> None:
        redis_server.admin.set(NAME, value())
        redis_server.admin.replicaof("127.0.0.1", unused_port())
        assert replica.read() == (value(), False)
        assert [replica.read("none"), replica.read("none")] == [(None, False)] * 2

    def test_a_primary_that_wants_replicas_is_read_and_gives_no_leases(
        self, replica: Replica, redis_server: RedisServer
    ) -> None:
        redis_server.admin.set(NAME, value())
        redis_server.admin.config_set("min-replicas-to-write", "1")
        assert replica.read() == (value(), False)
        assert [replica.read("none"), replica.read("none")] == [(None, False)] * 2

    def test_a_replica_that_has_lost_its_primary_and_serves_nothing_stale_is_at_fault(
        self, replica: Replica, redis_server: RedisServer
    ) -> None:
        redis_server.admin.config_set("replica-serve-stale-data", "no")
        redis_server.admin.replicaof("127.0.0.1", unused_port())
        assert reason(replica.read) == "response"

    @pytest.mark.parametrize("command", [("LPUSH", "x"), ("HSET", "x", "y"), ("SADD", "x")])
    @on_every_engine
    def test_another_type_under_the_values_key_is_a_miss(
        self, replica: Replica, redis_server: RedisServer, command: tuple[str, ...]
    ) -> None:
        verb, *rest = command
        redis_server.admin.execute_command(verb, NAME, *rest)
        wanted = [Wanted(NAME, NEVER), Wanted("none", NEVER)]
        assert replica.read_all(wanted) == [(None, False)] * 2
        assert replica.read_all(wanted) == [(None, True)] * 2

    @pytest.mark.parametrize("command", [("LPUSH", "x"), ("HSET", "x", "y"), ("SADD", "x"), ("SET", "x")])
    def test_whatever_is_under_the_leases_key_is_taken_for_a_lease(
        self, replica: Replica, redis_server: RedisServer, command: tuple[str, ...]
    ) -> None:
        verb, *rest = command
        redis_server.admin.execute_command(verb, NAME + LEASE, *rest)
        assert replica.read() == (None, True)  # those who wait are bound by a time of their own
        redis_server.admin.set(NAME, value())
        assert replica.read() == (value(), False)

    @pytest.mark.parametrize(
        "foreign",
        [b"", b"x", b"some other program's value", b"HD\1", value()[:19], b"\xff" * 100, bytes(100)],
        ids=["empty", "short", "text", "magic", "head", "ones", "zeros"],
    )
    def test_foreign_bytes_come_out_as_they_are(
        self, replica: Replica, redis_server: RedisServer, foreign: bytes
    ) -> None:
        redis_server.admin.set(NAME, foreign)
        assert replica.read() == (foreign, False)

    @pytest.mark.parametrize("head", [b"HD\2", b"HX\1", b"XX\xff"], ids=["version", "magic", "both"])
    def test_a_value_of_a_future_version_is_fetched_by_one(
        self, replica: Replica, redis_server: RedisServer, head: bytes
    ) -> None:
        future = head + value()[3:]
        redis_server.admin.set(NAME, future)
        assert [replica.read(), replica.read()] == [(future, False), (future, True)]


class TestAccess:
    """Users who may do no more than Heimdall does, or less."""

    @pytest.fixture
    def user(self, redis_server: RedisServer, replica_of: Join) -> Callable[..., Replica]:
        def make(*commands: str, name: str = "ann", keys: str = "heimdall:dns:cache:*") -> Replica:
            redis_server.admin.acl_setuser(
                name, enabled=True, passwords=["+" + PASSWORD], keys=[keys], commands=list(commands)
            )
            return replica_of(replace(redis_server.target, username=name, password=Secret(PASSWORD)))

        return make

    def check(self, replica: Replica) -> None:
        assert [replica.read(), replica.read()] == [(None, False), (None, True)]
        assert multi_set(replica.client, [(NAME, value(), 60)]) == [None]
        assert replica.read()[0] == value()

    @on_every_engine
    def test_what_the_documentation_allows_is_enough(
        self, redis_server: RedisServer, replica_of: Join, lines: Lines
    ) -> None:
        one, *_ = documented("ACL SETUSER heimdall")
        redis_server.admin.execute_command(*one)
        login: dict[str, Any] = {"username": "heimdall", "password": Secret(PASSWORD)}
        replica = replica_of(replace(redis_server.target, database=1, **login))
        self.check(replica)
        assert multi_delete(replica.client, [NAME]) == [None]
        assert replica.client.time()
        assert redis_server.admin.acl_log() == []
        assert list(lines) == []

    def test_what_the_documentation_allows_is_enough_in_a_cluster(
        self, start_redis: StartRedis, replica_of: Join, lines: Lines
    ) -> None:
        servers = start_cluster(start_redis)
        for server in servers:
            for command in documented("ACL SETUSER heimdall"):
                server.admin.execute_command(*command)
        login: dict[str, Any] = {"username": "heimdall", "password": Secret(PASSWORD)}
        replica = replica_of(replace(servers[0].target, topology="cluster", **login))
        self.check(replica)
        assert multi_delete(replica.client, [NAME]) == [None]
        assert replica.client.time()
        assert [entry for server in servers for entry in server.admin.acl_log()] == []
        assert list(lines) == []

    @pytest.mark.parametrize(
        "commands",
        [("+get", "+set"), ("+get", "+set", "+evalsha"), ("+get", "+set", "+script|load")],
        ids=["no script", "no loading", "no running"],
    )
    @on_every_engine
    def test_without_scripts_leases_are_taken_all_the_same(
        self, user: Callable[..., Replica], lines: Lines, commands: tuple[str, ...]
    ) -> None:
        replica = user(*commands)
        self.check(replica)
        (line,) = lines
        assert line.startswith("WARNING Redis runs no scripts for Heimdall (")

    def test_that_is_decided_once(self, user: Callable[..., Replica], redis_server: RedisServer) -> None:
        replica = user("+get", "+set")
        replica.read()
        redis_server.admin.config_resetstat()
        for _ in range(10):
            replica.read()
        statistics = redis_server.admin.info("commandstats")
        assert "cmdstat_evalsha" not in statistics
        assert statistics["cmdstat_get"]["calls"] == 10

    def test_without_scripts_another_type_is_a_miss(
        self, user: Callable[..., Replica], redis_server: RedisServer
    ) -> None:
        redis_server.admin.lpush(NAME, "x")
        replica = user("+get", "+set")
        assert [replica.read(), replica.read()] == [(None, False), (None, True)]

    def test_after_a_fault_it_is_decided_anew_and_logged_no_more(
        self, user: Callable[..., Replica], redis_server: RedisServer, lines: Lines
    ) -> None:
        replica = user("+get", "+set")
        replica.read()
        redis_server.kill()
        assert reason(replica.read) == "connection"
        redis_server.start()
        user("+get", "+set")
        assert replica.read() == (None, False)
        assert len(list(lines)) == 1
        redis_server.kill()
        assert reason(replica.read) == "connection"
        redis_server.start()
        user(*SCRIPTS, "+get", "+set")
        replica.read()
        assert redis_server.calls("evalsha") >= 1
        assert len(list(lines)) == 1

    def test_a_user_who_may_not_write_gets_no_leases(self, user: Callable[..., Replica]) -> None:
        for replica in (user("+get"), user("+get", *SCRIPTS, name="bob")):
            assert [replica.read(), replica.read()] == [(None, False)] * 2

    @pytest.mark.parametrize("commands", [("+set",), ("+set", *SCRIPTS), ()], ids=["no script", "script", "nothing"])
    def test_a_user_who_may_not_read_is_at_fault(
        self, user: Callable[..., Replica], lines: Lines, commands: tuple[str, ...]
    ) -> None:
        assert reason(user(*commands).read) in ("auth", "response")
        assert list(lines) == []

    def test_a_user_of_other_keys_is_at_fault(self, user: Callable[..., Replica], lines: Lines) -> None:
        assert reason(user(*SCRIPTS, "+get", "+set", keys="other:*").read) == "auth"
        assert list(lines) == []


def test_a_server_without_scripts_is_done_without_them(
    redis_server: RedisServer, start_redis: StartRedis, replica_of: Join, lines: Lines
) -> None:
    server = start_redis("--rename-command", "EVALSHA", "")
    replica = replica_of(server.target)
    assert [replica.read(), replica.read()] == [(None, False), (None, True)]
    assert "unknown command" in next(iter(lines))
