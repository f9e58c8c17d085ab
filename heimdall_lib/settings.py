"""The validated settings that one Heimdall process runs with.

Values only: nothing here reads flags, files or the environment (``config`` does), and only ``wiring.py`` and what
stands above it read a ``Settings``. Durations are seconds, sizes are bytes.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

Network = IPv4Network | IPv6Network
Transport = Literal["udp", "tcp", "tls"]
UpstreamPolicy = Literal["fastest", "sequential", "random"]


class Secret(str):
    """A string whose representation never shows its text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class UpstreamServer:
    """One upstream resolver: how to reach it and, for TLS, the name its certificate must carry."""

    transport: Transport
    host: str
    port: int
    tls_name: str = ""

    def __str__(self) -> str:
        address = str(Endpoint(self.host, self.port))
        return f"{self.transport}://{address}" + (f"#{self.tls_name}" if self.tls_name else "")


@dataclass(frozen=True, slots=True)
class ForwardZone:
    """A zone whose names go to upstream servers of its own; ``name`` is lower case without the final dot."""

    name: str
    servers: tuple[UpstreamServer, ...]


RedisTopology = Literal["standalone", "unix", "sentinel", "cluster"]


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """Where Redis is, how it is laid out, and which detection step said so."""

    topology: RedisTopology
    hosts: tuple[Endpoint, ...]
    step: str
    database: int = 0
    path: str = ""
    service_name: str = ""
    tls: bool = False
    username: str = ""
    password: Secret = Secret("")
    guessed: bool = False

    def __str__(self) -> str:
        """Show the URL without credentials."""
        scheme = {"standalone": "redis", "unix": "unix", "sentinel": "redis+sentinel", "cluster": "redis+cluster"}
        text = scheme[self.topology]
        if self.topology == "unix":
            return f"{text}://{self.path}?db={self.database}"
        if self.tls:
            text = text.replace("redis", "rediss", 1)
        text += "://" + ",".join(str(host) for host in self.hosts)
        if self.service_name:
            text += f"/{self.service_name}"
        return text if self.topology == "cluster" else f"{text}/{self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator can set, validated; the field names are the flags with ``_`` for ``-``."""

    config: str
    bind_addr: tuple[Endpoint, ...]
    http_bind_addr: Endpoint | None
    upstream_servers: tuple[UpstreamServer, ...]
    forward_zones: tuple[ForwardZone, ...]
    upstream_policy: UpstreamPolicy
    upstream_timeout: float
    query_timeout: float
    max_cache_size: int
    max_cache_bytes: int
    min_ttl: int
    max_ttl: int
    max_negative_ttl: int
    failure_ttl: float
    serve_stale: int
    stale_reply_ttl: int
    stale_client_timeout: float
    prefetch: bool
    purge_interval: float
    redis_target: RedisTarget | None
    redis_step: str
    redis_ca_cert: str
    redis_client_cert: str
    redis_client_key: str
    redis_key_prefix: str
    redis_view: str
    redis_timeout: float
    redis_read_budget: float
    redis_max_connections: int
    redis_compress_min_bytes: int
    redis_signing_key: tuple[Secret, ...]
    warm_cache_entries: int
    workers: int
    max_inflight: int
    allow_from: tuple[Network, ...]
    rate_limit: float
    rate_limit_burst: float
    edns_udp_size: int
    tcp_idle_timeout: float
    max_tcp_connections: int
    max_tcp_connections_per_client: int
    admin_token: Secret
    drain_seconds: float
    log_level: str
    log_format: str
    query_log: bool
    shown: dict[str, str] = field(repr=False)
    """Flag name → effective value as text, secrets replaced: for ``--check-config`` and ``/stats``."""
