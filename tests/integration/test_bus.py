"""What replicas tell each other through a real Redis, and what becomes of it when they are cut off or lied to."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.invalidations import EVERYTHING, Flush, Invalidations
from heimdall_lib.settings import Endpoint, RedisTarget, Secret
from heimdall_lib.shared_cache import events
from heimdall_lib.shared_cache.bus import Bus, Told
from heimdall_lib.shared_cache.clearing import clear
from heimdall_lib.shared_cache.client import ClientOptions, connect
from heimdall_lib.shared_cache.codec import Codec, redis_key
from heimdall_lib.shared_cache.fleet import RedisFleet
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.shared_cache.roster import Roster
from heimdall_lib.stats import Stats
from heimdall_lib.wire import from_presentation
from tests.fakes import Lines, ask, eventually, good_reply, parsed, unused_port
from tests.integration.conftest import RedisServer, StartRedis, Tls, start_cluster
from tests.support.engines import on_every_engine
from tests.support.proxy import Proxy

PREFIX = "heimdall:dns:cache"
CHANNEL = f"{PREFIX}:events"
KEY = parsed().key
NAME = Flush(from_presentation("www.example.com"))


class Replica:
    """One end of the bus, which remembers what it was told to do."""

    def __init__(self, number: int, target: RedisTarget, ca_cert: str = "") -> None:
        self.stats = Stats()
        self.forgotten: list[tuple[Flush, float]] = []
        self.outdated: list[tuple[bytes, float]] = []
        options = ClientOptions(1.0, ca_cert=ca_cert)
        self.link = Link(
            lambda: connect(target, options), name=str(target), slow_seconds=5.0, expected=True, stats=self.stats
        )
        self.bus = Bus(
            self.link,
            connect=lambda: connect(target, options),
            prefix=PREFIX,
            replica=f"{number:016x}",
            listener=self,
            stats=self.stats,
        )
        roster = Roster(
            self.link, prefix=PREFIX, replica=f"{number:016x}", host=f"host-{number}", version="1", stats=self.stats
        )
        self.fleet = RedisFleet(self.link, self.bus, roster, codec=Codec(), prefix=PREFIX)
        self._keeper = Thread(target=self.link.keep, daemon=True)

    def start(self) -> None:
        self._keeper.start()
        self.bus.start()

    def forget(self, flush: Flush, until: float) -> int:
        self.forgotten.append((flush, until))
        return 0

    def outdate(self, key: bytes, until: float) -> None:
        self.outdated.append((key, until))

    def stop(self) -> None:
        self.bus.stop(5.0)
        self.link.stop()
        self._keeper.join(5.0)

    @property
    def flushes(self) -> list[Flush]:
        return [flush for flush, _ in self.forgotten]


MakeReplica = Callable[..., Replica]


@pytest.fixture
def join(redis_server: RedisServer) -> Iterator[MakeReplica]:
    """Make a replica of the test's Redis, or of another target, and wait until it hears."""
    with ExitStack() as stack:
        count = 0

        def make(target: RedisTarget | None = None, *, hears: bool = True, **options: Any) -> Replica:
            nonlocal count
            count += 1
            made = Replica(count, target or redis_server.target, **options)
            stack.callback(made.stop)
            made.start()
            eventually(lambda: made.stats.redis_up)
            if hears:
                eventually(lambda: made.bus.connected)
            return made

        yield make


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    made = Proxy(redis_server.port)
    made.mend()
    yield made
    made.cut()


def through(proxy: Proxy, target: RedisTarget) -> RedisTarget:
    return replace(target, hosts=(Endpoint("127.0.0.1", proxy.port),))


@on_every_engine
def test_every_other_replica_is_told_and_acknowledges(join: MakeReplica) -> None:
    one, two, three = join(), join(), join()
    assert one.bus.tell(NAME) == Told(3, 3)
    assert (one.flushes, two.flushes, three.flushes) == ([], [NAME], [NAME])
    assert two.forgotten[0][1] <= time.monotonic()
    assert one.stats.redis_invalidations == {"sent": 1, "received": 0}
    assert two.stats.redis_invalidations == {"sent": 0, "received": 1}


def test_flushes_at_the_same_time_are_acknowledged_apart(join: MakeReplica) -> None:
    replicas = [join() for _ in range(3)]
    told: list[Told] = []
    threads = [Thread(target=lambda one=one: told.append(one.bus.tell(EVERYTHING))) for one in replicas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [Told(3, 3)] * 3


@on_every_engine
def test_a_replica_that_was_cut_off_during_a_flush_makes_it_good(
    join: MakeReplica, proxy: Proxy, redis_server: RedisServer
) -> None:
    one, far = join(), join(through(proxy, redis_server.target))
    proxy.cut()
    eventually(lambda: not far.bus.connected)
    assert one.fleet.flush(NAME, [], "view").told == Told(2, 1)
    assert far.flushes == []
    proxy.mend()
    eventually(lambda: far.flushes)
    assert far.flushes == [EVERYTHING]


def test_one_whose_subscription_alone_is_killed_does_too(join: MakeReplica, redis_server: RedisServer) -> None:
    one, other = join(), join()
    redis_server.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    one.bus.tell(NAME)
    eventually(lambda: other.flushes)
    assert other.flushes in ([EVERYTHING], [NAME])
    eventually(lambda: one.bus.connected and other.bus.connected)
    assert one.bus.tell(NAME) == Told(2, 2)


def test_a_cut_without_a_flush_costs_nothing(join: MakeReplica, proxy: Proxy, redis_server: RedisServer) -> None:
    one, far = join(), join(through(proxy, redis_server.target))
    one.bus.tell(NAME)
    proxy.cut()
    eventually(lambda: not far.bus.connected)
    proxy.mend()
    eventually(lambda: far.bus.connected)
    assert far.flushes == [NAME]


@on_every_engine
def test_a_redis_that_forgot_the_last_flush_is_told_of_it_and_nothing_is_lost(
    join: MakeReplica, redis_server: RedisServer
) -> None:
    one, two = join(), join()
    one.bus.tell(NAME)
    before = redis_server.admin.get(f"{PREFIX}:generation")
    redis_server.kill()
    eventually(lambda: not (one.bus.connected or two.bus.connected))
    redis_server.start()
    eventually(lambda: one.bus.connected and two.bus.connected)
    eventually(lambda: redis_server.admin.get(f"{PREFIX}:generation") == before)
    assert two.flushes == [NAME]
    assert 0 < redis_server.admin.ttl(f"{PREFIX}:generation") <= 30 * 86400


def test_a_flush_while_redis_is_away_is_made_good_by_the_others_when_it_is_back(
    join: MakeReplica, redis_server: RedisServer
) -> None:
    one, two = join(), join()
    redis_server.kill()
    eventually(lambda: not (one.bus.connected or two.bus.connected))
    with pytest.raises(SharedCacheError):
        one.bus.tell(NAME)
    redis_server.start()
    eventually(lambda: two.flushes)
    assert two.flushes == [EVERYTHING]


def test_a_flush_from_before_a_replica_was_there_means_nothing_to_it(
    join: MakeReplica, redis_server: RedisServer
) -> None:
    redis_server.admin.set(f"{PREFIX}:generation", int((time.time() - 60) * 1000))
    assert join().flushes == []


def test_one_that_may_still_be_under_way_is_made_good(join: MakeReplica, redis_server: RedisServer) -> None:
    redis_server.admin.set(f"{PREFIX}:generation", int((time.time() - 1) * 1000))
    assert join().flushes == [EVERYTHING]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{" * 3000,
        b"x" * 5000,
        b'{"v":2,"kind":"flushed"}',
        b'{"v":1,"kind":["flushed"]}',
        b'{"v":1,"kind":"flushed","origin":"0","number":"0","generation":1,"name":"","type":"","subtree":false}',
        b'{"v":1,"kind":"changed","origin":"00000000000000ff","name":"a..b","type":"A","class":1,"bits":0,"at":1}',
        b'{"v":1,"kind":"changed","origin":"00000000000000ff","name":"a","type":"A","class":1,"bits":9,"at":1}',
        b'{"v":1,"kind":"changed","origin":"00000000000000ff","name":"a","type":"A","class":1,"bits":0,"at":1e9}',
        b'{"v":1,"kind":"generation","origin":"00000000000000ff","generation":true}',
    ],
)
def test_what_is_no_message_is_counted_and_nothing_else(
    join: MakeReplica, redis_server: RedisServer, message: bytes
) -> None:
    one = join()
    redis_server.admin.publish(CHANNEL, message)
    eventually(lambda: one.stats.redis_rejected["event"] == 1)
    assert (one.forgotten, one.outdated) == ([], [])
    assert one.bus.connected


def test_a_generation_from_a_far_future_is_not_believed(join: MakeReplica, redis_server: RedisServer) -> None:
    one, two = join(), join()
    forged = events.encode(events.Generation("f" * 16, 1 << 52))
    redis_server.admin.publish(CHANNEL, forged)
    eventually(lambda: one.stats.redis_invalidations["received"])
    assert one.flushes == []
    redis_server.admin.set(f"{PREFIX}:generation", "9" * 15)
    assert join().flushes == []
    assert two.bus.tell(NAME) == Told(3, 3)


def test_a_key_of_another_type_in_the_generations_place_does_no_harm(
    join: MakeReplica, redis_server: RedisServer
) -> None:
    redis_server.admin.lpush(f"{PREFIX}:generation", "x")
    one, two = join(), join()
    assert one.bus.tell(NAME) == Told(2, 2)
    assert two.flushes == [NAME]


def test_a_change_is_passed_on_with_its_instant(join: MakeReplica, redis_server: RedisServer) -> None:
    one = join()
    at = one.link.now() - 2000
    redis_server.admin.publish(CHANNEL, events.encode(events.Changed("f" * 16, KEY, at)))
    eventually(lambda: one.outdated)
    key, until = one.outdated[0]
    assert key == KEY
    assert until == pytest.approx(time.monotonic() - 2, abs=1.0)


def test_without_the_permission_to_subscribe_the_cache_is_used_all_the_same(
    join: MakeReplica, redis_server: RedisServer
) -> None:
    redis_server.admin.acl_setuser(
        "narrow", enabled=True, passwords=["+secret"], keys=[f"{PREFIX}:*"], commands=["+get", "+set", "+time", "+ping"]
    )
    with Lines("heimdall.redis") as lines:
        one = join(replace(redis_server.target, username="narrow", password=Secret("secret")), hears=False)
        eventually(lambda: any("no word from other replicas (auth" in line for line in lines))
        with pytest.raises(SharedCacheError):
            one.bus.tell(NAME)
    assert not one.link.open


@on_every_engine
def test_the_documented_permissions_suffice(join: MakeReplica, redis_server: RedisServer) -> None:
    allowed = "~heimdall:dns:cache:* resetchannels &heimdall:dns:cache:* +get +set +time +ping +select"
    pub_sub = "+subscribe +publish +scan +unlink +zadd +zrevrange +zremrangebyrank +expire"
    redis_server.admin.execute_command("ACL SETUSER heimdall on >secret", *f"{allowed} {pub_sub}".split())
    target = replace(redis_server.target, username="heimdall", password=Secret("secret"))
    one, two = join(target), join(target)
    flushed = one.fleet.flush(NAME, [KEY], "view")
    assert (flushed.redis, flushed.told) == ("ok", Told(2, 2))
    assert two.flushes == [NAME]


class TestClearing:
    @pytest.fixture
    def one(self, join: MakeReplica) -> Replica:
        return join()

    def fill(self, server: RedisServer, *names: str, view: str = "view") -> None:
        for name in names:
            for options in ({}, {"do": True}, {"flags": 0x0110}, {"do": True, "flags": 0x0110}):
                server.admin.set(redis_key(PREFIX, view, parsed(ask(name, **options)).key), b"value")

    @on_every_engine
    def test_every_variant_in_every_view_goes_and_nothing_else(self, one: Replica, redis_server: RedisServer) -> None:
        self.fill(redis_server, "www.example.com.", "do.", "w.www.example.com.")
        self.fill(redis_server, "www.example.com.", view="other")
        redis_server.admin.set("somebody:www.example.com:A:IN", b"else's")
        flushed = one.fleet.flush(NAME, [KEY], "view")
        assert flushed.cleared == (8, True)
        assert len(redis_server.admin.keys("*:A:IN*")) == 8 + 1

    def test_a_name_like_a_word_of_the_keys_takes_no_other_with_it(
        self, one: Replica, redis_server: RedisServer
    ) -> None:
        self.fill(redis_server, "do.", "www.example.com.")
        assert one.fleet.flush(Flush(from_presentation("do")), [], "").cleared == (4, True)

    @pytest.mark.parametrize("name", ["*.example.com", r"a\042b", r"a\\b", r"a\.b", "[a]?", "."])
    @on_every_engine
    def test_a_name_of_any_octets_is_found(self, one: Replica, redis_server: RedisServer, name: str) -> None:
        key = from_presentation(name) + b"\0\1\0\1\0"
        redis_server.admin.set(redis_key(PREFIX, "view", key), b"value")
        self.fill(redis_server, "www.example.com.")
        assert one.fleet.flush(Flush(from_presentation(name)), [], "").cleared == (1, True)

    def test_a_subtree_and_one_of_its_types(self, one: Replica, redis_server: RedisServer) -> None:
        self.fill(redis_server, "example.com.", "a.b.example.com.", "notexample.com.")
        subtree = Flush(from_presentation("example.com"), subtree=True)
        assert one.fleet.flush(subtree._replace(qtype=28), [], "").cleared == (0, True)
        assert one.fleet.flush(subtree, [], "").cleared == (8, True)

    def test_thousands(self, one: Replica, redis_server: RedisServer) -> None:
        pipeline = redis_server.admin.pipeline()
        for number in range(20_000):
            pipeline.set(f"{PREFIX}:1:view:n{number}.example:A:IN", b"value")
        pipeline.execute()
        assert one.fleet.flush(EVERYTHING, [], "").cleared == (20_000, True)

    def test_more_than_there_is_time_for_is_said_to_be_left(self, one: Replica, redis_server: RedisServer) -> None:
        self.fill(redis_server, "www.example.com.")
        assert clear(one.link, PREFIX, EVERYTHING, known=[], seconds=-1.0) == (0, False)


@on_every_engine
def test_a_cluster_is_one_fleet(join: MakeReplica, start_redis: StartRedis) -> None:
    servers = start_cluster(start_redis)
    cluster = RedisTarget("cluster", tuple(Endpoint("127.0.0.1", server.port) for server in servers), "test")
    one, two = join(cluster), join(cluster)
    client = connect(cluster, ClientOptions(5.0))
    for number in range(20):
        client.set(redis_key(PREFIX, "view", parsed(ask(f"n{number}.example.com.")).key), b"value")
    client.close()
    flushed = one.fleet.flush(EVERYTHING, [], "")
    assert flushed == ("ok", Told(2, 2), (20, True))
    assert two.flushes == [EVERYTHING]


def messages(server: RedisServer) -> Any:
    """Listen to what the replicas say, as somebody with redis-cli would."""
    pubsub = server.admin.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(CHANNEL)
    eventually(lambda: server.admin.pubsub_numsub(CHANNEL)[0][1])
    return pubsub


def next_message(pubsub: Any) -> dict[str, Any]:
    while (message := pubsub.get_message(timeout=10.0)) is None:
        pass
    return dict(json.loads(message["data"]))


def test_messages_are_json_for_whoever_looks(join: MakeReplica, redis_server: RedisServer) -> None:
    with messages(redis_server) as pubsub:
        join().bus.tell(NAME._replace(qtype=28))
        message = next_message(pubsub)
    assert message["kind"] == "flushed"
    assert (message["name"], message["type"], message["subtree"]) == ("www.example.com", "AAAA", False)


class TestWrites:
    """What the shared cache writes, with regard to flushes and changes."""

    @pytest.fixture
    def invalidations(self) -> Invalidations:
        return Invalidations()

    @pytest.fixture
    def cache(self, redis_server: RedisServer, invalidations: Invalidations) -> Iterator[RedisCache]:
        stats = Stats()
        link = Link(
            lambda: connect(redis_server.target, ClientOptions(5.0)),
            name="Redis",
            slow_seconds=5.0,
            expected=True,
            stats=stats,
        )
        made = RedisCache(
            link, codec=Codec(), prefix=PREFIX, replica="a" * 16, invalidations=invalidations, stats=stats
        )
        made.start()
        eventually(lambda: stats.redis_up)
        yield made
        made.stop(5.0)

    def test_a_change_is_told_once_the_new_answer_is_there(self, cache: RedisCache, redis_server: RedisServer) -> None:
        name = redis_key(PREFIX, "view", KEY)
        with messages(redis_server) as pubsub:
            cache.write(KEY, "view", good_reply(KEY).message, 300, 0, changed=True)
            message = next_message(pubsub)
            stored_at = Codec().decode(name, KEY, redis_server.admin.get(name)).stored_at
        changed = events.decode(json.dumps(message).encode())
        assert changed == events.Changed("a" * 16, KEY, stored_at - 1)

    def test_what_was_flushed_while_it_waited_to_be_written_is_not(
        self, cache: RedisCache, redis_server: RedisServer, invalidations: Invalidations
    ) -> None:
        other = parsed(ask("other.example.com.")).key
        redis_server.pause()
        cache.write(other, "view", good_reply(other).message, 300, 0)  # keeps the writer busy
        time.sleep(0.1)
        cache.write(KEY, "view", good_reply(KEY).message, 300, 0)
        invalidations.flushed(NAME, time.monotonic())
        redis_server.resume()
        cache.stop(5.0)
        assert redis_server.admin.get(redis_key(PREFIX, "view", other))
        assert redis_server.admin.get(redis_key(PREFIX, "view", KEY)) is None


class TestTopologies:
    """Each way to Redis carries messages as it carries answers."""

    @staticmethod
    def tells(one: Replica, two: Replica) -> None:
        assert one.fleet.flush(NAME, [KEY], "view") == ("ok", Told(2, 2), (0, True))
        assert two.flushes == [NAME]

    def test_a_unix_socket(self, join: MakeReplica, redis_server: RedisServer) -> None:
        target = RedisTarget("unix", (), "test", path=str(redis_server.socket))
        self.tells(join(target), join(target))

    def test_tls(self, join: MakeReplica, start_redis: StartRedis, tls: Tls) -> None:
        port = unused_port()
        start_redis(*tls.arguments(port))
        target = RedisTarget("standalone", (Endpoint("127.0.0.1", port),), "test", tls=True)
        self.tells(join(target, ca_cert=tls.ca), join(target, ca_cert=tls.ca))

    def test_sentinel(self, join: MakeReplica, redis_server: RedisServer, sentinel: Callable[..., int]) -> None:
        endpoint = Endpoint("127.0.0.1", sentinel(redis_server.port))
        target = RedisTarget("sentinel", (endpoint,), "test", service_name="mymaster")
        self.tells(join(target), join(target))
