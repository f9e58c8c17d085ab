"""redis-py as Heimdall uses it: every layout of Redis, every way to fail, and one exception for all of them."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster
from redis.sentinel import SentinelConnectionPool

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.settings import Endpoint, RedisTarget, RedisTopology, Secret
from heimdall_lib.shared_cache.client import (
    REASONS,
    Client,
    ClientOptions,
    connect,
    multi_delete,
    multi_get,
    multi_set,
    pipelined,
    reason_of,
    translated,
)
from tests.fakes import StreamServer, Threads, eventually, unused_port
from tests.integration.conftest import RedisServer, StartRedis, Tls, after, fill_up, start_cluster
from tests.support.engines import on_every_engine

OPTIONS = ClientOptions(timeout=5.0)

Connect = Callable[..., Client]


@pytest.fixture
def client_of() -> Iterator[Connect]:
    """Connect to a target; every client is closed with the test."""
    with ExitStack() as stack:

        def make(target: RedisTarget, options: ClientOptions = OPTIONS) -> Client:
            client = connect(target, options)
            stack.callback(client.close)
            return client

        yield make


def target(topology: RedisTopology, *ports: int, **fields: Any) -> RedisTarget:
    return RedisTarget(topology, tuple(Endpoint("127.0.0.1", port) for port in ports), "test", **fields)


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(SharedCacheError) as caught, translated():
        call()
    assert caught.value.reason in REASONS
    assert str(caught.value)
    return caught.value.reason


def check_reads_and_writes(client: Client) -> None:
    """What the shared cache needs of a client, whatever the layout."""
    names = [f"test:{number}" for number in range(20)]
    assert multi_set(client, [(name, name.encode(), 100) for name in names]) == [None] * 20
    assert multi_get(client, [*names, "test:none"]) == [*(name.encode() for name in names), None]
    assert all(90 < client.ttl(name) <= 100 for name in names)
    multi_set(client, [(f"{name}:gone", b"x", 100) for name in names])
    assert multi_delete(client, [*(f"{name}:gone" for name in names), "test:none"]) == [None] * 21
    assert multi_get(client, [f"{name}:gone" for name in names]) == [None] * 20
    seconds, microseconds = client.time()
    assert abs(seconds + microseconds / 1e6 - time.time()) < 60


class TestLayouts:
    @on_every_engine
    def test_one_server(self, redis_server: RedisServer, client_of: Connect) -> None:
        check_reads_and_writes(client_of(redis_server.target))

    def test_a_database_of_its_own(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(target("standalone", redis_server.port, database=3))
        multi_set(client, [("name", b"value", 10)])
        assert redis_server.admin.info("keyspace")["db3"]["keys"] == 1

    @on_every_engine
    def test_a_unix_socket(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(RedisTarget("unix", (), "test", path=str(redis_server.socket), database=2))
        check_reads_and_writes(client)
        assert redis_server.admin.info("keyspace")["db2"]["keys"] == 20

    @on_every_engine
    def test_a_password(self, start_redis: StartRedis, client_of: Connect) -> None:
        check_reads_and_writes(client_of(start_redis(password="hunter2").target))

    def test_an_acl_user_who_may_do_no_more_than_heimdall_does(
        self, redis_server: RedisServer, client_of: Connect
    ) -> None:
        redis_server.admin.acl_setuser(
            "ann",
            enabled=True,
            passwords=["+hunter2"],
            keys=["test:*"],
            commands=["+get", "+set", "+unlink", "+time", "+ttl"],
        )
        client = client_of(target("standalone", redis_server.port, username="ann", password=Secret("hunter2")))
        check_reads_and_writes(client)
        refusals = [
            *multi_set(client, [("other:name", b"value", 10)]),
            *multi_delete(client, ["other:name"]),
            *pipelined(client, [("GET", "other:name")]),
        ]
        assert [reason_of(error) for error in refusals if isinstance(error, Exception)] == ["auth"] * 3
        assert reason(lambda: multi_get(client, ["test:0", "other:name"])) == "auth"

    def test_a_cluster_of_three(self, start_redis: StartRedis, client_of: Connect) -> None:
        servers = start_cluster(start_redis)
        client = client_of(target("cluster", unused_port(), servers[2].port))
        assert isinstance(client, RedisCluster)
        check_reads_and_writes(client)
        assert all(server.admin.dbsize() for server in servers)

    def test_a_primary_that_a_sentinel_knows(
        self, redis_server: RedisServer, sentinel: Callable[..., int], client_of: Connect
    ) -> None:
        client = client_of(target("sentinel", sentinel(redis_server.port), service_name="mymaster", database=1))
        check_reads_and_writes(client)
        assert redis_server.admin.info("keyspace")["db1"]["keys"] == 20

    def test_a_sentinel_that_is_down_is_passed_over_at_once(
        self, redis_server: RedisServer, sentinel: Callable[..., int], client_of: Connect
    ) -> None:
        ports = unused_port(), sentinel(redis_server.port)
        client = client_of(target("sentinel", *ports, service_name="mymaster"), ClientOptions(0.25))
        started = time.monotonic()
        client.time()
        assert time.monotonic() - started < 2

    def test_a_service_that_no_sentinel_knows(
        self, redis_server: RedisServer, sentinel: Callable[..., int], client_of: Connect
    ) -> None:
        client = client_of(target("sentinel", sentinel(redis_server.port), service_name="other"))
        assert reason(client.time) == "connection"


class TestTls:
    def options(self, tls: Tls, **changes: Any) -> ClientOptions:
        return ClientOptions(**{"timeout": 5.0, "ca_cert": tls.ca, **changes})

    def test_a_server_with_a_certificate_of_our_authority(
        self, start_redis: StartRedis, client_of: Connect, tls: Tls
    ) -> None:
        start_redis(*tls.arguments(port := unused_port()))
        check_reads_and_writes(client_of(target("standalone", port, tls=True), self.options(tls)))

    def test_a_client_with_a_certificate_of_its_own(
        self, start_redis: StartRedis, client_of: Connect, tls: Tls
    ) -> None:
        start_redis(*tls.arguments(port := unused_port(), clients="yes"))
        options = self.options(tls, client_cert=tls.client_cert, client_key=tls.client_key)
        check_reads_and_writes(client_of(target("standalone", port, tls=True), options))
        without = client_of(target("standalone", port, tls=True), self.options(tls))
        assert reason(without.time) == "connection"

    def test_a_server_of_another_authority_is_not_believed(
        self, start_redis: StartRedis, client_of: Connect, tls: Tls
    ) -> None:
        start_redis(*tls.arguments(port := unused_port()))
        client = client_of(target("standalone", port, tls=True), self.options(tls, ca_cert=tls.other_ca))
        assert reason(client.time) == "connection"

    def test_a_server_with_another_name_is_not_believed(
        self, start_redis: StartRedis, client_of: Connect, tls: Tls
    ) -> None:
        tls.cert, tls.key = tls.wrong_cert, tls.wrong_key
        start_redis(*tls.arguments(port := unused_port()))
        client = client_of(target("standalone", port, tls=True), self.options(tls))
        assert reason(client.time) == "connection"

    def test_a_server_that_speaks_no_tls(self, redis_server: RedisServer, client_of: Connect, tls: Tls) -> None:
        client = client_of(target("standalone", redis_server.port, tls=True), ClientOptions(0.5, ca_cert=tls.ca))
        assert reason(client.time) in ("connection", "timeout")

    def test_sentinels_and_the_primary_that_they_know_all_over_tls(
        self, start_redis: StartRedis, sentinel: Callable[..., int], client_of: Connect, tls: Tls
    ) -> None:
        start_redis(*tls.arguments(port := unused_port()), "--tls-replication", "yes")
        files = [f"tls-ca-cert-file {tls.ca}", f"tls-cert-file {tls.cert}", f"tls-key-file {tls.key}"]
        watching = sentinel(port, *files, "tls-auth-clients no", "tls-replication yes", tls=True)
        client = client_of(target("sentinel", watching, service_name="mymaster", tls=True), self.options(tls))
        check_reads_and_writes(client)


class TestConstruction:
    """What a client will do, told from how it was made; nothing is sent."""

    def test_the_pool_of_one_server_waits_for_a_connection_instead_of_failing(self, client_of: Connect) -> None:
        client = client_of(target("standalone", 1), ClientOptions(timeout=0.5, max_connections=3))
        pool = client.connection_pool
        assert isinstance(pool, redis.BlockingConnectionPool)
        assert (pool.max_connections, pool.timeout) == (3, 0.5)

    @pytest.mark.parametrize("topology", ["standalone", "unix", "sentinel"])
    def test_nothing_is_retried_and_every_wait_is_bounded(self, client_of: Connect, topology: RedisTopology) -> None:
        client = client_of(target(topology, 1, path="/nonexistent", service_name="mymaster"), ClientOptions(0.5))
        arguments = client.connection_pool.connection_kwargs
        assert (arguments["socket_timeout"], arguments["socket_connect_timeout"]) == (0.5, 0.5)
        assert arguments["retry"].get_retries() == 0
        assert arguments["protocol"] == 2

    def test_sentinels(self, client_of: Connect) -> None:
        hosts = (Endpoint("192.0.2.1", 26379), Endpoint("::1", 26380))
        wanted = RedisTarget(
            "sentinel",
            hosts,
            "test",
            service_name="mymaster",
            database=2,
            tls=True,
            username="ann",
            password=Secret("hunter2"),
        )
        client = client_of(wanted, ClientOptions(0.5, max_connections=3, ca_cert="/ca.pem"))
        pool = client.connection_pool
        assert isinstance(pool, SentinelConnectionPool)
        assert (pool.service_name, pool.is_master, pool.max_connections) == ("mymaster", True, 3)
        expected = {"db": 2, "username": "ann", "password": "hunter2", "ssl_ca_certs": "/ca.pem"}
        assert expected.items() <= pool.connection_kwargs.items()
        assert pool.connection_kwargs["ssl_check_hostname"] is True
        watchers = [watcher.connection_pool.connection_kwargs for watcher in pool.sentinel_manager.sentinels]
        assert [(each["host"], each["port"]) for each in watchers] == [("192.0.2.1", 26379), ("::1", 26380)]
        assert {each["socket_timeout"] for each in watchers} == {0.5}
        assert {each["retry"].get_retries() for each in watchers} == {0}

    def test_a_certificate_is_checked_even_without_an_authority_of_our_own(self, client_of: Connect) -> None:
        arguments = client_of(target("standalone", 1, tls=True)).connection_pool.connection_kwargs
        assert (arguments["ssl_ca_certs"], arguments["ssl_check_hostname"]) == (None, True)
        assert arguments.get("ssl_cert_reqs", "required") == "required"

    def test_a_cluster_that_cannot_be_discovered(self) -> None:
        with pytest.raises(SharedCacheError) as caught:
            connect(target("cluster", unused_port(), unused_port()), ClientOptions(0.5))
        assert caught.value.reason == "connection"


class TestMoreThreadsThanConnections:
    """Those that find no connection free wait for one, within the timeout."""

    def check(self, server: RedisServer, client: Client) -> None:
        client.time()
        server.pause()
        spawn, results = Threads(), []
        for _ in range(3):
            spawn(lambda: results.append(multi_get(client, ["name"])))
        eventually(after(0.2))
        server.resume()
        spawn.join()
        assert spawn.deaths == []
        assert results == [[None]] * 3

    def test_of_one_server(self, redis_server: RedisServer, client_of: Connect) -> None:
        self.check(redis_server, client_of(redis_server.target, ClientOptions(5.0, max_connections=1)))

    def test_of_a_primary_that_a_sentinel_knows(
        self, redis_server: RedisServer, sentinel: Callable[..., int], client_of: Connect
    ) -> None:
        known = target("sentinel", sentinel(redis_server.port), service_name="mymaster")
        self.check(redis_server, client_of(known, ClientOptions(5.0, max_connections=1)))


class TestFaults:
    def test_a_closed_port(self, client_of: Connect) -> None:
        assert reason(client_of(target("standalone", unused_port())).time) == "connection"

    def test_a_missing_socket(self, client_of: Connect, tmp_path: Path) -> None:
        client = client_of(RedisTarget("unix", (), "test", path=str(tmp_path / "none.sock")))
        assert reason(client.time) == "connection"

    def test_an_unknown_host(self, client_of: Connect) -> None:
        client = client_of(RedisTarget("standalone", (Endpoint("heimdall-redis.invalid", 6379),), "test"))
        assert reason(client.time) == "connection"

    def test_a_server_that_takes_connections_and_is_silent(self, client_of: Connect, deaf_port: int) -> None:
        started = time.monotonic()
        assert reason(client_of(target("standalone", deaf_port), ClientOptions(0.1)).time) == "timeout"
        assert time.monotonic() - started < 2

    @on_every_engine
    def test_a_server_that_hangs(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(redis_server.target, ClientOptions(0.1))
        client.time()
        redis_server.pause()
        assert reason(client.time) == "timeout"
        redis_server.resume()
        client.time()

    def test_a_server_that_died(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(redis_server.target)
        client.time()
        redis_server.kill()
        assert reason(client.time) == "connection"
        redis_server.start()
        client.time()

    @pytest.mark.parametrize("password", ["", "wrong"])
    def test_a_wrong_password(self, start_redis: StartRedis, client_of: Connect, password: str) -> None:
        server = start_redis(password="hunter2")
        client = client_of(target("standalone", server.port, password=Secret(password)))
        assert reason(client.time) == "auth"

    @on_every_engine
    def test_a_full_server(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(redis_server.target)
        multi_set(client, [("name", b"value", 100)])
        fill_up(redis_server)
        results = multi_set(client, [("other", b"value", 100)])
        assert [reason_of(result) for result in results if isinstance(result, Exception)] == ["oom"]
        assert multi_get(client, ["name"]) == [b"value"]

    @on_every_engine
    def test_a_replica(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(redis_server.target)
        redis_server.admin.replicaof("127.0.0.1", unused_port())
        results = multi_set(client, [("name", b"value", 100)] * 2)
        assert [reason_of(result) for result in results if isinstance(result, Exception)] == ["readonly"] * 2
        assert multi_get(client, ["name"]) == [None]

    @on_every_engine
    def test_a_server_that_cannot_persist(self, start_redis: StartRedis, client_of: Connect, tmp_path: Path) -> None:
        server = start_redis("--stop-writes-on-bgsave-error", "yes", "--dbfilename", "missing.rdb")
        client = client_of(server.target)
        server.admin.config_set("save", "3600 1")
        server.admin.set("name", b"value")
        (tmp_path / "redis-1" / "missing.rdb").mkdir()  # it cannot be replaced by a file
        server.admin.bgsave()
        eventually(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] == "err")
        [refused] = multi_set(client, [("name", b"value", 100)])
        assert isinstance(refused, Exception)
        assert reason_of(refused) == "misconf"
        assert multi_get(client, ["name"]) == [b"value"]

    def test_a_command_that_is_refused_does_no_harm_to_the_others(
        self, redis_server: RedisServer, client_of: Connect
    ) -> None:
        client = client_of(redis_server.target)
        redis_server.admin.lpush("name", "value")
        multi_set(client, [("other", b"value", 100)])
        refused, *others = pipelined(client, [("GET", name) for name in ("name", "other", "none")])
        assert isinstance(refused, Exception)
        assert reason_of(refused) == "response"
        assert others == [b"value", None]
        assert multi_get(client, ["name", "other", "none"]) == [None, b"value", None]
        assert multi_set(client, [("name", b"value", 100)]) == [None]
        assert multi_get(client, ["name"]) == [b"value"]

    def test_a_command_that_goes_wrong(self, redis_server: RedisServer, client_of: Connect) -> None:
        client = client_of(redis_server.target)
        redis_server.admin.lpush("name", "value")
        assert reason(lambda: client.get("name")) == "response"

    def test_a_server_of_another_kind(self, client_of: Connect) -> None:
        with StreamServer(lambda peer: peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
            client = client_of(target("standalone", server.port), ClientOptions(0.5))
            assert reason(client.time) in ("connection", "response")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.TimeoutError("late"), "timeout"),
        (TimeoutError("late"), "timeout"),
        (redis.AuthenticationError("WRONGPASS"), "auth"),
        (redis.exceptions.NoPermissionError("NOPERM"), "auth"),
        (redis.ResponseError("NOAUTH Authentication required."), "auth"),
        (redis.BusyLoadingError("LOADING"), "loading"),
        (redis.ReadOnlyError("READONLY"), "readonly"),
        (redis.exceptions.OutOfMemoryError("OOM"), "oom"),
        (redis.ConnectionError("gone"), "connection"),
        (redis.exceptions.MaxConnectionsError("Too many connections"), "connection"),
        (redis.sentinel.MasterNotFoundError("none"), "connection"),
        (redis.exceptions.RedisClusterException("cannot be connected"), "connection"),
        (ConnectionRefusedError("refused"), "connection"),
        (redis.ResponseError("MISCONF Redis is configured to save"), "misconf"),
        (redis.ResponseError("ERR unknown command"), "response"),
        (redis.exceptions.ClusterDownError("CLUSTERDOWN"), "response"),
        (redis.RedisError(), "response"),
    ],
)
def test_what_an_error_is_called(error: Exception, expected: str) -> None:
    assert expected in REASONS
    assert reason_of(error) == expected


def test_an_error_without_words_is_called_by_its_kind() -> None:
    with pytest.raises(SharedCacheError, match="ConnectionResetError"), translated():
        raise ConnectionResetError
