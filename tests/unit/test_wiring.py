"""What each part of the house is told of the settings."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from heimdall_lib import wiring
from heimdall_lib.config import RELOADABLE, Machine, load
from heimdall_lib.config.table import TABLE
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.lifetime import TtlPolicy
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.resolver import Resolver, ResolverPolicy
from heimdall_lib.settings import ForwardZone, Settings, UpstreamServer
from heimdall_lib.shared_cache.cache import ANY_AGE, NoSharedCache
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.shared_cache.warming import NoWarming, Warming, WarmingBounds
from heimdall_lib.stats import Stats
from heimdall_lib.upstream.forwarder import ForwardingPlan
from tests.fakes import ScriptedUpstreams, Threads, parsed

MACHINE = Machine(resolv_conf="/nonexistent/resolv.conf", is_local=lambda _: False)


def settings(*argv: str) -> Settings:
    return load(argv, {}, MACHINE)


@contextmanager
def built(given: Settings) -> Iterator[tuple[RedisCache, Any, Stats]]:
    """The shared cache for some settings, the redis-py client it would connect with, and its counters."""
    stats = Stats()
    assert given.redis_target is not None
    link = wiring.redis_link(given, given.redis_target, stats)
    cache = wiring.redis_cache(given, link, replica="0" * 16, invalidations=Invalidations(), stats=stats)
    client = link._connect()
    yield cache, client, stats
    client.close()


def test_the_forwarders_part() -> None:
    plan = wiring.forwarding_plan(
        settings(
            "--upstream-servers=192.0.2.53,tls://192.0.2.54#dns.example",
            "--forward-zones=corp.example=192.0.2.55",
            "--upstream-policy=random",
            "--upstream-timeout=0.5",
            "--edns-udp-size=4096",
        )
    )
    assert plan == ForwardingPlan(
        servers=(UpstreamServer("udp", "192.0.2.53", 53), UpstreamServer("tls", "192.0.2.54", 853, "dns.example")),
        zones=(ForwardZone("corp.example", (UpstreamServer("udp", "192.0.2.55", 53),)),),
        policy="random",
        timeout=0.5,
        udp_size=4096,
    )


def test_the_resolvers_part() -> None:
    policy = wiring.resolver_policy(
        settings(
            "--min-ttl=1",
            "--max-ttl=2",
            "--max-negative-ttl=3",
            "--serve-stale=4",
            "--failure-ttl=5.5",
            "--query-timeout=6.5",
            "--stale-client-timeout=0.7",
            "--redis-read-budget=0.08",
            "--prefetch=false",
            "--max-inflight=9",
            "--redis-view=office",
        )
    )
    assert policy == ResolverPolicy(
        ttl=TtlPolicy(min_ttl=1, max_ttl=2, max_negative_ttl=3, serve_stale=4),
        failure_ttl=5.5,
        query_timeout=6.5,
        stale_client_timeout=0.7,
        read_budget=0.08,
        prefetch=False,
        max_refreshes=9,
        view="office",
    )


def test_the_view_is_left_to_the_upstreams_by_default() -> None:
    assert wiring.resolver_policy(settings()).view == ""


def test_the_defaults_of_the_resolver_are_those_of_the_settings() -> None:
    assert wiring.resolver_policy(settings()) == ResolverPolicy()


def test_the_responders_part() -> None:
    policy = wiring.responder_policy(
        settings(
            "--allow-from=192.0.2.0/24",
            "--rate-limit=1",
            "--rate-limit-burst=2",
            "--edns-udp-size=1400",
            "--stale-reply-ttl=7",
            "--tcp-idle-timeout=8.5",
            "--query-log=true",
        )
    )
    assert (policy.udp_size, policy.stale_reply_ttl, policy.query_log) == (1400, 7, True)
    assert policy.tcp_idle_timeout == 8.5
    assert (policy.allow.allows("192.0.2.9"), policy.allow.allows("127.0.0.1")) == (True, False)
    assert [policy.limiter.allows("192.0.2.9", 0.0, "udp") for _ in range(3)] == [True, True, False]


def test_the_rate_limit_is_off_by_default() -> None:
    policy = wiring.responder_policy(settings())
    assert all(policy.limiter.allows("192.0.2.9", 0.0, "udp") for _ in range(1000))


class TestRedis:
    def test_it_is_down_before_it_is_started(self) -> None:
        with built(settings("--redis-url=redis://192.0.2.1")) as (cache, _, stats):
            assert cache.read(parsed().key, "view", ANY_AGE) is None
            assert (stats.redis_up, stats.redis_breaker_open) == (False, True)

    def test_the_client_has_the_operators_timeout_pool_and_login(self) -> None:
        given = settings(
            "--redis-url=redis://192.0.2.1:7000/3",
            "--redis-username=ann",
            "--redis-password=hunter2",
            "--redis-timeout=0.75",
            "--redis-max-connections=9",
        )
        with built(given) as (_, client, _):
            pool = client.connection_pool
            assert isinstance(pool, redis.BlockingConnectionPool)
            assert (pool.max_connections, pool.timeout) == (9, 0.75)
            expected = {"host": "192.0.2.1", "port": 7000, "db": 3, "username": "ann", "password": "hunter2"}
            assert expected.items() <= pool.connection_kwargs.items()
            assert pool.connection_kwargs["socket_timeout"] == 0.75
            assert pool.connection_kwargs["socket_connect_timeout"] == 0.75

    def test_the_client_has_the_operators_certificates(self, tmp_path: Path) -> None:
        files = [tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")]
        for file in files:
            file.write_text("certificate\n")
        given = settings(
            "--redis-url=rediss://192.0.2.1",
            f"--redis-ca-cert={files[0]}",
            f"--redis-client-cert={files[1]}",
            f"--redis-client-key={files[2]}",
        )
        with built(given) as (_, client, _):
            arguments = client.connection_pool.connection_kwargs
            names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
            assert [arguments[name] for name in names] == [str(file) for file in files]
            assert arguments["ssl_check_hostname"] is True

    def test_the_link_is_called_by_its_url_without_credentials(self) -> None:
        given = settings("--redis-url=redis://ann:hunter2@192.0.2.1", "--redis-read-budget=0.5")
        with built(given) as (cache, _, _):
            assert cache._link._name == "redis://192.0.2.1:6379/0"
            assert cache._link._slow_seconds == 0.5

    @pytest.mark.parametrize("guessed", [False, True])
    def test_only_a_guess_is_allowed_to_fail_in_silence(self, guessed: bool) -> None:
        environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"} if guessed else {"REDIS_URL": "redis://192.0.2.1"}
        with built(load((), environ, MACHINE)) as (cache, _, _):
            assert cache._link._log_failures is not guessed

    def test_values_are_signed_and_compressed_as_the_operator_says(self) -> None:
        given = settings(
            "--redis-url=redis://192.0.2.1",
            "--redis-signing-key=0123456789abcdef",
            "--redis-compress-min-bytes=77",
            "--redis-key-prefix=ours",
        )
        with built(given) as (cache, _, _):
            assert (len(cache._codec._keys), cache._codec._compress_min_bytes, cache._prefix) == (1, 77, "ours")


class TestWarming:
    def made(self, *argv: str) -> Warming | NoWarming:
        given, stats = settings(*argv), Stats()
        link = wiring.redis_link(given, given.redis_target, stats) if given.redis_target else None
        memory = MemoryCache(max_entries=1, max_bytes=1, purge_interval=1.0, stats=stats)
        invalidations = Invalidations()
        resolver = Resolver(
            policy=wiring.resolver_policy(given),
            memory=memory,
            shared=NoSharedCache(),
            invalidations=invalidations,
            upstreams=ScriptedUpstreams(),
            spawn=Threads(),
            stats=stats,
        )
        shared = None
        if link:
            shared = wiring.redis_cache(given, link, replica="0" * 16, invalidations=invalidations, stats=stats)
        return wiring.warming(given, link, shared, resolver=resolver, memory=memory, stats=stats)

    def test_it_leaves_half_of_l1_to_what_is_asked_for_meanwhile(self) -> None:
        flags = ("--warm-cache-entries=7", "--max-cache-size=1001", "--max-cache-bytes=2001", "--redis-key-prefix=ours")
        made = self.made("--redis-url=redis://192.0.2.1", *flags)
        assert isinstance(made, Warming)
        assert made._bounds == WarmingBounds(entries=7, l1_entries=500, l1_bytes=1000, seconds=30.0)
        assert made._prefix == "ours"

    def test_there_is_none_without_redis_or_when_the_operator_says_so(self) -> None:
        assert isinstance(self.made(), NoWarming)
        assert isinstance(self.made("--redis-url=redis://192.0.2.1", "--warm-cache-entries=0"), NoWarming)


class TestWords:
    def test_redis_and_the_step_that_decided(self) -> None:
        given = settings("--redis-url=redis://:hunter2@192.0.2.1")
        assert wiring.redis_words(given) == f"redis://192.0.2.1:6379/0 ({given.redis_step})"

    def test_no_redis_and_the_step_that_decided(self) -> None:
        given = settings("--redis-enabled=false")
        assert wiring.redis_words(given) == f"off ({given.redis_step})"

    def test_settings_as_an_operator_knows_them(self) -> None:
        assert wiring.flags(["query_log", "allow_from"]) == "--allow-from, --query-log"
        assert wiring.flags([]) == ""


class TestReload:
    def test_nothing_new(self) -> None:
        before = settings()
        assert wiring.merged(before, settings()) == (before, set(), set())

    def test_what_can_change_is_taken(self) -> None:
        new = settings("--query-log=true", "--max-ttl=60")
        after, taken, fixed = wiring.merged(settings(), new)
        assert (after.query_log, after.max_ttl) == (True, 60)
        assert (taken, fixed) == ({"query_log", "max_ttl"}, set())
        assert (after.shown["query-log"], after.shown["max-ttl"]) == ("true", "60")

    def test_what_cannot_change_stays(self) -> None:
        before = settings()
        after, taken, fixed = wiring.merged(before, settings("--workers=3", "--redis-key-prefix=other"))
        assert after == before
        assert (taken, fixed) == (set(), {"workers", "redis_key_prefix"})

    def test_both_at_once(self) -> None:
        after, taken, fixed = wiring.merged(settings(), settings("--workers=3", "--query-log=true"))
        assert (after.workers, after.query_log) == (1, True)
        assert (after.shown["workers"], after.shown["query-log"]) == ("1", "true")
        assert (taken, fixed) == ({"query_log"}, {"workers"})

    def test_another_redis_needs_a_restart_and_is_not_shown(self) -> None:
        before = settings()
        after, _, fixed = wiring.merged(before, settings("--redis-url=redis://192.0.2.1"))
        assert (after.redis_target, after.shown["redis-url"]) == (None, before.shown["redis-url"])
        assert fixed == {"redis_target", "redis_step"}

    def test_new_upstream_servers_are_taken_and_shown(self) -> None:
        after, taken, _ = wiring.merged(settings(), settings("--upstream-servers=192.0.2.53"))
        assert taken == {"upstream_servers"}
        assert after.upstream_servers == (UpstreamServer("udp", "192.0.2.53", 53),)
        assert "192.0.2.53" in after.shown["upstream-servers"]

    def test_everything_that_a_running_process_can_take_reaches_a_part_that_is_told_again(self) -> None:
        """`app.reload` hands on what these three make of the settings, beside the log level and the in-flight bound."""
        untold = {"log_level"}
        changes = {
            "upstream_servers": "192.0.2.53",
            "forward_zones": "corp.example=192.0.2.53",
            "upstream_policy": "random",
            "upstream_timeout": "0.5",
            "query_timeout": "60",
            "min_ttl": "1",
            "max_ttl": "2",
            "max_negative_ttl": "3",
            "failure_ttl": "4",
            "serve_stale": "5",
            "stale_reply_ttl": "6",
            "stale_client_timeout": "0.7",
            "prefetch": "false",
            "max_inflight": "8",
            "allow_from": "192.0.2.0/24",
            "rate_limit": "9",
            "rate_limit_burst": "10",
            "query_log": "true",
        }
        assert set(changes) | untold == RELOADABLE
        flags = {row.field: row.flag for row in TABLE}
        before = settings()
        for name, text in changes.items():
            extra = ["--rate-limit=5"] if name == "rate_limit_burst" else []
            after, taken, _ = wiring.merged(before, settings(*extra, f"--{flags[name]}={text}"))
            assert name in taken
            assert self.told(after) != self.told(before), name

    def told(self, given: Settings) -> object:
        responder = wiring.responder_policy(given)
        return (
            wiring.forwarding_plan(given),
            wiring.resolver_policy(given),
            dataclasses.replace(responder, allow=None, limiter=None),  # type: ignore[arg-type]
            responder.allow._networks,
            (responder.limiter.rate, responder.limiter.burst),
        )


def test_as_many_workers_as_are_asked_for() -> None:
    assert wiring.worker_count(settings()) == 1
    assert wiring.worker_count(settings("--workers=3")) == 3


def test_workers_0_is_one_for_each_core_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert wiring.worker_count(settings("--workers=0")) == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert wiring.worker_count(settings("--workers=0")) == len(allowed)
