"""A replica that starts beside a Redis with answers in it: warm before its first client, and never later for it."""

import json
import os
import re
import signal
from typing import Any

import dns.message
import dns.rrset

from heimdall_lib.query import cache_key
from heimdall_lib.shared_cache.codec import Codec, StoredAnswer, redis_key
from tests.support.client import addresses
from tests.support.messages import question
from tests.support.processes import Heimdall, Launcher, RedisServer, eventually
from tests.support.upstream import Upstream

NAMES = [f"n{number}.example.com" for number in range(30)]
# A machine under load may keep a lookup waiting longer than the default budget, and the upstream would be asked.
PATIENT = ("--redis-timeout", "5", "--redis-read-budget", "4")

SOON = 4.0
"""Below the time for which a replica may wait until it is warm (seconds)."""


def started(heimdall: Launcher, redis: RedisServer, *flags: str) -> Heimdall:
    """A replica whose warming is over."""
    server = heimdall("--redis-url", redis.url, *PATIENT, *flags)
    server.wait_for_line("entries from Redis after")
    eventually(lambda: server.get("/readyz").status == 200)
    return server


def warming(server: Heimdall) -> Any:
    return json.loads(server.get("/stats").body)["l2"]["warming"]


def leave_behind(heimdall: Launcher, upstream: Upstream, redis: RedisServer, *popular: str) -> None:
    """Have a replica that is gone again share every name, the popular ones asked for more often than the others."""
    for name in NAMES:
        upstream.add(name, "A", "192.0.2.1")
    server = heimdall("--redis-url", redis.url, *PATIENT)
    server.wait_for_redis()
    for name in NAMES:
        for size in range(1232, 1235):  # what is asked in the same words within a second is counted once
            server.ask(name, payload=size)
    for number, name in enumerate(popular):
        for size in range(1300, 1310 + number):
            server.ask(name, payload=size)
    assert server.stop() == 0
    upstream.asked.clear()


def fill(redis: RedisServer, count: int, view: str) -> None:
    """Leave so many answers in a view."""
    answer = dns.message.make_response(dns.message.make_query("n00000.example.com", "A", use_edns=False))
    answer.answer.append(dns.rrset.from_text("n00000.example.com.", 300, "IN", "A", "192.0.2.1"))
    template, seconds = answer.to_wire(), redis.client.time()[0]
    with redis.client.pipeline(transaction=False) as pipeline:
        for number in range(count):
            name = f"n{number:05}"
            key = cache_key(question(f"{name}.example.com"), dnssec_ok=False, checking_disabled=False)
            message = template.replace(b"n00000", name.encode())
            stored = redis_key("heimdall:dns:cache", view, key)
            value, _ = Codec().encode(stored, key, StoredAnswer(message, seconds * 1000, 300))
            pipeline.set(stored, value, ex=300)
        pipeline.execute()


def test_what_another_replica_had_is_answered_from_memory_at_once(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    leave_behind(heimdall, upstream, redis)
    server = started(heimdall, redis)

    for name in NAMES:
        assert addresses(server.ask(name)) == ["192.0.2.1"]

    assert server.metric("redis_warmed_entries_total") == len(NAMES)
    assert server.metric("cache_hits_total") == len(NAMES)
    assert server.metric("cache_misses_total") == 0
    assert server.metric("redis_hits_total") == server.metric("redis_misses_total") == 0
    assert [asked.name for asked in upstream.asked if asked.name in NAMES] == []


def test_the_most_used_come_first_and_no_more_than_the_operator_wants(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    popular = (NAMES[7], NAMES[19], NAMES[23])
    leave_behind(heimdall, upstream, redis, *popular)
    server = started(heimdall, redis, "--warm-cache-entries", "3")

    assert server.metric("redis_warmed_entries_total") == 3
    for name in popular:
        server.ask(name)
    assert server.metric("cache_hits_total") == 3
    server.ask(NAMES[0])
    assert server.metric("redis_hits_total") == 1  # the others are where they were


def test_log_and_stats_say_what_was_done(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> None:
    leave_behind(heimdall, upstream, redis)
    server = started(heimdall, redis, "--warm-cache-entries", "20")

    server.wait_for_line("L1 is warmed from Redis, up to 20 entries, the most used first$")
    server.wait_for_line(r"L1 has 20 entries from Redis after \d+\.\d+ s: --warm-cache-entries is reached$")
    found = warming(server)
    assert 0 < found.pop("seconds") < 30
    assert found == {"state": "done", "cold": False, "entries": 20, "ended": "--warm-cache-entries is reached"}


def test_it_can_be_switched_off(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> None:
    leave_behind(heimdall, upstream, redis)
    ranking = next(key for key in redis.stored() if ":popular:" in key)
    redis.client.delete(ranking)
    server = heimdall("--redis-url", redis.url, *PATIENT, "--warm-cache-entries", "0")
    server.wait_for_redis()

    assert server.get("/readyz").status == 200
    server.ask(NAMES[0])
    server.ask(NAMES[0])
    assert server.metric("redis_hits_total") == 1
    assert server.metric("redis_warmed_entries_total") == 0
    assert warming(server)["state"] == "off"
    assert server.stop() == 0
    assert not [line for line in server.lines if "L1" in line]
    assert not redis.client.exists(ranking)


def test_while_it_warms_it_is_unready_and_answers_all_the_same(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add("cold.example.com", "A", "192.0.2.9")
    fill(redis, 30_000, "office")
    # Longer than the machine takes to come here from the line that says where HTTP is.
    server = heimdall("--redis-url", redis.url, *PATIENT, "--redis-view", "office", "--warm-cache-entries", "100000")
    ready = server.get("/readyz")
    assert (ready.status, ready.text) == (503, "warming\n")
    assert server.get("/healthz").status == 200
    assert addresses(server.ask("cold.example.com")) == ["192.0.2.9"]
    assert server.get("/readyz").status == 503  # none of which took until it was warm

    eventually(lambda: server.get("/readyz").status == 200)
    eventually(lambda: warming(server)["state"] == "done")
    assert server.metric("redis_warmed_entries_total") > 20_000


def test_workers_warm_one_by_one_and_say_so_as_one(heimdall: Launcher, redis: RedisServer) -> None:
    fill(redis, 30_000, "office")
    # Each is done some four seconds after it began, and the supervisor knows within one more.
    flags = ("--workers", "2", "--redis-view", "office", "--warm-cache-entries", "100000")
    server = heimdall("--redis-url", redis.url, *PATIENT, *flags)
    ready = server.get("/readyz")
    assert (ready.status, ready.text) == (503, "warming\n")
    assert warming(server)["cold"] is True

    eventually(lambda: server.get("/readyz").status == 200)
    eventually(lambda: warming(server)["state"] == "done")
    assert warming(server)["entries"] == server.metric("redis_warmed_entries_total") == server.metric("cache_size")
    assert server.metric("cache_size") > 40_000

    first, _ = json.loads(server.get("/stats").body)["workers"]
    os.kill(first["pid"], signal.SIGKILL)
    eventually(lambda: warming(server)["cold"])
    assert server.get("/readyz").status == 200  # for there is one that is warm


def test_a_redis_that_hangs_holds_up_readiness_for_a_moment_only(heimdall: Launcher, redis: RedisServer) -> None:
    redis.freeze()
    try:
        server = heimdall("--redis-url", redis.url, "--redis-timeout", "60")
        said = set()
        while (answer := server.get("/readyz")).status != 200:
            said.add(answer.text)
        assert said <= {"warming\n"}
        assert json.loads(server.get("/stats").body)["uptime_seconds"] < SOON
    finally:
        redis.thaw()


def test_a_drain_begins_at_once_even_while_it_warms(heimdall: Launcher, redis: RedisServer) -> None:
    fill(redis, 30_000, "office")
    server = heimdall("--redis-url", redis.url, "--redis-view", "office", "--warm-cache-entries", "100000")
    server.wait_for_line("L1 is warmed")
    assert server.stop() == 0
    assert re.search("L1 has .*: Heimdall stops", server.log)


def test_what_was_popular_in_a_view_does_not_outlive_two_days(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    leave_behind(heimdall, upstream, redis)
    assert all(0 < redis.client.ttl(key) <= 2 * 86_400 for key in redis.stored())
