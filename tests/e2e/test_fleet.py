"""Several replicas as one cache: what is flushed at one is forgotten by all, and what changed for one is changed."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support import client
from tests.support.client import addresses
from tests.support.engines import ENGINES
from tests.support.processes import PATIENCE, REPOSITORY, Heimdall, Launcher, RedisServer, environment, eventually
from tests.support.upstream import Upstream

OLD, NEW = "192.0.2.1", "192.0.2.2"
NAME = "www.example.com"
TOKEN = "an-admin-token-of-some-length"


@pytest.fixture
def replicas(heimdall: Launcher, redis: RedisServer) -> list[Heimdall]:
    """Three that share a Redis and hear each other."""
    started = [heimdall("--redis-url", redis.url) for _ in range(3)]
    for each in started:
        each.wait_for_line("entries from Redis after")
    wait_until_they_listen(redis, 3)
    return started


def wait_until_they_listen(redis: RedisServer, count: int) -> None:
    eventually(lambda: redis.client.pubsub_numsub("heimdall:dns:cache:events")[0][1] == count)


def answers_in(redis: RedisServer) -> list[str]:
    return [key for key in redis.stored() if not key.endswith((":generation", ":lease")) and ":popular:" not in key]


def run(*words: str, at: Heimdall, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of an operator's against one replica."""
    where = ["--http-addr", f"http://{at.http[0]}:{at.http[1]}"]
    command = [sys.executable, "heimdall.py", words[0], *where, *words[1:]]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment(env), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def flush(at: Heimdall, query: str, *, status: int = 200, **headers: str) -> dict[str, Any]:
    answer = client.http(at.http, f"/cache/flush?{query}", method="POST", headers=headers)
    assert answer.status == status, answer.text
    return dict(json.loads(answer.body))


def entry(at: Heimdall, query: str) -> dict[str, Any]:
    return dict(json.loads(at.get(f"/cache/entry?{query}").body))


def ask_all(replicas: Sequence[Heimdall], name: str = NAME) -> list[list[str]]:
    return [addresses(each.ask(name)) for each in replicas]


@pytest.mark.parametrize("redis", list(ENGINES.values()), ids=list(ENGINES), indirect=True)
def test_what_is_flushed_at_one_replica_is_forgotten_by_all(
    replicas: list[Heimdall], upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add(NAME, "A", OLD)
    assert ask_all(replicas) == [[OLD]] * 3
    eventually(lambda: len(answers_in(redis)) == 1)
    upstream.add(NAME, "A", NEW)
    assert ask_all(replicas) == [[OLD]] * 3
    answer = flush(replicas[0], f"name={NAME}")
    assert answer == {
        "l1_removed": 1,
        "l2_removed": 1,
        "replicas": {"expected": 3, "acknowledged": 3},
        "redis": "ok",
        "complete": True,
    }
    assert ask_all(replicas) == [[NEW]] * 3
    assert replicas[0].metric("redis_invalidations_total", direction="sent") == 1
    assert replicas[1].metric("redis_invalidations_total", direction="received") == 1


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("name=a.example.com&type=A", {"a.example.com AAAA", "b.a.example.com A", "a.example.org A"}),
        ("name=a.example.com", {"b.a.example.com A", "a.example.org A"}),
        ("name=A.Example.COM.&subtree=true", {"a.example.org A"}),
        ("name=example.com&subtree=true&type=AAAA", {"a.example.com A", "b.a.example.com A", "a.example.org A"}),
        ("all=true", set()),
    ],
)
def test_exactly_what_is_named_goes_from_both_tiers(
    replicas: list[Heimdall], upstream: Upstream, redis: RedisServer, query: str, left: set[str]
) -> None:
    questions = [("a.example.com", "A"), ("a.example.com", "AAAA"), ("b.a.example.com", "A"), ("a.example.org", "A")]
    for name, rdtype in questions:
        upstream.add(name, rdtype, OLD if rdtype == "A" else "2001:db8::1")
        for each in replicas[:2]:
            each.ask(name, rdtype)
    eventually(lambda: len(answers_in(redis)) == len(questions))
    flush(replicas[1], query)
    for each in replicas[:2]:
        held = {f"{name} {rdtype}" for name, rdtype in questions if is_held(each, name, rdtype)}
        assert held == left
    assert len(answers_in(redis)) == len(left)


def is_held(at: Heimdall, name: str, rdtype: str) -> bool:
    return bool(entry(at, f"name={name}&type={rdtype}")["where"] != "nowhere")


def test_a_replica_that_hangs_is_missed_in_the_answer_and_forgets_when_it_goes_on(
    replicas: list[Heimdall], upstream: Upstream
) -> None:
    upstream.add(NAME, "A", OLD)
    ask_all(replicas)
    upstream.add(NAME, "A", NEW)
    replicas[2].send(signal.SIGSTOP)
    try:
        started = time.monotonic()
        done = run("flush", NAME, at=replicas[0])
        assert time.monotonic() - started < 5
    finally:
        replicas[2].send(signal.SIGCONT)
    assert done.returncode == 1
    assert f"{NAME}: forgotten by 2 of 3 replicas" in done.stdout
    assert "not complete" in done.stderr
    assert ask_all(replicas[:2]) == [[NEW]] * 2
    eventually(lambda: ask_all(replicas[2:]) == [[NEW]])


def test_a_flush_is_not_complete_while_a_replica_is_cut_off_from_the_others(
    replicas: list[Heimdall], redis: RedisServer
) -> None:
    redis.client.execute_command("ACL", "SETUSER", "default", "-subscribe")
    redis.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_until_they_listen(redis, 0)
    answer = flush(replicas[0], "all=true")
    assert (answer["replicas"], answer["complete"]) == ({"expected": 3, "acknowledged": 1}, False)
    redis.client.execute_command("ACL", "SETUSER", "default", "+subscribe")
    wait_until_they_listen(redis, 3)
    answer = flush(replicas[0], "all=true")
    assert (answer["replicas"], answer["complete"]) == ({"expected": 3, "acknowledged": 3}, True)


def test_stats_show_the_fleet_and_who_stops_leaves_it(heimdall: Launcher, redis: RedisServer) -> None:
    one = heimdall("--redis-url", redis.url)
    one.wait_for_redis()
    pair = heimdall("--redis-url", redis.url, "--workers", "2")
    wait_until_they_listen(redis, 3)
    eventually(lambda: sum(each["here"] for each in fleet(pair)) == 2)
    eventually(lambda: len(fleet(pair)) == 3)
    assert {each["host"] for each in fleet(pair)} == {socket.gethostname()}
    assert all(each["seen_seconds_ago"] <= 30 for each in fleet(pair))
    kept = redis.client.keys("heimdall:dns:cache:replica:*")
    assert len(kept) == 3
    assert all(0 < redis.client.ttl(key) <= 30 for key in (*kept, "heimdall:dns:cache:replicas"))
    assert pair.stop() == 0
    assert len(redis.client.keys("heimdall:dns:cache:replica:*")) == 1
    answer = flush(one, "all=true")
    assert (answer["replicas"], answer["complete"]) == ({"expected": 1, "acknowledged": 1}, True)


def test_without_redis_there_is_no_fleet(heimdall: Launcher) -> None:
    assert fleet(heimdall()) == []


def fleet(at: Heimdall) -> list[dict[str, Any]]:
    return list(json.loads(at.get("/stats").body)["fleet"])


def test_without_redis_this_replica_forgets_and_says_so_and_the_others_when_it_is_back(
    replicas: list[Heimdall], upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add(NAME, "A", OLD)
    ask_all(replicas)
    upstream.add(NAME, "A", NEW)
    redis.kill()
    for each in replicas:
        each.wait_for_metric("redis_up", 0)
    answer = flush(replicas[0], f"name={NAME}")
    assert (answer["l1_removed"], answer["l2_removed"], answer["complete"]) == (1, 0, False)
    assert answer["redis"] == "connection: Redis is not in use"
    assert ask_all(replicas) == [[NEW], [OLD], [OLD]]
    redis.start()
    eventually(lambda: ask_all(replicas) == [[NEW]] * 3)


def test_redis_that_restarts_costs_no_replica_its_answers(
    replicas: list[Heimdall], upstream: Upstream, redis: RedisServer
) -> None:
    flush(replicas[0], "name=other.example.com")
    upstream.add(NAME, "A", OLD)
    ask_all(replicas)
    redis.kill()
    for each in replicas:
        each.wait_for_metric("redis_up", 0)
    redis.start()
    for each in replicas:
        each.wait_for_metric("redis_up", 1)
    wait_until_they_listen(redis, 3)
    upstream.add(NAME, "A", NEW)
    assert ask_all(replicas) == [[OLD]] * 3


def test_an_answer_that_changed_for_one_replica_is_gone_from_the_others_within_a_second(
    heimdall: Launcher, redis: RedisServer, upstream: Upstream
) -> None:
    """One refreshes early, for its own maximum is lower; the others would keep the old answer for five minutes."""
    early = heimdall("--redis-url", redis.url, "--max-ttl", "2", "--prefetch", "false")
    others = [heimdall("--redis-url", redis.url) for _ in range(2)]
    for each in (early, *others):
        each.wait_for_line("entries from Redis after")
    wait_until_they_listen(redis, 3)
    upstream.add(NAME, "A", OLD)
    redis.client.flushall()
    assert ask_all(others) == [[OLD]] * 2
    assert ask_all([early]) == [[OLD]]
    upstream.add(NAME, "A", NEW)
    redis.client.flushall()
    eventually(lambda: ask_all([early]) == [[NEW]])
    eventually(lambda: ask_all(others) == [[NEW]] * 2, timeout=1.0)
    assert others[0].metric("redis_invalidations_total", direction="received") == 1


def test_workers_forget_as_one(heimdall: Launcher, upstream: Upstream) -> None:
    several = heimdall("--workers", "2")
    upstream.add(NAME, "A", OLD)
    for _ in range(20):
        several.ask(NAME)
    upstream.add(NAME, "A", NEW)
    answer = flush(several, f"name={NAME}")
    assert (answer["redis"], answer["complete"]) == ("off", True)
    assert answer["l1_removed"] in (1, 2)
    assert all(addresses(several.ask(NAME)) == [NEW] for _ in range(20))


def test_an_entry_is_described_tier_by_tier(replicas: list[Heimdall], upstream: Upstream, redis: RedisServer) -> None:
    upstream.add(NAME, "A", OLD)
    replicas[0].ask(NAME)
    eventually(lambda: len(answers_in(redis)) == 1)
    here, there, none = (entry(replicas[n], f"name={name}") for n, name in ((0, NAME), (1, NAME), (0, "x.example")))
    assert (here["name"], here["type"], here["where"], here["now"]) == (NAME, "A", "both", "answered from L1")
    assert 290 <= here["ttl"] <= 300
    assert here["size"] == there["size"] > 12
    assert (there["where"], there["now"]) == ("l2", "answered from L2")
    assert (none["where"], none["now"], none["ttl"]) == ("nowhere", "asked upstream", None)
    assert [one["where"] for one in here["variants"]] == ["both", "nowhere", "nowhere", "nowhere"]
    shown = run("entry", NAME, at=replicas[0])
    assert shown.returncode == 0
    assert f"{NAME} A: in L1 and L2; a query now is answered from L1" in shown.stdout
    assert shown.stdout.count("NOERROR") == 2


def test_without_a_token_a_web_page_may_not_flush(heimdall: Launcher) -> None:
    server = heimdall()
    assert "web page" in flush(server, "all=true", status=403, Origin="http://evil.example")["error"]


def test_a_token_is_asked_for_even_on_loopback(heimdall: Launcher) -> None:
    server = heimdall("--admin-token", TOKEN)
    for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}):
        flush(server, "all=true", status=403, **headers)
    assert flush(server, "all=true", Authorization=f"Bearer {TOKEN}")["complete"] is True
    refused = run("flush", "--all", at=server)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "admin token" in refused.stderr
    assert TOKEN not in server.log
    for words, env in (
        (["--admin-token", TOKEN], {}),
        ([], {"HEIMDALL_ADMIN_TOKEN": TOKEN}),
    ):
        done = run("flush", "--all", *words, at=server, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert "everything: forgotten by 1 of 1 replicas" in done.stdout
