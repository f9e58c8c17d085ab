"""The link to Redis: when it is open, what it says of it, and whose clock it tells."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import pytest
import redis

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.invalidations import EVERYTHING
from heimdall_lib.settings import Endpoint, RedisTarget
from heimdall_lib.shared_cache.clearing import clear
from heimdall_lib.shared_cache.client import ClientOptions, connect
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.stats import Stats
from tests.fakes import PATIENCE, Lines, eventually
from tests.integration.conftest import RedisServer, after, fill_up
from tests.support.engines import on_every_engine

DOWN = "WARNING Redis at the test's is not in use"
UP = "INFO Redis at the test's is in use"


def says(lines: Lines, *expected: str) -> None:
    """The log says this and, as far as can be told, no more."""
    eventually(lambda: len(list(lines)) >= len(expected))
    assert list(lines) == list(expected)


class ScriptedRedis:
    """A client whose ``time`` returns or raises what it is told."""

    def __init__(self) -> None:
        self.answer: Any = (1_000_000, 500_000)
        self.asked = 0
        self.closed = False

    def time(self) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.closed = True


@dataclass
class Kept:
    """A link and the thread that keeps it."""

    link: Link
    stats: Stats
    thread: Thread = field(init=False)
    watcher: Thread | None = None

    def start(self) -> None:
        self.thread = Thread(target=self.link.keep)
        self.thread.start()

    def watch(self) -> None:
        self.watcher = Thread(target=self.link.watch)
        self.watcher.start()

    def up(self) -> bool:
        return self.state() == (False, True, False)

    def down(self) -> bool:
        return self.state() == (True, False, True)

    def state(self) -> tuple[bool, bool, bool]:
        return self.link.open, self.stats.redis_up, self.stats.redis_breaker_open

    def fail(self, error: Exception | None = None) -> None:
        def call(_client: object) -> None:
            raise error or redis.ConnectionError("gone")

        with pytest.raises(SharedCacheError):
            self.link.run("get", call)

    def stop(self) -> None:
        self.link.stop()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        if self.watcher is not None:
            self.watcher.join(PATIENCE)
            assert not self.watcher.is_alive()


Keep = Callable[..., Kept]


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Make a link and keep it; it is let go with the test."""
    made: list[Kept] = []

    def start(
        connecting: Callable[[], Any], *, slow_seconds: float = 5.0, expected: bool = True, started: bool = True
    ) -> Kept:
        stats = Stats()
        link = Link(connecting, name="the test's", slow_seconds=slow_seconds, expected=expected, stats=stats)
        kept = Kept(link, stats)
        made.append(kept)
        if started:
            kept.start()
        return kept

    yield start
    for kept in made:
        if hasattr(kept, "thread"):
            kept.stop()


@pytest.fixture
def scripted() -> ScriptedRedis:
    return ScriptedRedis()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with Lines("heimdall.redis") as collected:
        yield collected


class OddRedis(ScriptedRedis):
    """A client whose ``scan`` returns what it is told."""

    found: Any = None

    def scan(self, _cursor: int, **_options: object) -> Any:
        return self.found


@pytest.mark.parametrize("found", [None, 1, "OK", (1, None), ("x", []), (0, [1])])
def test_a_walk_through_keys_that_is_answered_with_nonsense_is_a_fault_of_redis(keep: Keep, found: object) -> None:
    odd = OddRedis()
    odd.found = found
    kept = keep(lambda: odd)
    eventually(kept.up)
    with pytest.raises(SharedCacheError):
        clear(kept.link, "prefix", EVERYTHING, known=[], seconds=PATIENCE)


class TestStart:
    def test_it_is_open_until_redis_was_reached(self, keep: Keep, scripted: ScriptedRedis) -> None:
        kept = keep(lambda: scripted, started=False)
        assert kept.down()
        kept.start()
        eventually(kept.up)

    def test_that_redis_is_in_use_is_logged(self, keep: Keep, scripted: ScriptedRedis, lines: Lines) -> None:
        eventually(keep(lambda: scripted).up)
        says(lines, UP)

    def test_it_connects_as_soon_as_redis_is_there_and_says_once_that_it_was_not(
        self, keep: Keep, scripted: ScriptedRedis, lines: Lines
    ) -> None:
        scripted.answer = redis.ConnectionError("Error 111")
        kept = keep(lambda: scripted)
        eventually(lambda: scripted.asked >= 2)
        assert kept.down()
        eventually(lambda: kept.stats.redis_errors == {"connection": scripted.asked})
        scripted.answer = (1_000_000, 0)
        eventually(kept.up)
        says(lines, f"{DOWN} (connection: Error 111); answering without it", UP)

    def test_a_redis_that_was_only_guessed_may_be_missing_in_silence(
        self, keep: Keep, scripted: ScriptedRedis, lines: Lines
    ) -> None:
        scripted.answer = redis.ConnectionError("Error -2")
        kept = keep(lambda: scripted, expected=False)
        eventually(lambda: scripted.asked >= 2)
        assert list(lines) == []
        scripted.answer = (1_000_000, 0)
        eventually(kept.up)
        for _ in range(5):
            kept.fail()
        says(lines, UP, f"{DOWN} (connection: gone); answering without it")

    def test_a_client_that_cannot_be_made_is_tried_again(
        self, keep: Keep, scripted: ScriptedRedis, lines: Lines
    ) -> None:
        tries: list[int] = []

        def undiscovered() -> ScriptedRedis:
            tries.append(1)
            if len(tries) < 2:
                raise SharedCacheError("connection", "no node answers")
            return scripted

        eventually(keep(undiscovered).up)
        assert len(tries) == 2
        says(lines, f"{DOWN} (connection: no node answers); answering without it", UP)

    def test_a_client_is_made_once(self, keep: Keep, scripted: ScriptedRedis) -> None:
        made: list[int] = []

        def connecting() -> ScriptedRedis:
            made.append(1)
            return scripted

        kept = keep(connecting)
        eventually(kept.up)
        for _ in range(5):
            kept.fail()
        eventually(kept.up)
        assert len(made) == 1


class TestBreaker:
    @pytest.fixture
    def kept(self, keep: Keep, scripted: ScriptedRedis) -> Kept:
        kept = keep(lambda: scripted, slow_seconds=0.05)
        eventually(kept.up)
        return kept

    def stay_down(self, scripted: ScriptedRedis) -> None:
        scripted.answer = redis.ConnectionError("gone")

    def test_five_errors_in_a_row_open_it(self, kept: Kept, scripted: ScriptedRedis, lines: Lines) -> None:
        self.stay_down(scripted)
        for _ in range(4):
            kept.fail()
        assert kept.up()
        kept.fail()
        assert kept.down()
        assert kept.stats.redis_errors["connection"] >= 5
        assert list(lines) == [f"{DOWN} (connection: gone); answering without it"]

    def test_five_slow_answers_in_a_row_open_it(self, kept: Kept, scripted: ScriptedRedis, lines: Lines) -> None:
        self.stay_down(scripted)
        for _ in range(5):
            assert kept.link.run("get", lambda _: Event().wait(0.06)) is False
        assert kept.down()
        assert kept.stats.redis_errors.get("timeout") is None
        assert "slow: get took " in list(lines)[-1]

    def test_what_is_in_bulk_may_be_slow(self, kept: Kept, scripted: ScriptedRedis) -> None:
        self.stay_down(scripted)
        for _ in range(6):
            kept.link.run("scan", lambda _: Event().wait(0.06), bulk=True)
        assert kept.up()

    def test_a_success_in_between_starts_the_count_anew(self, kept: Kept) -> None:
        for _ in range(3):
            for _ in range(4):
                kept.fail()
            kept.link.run("get", lambda _: None)
        assert kept.up()

    def test_what_is_under_way_for_too_long_opens_it_before_it_ends(
        self, kept: Kept, scripted: ScriptedRedis, lines: Lines
    ) -> None:
        """A name that is not resolved, say: no timeout of a socket ends that."""
        self.stay_down(scripted)
        found = Event()
        hanging = Thread(target=kept.link.run, args=("get", lambda _: found.wait(PATIENCE)))
        hanging.start()
        kept.watch()
        eventually(kept.down)
        assert hanging.is_alive()
        found.set()
        hanging.join(PATIENCE)
        assert "slow: get is under way for " in list(lines)[-1]
        scripted.answer = (1_000_000, 0)
        eventually(kept.up)

    def test_a_query_that_comes_meanwhile_finds_it_out(self, kept: Kept, scripted: ScriptedRedis) -> None:
        """Nobody watches here: under load a fault is found as soon as it is one."""
        self.stay_down(scripted)
        found = Event()
        hanging = [Thread(target=kept.link.run, args=("get", lambda _: found.wait(PATIENCE))) for _ in range(5)]
        for thread in hanging:
            thread.start()
        eventually(lambda: len(kept.link._under_way) == 5)
        eventually(lambda: not kept.link.ready())
        assert kept.down()
        assert all(thread.is_alive() for thread in hanging)
        found.set()
        for thread in hanging:
            thread.join(PATIENCE)

    def test_one_that_hangs_does_not_as_often_as_queries_come(self, kept: Kept) -> None:
        found = Event()
        hanging = Thread(target=kept.link.run, args=("get", lambda _: found.wait(PATIENCE)))
        hanging.start()
        eventually(after(0.06))
        for _ in range(100):
            assert kept.link.ready()
        found.set()
        hanging.join(PATIENCE)

    def test_while_others_succeed_one_that_hangs_does_not(self, kept: Kept) -> None:
        found = Event()
        hanging = Thread(target=kept.link.run, args=("get", lambda _: found.wait(PATIENCE)))
        hanging.start()
        kept.watch()
        until = after(0.5)
        while not until():
            kept.link.run("get", lambda _: None)
        assert kept.up()
        found.set()
        hanging.join(PATIENCE)

    def test_what_is_under_way_in_bulk_may_be_slow(self, kept: Kept) -> None:
        kept.watch()
        kept.link.run("scan", lambda _: Event().wait(0.5), bulk=True)
        assert kept.up()

    def test_it_closes_by_itself_and_says_so_once(self, kept: Kept, scripted: ScriptedRedis, lines: Lines) -> None:
        self.stay_down(scripted)
        for _ in range(7):
            kept.fail()
        scripted.answer = (1_000_000, 0)
        eventually(kept.up)
        says(lines, f"{DOWN} (connection: gone); answering without it", UP)

    def test_a_slow_probe_does_not_close_it(self, kept: Kept, scripted: ScriptedRedis) -> None:
        answered: list[int] = []

        class Slow(ScriptedRedis):
            def time(self) -> Any:
                Event().wait(0.06)
                answered.append(1)
                return (1_000_000, 0)

        kept.link._client = Slow()
        for _ in range(5):
            kept.fail()
        eventually(lambda: len(answered) == 2)
        assert kept.down()

    def test_what_was_under_way_when_it_opened_does_not_leave_the_metrics_behind(
        self, kept: Kept, scripted: ScriptedRedis, lines: Lines
    ) -> None:
        """A late success closes the breaker: whoever looks has to see the same state as the queries do."""
        self.stay_down(scripted)

        def overtaken(_client: object) -> None:
            for _ in range(5):
                kept.fail()

        kept.link.run("set", overtaken)
        scripted.answer = (1_000_000, 0)
        eventually(lambda: not kept.link.open)
        kept.link._clock_due = 0.0
        asked = scripted.asked
        eventually(lambda: scripted.asked > asked)
        assert kept.state() in {(False, True, False), (True, False, True)}

    def test_one_failure_to_read_the_clock_does_not_put_redis_out_of_use(
        self, kept: Kept, scripted: ScriptedRedis, lines: Lines
    ) -> None:
        scripted.answer = redis.TimeoutError("late")
        asked = scripted.asked
        kept.link._clock_due = 0.0
        eventually(lambda: scripted.asked > asked)
        scripted.answer = (1_000_000, 0)
        asked = scripted.asked
        eventually(lambda: scripted.asked > asked)
        eventually(after(0.02))
        assert kept.up()
        assert list(lines) == []

    def test_a_clock_that_cannot_be_read_again_and_again_does(self, kept: Kept, scripted: ScriptedRedis) -> None:
        scripted.answer = redis.TimeoutError("late")
        kept.link._clock_due = 0.0
        eventually(kept.down)
        scripted.answer = (1_000_000, 0)
        eventually(kept.up)

    def test_operations_are_timed_whatever_comes_of_them(self, kept: Kept) -> None:
        kept.link.run("set", lambda _: None)
        kept.fail()
        operations = kept.stats.redis_operations
        assert (sum(operations["set"].counts), sum(operations["get"].counts)) == (1, 1)

    def test_what_is_called_gets_the_client_and_its_result_comes_back(
        self, kept: Kept, scripted: ScriptedRedis
    ) -> None:
        assert kept.link.run("get", lambda client: client) is scripted


class TestClock:
    def test_it_is_redis_own(self, keep: Keep, scripted: ScriptedRedis) -> None:
        kept = keep(lambda: scripted)
        eventually(kept.up)
        assert 1_000_000_500 <= kept.link.now() < 1_000_000_500 + PATIENCE * 1000

    def test_it_goes_on_between_two_measurements(self, keep: Keep, scripted: ScriptedRedis) -> None:
        kept = keep(lambda: scripted)
        eventually(kept.up)
        before = kept.link.now()
        eventually(lambda: kept.link.now() - before >= 50)
        assert scripted.asked == 1

    def test_it_is_measured_again_now_and_then(self, keep: Keep, scripted: ScriptedRedis) -> None:
        kept = keep(lambda: scripted)
        eventually(kept.up)
        scripted.answer = (2_000_000, 0)
        kept.link._clock_due = 0.0
        eventually(lambda: kept.link.now() >= 2_000_000_000)
        assert kept.up()

    def test_one_that_took_long_does_not_replace_a_better_one_of_the_same_clock(self, keep: Keep) -> None:
        class Slow(ScriptedRedis):
            wait = 0.0

            def time(self) -> Any:
                Event().wait(self.wait)
                self.asked += 1
                return divmod(int(time.monotonic() * 1e6), 1_000_000)

        slow = Slow()
        kept = keep(lambda: slow)
        eventually(kept.up)
        slow.wait = 1.0  # half of which it seems to be wrong
        kept.link._clock_due = 0.0
        eventually(lambda: slow.asked == 2)
        kept.stop()
        assert kept.link.now() == pytest.approx(time.monotonic() * 1000, abs=250)


class TestStop:
    def test_the_connections_are_closed(self, keep: Keep, scripted: ScriptedRedis) -> None:
        kept = keep(lambda: scripted)
        eventually(kept.up)
        kept.stop()
        assert scripted.closed

    def test_there_may_have_been_none(self, keep: Keep) -> None:
        def unreachable() -> None:
            raise SharedCacheError("connection", "no node answers")

        keep(unreachable).stop()


class TestRedis:
    def link_to(self, server: RedisServer, keep: Keep, timeout: float = 0.5) -> Kept:
        kept = keep(lambda: connect(server.target, ClientOptions(timeout)))
        eventually(kept.up)
        return kept

    @on_every_engine
    def test_its_clock(self, keep: Keep, redis_server: RedisServer) -> None:
        kept = self.link_to(redis_server, keep)
        seconds, microseconds = redis_server.admin.time()
        assert kept.link.now() == pytest.approx(seconds * 1000 + microseconds / 1000, abs=200)

    @pytest.mark.parametrize("reason", ["connection", "timeout"])
    @on_every_engine
    def test_it_dies_or_hangs_and_comes_back(
        self, keep: Keep, redis_server: RedisServer, lines: Lines, reason: str
    ) -> None:
        kept = self.link_to(redis_server, keep, timeout=0.1)
        end, begin = {
            "connection": (redis_server.kill, redis_server.start),
            "timeout": (redis_server.pause, redis_server.resume),
        }[reason]
        end()
        for _ in range(5):
            with pytest.raises(SharedCacheError) as caught:
                kept.link.run("get", lambda client: client.get("name"))
            assert caught.value.reason == reason
        assert kept.down()
        begin()
        eventually(kept.up)
        assert kept.link.run("get", lambda client: client.get("name")) is None
        eventually(lambda: [line.partition(" (")[0] for line in lines] == [UP, DOWN, UP])
        assert [record.levelno for record in lines.records] == [logging.INFO, logging.WARNING, logging.INFO]

    def test_a_full_redis_is_in_use_all_the_same(self, keep: Keep, redis_server: RedisServer) -> None:
        fill_up(redis_server)
        kept = self.link_to(redis_server, keep)
        assert kept.link.run("get", lambda client: client.get("name")) is None

    def test_a_silent_one_holds_nothing_up(self, keep: Keep, deaf_port: int) -> None:
        silent = RedisTarget("standalone", (Endpoint("127.0.0.1", deaf_port),), "test")
        kept = keep(lambda: connect(silent, ClientOptions(0.1)))
        eventually(lambda: kept.stats.redis_errors["timeout"])
        started = time.monotonic()
        assert kept.link.open
        kept.stop()
        assert time.monotonic() - started < 2
