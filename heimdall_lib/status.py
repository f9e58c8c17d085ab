"""What the server knows of itself, as plain data: for ``/stats`` and the readiness check.

Rules: it reads, never writes, what the rest of the house keeps; no secret (settings come redacted), no client; names
that clients asked for only when they are wanted.
"""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

from heimdall_lib import __version__
from heimdall_lib.names import rcode_name
from heimdall_lib.series import SAMPLE_SECONDS, Series, snapshot
from heimdall_lib.stats import Histogram, Stats, ratio
from heimdall_lib.tally import Reading
from heimdall_lib.top_names import TopNames


class Status:
    """A view on the counters and the tiers."""

    def __init__(
        self,
        *,
        look: Callable[[], Reading],
        names: Callable[[], TopNames],
        unready: Callable[[], str],
        redis: str,
        shown: Callable[[], Mapping[str, str]],
    ) -> None:
        """Show what ``look`` and ``names`` return: the reading of one process or the sum over several.

        ``unready`` returns why clients should go elsewhere though it has started, ``shown`` the effective settings
        without secrets; ``redis`` says which Redis is in use and why.
        """
        self._look = look
        self._names = names
        self._unready = unready
        self._redis = redis
        self._shown = shown
        self._started_at = time.monotonic()
        self._series = Series(snapshot(Stats(), self._started_at))
        self.not_ready = "starting"
        """Why it is not ready for traffic, whatever its service says; empty once it has started."""

    def unready(self) -> str:
        """Return why clients should go elsewhere, empty when they need not; nothing is asked to find out."""
        return self.not_ready or self._unready()

    def sample(self) -> None:
        """Take note of the counters; to be called every ``SAMPLE_SECONDS``."""
        self._series.add(snapshot(self._look().stats, time.monotonic()))

    def describe(self, *, names: bool, series: bool) -> dict[str, object]:
        """Return everything, ready for JSON; durations are seconds, sizes bytes.

        ``names`` adds those that clients ask for most, ``series`` the course of the last quarter of an hour.
        """
        reading, now = self._look(), time.monotonic()
        minute = self._series.last_minute(snapshot(reading.stats, now))
        not_ready = self.unready()
        described = {
            "version": __version__,
            "host": socket.gethostname(),
            "uptime_seconds": round(now - self._started_at, 3),
            "ready": not not_ready,
            "not_ready": not_ready,
            "queries": {**_queries(reading.stats), "per_second": minute["queries_per_second"]},
            "last_minute": minute,
            "l1": _l1(reading),
            "l2": {"redis": self._redis, **_l2(reading.stats), "warming": asdict(reading.warming)},
            "upstreams": _upstreams(reading),
            "fleet": [asdict(replica) for replica in reading.fleet],
            "settings": dict(self._shown()),
        }
        if reading.workers:
            described["workers"] = [asdict(worker) for worker in reading.workers]
        if names:
            described["names"] = {kind: [one._asdict() for one in asked] for kind, asked in self._names().items()}
        if series:
            described["series"] = {"step_seconds": SAMPLE_SECONDS, **self._series.columns()}
        return described


def _queries(stats: Stats) -> dict[str, object]:
    return {
        "by_transport": dict(stats.queries),
        "responses": {rcode_name(rcode): count for rcode, count in enumerate(stats.responses) if count},
        "by_source": {source: _count(histogram) for source, histogram in stats.durations.items()},
        "coalesced": stats.coalesced_queries,
        "dropped": dict(stats.dropped),
        "inflight": stats.inflight,
        "tcp_connections": stats.tcp_connections,
    }


def _l1(reading: Reading) -> dict[str, object]:
    stats = reading.stats
    return {
        "entries": reading.entries,
        "bytes": reading.size,
        "hits": stats.cache_hits,
        "misses": stats.cache_misses,
        "hit_ratio": ratio(stats.cache_hits, stats.cache_misses),
        "evictions": stats.cache_evictions,
        "expired": stats.cache_expired,
        "stale_answers": stats.cache_stale_answers,
        "prefetches": stats.cache_prefetches,
    }


def _l2(stats: Stats) -> dict[str, object]:
    return {
        "up": stats.redis_up,
        "breaker_open": stats.redis_breaker_open,
        "hits": stats.redis_hits,
        "misses": stats.redis_misses,
        "hit_ratio": ratio(stats.redis_hits, stats.redis_misses),
        "errors": dict(stats.redis_errors),
        "rejected": dict(stats.redis_rejected),
        "dropped_writes": stats.redis_dropped_writes,
        "held_back_writes": stats.redis_held_back_writes,
        "budget_exceeded": stats.redis_budget_exceeded,
        "bytes_saved": stats.redis_bytes_saved,
    }


def _upstreams(reading: Reading) -> list[dict[str, object]]:
    return [
        {
            "server": server,
            "up": stats.up,
            "round_trip_ms": reading.round_trips.get(server, 0.0),
            "queries": stats.queries,
            "failures": dict(stats.failures),
            "cookies": stats.cookies,
            "lower_case": stats.lower_case,
        }
        for server, stats in reading.stats.upstreams.items()
    ]


def _count(histogram: Histogram) -> int:
    return sum(histogram.counts)
