"""Faults of a real Redis and of the way there: each is one line in the log, and a reason in the metrics."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import redis

from heimdall_lib.invalidations import Invalidations
from heimdall_lib.settings import Endpoint, RedisTarget, Secret
from heimdall_lib.shared_cache.cache import ANY_AGE
from heimdall_lib.shared_cache.client import ClientOptions, connect, probe
from heimdall_lib.shared_cache.codec import Codec, redis_key
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.stats import Stats
from tests.fakes import Lines, ask, eventually, good_reply, parsed, unused_port
from tests.integration.conftest import RedisServer, StartRedis, Tls, start_cluster
from tests.support.proxy import Proxy

KEY = parsed().key
MESSAGE = good_reply(KEY).message
PREFIX, VIEW = "heimdall:dns:cache", "view"
LONG = 30.0  # for servers that vote on who of them is to lead


class Replica:
    """A replica's half of the shared cache; entries are signed, so that a spoiled one is told from a good one."""

    def __init__(self, target: RedisTarget, options: ClientOptions, slow_seconds: float) -> None:
        self.stats = Stats()
        self.link = Link(
            partial(connect, target, options),
            name="the test's",
            slow_seconds=slow_seconds,
            expected=True,
            stats=self.stats,
            trial=partial(probe, name=f"{PREFIX}:generation"),
        )
        self.cache = RedisCache(
            self.link,
            codec=Codec(signing_keys=("a-key-of-the-fleet",), compress_min_bytes=0),
            prefix=PREFIX,
            replica="0" * 16,
            invalidations=Invalidations(),
            stats=self.stats,
        )

    def up(self) -> bool:
        return self.stats.redis_up

    def write(self, key: bytes = KEY) -> None:
        self.cache.write(key, VIEW, MESSAGE, 300, 0)

    def read(self, key: bytes = KEY, *, patience: float = 1.0) -> bytes:
        """What a query would find that waits so long: nothing while there is no point in waiting."""
        flight = self.cache.read(key, VIEW, ANY_AGE)
        found = flight.wait(patience) if flight is not None else None
        return found.message if found is not None else b""

    def shares(self, key: bytes = KEY) -> bool:
        self.write(key)
        return self.read(key) == MESSAGE


Join = Callable[..., Replica]


@pytest.fixture
def join() -> Iterator[Join]:
    """Make a replica of a target; it is stopped with the test."""
    with ExitStack() as stack:

        def make(
            target: RedisTarget,
            *,
            timeout: float = 0.5,
            ca_cert: str = "",
            slow_seconds: float = 5.0,
            up: bool = True,
        ) -> Replica:
            made = Replica(target, ClientOptions(timeout, ca_cert=ca_cert), slow_seconds)
            stack.callback(made.cache.stop, 5.0)
            made.cache.start()
            if up:
                eventually(made.up)
            return made

        yield make


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines("heimdall.redis") as collected:
        yield collected


def key(number: int) -> bytes:
    return parsed(ask(f"n{number}.example.com.")).key


def states(lines: Lines) -> list[str]:
    """What the log says of Redis's state, without the reasons."""
    return [line.partition(" (")[0] for line in lines if "in use" in line]


UP, DOWN = "INFO Redis at the test's is in use", "WARNING Redis at the test's is not in use"


class TestTheWayThere:
    @pytest.fixture
    def proxy(self, redis_server: RedisServer) -> Iterator[Proxy]:
        made = Proxy(redis_server.port)
        made.mend()
        yield made
        made.cut()

    def spoiled(self, how: str) -> Callable[[bytes], bytes]:
        chance = Random(5)

        def late(data: bytes) -> bytes:
            time.sleep(0.3)  # what is tested, not a wait
            return data

        def corrupt(data: bytes) -> bytes:
            spoiled = bytearray(data)
            for _ in range(3):
                spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
            return bytes(spoiled)

        return {"late": late, "corrupt": corrupt, "half-closed": lambda _: b"", "cut short": lambda data: data[:3]}[how]

    @pytest.mark.parametrize("how", ["late", "corrupt", "half-closed", "cut short"])
    def test_it_is_left_while_it_is_bad_and_taken_again_when_it_is_good(
        self, proxy: Proxy, redis_server: RedisServer, join: Join, lines: Lines, how: str
    ) -> None:
        target = replace(redis_server.target, hosts=(Endpoint("127.0.0.1", proxy.port),))
        replica = join(target, slow_seconds=0.25)
        eventually(replica.shares)
        proxy.spoil = self.spoiled(how)

        def is_left() -> bool:
            started = time.monotonic()
            assert replica.read(patience=0.02) in (b"", MESSAGE)
            assert time.monotonic() - started < 1
            return not replica.up()

        eventually(is_left, LONG)
        assert replica.read() == b""
        eventually(lambda: sum(replica.stats.redis_errors.values()) or how == "late")
        proxy.spoil = bytes
        eventually(replica.shares, LONG)
        said = states(lines)
        assert said[:3] == [UP, DOWN, UP]
        assert all(one != other for one, other in pairwise(said))


class TestWhatRedisRefuses:
    def test_permissions_that_are_taken_away_and_given_back(
        self, redis_server: RedisServer, join: Join, lines: Lines
    ) -> None:
        def allow(*rules: str) -> None:
            redis_server.admin.execute_command("ACL", "SETUSER", "ann", "reset", "on", ">hunter2", "~*", "&*", *rules)

        allow("+@all")
        replica = join(replace(redis_server.target, username="ann", password=Secret("hunter2")))
        eventually(replica.shares)
        allow("+time")  # which alone makes Redis no good

        def is_left() -> bool:
            replica.read()
            return not replica.up()

        eventually(is_left)
        errors = replica.stats.redis_errors["auth"]
        eventually(lambda: replica.stats.redis_errors["auth"] >= errors + 2)
        assert states(lines) == [UP, DOWN]
        allow("+@all")
        eventually(replica.shares)
        assert states(lines) == [UP, DOWN, UP]

    def test_a_server_that_cannot_persist_is_read_and_the_log_says_once_why_it_is_not_written(
        self, start_redis: StartRedis, join: Join, lines: Lines, tmp_path: Path
    ) -> None:
        server = start_redis("--stop-writes-on-bgsave-error", "yes", "--dbfilename", "missing.rdb")
        replica = join(server.target)
        eventually(replica.shares)
        server.admin.config_set("save", "3600 1")
        (tmp_path / "redis-1" / "missing.rdb").mkdir()  # it cannot be replaced by a file
        server.admin.bgsave()
        eventually(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] == "err")
        for number in range(3):
            replica.write(key(number))
        eventually(lambda: replica.stats.redis_errors["misconf"] == 3)
        assert replica.read() == MESSAGE
        server.admin.config_set("stop-writes-on-bgsave-error", "no")
        eventually(lambda: replica.shares(key(1)))
        eventually(lambda: len([line for line in lines if "writes" in line]) == 2)
        assert [line for line in lines if "writes" in line] == [
            "WARNING Redis refuses writes (misconf); answering without sharing them",
            "INFO Redis takes writes again",
        ]

    @pytest.mark.parametrize("tls_wanted", [True, False])
    def test_the_wrong_scheme_is_one_line_in_the_log_and_a_reason(
        self, start_redis: StartRedis, join: Join, lines: Lines, tls: Tls, *, tls_wanted: bool
    ) -> None:
        server = start_redis(*tls.arguments(port := unused_port()))
        wrong = server.port if tls_wanted else port
        target = RedisTarget("standalone", (Endpoint("127.0.0.1", wrong),), "test", tls=tls_wanted)
        replica = join(target, timeout=2.0, ca_cert=tls.ca if tls_wanted else "", up=False)
        eventually(lambda: sum(replica.stats.redis_errors.values()) >= 2)
        assert set(replica.stats.redis_errors) <= {"connection", "timeout"}
        assert states(lines) == [DOWN]


class TestFailover:
    def test_the_sentinels_name_another_primary(
        self, redis_server: RedisServer, start_redis: StartRedis, sentinel: Callable[..., int], join: Join, lines: Lines
    ) -> None:
        follower = start_redis("--replicaof", "127.0.0.1", str(redis_server.port))
        eventually(lambda: follower.admin.info("replication")["master_link_status"] == "up", LONG)
        port = sentinel(redis_server.port)
        watcher = RedisServer.client(port)
        watcher.execute_command("SENTINEL", "SET", "mymaster", "down-after-milliseconds", "500")
        eventually(lambda: watcher.sentinel_master("mymaster")["num-slaves"] == 1, LONG)
        replica = join(RedisTarget("sentinel", (Endpoint("127.0.0.1", port),), "test", service_name="mymaster"))
        eventually(replica.shares)
        redis_server.kill()
        eventually(lambda: replica.shares(key(1)), LONG)
        assert follower.admin.exists(redis_key(PREFIX, VIEW, key(1)))
        assert set(states(lines)) == {UP, DOWN}
        watcher.close()

    def test_a_cluster_promotes_another_primary(self, start_redis: StartRedis, join: Join) -> None:
        servers = start_cluster(start_redis)
        name = redis_key(PREFIX, VIEW, KEY)
        slot = servers[0].admin.execute_command("CLUSTER", "KEYSLOT", name)
        primary = servers[slot * 3 // 16384]
        follower = start_redis("--cluster-enabled", "yes", "--cluster-port", str(unused_port()))
        bus = primary.admin.config_get("cluster-port")["cluster-port"]
        follower.admin.execute_command("CLUSTER MEET", "127.0.0.1", primary.port, bus)
        own = primary.admin.execute_command("CLUSTER", "MYID")
        eventually(lambda: follows(follower, own.decode()), LONG)
        for server in (*servers, follower):
            server.admin.config_set("cluster-node-timeout", 1000)
        target = RedisTarget("cluster", tuple(server.target.hosts[0] for server in servers), "test")
        replica = join(target)
        eventually(replica.shares)
        eventually(lambda: follower.admin.info("replication")["master_link_status"] == "up", LONG)
        primary.kill()
        eventually(replica.shares, 2 * LONG)
        assert follower.admin.info("replication")["role"] == "master"

    def test_a_slot_on_its_way_and_one_that_has_moved_are_followed(self, start_redis: StartRedis, join: Join) -> None:
        servers = start_cluster(start_redis)
        replica = join(RedisTarget("cluster", tuple(server.target.hosts[0] for server in servers), "test"))
        eventually(replica.shares)
        name = redis_key(PREFIX, VIEW, key(1))
        slot = servers[0].admin.execute_command("CLUSTER", "KEYSLOT", name)
        old = servers[slot * 3 // 16384]
        new = next(server for server in servers if server is not old)
        ids = {server: server.admin.execute_command("CLUSTER", "MYID") for server in (old, new)}
        new.admin.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[old])
        old.admin.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[new])
        eventually(lambda: replica.shares(key(1)))  # ASK
        for server in servers:
            server.admin.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[new])
        eventually(lambda: replica.shares(key(1)))  # MOVED
        assert replica.up()
        assert new.admin.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot) >= 1


def follows(follower: RedisServer, primary: str) -> bool:
    """Let a server follow a primary as soon as it knows of it."""
    try:
        follower.admin.execute_command("CLUSTER", "REPLICATE", primary)
    except redis.ResponseError:  # the servers have not met yet
        return False
    return True
