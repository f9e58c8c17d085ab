"""Two processes, one Redis between them: what is shared, and what happens when Redis fails in every way it can."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import dns.message
import pytest

from tests.support.client import addresses, query, rcode, ttl, udp_socket
from tests.support.processes import Heimdall, Launcher, RedisServer, eventually, run_heimdall
from tests.support.upstream import Upstream

# A machine under load may keep a lookup waiting longer than the default budget, and the upstream would be asked.
# What is looked at here is what a query finds in L2, so that nothing is taken over from there before it is asked for.
PATIENT = ("--redis-timeout", "5", "--redis-read-budget", "4", "--warm-cache-entries", "0")
PASSWORD = "correct-horse-battery"
SOON = 2.0
"""Far below the times that a client gives up after, far above what a busy machine takes for an answer (seconds)."""


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name: those are limited to 108 octets."""
    with TemporaryDirectory(prefix="redis-") as path:
        yield Path(path)


def sharing(heimdall: Launcher, redis: RedisServer, *flags: str) -> Heimdall:
    started = heimdall("--redis-url", redis.url, *PATIENT, *flags)
    started.wait_for_redis()
    return started


def seconds_for(server: Heimdall, name: str, address: str) -> float:
    """Ask for ``name``, which must have ``address``; return how long that took."""
    started = time.monotonic()
    assert addresses(server.ask(name)) == [address]
    return time.monotonic() - started


def takes_writes(server: Heimdall, redis: RedisServer, prefix: str) -> bool:
    """Ask for a name that nobody asked for; say whether one that begins with ``prefix`` has come to Redis."""
    server.ask(f"{prefix}{time.monotonic_ns()}.example.com")
    return any(f":{prefix}" in key for key in redis.stored())


def test_what_one_replica_resolved_another_has_from_redis(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1", "192.0.2.2", ttl=300)
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    assert ttl(one.ask("www.example.com")) == 300
    redis.wait_for_key("www.example.com")
    counted_down = eventually(lambda: ttl(one.ask("www.example.com")) <= 298 and ttl(one.ask("www.example.com")))

    answer = two.ask("www.example.com")

    assert addresses(answer) == ["192.0.2.1", "192.0.2.2"]
    assert counted_down - 10 <= ttl(answer) <= counted_down + 1
    assert upstream.count("www.example.com") == 1
    assert two.metric("redis_hits_total") == 1
    assert two.metric("query_duration_seconds_count", source="l2") == 1
    two.ask("www.example.com")
    assert two.metric("cache_hits_total") == 1  # from then on it is in the second one's own memory


@pytest.mark.parametrize("rdtype", ["A", "TXT"])
def test_negative_answers_are_shared_and_count_down_too(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer, rdtype: str
) -> None:
    upstream.add("nodata.example.com", "AAAA", "2001:db8::1")
    name = "nodata.example.com" if rdtype == "TXT" else "nxdomain.example.com"
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    expected = rcode(one.ask(name, rdtype))
    redis.wait_for_key(name)
    eventually(lambda: ttl(one.ask(name, rdtype)) <= 298)  # their clocks agree to a second

    answer = two.ask(name, rdtype)

    assert (rcode(answer), answer.answer) == (expected, [])
    assert ttl(answer) <= 299
    assert upstream.count(name) == 1


def test_keys_are_readable_and_expire_by_themselves(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1", ttl=60)
    server = sharing(heimdall, redis)
    server.ask("WWW.Example.COM")
    server.ask("www.example.com", want_dnssec=True)
    server.ask("nxdomain.example.com", "AAAA")
    eventually(lambda: len(redis.stored()) == 3)

    assert all(key.startswith("heimdall:dns:cache:") for key in redis.stored())
    endings = {key.partition(":www.")[2] or key.partition(":nxdomain.")[2] for key in redis.stored()}
    assert endings == {"example.com:A:IN", "example.com:A:IN:do", "example.com:AAAA:IN"}
    stale = 86400  # they stay for that long after their lives, to serve when upstream gives nothing
    assert all(stale < redis.client.ttl(key) <= stale + 300 for key in redis.stored())
    assert redis.client.ttl(redis.stored("www.example.com")[0]) <= stale + 60
    eventually(lambda: len(redis.client.keys("*:1:*")) == 3)  # leases are over by themselves


def test_replicas_with_other_upstreams_share_nothing_unless_told_that_they_agree(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    upstream.add("agreed.example.com", "A", "192.0.2.3")
    with Upstream() as other:
        other.add("www.example.com", "A", "192.0.2.2")
        sharing(heimdall, redis).ask("www.example.com")
        redis.wait_for_key("www.example.com")
        apart = sharing(heimdall, redis, "--upstream-servers", other.address)
        assert addresses(apart.ask("www.example.com")) == ["192.0.2.2"]

        one = sharing(heimdall, redis, "--redis-view", "us")
        two = sharing(heimdall, redis, "--redis-view", "us", "--upstream-servers", other.address)
        one.ask("agreed.example.com")
        assert ":us:" in redis.wait_for_key("agreed.example.com")
        assert addresses(two.ask("agreed.example.com")) == ["192.0.2.3"]


def test_a_killed_redis_costs_no_answer_and_is_used_again_when_it_is_back(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    for name in ("cached", "uncached1", "uncached2", "again"):
        upstream.add(f"{name}.example.com", "A", "192.0.2.1")
    replicas = [heimdall("--redis-url", redis.url), heimdall("--redis-url", redis.url)]
    for replica in replicas:
        replica.wait_for_line("entries from Redis after")
        replica.ask("cached.example.com")
    marks = [len(replica.lines) for replica in replicas]

    redis.kill()
    for number, replica in enumerate(replicas, start=1):
        assert seconds_for(replica, "cached.example.com", "192.0.2.1") < SOON
        assert seconds_for(replica, f"uncached{number}.example.com", "192.0.2.1") < SOON
        # Enough failures for it to be left alone; no query waits for it from then on.
        for count in range(10):
            upstream.add(f"more{count}.example.com", "A", "192.0.2.1")
            assert seconds_for(replica, f"more{count}.example.com", "192.0.2.1") < SOON
        replica.wait_for_metric("redis_up", 0)
        replica.wait_for_metric("redis_breaker_open", 1)
        assert replica.get("/readyz").status == 200

    redis.start()
    one, two = replicas
    for replica, mark in zip(replicas, marks, strict=True):
        replica.wait_for_redis(start=mark)
    assert one.metric("redis_up") == two.metric("redis_up") == 1
    one.ask("again.example.com")
    redis.wait_for_key("again.example.com")
    hits = two.metric("redis_hits_total")
    two.ask("again.example.com")
    two.wait_for_metric("redis_hits_total", hits + 1)


def test_redis_may_be_absent_at_the_start_and_is_taken_up_when_it_appears(
    heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    upstream.add("later.example.com", "A", "192.0.2.2")
    redis = RedisServer(tmp_path)
    server = heimdall("--redis-url", redis.url)
    assert seconds_for(server, "www.example.com", "192.0.2.1") < SOON
    eventually(lambda: server.get("/readyz").status == 200)
    server.wait_for_line("Redis at .* is not in use .connection: .*answering without it")
    try:
        redis.start()
        server.wait_for_redis()
        server.ask("later.example.com")
        redis.wait_for_key("later.example.com")
    finally:
        redis.kill()
    assert len([line for line in server.lines if "not in use" in line]) <= 2  # once before, perhaps once after


def test_flushdb_is_a_miss_and_heals(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    one.ask("www.example.com")
    redis.wait_for_key("www.example.com")
    redis.client.flushdb()

    assert addresses(two.ask("www.example.com")) == ["192.0.2.1"]

    assert upstream.count("www.example.com") == 2
    assert two.metric("redis_misses_total") == 1
    redis.wait_for_key("www.example.com")


def test_a_key_of_another_type_is_a_miss_and_heals(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    one.ask("www.example.com")
    key = redis.wait_for_key("www.example.com")
    redis.client.delete(key)
    redis.client.hset(key, "field", "value")

    assert addresses(two.ask("www.example.com")) == ["192.0.2.1"]

    assert upstream.count("www.example.com") == 2
    assert two.metric("redis_misses_total") == 1
    assert two.metric("redis_up") == 1
    eventually(lambda: redis.client.type(key) == b"string")


def test_bytes_that_are_not_an_answer_are_a_miss_counted_and_healed(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    corruptions: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda value: b"",
        "foreign": lambda value: b'{"a": "192.0.2.66"}',
        "header-only": lambda value: value[:19],
        "truncated": lambda value: value[:-3],
        "longer": lambda value: value + b"more",
        "other-version": lambda value: value[:2] + b"\x63" + value[3:],
        "other-flags": lambda value: value[:4] + bytes((value[4] ^ 1,)) + value[5:],
        "compressed-noise": lambda value: value[:3] + bytes((value[3] | 1,)) + value[4:],
        "message-zeroed": lambda value: value[:19] + b"\0" * (len(value) - 19),
        "random": lambda value: bytes(range(7, 7 + len(value))),
    }
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    stored: dict[str, bytes] = {}
    for name, corrupt in corruptions.items():
        upstream.add(f"{name}.example.com", "A", "192.0.2.1")
        one.ask(f"{name}.example.com")
        key = redis.wait_for_key(f"{name}.example.com")
        stored[key] = corrupt(redis.client.get(key))
        redis.client.set(key, stored[key], ex=300)

    for count, name in enumerate(corruptions, start=1):
        assert addresses(two.ask(f"{name}.example.com")) == ["192.0.2.1"]
        assert upstream.count(f"{name}.example.com") == 2, name
        assert two.metric("redis_rejected_entries_total") == count, name

    eventually(lambda: all(redis.client.get(key) != value for key, value in stored.items()))
    three = sharing(heimdall, redis)
    for name in corruptions:
        assert addresses(three.ask(f"{name}.example.com")) == ["192.0.2.1"]
    assert three.metric("redis_hits_total") == len(corruptions)
    assert three.metric("redis_rejected_entries_total") == 0


def test_an_answer_under_another_names_key_is_not_believed(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add("evil.example.com", "A", "192.0.2.66")
    upstream.add("bank.example.com", "A", "192.0.2.1")
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    one.ask("evil.example.com")
    key = redis.wait_for_key("evil.example.com")
    redis.client.set(key.replace("evil", "bank"), redis.client.get(key), ex=300)

    assert addresses(two.ask("bank.example.com")) == ["192.0.2.1"]
    assert two.metric("redis_rejected_entries_total", reason="question") == 1


def test_with_a_signing_key_an_unsigned_entry_is_ignored_and_counted(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    sharing(heimdall, redis).ask("www.example.com")
    redis.wait_for_key("www.example.com")
    signing = sharing(heimdall, redis, "--redis-signing-key", "new-key-of-the-fleet,old-key-of-the-fleet")
    other = sharing(heimdall, redis, "--redis-signing-key", "old-key-of-the-fleet,new-key-of-the-fleet")

    signing.ask("www.example.com")
    assert signing.metric("redis_rejected_entries_total", reason="signature") == 1
    upstream.add("signed.example.com", "A", "192.0.2.2")
    signing.ask("signed.example.com")
    redis.wait_for_key("signed.example.com")
    other.ask("signed.example.com")
    assert other.metric("redis_hits_total") == 1
    assert "key-of-the-fleet" not in signing.log + signing.get("/stats").text


def test_a_frozen_redis_delays_no_answer_beyond_its_budget(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    names = [f"n{number}.example.com" for number in range(12)]
    for name in names:
        upstream.add(name, "A", "192.0.2.1")
    # Redis's own timeout is far beyond the bound: that these are answered is the budget's doing.
    server = heimdall("--redis-url", redis.url, "--redis-timeout", "10")
    server.wait_for_redis()
    redis.freeze()
    assert max(seconds_for(server, name, "192.0.2.1") for name in names) < SOON
    assert server.metric("redis_budget_exceeded_total") >= 1
    assert all(upstream.count(name) == 1 for name in names)
    redis.thaw()


def test_a_redis_that_freezes_under_load_loses_no_query(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    server = heimdall("--redis-url", redis.url)
    server.wait_for_redis()
    with ExitStack() as stack:
        sockets = [stack.enter_context(udp_socket(server.address)) for _ in range(400)]
        for number, sock in enumerate(sockets):
            if number in (100, 300):
                (redis.freeze if number == 100 else redis.thaw)()
            sock.send(query(f"n{number}.example.com", id=number).to_wire())
            time.sleep(0.002)  # a load, not a wait: 500 queries a second at most
        answers = [dns.message.from_wire(sock.recv(65535)) for sock in sockets]
    assert [answer.id for answer in answers] == list(range(400))
    assert {rcode(answer) for answer in answers} == {"NXDOMAIN"}
    assert all(upstream.count(f"n{number}.example.com") == 1 for number in range(400))


def test_redis_is_seen_to_be_well_again_after_every_pause(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    server = heimdall("--redis-url", redis.url, "--redis-timeout", "10")
    server.wait_for_redis()
    # Several rounds, because what is under way when a pause ends comes back in an order that nobody decides.
    for turn in range(6):
        redis.freeze()
        for number in range(12):
            server.ask(f"turn{turn}-{number}.example.com")
        redis.thaw()
        eventually(partial(takes_writes, server, redis, f"after{turn}-"))
        server.wait_for_metric("redis_up", 1)
        server.wait_for_metric("redis_breaker_open", 0)


def test_a_frozen_redis_is_left_alone_and_used_again_after_it_thaws(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    server = heimdall("--redis-url", redis.url)
    server.wait_for_redis()
    mark = len(server.lines)

    redis.freeze()
    for number in range(8):
        upstream.add(f"n{number}.example.com", "A", "192.0.2.1")
        assert seconds_for(server, f"n{number}.example.com", "192.0.2.1") < SOON
    server.wait_for_metric("redis_breaker_open", 1)
    exceeded = server.metric("redis_budget_exceeded_total")
    upstream.add("left-alone.example.com", "A", "192.0.2.1")
    server.ask("left-alone.example.com")
    assert server.metric("redis_budget_exceeded_total") == exceeded

    redis.thaw()
    server.wait_for_redis(start=mark)
    upstream.add("thawed.example.com", "A", "192.0.2.1")
    server.ask("thawed.example.com")
    redis.wait_for_key("thawed.example.com")


def test_a_password_is_used_wherever_it_comes_from(heimdall: Launcher, upstream: Upstream, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, password=PASSWORD)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    upstream.add("www.example.com", "A", "192.0.2.1")
    url = redis.url.replace("://", f"://:{PASSWORD}@")
    try:
        redis.start()
        started = [
            heimdall("--redis-url", url),
            heimdall("--redis-url", redis.url, "--redis-password", PASSWORD),
            heimdall("--redis-url", redis.url, "--redis-password-file", str(tmp_path / "password")),
            heimdall(env={"REDIS_URL": url}),
            heimdall(env={"HEIMDALL_REDIS_URL": redis.url, "HEIMDALL_REDIS_PASSWORD": PASSWORD}),
        ]
        for server in started:
            server.wait_for_redis()
    finally:
        redis.kill()


def test_a_wrong_password_is_an_error_in_the_log_and_costs_no_answer(
    heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    redis = RedisServer(tmp_path, password=PASSWORD)
    upstream.add("www.example.com", "A", "192.0.2.1")
    try:
        redis.start()
        server = heimdall("--redis-url", redis.url.replace("://", "://:hunter2hunter2@"))
        server.wait_for_line("Redis at .* is not in use .auth: ")
        assert seconds_for(server, "www.example.com", "192.0.2.1") < SOON
        assert server.metric("redis_errors_total", reason="auth") >= 1
    finally:
        redis.kill()
    assert "hunter2" not in server.log


def test_a_password_in_the_url_is_never_shown(heimdall: Launcher, upstream: Upstream, tmp_path: Path) -> None:
    redis = RedisServer(tmp_path, password=PASSWORD)
    upstream.add("www.example.com", "A", "192.0.2.1")
    url = redis.url.replace("://", f"://default:{PASSWORD}@")
    try:
        redis.start()
        server = heimdall("--redis-url", url, "--log-level", "debug")
        server.wait_for_redis()
        server.ask("www.example.com")
        redis.wait_for_key("www.example.com")
        shown = [server.get(path).text for path in ("/stats", "/metrics", "/readyz", "/")]
    finally:
        redis.kill()
    # What is logged when it is gone must not show it either.
    for number in range(10):
        server.ask(f"n{number}.example.com")
    server.wait_for_metric("redis_up", 0)
    shown.append(server.log)
    for flags, env in (
        (("--redis-url", url, "--check-config"), {}),
        (("--check-config",), {"HEIMDALL_REDIS_URL": url}),
        (("--help",), {"REDIS_URL": url}),
        (("--redis-url", url, "--max-ttl", "x"), {}),
        (("--redis-url", url.replace("redis://", "http://")), {}),
        (("--redis-url", url + "/not-a-number"), {}),
    ):
        finished = run_heimdall(*flags, env=env)
        shown += [finished.stdout, finished.stderr]
    assert all(PASSWORD not in text for text in shown)
    assert str(redis.port) in shown[0]  # the rest of the URL is


def test_redis_behind_a_unix_socket(heimdall: Launcher, upstream: Upstream, short_directory: Path) -> None:
    path = short_directory / "redis.sock"
    upstream.add("www.example.com", "A", "192.0.2.1")
    redis = RedisServer(short_directory, unix_socket=path)
    try:
        redis.start()
        one, two = (heimdall("--redis-url", f"unix://{path}", *PATIENT) for _ in range(2))
        one.wait_for_redis()
        two.wait_for_redis()
        one.ask("www.example.com")
        redis.wait_for_key("www.example.com")
        two.ask("www.example.com")
        assert upstream.count("www.example.com") == 1
    finally:
        redis.kill()


def test_another_database_and_prefix_are_kept_apart(heimdall: Launcher, upstream: Upstream, redis: RedisServer) -> None:
    upstream.add("www.example.com", "A", "192.0.2.1")
    server = heimdall("--redis-url", f"{redis.url}/3", "--redis-key-prefix", "team-a:dns")
    server.wait_for_redis()
    server.ask("www.example.com")
    redis.client.select(3)
    assert redis.wait_for_key("www.example.com").startswith("team-a:dns:")
    redis.client.select(0)
    assert redis.stored() == []


def test_a_large_answer_is_compressed_and_shared_whole(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    wanted = [f"192.0.2.{number}" for number in range(1, 61)]
    upstream.add("big.example.com", "A", *wanted)
    one, two = sharing(heimdall, redis), sharing(heimdall, redis)
    one.ask("big.example.com", transport="tcp")
    key = redis.wait_for_key("big.example.com")
    assert redis.client.strlen(key) < 600
    assert one.metric("redis_bytes_saved_total") > 300
    assert addresses(two.ask("big.example.com", transport="tcp")) == sorted(wanted)
    assert upstream.count("big.example.com", transport="tcp") <= 1
    assert two.metric("redis_hits_total") == 1
