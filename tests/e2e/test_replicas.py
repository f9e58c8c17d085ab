"""Several replicas that share a Redis behave as one cache: one upstream query, one refresh, one memory of what was."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dns.message
import pytest

from tests.support.client import addresses, extended_errors, rcode, ttl
from tests.support.processes import Heimdall, Launcher, RedisServer, eventually
from tests.support.upstream import Reaction, Upstream, failing, late, silent

NAME = "www.example.com"
STALE, STALE_NXDOMAIN = 3, 19
STALE_WINDOW = 86400
LEASE_SECONDS = 0.3
SLOW = 0.15
"""What a slow upstream takes (seconds): long enough for everybody to have asked, and less than a lease lasts."""
SOON = 2.0
"""Far above a lease, far below what a client waits for (seconds)."""
# A machine under load may keep a lookup waiting longer than the default budget, and the upstream would be asked.
PATIENT = ("--redis-timeout", "5", "--redis-read-budget", "4")


@pytest.fixture
def fleet(heimdall: Launcher, redis: RedisServer) -> Callable[..., list[Heimdall]]:
    """Start so many replicas that share a Redis, and wait until each uses it and has taken over what was there."""

    def start(count: int, *flags: str) -> list[Heimdall]:
        replicas = [heimdall("--redis-url", redis.url, *PATIENT, *flags) for _ in range(count)]
        for replica in replicas:
            replica.wait_for_line("entries from Redis after")
        return replicas

    return start


Fleet = Callable[..., list[Heimdall]]


def ask_all(replicas: list[Heimdall], name: str = NAME, rdtype: str = "A") -> list[dns.message.Message]:
    """Ask every replica at the same moment."""
    with ThreadPoolExecutor(len(replicas)) as pool:
        return list(pool.map(lambda replica: replica.ask(name, rdtype), replicas))


def seconds_for(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


class TestOneQuery:
    def test_replicas_that_miss_a_name_at_once_ask_upstream_once(self, fleet: Fleet, upstream: Upstream) -> None:
        replicas = fleet(3)
        for number in range(10):
            name = f"n{number}.example.com"
            upstream.add(name, "A", "192.0.2.1")
            upstream.on(name, late(SLOW))
            assert [addresses(answer) for answer in ask_all(replicas, name)] == [["192.0.2.1"]] * 3
        # A machine that stands still for longer than a lease lasts may cost one more.
        assert len([number for number in range(10) if upstream.count(f"n{number}.example.com") == 1]) >= 8
        found = sum(replica.metric("query_duration_seconds_count", source="l2") for replica in replicas)
        assert found >= 16

    def test_an_nxdomain_is_asked_for_once_too(self, fleet: Fleet, upstream: Upstream) -> None:
        upstream.on(NAME, late(SLOW))
        assert [rcode(answer) for answer in ask_all(fleet(3))] == ["NXDOMAIN"] * 3
        assert upstream.count(NAME) <= 2

    def test_who_waits_for_another_replica_goes_alone_when_upstream_takes_longer_than_a_lease(
        self, fleet: Fleet, upstream: Upstream
    ) -> None:
        upstream.add(NAME, "A", "192.0.2.1")
        gate = upstream.hold(NAME)
        replicas = fleet(3, "--upstream-timeout", "4")
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(replica.ask, NAME) for replica in replicas]
            eventually(lambda: upstream.count(NAME) == 3)
            gate.set()
            assert [addresses(each.result()) for each in asked] == [["192.0.2.1"]] * 3
        first, *others = sorted(asked.at for asked in upstream.questions(NAME))
        assert min(others) - first >= LEASE_SECONDS - 0.1

    def test_a_failure_is_not_waited_for(self, fleet: Fleet, upstream: Upstream) -> None:
        upstream.on(NAME, failing("SERVFAIL"))
        assert [rcode(answer) for answer in ask_all(fleet(3))] == ["SERVFAIL"] * 3
        assert upstream.count(NAME) <= 3

    def test_a_failure_leaves_nothing_in_redis(self, fleet: Fleet, upstream: Upstream, redis: RedisServer) -> None:
        upstream.on(NAME, failing("SERVFAIL"))
        ask_all(fleet(3))
        eventually(lambda: not redis.client.keys("*:1:*"))

    def test_what_may_not_be_kept_is_fetched_by_each(self, fleet: Fleet, upstream: Upstream) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=0)
        replicas = fleet(3)
        assert [addresses(answer) for answer in ask_all(replicas)] == [["192.0.2.1"]] * 3
        assert upstream.count(NAME) == 3

    def test_replicas_that_ask_other_servers_do_not_wait_for_each_other(self, fleet: Fleet, upstream: Upstream) -> None:
        upstream.add(NAME, "A", "192.0.2.1")
        with Upstream() as another:
            another.add(NAME, "A", "192.0.2.2")
            (one,), (other,) = fleet(1), fleet(1, "--upstream-servers", another.address)
            assert [addresses(answer)[0] for answer in ask_all([one, other])] == ["192.0.2.1", "192.0.2.2"]
            assert (upstream.count(NAME), another.count(NAME)) == (1, 1)


class TestTheOneWhoAsksDies:
    def test_the_others_answer_within_the_bound(self, fleet: Fleet, upstream: Upstream) -> None:
        upstream.add(NAME, "A", "192.0.2.1")
        gate = upstream.hold(NAME)
        holder, *others = fleet(3, "--upstream-timeout", "4")
        with ThreadPoolExecutor(3) as pool:
            doomed = pool.submit(holder.ask, NAME, timeout=1.0)
            eventually(lambda: upstream.count(NAME) == 1)
            holder.send(signal.SIGKILL)
            holder.wait()
            upstream.on(NAME, late(0))
            took = list(pool.map(lambda replica: seconds_for(lambda: replica.ask(NAME)), others))
            gate.set()
            assert doomed.exception() is not None
        assert max(took) < SOON
        assert upstream.count(NAME) <= 3

    def test_a_redis_that_dies_while_they_wait_costs_nothing(
        self, fleet: Fleet, upstream: Upstream, redis: RedisServer
    ) -> None:
        upstream.add(NAME, "A", "192.0.2.1")
        upstream.on(NAME, late(SLOW))
        replicas = fleet(3)
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(replica.ask, NAME) for replica in replicas]
            eventually(lambda: upstream.count(NAME))
            redis.kill()
            assert [addresses(each.result()) for each in asked] == [["192.0.2.1"]] * 3


class TestOneRefresh:
    def test_replicas_refresh_a_popular_name_once(self, fleet: Fleet, upstream: Upstream) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=4)
        replicas = fleet(3)
        ask_all(replicas)
        misses = upstream.count(NAME)

        # Popular with every replica, to the last tenth of its life and into the next one.
        def prefetched() -> bool:
            ask_all(replicas)
            return all(replica.metric("cache_prefetches_total") >= 3 for replica in replicas)

        eventually(prefetched, timeout=60)
        asked = [each.at for each in upstream.questions(NAME)]
        lives = 1 + int((asked[-1] - asked[0]) / 3)  # each lasts from 3.6 to 4 s
        assert len(asked) <= misses + lives
        assert sum(replica.metric("cache_prefetches_total") for replica in replicas) >= 9
        assert all(ttl(answer) >= 1 for answer in ask_all(replicas))


class TestStaleFromRedis:
    FLAGS = ("--upstream-timeout", "0.3", "--query-timeout", "1", "--stale-client-timeout", "0.5")

    def past_its_life(self, fleet: Fleet, upstream: Upstream, redis: RedisServer, expected: str) -> None:
        """Leave in Redis an answer whose life is over, and nobody who remembers it."""
        (before,) = fleet(1, *self.FLAGS)
        assert rcode(before.ask(NAME)) == expected
        key = redis.wait_for_key(NAME)
        before.stop()
        eventually(lambda: redis.client.pttl(key) < STALE_WINDOW * 1000)

    @pytest.mark.parametrize(
        "reaction", [silent, failing("SERVFAIL"), failing("REFUSED")], ids=["dead", "failing", "refusing"]
    )
    def test_a_replica_that_has_just_started_serves_it(
        self, fleet: Fleet, upstream: Upstream, redis: RedisServer, reaction: Reaction
    ) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=1)
        self.past_its_life(fleet, upstream, redis, "NOERROR")
        upstream.reaction = reaction
        (after,) = fleet(1, *self.FLAGS)
        answer = after.ask(NAME)
        assert (rcode(answer), addresses(answer)) == ("NOERROR", ["192.0.2.1"])
        assert extended_errors(answer) == [STALE]
        assert ttl(answer) <= 30
        assert after.metric("cache_stale_answers_total") == 1
        assert after.metric("redis_hits_total") == 0

    def test_an_nxdomain_too(self, fleet: Fleet, upstream: Upstream, redis: RedisServer) -> None:
        upstream.negative_ttl = 1
        self.past_its_life(fleet, upstream, redis, "NXDOMAIN")
        upstream.reaction = silent
        (after,) = fleet(1, *self.FLAGS)
        answer = after.ask(NAME)
        assert (rcode(answer), extended_errors(answer)) == ("NXDOMAIN", [STALE_NXDOMAIN])
        assert ttl(answer) <= 30

    def test_it_is_not_written_back(self, fleet: Fleet, upstream: Upstream, redis: RedisServer) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=1)
        self.past_its_life(fleet, upstream, redis, "NOERROR")
        before = redis.client.get(redis.wait_for_key(NAME))
        upstream.reaction = silent
        for replica in fleet(2, *self.FLAGS):
            assert extended_errors(replica.ask(NAME)) == [STALE]
            replica.stop()  # what was queued is written by now
        assert redis.client.get(redis.wait_for_key(NAME)) == before

    def test_once_upstream_is_known_to_be_down_it_comes_at_once(
        self, fleet: Fleet, upstream: Upstream, redis: RedisServer
    ) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=1)
        self.past_its_life(fleet, upstream, redis, "NOERROR")
        upstream.reaction = silent
        (after,) = fleet(1, "--upstream-timeout", "0.2", "--query-timeout", "4", "--stale-client-timeout", "3.5")
        after.ask("other.example.com")
        after.wait_for_metric("upstream_up", 0)
        answers: list[dns.message.Message] = []
        assert seconds_for(lambda: answers.append(after.ask(NAME))) < SOON
        assert extended_errors(answers[0]) == [STALE]

    def test_an_upstream_that_answers_is_preferred(self, fleet: Fleet, upstream: Upstream, redis: RedisServer) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=1)
        self.past_its_life(fleet, upstream, redis, "NOERROR")
        upstream.add(NAME, "A", "192.0.2.2", ttl=60)
        (after,) = fleet(1)
        answer = after.ask(NAME)
        assert (addresses(answer), extended_errors(answer)) == (["192.0.2.2"], [])

    def test_without_serve_stale_nothing_stays(self, fleet: Fleet, upstream: Upstream, redis: RedisServer) -> None:
        upstream.add(NAME, "A", "192.0.2.1", ttl=2)
        (server,) = fleet(1, "--serve-stale", "0")
        server.ask(NAME)
        assert redis.client.ttl(redis.wait_for_key(NAME)) <= 2
        eventually(lambda: not redis.stored(NAME))
