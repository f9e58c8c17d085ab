"""A redis-py client for a target, and what its exceptions mean.

Rules: nothing is retried here (the breaker decides when Redis is asked again), every wait is bounded, and every
exception of redis-py comes out as one ``SharedCacheError`` with a reason from ``REASONS``.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.settings import RedisTarget

Client = Any  # redis.Redis or RedisCluster: redis-py types their common commands apart

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
        timeouts = {"socket_timeout": options.timeout, "socket_connect_timeout": options.timeout, "protocol": 2}
        watcher = Sentinel(sentinels, sentinel_kwargs=timeouts, ssl=target.tls, **common)
        return watcher.master_for(target.service_name, max_connections=options.max_connections)
    if target.topology == "unix":
        common |= {"connection_class": redis.UnixDomainSocketConnection, "path": target.path}
    else:
        common |= {"connection_class": redis.SSLConnection if target.tls else redis.Connection}
        common |= {"host": host, "port": port}
    return redis.Redis(
        connection_pool=redis.BlockingConnectionPool(
            max_connections=options.max_connections, timeout=options.timeout, **common
        )
    )


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
    """Raise what redis-py or the socket below it raises as SharedCacheError."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise SharedCacheError(reason_of(error), str(error) or type(error).__name__) from error


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
    if isinstance(error, (redis.ConnectionError, OSError)):
        return "connection"
    text = str(error)
    if text.startswith("NOAUTH"):
        return "auth"
    return "misconf" if text.startswith("MISCONF") else "response"


def multi_get(client: Client, names: Sequence[str]) -> Sequence[bytes | None]:
    """Return the values under ``names``, None for each that has no string; one round trip (a Cluster: one per slot)."""
    values: Sequence[bytes | None] = (
        client.mget_nonatomic(names) if isinstance(client, RedisCluster) else client.mget(names)
    )
    return values


def multi_set(client: Client, values: Iterable[tuple[str, bytes, int]]) -> Sequence[object]:
    """Store each (name, value, seconds to live) in one round trip; return a result or an exception for each."""
    pipeline = client.pipeline() if isinstance(client, RedisCluster) else client.pipeline(transaction=False)
    for name, value, lifetime in values:
        pipeline.set(name, value, ex=lifetime)
    results: Sequence[object] = pipeline.execute(raise_on_error=False)
    return results
