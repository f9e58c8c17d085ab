"""The shared cache: what its twin in memory promises too, and what becomes of it when Redis is ill."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import dns.flags
import pytest
import trustme

from heimdall_lib.flight import Flight
from heimdall_lib.invalidations import EVERYTHING, Invalidations
from heimdall_lib.settings import Endpoint, RedisTarget, Secret
from heimdall_lib.shared_cache.cache import ANY_AGE, LEASE_SECONDS, NOTHING, Found, SharedCache
from heimdall_lib.shared_cache.client import ClientOptions, connect
from heimdall_lib.shared_cache.codec import Codec, StoredAnswer, redis_key
from heimdall_lib.shared_cache.lease import LEASE
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.stats import Stats
from tests.fakes import (
    PATIENCE,
    InMemorySharedCache,
    Lines,
    Peer,
    StreamServer,
    Threads,
    ask,
    eventually,
    good_reply,
    parsed,
    unused_port,
)
from tests.integration.conftest import RedisServer, StartRedis, after, fill_up
from tests.support.engines import on_every_engine

KEY = parsed().key
VIEW = "view"
PREFIX = "heimdall:dns:cache"
MESSAGE = good_reply(KEY).message
QUEUE, BATCH = 4096, 128
READERS = 4


def key(number: int) -> bytes:
    return parsed(ask(f"n{number}.example.com.")).key


def wait(flight: Flight[Found] | None) -> Found:
    assert flight is not None
    found = flight.wait(PATIENCE)
    assert found is not None
    return found


@dataclass
class Replica:
    """A shared cache with its counters."""

    cache: SharedCache
    stats: Stats

    def begin(self, question: bytes = KEY, view: str = VIEW, *, max_age: float = ANY_AGE) -> Flight[Found] | None:
        return self.cache.read(question, view, max_age)

    def read(self, question: bytes = KEY, view: str = VIEW, *, max_age: float = ANY_AGE) -> Found:
        return wait(self.begin(question, view, max_age=max_age))

    def write(self, question: bytes = KEY, message: bytes = MESSAGE, lifetime: int = 300, *, stale: int = 0) -> None:
        self.cache.write(question, VIEW, message, lifetime, stale)

    def release(self, question: bytes = KEY) -> None:
        self.cache.release(question, VIEW)

    def has(self, question: bytes = KEY) -> bool:
        return bool(self.read(question).message)


class RedisReplica(Replica):
    """One whose shared cache is in Redis."""

    def __init__(
        self,
        target: RedisTarget,
        options: ClientOptions,
        *,
        slow_seconds: float = 5.0,
        signing_keys: tuple[str, ...] = (),
        compress_min_bytes: int = 0,
        expected: bool = True,
    ) -> None:
        stats = Stats()
        self.invalidations = Invalidations()
        self.link = Link(
            lambda: connect(target, options),
            name=str(target),
            slow_seconds=slow_seconds,
            expected=expected,
            stats=stats,
        )
        codec = Codec(signing_keys=signing_keys, compress_min_bytes=compress_min_bytes)
        super().__init__(
            RedisCache(
                self.link,
                codec=codec,
                prefix=PREFIX,
                replica=secrets.token_hex(8),
                invalidations=self.invalidations,
                stats=stats,
            ),
            stats,
        )
        self.stopped = False

    @property
    def redis(self) -> RedisCache:
        assert isinstance(self.cache, RedisCache)
        return self.cache

    def up(self) -> bool:
        return self.stats.redis_up

    def down(self) -> bool:
        return not self.stats.redis_up and self.link.open

    def stop(self, timeout: float = 5.0) -> None:
        if not self.stopped:
            self.stopped = True
            self.redis.stop(timeout)


MakeReplica = Callable[..., RedisReplica]


@pytest.fixture
def replica_of(redis_server: RedisServer) -> Iterator[MakeReplica]:
    """Make a replica of the test's Redis, or of another target, and wait until it is in use."""
    with ExitStack() as stack:

        def make(
            target: RedisTarget | None = None,
            timeout: float = 5.0,
            *,
            up: bool = True,
            ca_cert: str = "",
            **changes: Any,
        ) -> RedisReplica:
            made = RedisReplica(target or redis_server.target, ClientOptions(timeout, ca_cert=ca_cert), **changes)
            stack.callback(made.stop)
            made.redis.start()
            if up:
                eventually(made.up)
            return made

        yield make


@pytest.fixture
def replica(replica_of: MakeReplica) -> RedisReplica:
    return replica_of()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines("heimdall.redis") as collected:
        yield collected


def name_of(question: bytes = KEY, view: str = VIEW) -> str:
    return redis_key(PREFIX, view, question)


def value(
    question: bytes, server: RedisServer, *, age: float = 0.0, lifetime: int = 300, codec: Codec | None = None
) -> bytes:
    """What another replica would have stored some time ago."""
    seconds, microseconds = server.admin.time()
    stored_at = int(seconds * 1000 + microseconds / 1000 - age * 1000)
    answer = StoredAnswer(good_reply(question).message, stored_at, lifetime)
    encoded, _ = (codec or Codec()).encode(name_of(question), question, answer)
    return encoded


def keep_readers_busy(replica: RedisReplica) -> list[Flight[Found] | None]:
    """Give each of the threads that read something to wait for, while Redis hangs."""
    flights = []
    for number in range(READERS):
        flights.append(replica.begin(key(number)))
        eventually(lambda: not replica.redis._reads)
    return flights


class TestContract:
    """What the resolver may rely on, of the cache in Redis and of its twin in memory."""

    @pytest.fixture(params=["in memory", "in Redis"])
    def shared(self, request: pytest.FixtureRequest) -> Replica:
        if request.param == "in memory":
            twin = InMemorySharedCache()
            return Replica(twin, twin.stats)
        made: RedisReplica = request.getfixturevalue("replica")
        return made

    @pytest.fixture(params=["in memory", "in Redis"])
    def down(self, request: pytest.FixtureRequest) -> Replica:
        if request.param == "in memory":
            twin = InMemorySharedCache(down=True)
            return Replica(twin, twin.stats)
        make: MakeReplica = request.getfixturevalue("replica_of")
        server: RedisServer = request.getfixturevalue("redis_server")
        server.kill()
        return make(up=False)

    def test_what_was_never_written_is_nothing(self, shared: Replica) -> None:
        assert shared.read() == NOTHING
        assert (shared.stats.redis_hits, shared.stats.redis_misses) == (0, 1)

    def test_what_was_written_is_found_with_its_age_and_lifetime(self, shared: Replica) -> None:
        shared.write()
        eventually(shared.has)
        found = shared.read()
        assert (found.message, found.lifetime) == (MESSAGE, 300)
        assert 0 <= found.age < PATIENCE
        assert shared.stats.redis_hits >= 2

    def test_the_newest_write_counts(self, shared: Replica) -> None:
        shared.write(lifetime=100)
        newer = good_reply(KEY, ttl=60, address="192.0.2.2").message
        shared.write(message=newer, lifetime=60)
        eventually(lambda: shared.read().message == newer)
        assert shared.read().lifetime == 60

    @pytest.mark.parametrize(
        "other",
        [
            ask("example.com."),
            ask(rdtype="AAAA"),
            ask(rdclass="CH"),
            ask(do=True),
            ask(flags=dns.flags.RD | dns.flags.CD),
        ],
        ids=["name", "type", "class", "DO", "CD"],
    )
    def test_another_question_is_another_matter(self, shared: Replica, other: bytes) -> None:
        shared.write()
        eventually(shared.has)
        assert shared.read(parsed(other).key) == NOTHING

    def test_another_view_is_another_matter(self, shared: Replica) -> None:
        shared.write()
        eventually(shared.has)
        assert shared.read(view="other") == NOTHING

    def test_its_age_grows(self, shared: Replica) -> None:
        shared.write()
        eventually(shared.has)
        before = shared.read().age
        eventually(lambda: shared.read().age >= before + 0.05)

    def test_it_is_gone_after_its_lifetime(self, shared: Replica) -> None:
        shared.write(lifetime=1)
        eventually(shared.has)
        eventually(lambda: shared.read() == NOTHING)

    def test_past_its_lifetime_it_is_there_to_serve_stale_and_no_hit(self, shared: Replica) -> None:
        shared.write(lifetime=1, stale=60)
        eventually(shared.has)
        eventually(lambda: shared.read().age >= 1)
        hits, found = shared.stats.redis_hits, shared.read()
        assert (found.message, found.lifetime) == (MESSAGE, 1)
        assert shared.stats.redis_hits == hits

    def test_it_is_gone_after_the_stale_time(self, shared: Replica) -> None:
        shared.write(lifetime=1, stale=1)
        eventually(shared.has)
        eventually(lambda: not shared.has())

    def test_who_reads_first_is_to_fetch_and_the_others_are_told(self, shared: Replica) -> None:
        assert [shared.read().elsewhere for _ in range(4)] == [False, True, True, True]
        assert shared.stats.redis_misses == 1  # the others look again

    def test_of_those_who_read_at_the_same_moment_one_is_to_fetch(self, shared: Replica) -> None:
        flights = [shared.begin() for _ in range(50)]
        assert [wait(flight).elsewhere for flight in flights].count(False) == 1

    def test_who_is_to_fetch_one_thing_says_nothing_of_another(self, shared: Replica) -> None:
        shared.read()
        others = [shared.read(key(1)), shared.read(KEY, "other"), shared.read(parsed(ask(do=True)).key)]
        assert [found.elsewhere for found in others] == [False] * 3

    def test_a_lease_ends_with_its_time(self, shared: Replica) -> None:
        started = time.monotonic()
        shared.read()
        eventually(lambda: not shared.read().elsewhere)
        assert time.monotonic() - started >= LEASE_SECONDS - 0.05

    def test_what_nobody_holds_can_be_released(self, shared: Replica) -> None:
        shared.release()
        shared.write()
        eventually(shared.has)

    def test_who_finds_something_good_is_not_to_fetch_it(self, shared: Replica) -> None:
        shared.write()
        eventually(shared.has)
        assert [shared.read().elsewhere for _ in range(2)] == [False, False]

    def test_who_finds_something_stale_is_to_fetch_it_anew(self, shared: Replica) -> None:
        shared.write(lifetime=1, stale=60)
        eventually(lambda: shared.read().age >= 1)
        eventually(lambda: not shared.read().elsewhere)
        found = shared.read()
        assert (found.message, found.elsewhere) == (MESSAGE, True)

    def test_what_is_too_old_for_who_reads_is_fetched_anew_by_one(self, shared: Replica) -> None:
        shared.write()
        eventually(shared.has)
        eventually(lambda: shared.read().age > 0.01 and not shared.read(max_age=0.01).elsewhere)
        found = shared.read(max_age=0.01)
        assert (found.message, found.elsewhere) == (MESSAGE, True)
        assert not shared.read(max_age=3600).elsewhere

    def test_any_bytes_can_be_kept(self, shared: Replica) -> None:
        message = bytes(range(256)) * 255
        shared.write(message=message)
        eventually(lambda: shared.read().message == message)

    def test_many_reads_at_once_each_find_their_own(self, shared: Replica) -> None:
        for number in range(50):
            shared.write(key(number), good_reply(key(number)).message)
        eventually(lambda: shared.has(key(49)))
        flights = [shared.begin(key(number)) for number in range(50)]
        assert [wait(flight).message for flight in flights] == [good_reply(key(number)).message for number in range(50)]

    def test_what_is_not_believed_is_counted(self, shared: Replica) -> None:
        shared.cache.reject("question")
        assert shared.stats.redis_rejected == {"question": 1}

    def test_while_it_is_down_there_is_nothing_to_wait_for(self, down: Replica) -> None:
        assert down.begin(KEY) is None
        assert (down.stats.redis_hits, down.stats.redis_misses) == (0, 0)

    def test_while_it_is_down_writes_are_dropped_and_counted(self, down: Replica) -> None:
        down.write()
        assert down.stats.redis_dropped_writes == 1

    def test_while_it_is_down_nothing_is_there_to_be_released(self, down: Replica) -> None:
        down.release()
        assert down.stats.redis_dropped_writes == 0


class TestReads:
    @on_every_engine
    def test_those_that_wait_together_go_out_together(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        replica.read()  # Redis has the script from now on
        redis_server.admin.config_resetstat()
        redis_server.pause()
        flights = keep_readers_busy(replica)
        flights += [replica.begin(key(number)) for number in range(100, 400)]
        redis_server.resume()
        assert [wait(flight) for flight in flights] == [NOTHING] * (READERS + 300)
        assert redis_server.calls("evalsha") == READERS + 3  # 128 at most in each
        assert replica.stats.redis_misses == READERS + 300 + 1

    def test_a_lone_one_does_not_wait_for_others(self, replica: RedisReplica) -> None:
        started = time.monotonic()
        replica.read()
        assert time.monotonic() - started < 1

    def test_one_that_hangs_does_not_hold_up_the_others(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.pause()
        first = replica.begin(KEY)
        assert first is not None
        assert first.wait(0.05) is None
        redis_server.resume()
        assert wait(first) == NOTHING

    @on_every_engine
    def test_ages_are_told_on_redis_clock(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.admin.set(name_of(), value(KEY, redis_server, age=100), ex=200)
        found = replica.read()
        assert found.age == pytest.approx(100, abs=1)
        assert found.lifetime == 300

    def test_an_answer_past_its_life_is_a_miss(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.admin.set(name_of(), value(KEY, redis_server, age=300))
        found = replica.read()
        assert found.message == MESSAGE  # to serve stale
        assert found.age == pytest.approx(300, abs=1)
        assert (replica.stats.redis_hits, replica.stats.redis_misses) == (0, 1)
        assert replica.stats.redis_rejected == {}

    def test_an_answer_from_the_future_is_new(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.admin.set(name_of(), value(KEY, redis_server, age=-5))
        assert replica.read().age == 0

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda stored: b"", "format"),
            (lambda stored: b"some other program's value", "format"),
            (lambda stored: stored[:10], "format"),
            (lambda stored: stored[:2] + b"\xff" + stored[3:], "version"),
            (lambda stored: stored[:-1], "size"),
            (lambda stored: stored + b"\0", "size"),
            (lambda stored: stored[:3] + b"\1" + stored[4:], "compression"),
            (lambda stored: stored[:4] + b"\1" + stored[5:], "flags"),
        ],
    )
    def test_foreign_bytes_are_a_miss_are_counted_and_are_healed(
        self, replica: RedisReplica, redis_server: RedisServer, damage: Callable[[bytes], bytes], reason: str
    ) -> None:
        redis_server.admin.set(name_of(), damage(value(KEY, redis_server)))
        assert replica.read() == NOTHING
        assert replica.stats.redis_rejected == {reason: 1}
        assert replica.stats.redis_misses == 1
        replica.write()
        eventually(replica.has)

    @pytest.mark.parametrize("command", [("LPUSH", "x"), ("HSET", "x", "y"), ("SADD", "x")])
    def test_another_type_is_a_miss_and_is_healed(
        self, replica: RedisReplica, redis_server: RedisServer, command: tuple[str, ...]
    ) -> None:
        verb, *rest = command
        redis_server.admin.execute_command(verb, name_of(), *rest)
        redis_server.admin.set(name_of(key(1)), value(key(1), redis_server))
        first, second = replica.begin(KEY), replica.begin(key(1))
        assert wait(first) == NOTHING
        assert wait(second).message  # in the same breath, and no worse for it
        replica.write()
        eventually(replica.has)
        assert replica.stats.redis_errors == {}

    def test_flushdb_is_a_miss_and_is_healed(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        replica.write()
        eventually(replica.has)
        redis_server.admin.flushdb()
        assert not replica.has()
        replica.write()
        eventually(replica.has)


class TestWrites:
    def test_every_key_has_its_lifetime_from_redis(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        lifetimes = {key(number): lifetime for number, lifetime in enumerate((1, 2, 60, 300, 86400, 2**31 - 1))}
        for question, lifetime in lifetimes.items():
            replica.write(question, lifetime=lifetime)
        eventually(lambda: redis_server.admin.dbsize() == len(lifetimes))
        for question, lifetime in lifetimes.items():
            assert lifetime * 1000 - 1000 <= redis_server.admin.pttl(name_of(question)) <= lifetime * 1000

    def test_every_key_stays_for_the_stale_time_after_that(
        self, replica: RedisReplica, redis_server: RedisServer
    ) -> None:
        replica.write(lifetime=300, stale=86400)
        eventually(lambda: redis_server.admin.dbsize() == 1)
        assert 86700 - 2 <= redis_server.admin.ttl(name_of()) <= 86700
        assert replica.read().lifetime == 300

    def test_those_that_wait_together_go_out_together(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.pause()
        for number in range(500):
            replica.write(key(number))
        redis_server.resume()
        eventually(lambda: redis_server.admin.dbsize() == 500)
        assert sum(replica.stats.redis_operations["set"].counts) <= 6
        assert redis_server.calls("set") == 500
        assert replica.stats.redis_dropped_writes == 0

    def test_those_that_come_one_by_one_and_fast_go_out_together(
        self, replica: RedisReplica, redis_server: RedisServer
    ) -> None:
        started = time.monotonic()
        for number in range(100):
            replica.write(key(number))
            time.sleep(0.0002)
        eventually(lambda: redis_server.admin.dbsize() == 100)
        most = 2 + (time.monotonic() - started) / 0.002  # one every two milliseconds
        assert sum(replica.stats.redis_operations["set"].counts) <= most

    def test_nobody_waits_for_them(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.pause()
        started = time.monotonic()
        for number in range(100):
            replica.write(key(number))
        assert time.monotonic() - started < 1
        redis_server.resume()

    def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(
        self, replica_of: MakeReplica, redis_server: RedisServer
    ) -> None:
        replica = replica_of(timeout=60.0)
        redis_server.pause()
        total = QUEUE + 1000
        for number in range(total):
            replica.write(key(number))
        dropped = replica.stats.redis_dropped_writes
        assert 1000 - 128 <= dropped <= 1000  # one batch may have been on its way
        redis_server.resume()
        eventually(lambda: redis_server.admin.dbsize() == total - dropped)
        assert replica.stats.redis_dropped_writes == dropped

    def test_what_is_queued_is_written_before_the_end(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.pause()
        for number in range(1000):
            replica.write(key(number))
        redis_server.resume()
        replica.stop()
        assert redis_server.admin.dbsize() == 1000

    def test_the_stored_time_is_on_redis_clock(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        replica.write()
        eventually(lambda: redis_server.admin.dbsize() == 1)
        stored_at = int.from_bytes(redis_server.admin.get(name_of())[5:13])
        assert stored_at == pytest.approx(redis_server.admin.time()[0] * 1000, abs=5000)

    def test_compression_is_counted(self, replica_of: MakeReplica) -> None:
        replica = replica_of(compress_min_bytes=100)
        message = MESSAGE + bytes(1000)
        replica.write(message=message)
        replica.write(key(1))
        eventually(lambda: replica.has(key(1)))
        assert replica.read().message == message
        assert 900 < replica.stats.redis_bytes_saved < 1000

    def test_a_signed_answer_is_believed_by_those_with_the_key_alone(self, replica_of: MakeReplica) -> None:
        ours, theirs = ("a key of sixteen or more",), ("another key of that size",)
        writer, friend, stranger = (
            replica_of(signing_keys=ours),
            replica_of(signing_keys=theirs + ours),
            replica_of(signing_keys=theirs),
        )
        writer.write()
        eventually(writer.has)
        assert friend.has()
        assert not stranger.has()
        assert stranger.stats.redis_rejected == {"signature": 1}

    def test_those_without_a_key_cannot_tell_and_believe_it(self, replica_of: MakeReplica) -> None:
        writer, keyless = replica_of(signing_keys=("a key of sixteen or more",)), replica_of()
        writer.write()
        eventually(writer.has)
        assert keyless.read().message == MESSAGE


class TestLeases:
    HELD = 600_000  # milliseconds: another replica's lease, whose end a test never sees

    def test_a_release_ends_a_lease(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.admin.set(name_of() + LEASE, b"", px=self.HELD)
        assert replica.read().elsewhere
        replica.release()
        eventually(lambda: not replica.read().elsewhere)

    def test_releases_that_wait_together_go_out_together(
        self, replica: RedisReplica, redis_server: RedisServer
    ) -> None:
        for number in range(300):
            redis_server.admin.set(name_of(key(number)) + LEASE, b"", px=self.HELD)
        redis_server.pause()
        for number in range(300):
            replica.release(key(number))
        redis_server.resume()
        eventually(lambda: redis_server.admin.dbsize() == 0)
        assert sum(replica.stats.redis_operations["del"].counts) <= 4

    def test_what_is_to_be_stored_goes_out_with_what_is_to_be_released(
        self, replica: RedisReplica, redis_server: RedisServer
    ) -> None:
        redis_server.admin.set(name_of() + LEASE, b"", px=self.HELD)
        redis_server.pause()
        replica.write(key(1))
        replica.release()
        replica.write(key(2))
        redis_server.resume()
        eventually(lambda: replica.has(key(2)))
        eventually(lambda: not redis_server.admin.exists(name_of() + LEASE))
        assert replica.has(key(1))
        assert replica.stats.redis_dropped_writes == 0

    def test_a_release_that_is_refused_is_counted_and_is_no_dropped_write(
        self, replica_of: MakeReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        redis_server.admin.acl_setuser(
            "ann", enabled=True, passwords=["+hunter2"], keys=["*"], commands=["+get", "+set", "+time"]
        )
        replica = replica_of(replace(redis_server.target, username="ann", password=Secret("hunter2")))
        replica.release()
        eventually(lambda: replica.stats.redis_errors["auth"] == 1)
        replica.write()
        eventually(replica.has)
        assert replica.stats.redis_dropped_writes == 0
        assert replica.up()
        assert not any("refuses writes" in line for line in lines)

    def test_an_acl_that_forbids_scripts_costs_nothing_but_a_line_in_the_log(
        self, replica_of: MakeReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        redis_server.admin.acl_setuser(
            "ann", enabled=True, passwords=["+hunter2"], keys=["*"], commands=["+get", "+set", "+unlink", "+time"]
        )
        replica = replica_of(replace(redis_server.target, username="ann", password=Secret("hunter2")))
        assert [replica.read().elsewhere for _ in range(20)] == [False] + [True] * 19
        replica.write()
        eventually(replica.has)
        assert replica.stats.redis_errors == {}
        assert replica.up()
        assert [line.partition(" (")[0] for line in lines if "WARNING" in line] == [
            "WARNING Redis runs no scripts for Heimdall"
        ]

    def test_what_is_from_before_a_flush_is_counted_once_and_no_hit(
        self, replica: RedisReplica, redis_server: RedisServer
    ) -> None:
        redis_server.admin.set(name_of(), value(KEY, redis_server, age=100))
        replica.invalidations.flushed(EVERYTHING, time.monotonic() - 50)
        assert [replica.read(), replica.read()] == [NOTHING, NOTHING]
        assert (replica.stats.redis_hits, replica.stats.redis_misses) == (0, 2)
        assert replica.stats.redis_rejected == {"flushed": 2}
        redis_server.admin.set(name_of(), value(KEY, redis_server, age=10))
        assert replica.has()

    def test_what_is_not_believed_is_fetched_by_one_and_overwritten(
        self, replica: RedisReplica, redis_server: RedisServer
    ) -> None:
        redis_server.admin.set(name_of(), b"some other program's value")
        assert [replica.read(), replica.read()] == [NOTHING, Found(elsewhere=True)]
        assert replica.stats.redis_rejected == {"format": 1}
        replica.write()
        eventually(replica.has)


class TestReplicas:
    def test_what_one_writes_the_other_finds(self, replica_of: MakeReplica) -> None:
        one, other = replica_of(), replica_of()
        one.write()
        eventually(other.has)
        assert other.read().message == MESSAGE

    def test_over_a_unix_socket(self, replica_of: MakeReplica, redis_server: RedisServer) -> None:
        replica = replica_of(RedisTarget("unix", (), "test", path=str(redis_server.socket)))
        replica.write()
        eventually(replica.has)

    def test_over_tls(self, replica_of: MakeReplica, start_redis: StartRedis, tmp_path: Path) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        issued = ca.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        files = {"cert": "cert.pem", "key": "key.pem", "ca-cert": "ca.pem"}
        arguments = [word for flag, name in files.items() for word in (f"--tls-{flag}-file", str(tmp_path / name))]
        port = unused_port()
        server = start_redis("--tls-port", str(port), "--tls-auth-clients", "no", *arguments)
        target = replace(server.target, hosts=(replace(server.target.hosts[0], port=port),), tls=True)
        replica = replica_of(target, ca_cert=str(tmp_path / "ca.pem"))
        replica.write()
        eventually(replica.has)


class TestWhenRedisIsIll:
    def hurt(self, replica: RedisReplica, times: int = 6) -> None:
        """Read until the breaker has had enough."""
        for _ in range(times):
            if (flight := replica.begin(KEY)) is not None:
                assert wait(flight) == NOTHING

    def test_a_dead_one_opens_the_breaker_and_is_taken_up_again(
        self, replica: RedisReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        replica.write()
        eventually(replica.has)
        redis_server.kill()
        self.hurt(replica)
        assert replica.down()
        assert replica.begin(KEY) is None
        assert replica.stats.redis_errors["connection"] >= 5
        redis_server.start()
        eventually(replica.up)
        assert replica.read() == NOTHING
        replica.write()
        eventually(replica.has)
        assert [line.split(" (")[0].split(" is ")[1] for line in lines] == ["not in use", "in use"]

    def test_a_hanging_one_opens_the_breaker_and_is_taken_up_again(
        self, replica_of: MakeReplica, redis_server: RedisServer
    ) -> None:
        replica = replica_of(timeout=0.1)
        replica.write()
        eventually(replica.has)
        redis_server.pause()
        self.hurt(replica)
        assert replica.down()
        assert replica.stats.redis_errors["timeout"] >= 5
        redis_server.resume()
        eventually(replica.up)
        assert replica.has()

    def test_a_crawling_one_opens_the_breaker(
        self, replica_of: MakeReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        replica = replica_of(slow_seconds=0.05)
        replica.write()
        eventually(replica.has)
        for _ in range(5):
            redis_server.admin.client_pause(100)
            if (flight := replica.begin(KEY)) is not None:
                wait(flight)
        assert replica.link.open
        eventually(lambda: not replica.link.open)
        assert replica.stats.redis_errors == {}
        assert "slow: " in next(line for line in lines if line.startswith("WARNING"))

    def test_reads_that_wait_when_it_opens_are_misses_without_asking(
        self, replica_of: MakeReplica, redis_server: RedisServer
    ) -> None:
        replica = replica_of(timeout=0.2)
        redis_server.pause()
        flights = []
        for number in count():
            flight = replica.begin(key(number))
            if flight is None:
                break
            flights.append(flight)
            eventually(after(0.01))
        assert [wait(flight) for flight in flights] == [NOTHING] * len(flights)
        assert replica.stats.redis_misses == len(flights)
        redis_server.resume()

    def test_writes_that_wait_when_it_opens_are_dropped_and_counted(
        self, replica_of: MakeReplica, redis_server: RedisServer
    ) -> None:
        replica = replica_of(timeout=0.2)
        redis_server.pause()
        for number in range(300):
            replica.write(key(number))
        self.hurt(replica)
        eventually(lambda: replica.stats.redis_dropped_writes == 300)
        redis_server.resume()

    def test_it_is_in_use_as_soon_as_it_is_there(self, replica_of: MakeReplica, redis_server: RedisServer) -> None:
        redis_server.kill()
        replica = replica_of(up=False)
        eventually(lambda: replica.stats.redis_errors["connection"])
        redis_server.start()
        eventually(replica.up)

    def test_a_wrong_password_is_one_line_in_the_log(
        self, replica_of: MakeReplica, start_redis: StartRedis, lines: Lines
    ) -> None:
        server = start_redis(password="hunter2")
        replica = replica_of(replace(server.target, password=Secret("wrong-password")), up=False)
        eventually(lambda: replica.stats.redis_errors["auth"] >= 2)
        assert replica.stats.redis_errors == {"auth": replica.stats.redis_errors["auth"]}
        assert len(list(lines)) == 1
        assert "wrong-password" not in next(iter(lines))
        assert "(auth: " in next(iter(lines))

    def test_a_full_one_takes_no_writes_and_is_still_read(
        self, replica: RedisReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        replica.write()
        eventually(replica.has)
        fill_up(redis_server)
        for number in range(1, 9):
            replica.write(key(number))
        eventually(lambda: replica.stats.redis_errors["oom"] == 8)
        assert replica.stats.redis_dropped_writes == 8
        assert replica.has()
        assert replica.up()
        redis_server.admin.config_set("maxmemory", "0")
        replica.write(key(1))
        eventually(lambda: replica.has(key(1)))
        eventually(lambda: len(list(lines)) == 2)
        assert list(lines) == [
            "WARNING Redis refuses writes (oom); answering without sharing them",
            "INFO Redis takes writes again",
        ]

    def test_a_replica_of_redis_takes_no_writes_and_is_still_read(
        self, replica: RedisReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        replica.write()
        eventually(replica.has)
        redis_server.admin.replicaof("127.0.0.1", unused_port())
        replica.write(key(1))
        replica.write(key(2))
        eventually(lambda: replica.stats.redis_errors["readonly"] == 2)
        assert replica.stats.redis_dropped_writes == 2
        assert replica.has()
        assert replica.up()
        eventually(lambda: list(lines) == ["WARNING Redis refuses writes (readonly); answering without sharing them"])
        redis_server.admin.replicaof("NO", "ONE")
        replica.write(key(1))
        eventually(lambda: replica.has(key(1)))


class TestWhenRedisLies:
    """What answers is no Redis, or has lost its mind."""

    TRUE_TIME = b"*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n"

    @pytest.fixture
    def liar(self) -> Iterator[Callable[[bytes, bytes], RedisTarget]]:
        """Start a server that answers TIME and EVALSHA with these bytes, and whatever else with an error."""
        with ExitStack() as stack:

            def start(to_time: bytes, to_read: bytes) -> RedisTarget:
                def serve(peer: Peer) -> None:
                    while command := peer.sock.recv(65536):
                        peer.sock.sendall(
                            to_time if b"TIME" in command else to_read if b"EVALSHA" in command else b"-ERR what?\r\n"
                        )

                server = stack.enter_context(StreamServer(serve))
                return RedisTarget("standalone", (Endpoint("127.0.0.1", server.port),), "test")

            yield start

    @pytest.mark.parametrize(
        "lie",
        [
            b"$-1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*1\r\n:5\r\n",
            b"*1\r\n*0\r\n",
            b"+OK\r\n",
            b":1\r\n",
            b":what\r\n",
            b"*what\r\n",
            b"-what\r\n",
            b"-NOSCRIPT what\r\n",
            b"-NOPERM what\r\n",
            b"*2\r\n$-1\r\n$-1\r\n",
            b"*2\r\n$-1\r\n$2\r\n00\r\n",
            b"*3\r\n$-1\r\n$-1\r\n$1\r\n0\r\n",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
        ],
    )
    def test_every_read_is_a_miss_and_none_is_left_waiting(
        self, liar: Callable[[bytes, bytes], RedisTarget], replica_of: MakeReplica, lie: bytes
    ) -> None:
        replica = replica_of(liar(self.TRUE_TIME, lie), 0.5)
        for number in range(6):  # more than there are readers
            flight = replica.begin(key(number))
            assert flight is None or flight.wait(1.0) == NOTHING

    @pytest.mark.parametrize("lie", [b"*0\r\n", b":1\r\n", b"$-1\r\n", b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", b":what\r\n"])
    def test_a_wrong_time_is_asked_for_again(
        self, liar: Callable[[bytes, bytes], RedisTarget], replica_of: MakeReplica, lie: bytes
    ) -> None:
        replica = replica_of(liar(lie, b"*0\r\n"), 0.5, up=False)
        eventually(lambda: sum(replica.stats.redis_operations["time"].counts) >= 2, 2.0)
        assert not replica.up()


class TestStop:
    def test_nothing_of_it_runs_on(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        replica.read()
        replica.stop()
        assert not any(thread.is_alive() for thread in replica.redis._threads)
        eventually(lambda: redis_server.admin.info("clients")["connected_clients"] == 1, 2.0)  # the test's own

    def test_reads_that_wait_are_answered_first(self, replica: RedisReplica, redis_server: RedisServer) -> None:
        redis_server.pause()
        flights = keep_readers_busy(replica)
        flights += [replica.begin(key(number)) for number in range(100, 120)]
        spawn = Threads()
        spawn(replica.stop)
        eventually(lambda: len(replica.redis._reads) == 20)
        redis_server.resume()
        spawn.join()
        assert [wait(flight) for flight in flights] == [NOTHING] * (READERS + 20)

    def test_a_hanging_redis_does_not_hold_it_up(self, replica_of: MakeReplica, redis_server: RedisServer) -> None:
        replica = replica_of(timeout=2.0)
        redis_server.pause()
        replica.write()
        started = time.monotonic()
        replica.stop(0.2)
        assert time.monotonic() - started < 1
        redis_server.resume()

    def test_a_full_queue_does_not_hold_it_up_and_what_is_lost_is_logged(
        self, replica_of: MakeReplica, redis_server: RedisServer, lines: Lines
    ) -> None:
        replica = replica_of(timeout=2.0)
        redis_server.pause()
        for number in range(QUEUE + 200):
            replica.write(key(number))
        started = time.monotonic()
        replica.stop(0.2)
        assert time.monotonic() - started < 1
        [lost] = [int(line.split()[5]) for line in lines if line.startswith("WARNING Redis takes no writes: ")]
        assert QUEUE - BATCH <= lost <= QUEUE  # whether the writer had begun with a batch is chance
        redis_server.resume()
        replica.redis._threads[-2].join(PATIENCE)

    def test_it_can_be_stopped_while_redis_is_down(self, replica_of: MakeReplica, redis_server: RedisServer) -> None:
        redis_server.kill()
        replica = replica_of(up=False)
        replica.stop()
        assert not any(thread.is_alive() for thread in replica.redis._threads)
