"""Connections that were in use a moment ago are handed out as they are, and nothing else is."""

from collections.abc import Callable, Iterator

import pytest
import redis

from heimdall_lib.shared_cache.client import converse, encode
from heimdall_lib.shared_cache.pool import Pool
from tests.fakes import PATIENCE, Threads, eventually
from tests.integration.conftest import RedisServer, after

MakePool = Callable[..., Pool]


@pytest.fixture
def pool_of(redis_server: RedisServer) -> Iterator[MakePool]:
    pools: list[Pool] = []

    def make(most: int = 4) -> Pool:
        (endpoint,) = redis_server.target.hosts
        keywords = {"host": endpoint.host, "port": endpoint.port, "protocol": 2, "socket_timeout": PATIENCE}
        pools.append(Pool(max_connections=most, timeout=0.05, **keywords))
        return pools[-1]

    yield make
    for pool in pools:
        pool.disconnect()


def ping(pool: Pool) -> object:
    (reply,) = converse(redis.Redis(connection_pool=pool), [encode("PING")], replies=1)
    return reply


def test_the_one_that_was_used_last_is_used_again(pool_of: MakePool) -> None:
    pool = pool_of()
    first, second = pool.get_connection(), pool.get_connection()
    pool.release(first)
    pool.release(second)
    assert pool.get_connection() is second
    assert pool.get_connection() is first


def test_commands_and_conversations_use_the_same_ones(pool_of: MakePool, redis_server: RedisServer) -> None:
    pool, observer = pool_of(), redis_server.client(redis_server.port)
    assert ping(pool) == b"PONG"
    before = len(observer.client_list())
    for _ in range(3):
        assert redis.Redis(connection_pool=pool).ping()
        assert ping(pool) == b"PONG"
    assert len(observer.client_list()) == before


def test_there_are_never_more_than_its_size(pool_of: MakePool) -> None:
    pool = pool_of(2)
    for _ in range(2):  # the second time, with those that were in use a moment ago
        taken = [pool.get_connection(), pool.get_connection()]
        with pytest.raises(redis.ConnectionError, match="No connection available"):
            pool.get_connection()
        for connection in taken:
            pool.release(connection)


def test_who_waits_gets_the_next_one_that_is_given_back(pool_of: MakePool) -> None:
    pool, spawn, got = pool_of(1), Threads(), []
    pool.timeout = PATIENCE
    connection = pool.get_connection()
    spawn(lambda: got.append(pool.get_connection()))
    eventually(after(0.05))
    assert got == []
    pool.release(connection)
    spawn.join()
    assert got == [connection]


def test_one_that_failed_is_connected_anew(pool_of: MakePool, redis_server: RedisServer) -> None:
    pool = pool_of()
    assert ping(pool) == b"PONG"
    redis_server.client(redis_server.port).client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(redis.ConnectionError):
        ping(pool)
    assert ping(pool) == b"PONG"


def test_one_that_has_rested_is_looked_at_first(pool_of: MakePool, redis_server: RedisServer) -> None:
    pool = pool_of()
    assert ping(pool) == b"PONG"
    redis_server.client(redis_server.port).client_kill_filter(_type="normal", skipme=True)
    eventually(after(1.1))
    assert ping(pool) == b"PONG"


def test_one_that_was_closed_is_not_kept(pool_of: MakePool) -> None:
    pool = pool_of()
    connection = pool.get_connection()
    connection.disconnect()
    pool.release(connection)
    assert pool.get_connection().is_connected


def test_after_all_were_closed_they_connect_anew(pool_of: MakePool) -> None:
    pool = pool_of()
    assert ping(pool) == b"PONG"
    pool.disconnect()
    assert ping(pool) == b"PONG"
