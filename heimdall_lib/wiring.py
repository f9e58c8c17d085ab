"""What each part of the house is told of the settings: below this module nothing reads ``Settings``."""

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from heimdall_lib import __version__
from heimdall_lib.access import AllowList, ConnectionLimit, RateLimiter
from heimdall_lib.config import RELOADABLE
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.lifetime import TtlPolicy
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.resolver import Resolver, ResolverPolicy
from heimdall_lib.responder import ResponderPolicy
from heimdall_lib.settings import RedisTarget, Settings
from heimdall_lib.shared_cache.bus import Bus, Listener
from heimdall_lib.shared_cache.client import Client, ClientOptions, connect, probe
from heimdall_lib.shared_cache.codec import Codec
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.shared_cache.redis_cache import RedisCache
from heimdall_lib.shared_cache.roster import Roster
from heimdall_lib.shared_cache.warming import NoWarming, Warming, WarmingBounds
from heimdall_lib.stats import Stats
from heimdall_lib.upstream.forwarder import ForwardingPlan


def forwarding_plan(settings: Settings) -> ForwardingPlan:
    """Return what the forwarder is told."""
    return ForwardingPlan(
        servers=settings.upstream_servers,
        zones=settings.forward_zones,
        policy=settings.upstream_policy,
        timeout=settings.upstream_timeout,
        udp_size=settings.edns_udp_size,
    )


def resolver_policy(settings: Settings) -> ResolverPolicy:
    """Return what the resolver is told."""
    return ResolverPolicy(
        ttl=TtlPolicy(
            min_ttl=settings.min_ttl,
            max_ttl=settings.max_ttl,
            max_negative_ttl=settings.max_negative_ttl,
            serve_stale=settings.serve_stale,
        ),
        failure_ttl=settings.failure_ttl,
        query_timeout=settings.query_timeout,
        stale_client_timeout=settings.stale_client_timeout,
        read_budget=settings.redis_read_budget,
        prefetch=settings.prefetch,
        max_refreshes=settings.max_inflight,
        view="" if settings.redis_view == "auto" else settings.redis_view,
    )


def responder_policy(settings: Settings) -> ResponderPolicy:
    """Return what the responder is told."""
    return ResponderPolicy(
        allow=AllowList(settings.allow_from),
        limiter=RateLimiter(rate=settings.rate_limit, burst=settings.rate_limit_burst),
        udp_size=settings.edns_udp_size,
        stale_reply_ttl=settings.stale_reply_ttl,
        tcp_idle_timeout=settings.tcp_idle_timeout,
        query_log=settings.query_log,
    )


def connection_limit(settings: Settings, most: int) -> ConnectionLimit:
    """Return what the TCP listeners go by together; ``most`` is how many connections there is room for."""
    return ConnectionLimit(most=most, most_per_client=settings.max_tcp_connections_per_client)


def redis_link(settings: Settings, target: RedisTarget, stats: Stats) -> Link:
    """Return the link to the Redis at ``target``, down until the shared cache is started."""
    return Link(
        redis_client(settings, target),
        name=str(target),
        slow_seconds=settings.redis_read_budget,
        expected=not target.guessed,
        stats=stats,
        trial=partial(probe, name=f"{settings.redis_key_prefix}:generation"),
    )


def redis_client(settings: Settings, target: RedisTarget) -> Callable[[], Client]:
    """Return what makes a client of the Redis at ``target``."""
    options = ClientOptions(
        timeout=settings.redis_timeout,
        max_connections=settings.redis_max_connections,
        ca_cert=settings.redis_ca_cert,
        client_cert=settings.redis_client_cert,
        client_key=settings.redis_client_key,
    )
    return lambda: connect(target, options)


def codec(settings: Settings) -> Codec:
    """Return what reads and writes values."""
    return Codec(signing_keys=settings.redis_signing_key, compress_min_bytes=settings.redis_compress_min_bytes)


def redis_cache(
    settings: Settings, link: Link, *, replica: str, invalidations: Invalidations, stats: Stats
) -> RedisCache:
    """Return the shared cache behind ``link``, not yet started."""
    return RedisCache(
        link,
        codec=codec(settings),
        prefix=settings.redis_key_prefix,
        replica=replica,
        invalidations=invalidations,
        stats=stats,
    )


def redis_bus(
    settings: Settings, target: RedisTarget, link: Link, *, replica: str, listener: Listener, stats: Stats
) -> Bus:
    """Return the line to the other replicas, not yet started."""
    return Bus(
        link,
        connect=redis_client(settings, target),
        prefix=settings.redis_key_prefix,
        replica=replica,
        listener=listener,
        stats=stats,
    )


def redis_roster(settings: Settings, link: Link, *, replica: str, stats: Stats) -> Roster:
    """Return this replica's place among those that share the Redis behind ``link``."""
    prefix, host = settings.redis_key_prefix, socket.gethostname()
    return Roster(link, prefix=prefix, replica=replica, host=host, version=__version__, stats=stats)


def worker_count(settings: Settings) -> int:
    """Return how many processes are to answer; one per core means those that this process may run on."""
    if settings.workers:
        return settings.workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warming(
    settings: Settings,
    link: Link | None,
    shared: RedisCache | None,
    *,
    resolver: Resolver,
    memory: MemoryCache,
    stats: Stats,
) -> Warming | NoWarming:
    """Return what fills L1 from L2 at start, if there is one; half of L1 is left to what clients ask for meanwhile."""
    if link is None or shared is None or not settings.warm_cache_entries:
        return NoWarming()
    bounds = WarmingBounds(
        entries=settings.warm_cache_entries,
        l1_entries=settings.max_cache_size // 2,
        l1_bytes=settings.max_cache_bytes // 2,
    )
    prefix = settings.redis_key_prefix
    return Warming(link, shared, prefix=prefix, tiers=resolver, memory=memory, bounds=bounds, stats=stats)


def redis_words(settings: Settings) -> str:
    """Say which Redis is in use and which step of the detection decided, without credentials."""
    if settings.redis_target is None:
        return f"off ({settings.redis_step})"
    return f"{settings.redis_target} ({settings.redis_step})"


def flags(names: Iterable[str]) -> str:
    """Return settings' field names as an operator knows them, sorted, in one line."""
    return ", ".join(sorted(f"--{name.replace('_', '-')}" for name in names))


def merged(old: Settings, new: Settings) -> tuple[Settings, set[str], set[str]]:
    """Return ``old`` with what a running process can take of ``new``, and the fields taken and not taken."""
    differing = {
        one.name for one in fields(Settings) if one.name != "shown" and getattr(old, one.name) != getattr(new, one.name)
    }
    taken = differing & RELOADABLE
    values: dict[str, Any] = {name: getattr(new, name) for name in taken}
    values["shown"] = {flag: (new if flag.replace("-", "_") in taken else old).shown[flag] for flag in old.shown}
    return replace(old, **values), taken, differing - taken
