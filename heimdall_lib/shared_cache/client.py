"""A redis-py client for a target, and what its exceptions mean.

Rules: nothing is retried here (the breaker decides when Redis is asked again), every wait is bounded, and every
exception of redis-py comes out as one ``SharedCacheError`` with a reason from ``REASONS``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import AbstractConnection
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.settings import RedisTarget
from heimdall_lib.shared_cache.pool import Pool, SentinelPool

Client = Any  # redis.Redis or RedisCluster: redis-py types their common commands apart
Command = tuple[bytes | str | int, ...]

REASONS = ("timeout", "connection", "auth", "readonly", "oom", "misconf", "loading", "response")


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to talk to Redis; ``timeout`` (seconds) bounds connecting, each command and the wait for a connection."""

    timeout: float = 0.25
    max_connections: int = 16
    ca_cert: str = ""
    client_cert: str = ""
    client_key: str = ""


def connect(target: RedisTarget, options: ClientOptions) -> Client:
    """Return a client for ``target``; nothing is sent before its first command, except to a Cluster.

    Raises SharedCacheError when a Cluster cannot be discovered.
    """
    host, port = (target.hosts[0].host, target.hosts[0].port) if target.hosts else ("", 0)
    common = _common(target, options)
    if target.topology == "cluster":
        nodes = [ClusterNode(endpoint.host, endpoint.port) for endpoint in target.hosts]
        with translated():
            return RedisCluster(startup_nodes=nodes, ssl=target.tls, max_connections=options.max_connections, **common)
    common["db"] = target.database
    if target.topology == "sentinel":
        sentinels = [(endpoint.host, endpoint.port) for endpoint in target.hosts]
        # The credentials and the database are the server's; sentinels have none, but the same TLS.
        watching = {name: value for name, value in common.items() if name not in ("username", "password", "db")}
        watcher = Sentinel(sentinels, sentinel_kwargs={**watching, "ssl": target.tls}, ssl=target.tls, **common)
        return watcher.master_for(
            target.service_name,
            connection_pool_class=SentinelPool,
            max_connections=options.max_connections,
            timeout=options.timeout,
        )
    if target.topology == "unix":
        common |= {"connection_class": redis.UnixDomainSocketConnection, "path": target.path}
    else:
        common |= {"connection_class": redis.SSLConnection if target.tls else redis.Connection}
        common |= {"host": host, "port": port}
    pool = Pool(max_connections=options.max_connections, timeout=options.timeout, **common)
    return redis.Redis.from_pool(pool)  # which, unlike a pool handed to Redis(), is closed with the client


def _common(target: RedisTarget, options: ClientOptions) -> dict[str, Any]:
    common: dict[str, Any] = {
        "username": target.username or None,
        "password": str(target.password) or None,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # nothing here needs RESP3, and not every server or proxy has HELLO
        "driver_info": None,
    }
    if target.tls:
        common |= {
            "ssl_ca_certs": options.ca_cert or None,
            "ssl_certfile": options.client_cert or None,
            "ssl_keyfile": options.client_key or None,
            "ssl_check_hostname": True,
        }
    return common


@contextmanager
def translated() -> Iterator[None]:
    """Raise whatever goes wrong in redis-py as SharedCacheError."""
    try:
        yield
    except Exception as error:
        raise translation(error) from error


def translation(error: Exception) -> SharedCacheError:
    """Return as SharedCacheError what went wrong in redis-py.

    That is more than its own exceptions: a server that answers nonsense makes it stumble anywhere.
    """
    return SharedCacheError(reason_of(error), str(error) or type(error).__name__)


def reason_of(error: Exception) -> str:
    """Return the metrics label of an exception that redis-py raised, or handed out as a pipeline's result."""
    if isinstance(error, (redis.TimeoutError, TimeoutError)):
        return "timeout"
    if isinstance(error, (redis.AuthenticationError, redis.exceptions.NoPermissionError)):
        return "auth"
    if isinstance(error, redis.BusyLoadingError):
        return "loading"
    if isinstance(error, redis.ReadOnlyError):
        return "readonly"
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return "oom"
    if isinstance(error, (redis.ConnectionError, RedisClusterException, OSError)):
        return "connection"
    text = str(error)
    if text.startswith("NOAUTH"):
        return "auth"
    return "misconf" if text.startswith("MISCONF") else "response"


def multi_get(client: Client, names: Sequence[str]) -> Sequence[bytes | None]:
    """Return the values of keys, read in one round trip; None for each that is not there or no string."""
    return [value_of(reply) for reply in pipelined(client, [("GET", name) for name in names])]


def value_of(reply: object) -> bytes | None:
    """Return what a GET among other commands has found, None when that is no string; raises what else it met."""
    if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
        raise reply
    return reply if isinstance(reply, bytes) else None


def multi_set(client: Client, values: Sequence[tuple[str, bytes, int]]) -> Sequence[Exception | None]:
    """Store each (name, value, seconds to live) in one round trip; return the exception, if any, for each."""
    if isinstance(client, RedisCluster):
        replies = pipelined(client, [("SET", name, value, "EX", seconds) for name, value, seconds in values])
    else:
        replies = converse(client, list(starmap(_set, values)), replies=len(values))
    return [reply if isinstance(reply, Exception) else None for reply in replies]


def _set(name: str, value: bytes, seconds: int) -> bytes:
    """Return the command that ``encode`` would make, in a fourth of the time: it is needed for each answer."""
    key, life = name.encode(), b"%d" % seconds
    parts = len(key), key, len(value), value, len(life), life
    return b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$2\r\nEX\r\n$%d\r\n%b\r\n" % parts


def multi_delete(client: Client, names: Sequence[str]) -> Sequence[Exception | None]:
    """Delete keys that may be there in one round trip; return the exception, if any, for each."""
    replies = pipelined(client, [("UNLINK", name) for name in names])
    return [reply if isinstance(reply, Exception) else None for reply in replies]


def pipelined(client: Client, commands: Sequence[Command]) -> Sequence[object]:
    """Return a reply or an exception for each command; one round trip (a Cluster: one to each of its servers)."""
    if isinstance(client, RedisCluster):
        pipeline = client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        return one_each(pipeline.execute(raise_on_error=False), len(commands))
    return converse(client, [encode(*command) for command in commands], replies=len(commands))


def encode(*parts: bytes | str | int) -> bytes:
    """Return a command as Redis reads it (RESP2: an array of bulk strings)."""
    encoded = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join(map(bulk, encoded))


def bulk(part: bytes) -> bytes:
    """Return one part of a command as Redis reads it."""
    return b"$%d\r\n%b\r\n" % (len(part), part)


def converse(client: Client, commands: Sequence[bytes], *, replies: int) -> Sequence[object]:
    """Send commands as they are, in one piece, and return a reply or an exception for each.

    A pipeline of redis-py does the same at five times the cost: what it does for each command is done once here.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([b"".join(commands)])
        return [_reply(connection) for _ in range(replies)]
    except BaseException:
        connection.disconnect()  # a reply that nobody has read must not meet the next command
        raise
    finally:
        pool.release(connection)


def _reply(connection: AbstractConnection) -> object:
    try:
        reply: object = connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error
    return reply


def probe(client: Client, name: str) -> bytes | None:
    """Read one key, as queries do: a server that is loading, or a user who may not, refuses that and tells the time."""
    (reply,) = converse(home(client, name), [encode("GET", name)], replies=1)
    return value_of(reply)


def clock(client: Client) -> float:
    """Return the time on Redis's clock, in seconds since its epoch."""
    seconds, microseconds = client.time()
    return int(seconds) + int(microseconds) / 1e6


def one_each(results: object, count: int) -> Sequence[object]:
    """Return the results of so many commands; raises InvalidResponse when it is something else."""
    if not isinstance(results, list) or len(results) != count:
        raise redis.InvalidResponse(f"not {count} results")
    return results


def home(client: Client, name: str) -> Client:
    """Return a client of the one server that has a key, and where a channel's messages are counted."""
    return client.get_redis_connection(client.get_node_from_key(name)) if isinstance(client, RedisCluster) else client


def homes(client: Client) -> list[Client]:
    """Return a client of each server that has keys: a Cluster's primaries."""
    if isinstance(client, RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def publish(client: Client, channel: str, messages: Sequence[bytes]) -> Sequence[int | Exception]:
    """Publish messages in one round trip; return for each how many listen at this server, or why it was refused."""
    commands = [encode(b"PUBLISH", channel, message) for message in messages]
    replies = converse(home(client, channel), commands, replies=len(messages))
    return [reply if isinstance(reply, (int, Exception)) else 0 for reply in replies]
