"""What one process has counted and holds now, and the sum over several: what ``/metrics`` and ``/stats`` show.

Rules: a reading crosses to another process as plain data; whatever ``Stats`` holds is carried and added by its shape,
so that a new counter needs nothing here; the counters of a process that has ended stay in the sum, what it held does
not; of several opinions the worst is shown: up only if up for all, open if open for one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from heimdall_lib.stats import Histogram, Stats, UpstreamStats

Plain = Mapping[str, Any]
"""A ``Reading`` in the types that JSON has."""

_GAUGES = frozenset({"inflight", "tcp_connections"})
_UP = frozenset({"redis_up", "up"})
_ADVANCE = ("waiting", "running", "done", "off")


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One of several workers: ``up`` says whether it answered just now; a number outlives its processes."""

    number: int
    pid: int
    up: bool
    uptime_seconds: float
    queries: int
    restarts: int


@dataclass(frozen=True, slots=True)
class WarmingState:
    """How far L1 is filled from L2: off, waiting (for Redis), running or done; for how long, and what ended it.

    ``cold`` says whether clients are better served elsewhere until then.
    """

    state: str = "off"
    cold: bool = False
    entries: int = 0
    seconds: float = 0.0
    ended: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A replica that shares the Redis in use, as it has said of itself; ratios are None before any query.

    ``here`` says whether it is this process, or a worker beside it.
    """

    id: str
    host: str
    version: str
    uptime_seconds: float
    seen_seconds_ago: float
    queries_per_second: float
    l1_hit_ratio: float | None
    l2_hit_ratio: float | None
    here: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters, what L1 holds, upstream servers' round trips (ms), the fleet, and the workers if there are any."""

    stats: Stats
    entries: int = 0
    size: int = 0
    round_trips: Mapping[str, float] = field(default_factory=dict)
    warming: WarmingState = WarmingState()
    fleet: Sequence[ReplicaState] = ()
    workers: Sequence[WorkerState] = ()


def plain(reading: Reading) -> Plain:
    """Return a process's reading as plain data."""
    return {
        "stats": _plain(reading.stats),
        "entries": reading.entries,
        "size": reading.size,
        "round_trips": dict(reading.round_trips),
        "warming": asdict(reading.warming),
        "fleet": [asdict(replica) for replica in reading.fleet],
    }


def queries(reading: Plain) -> int:
    """Return how many queries a process has received."""
    return sum(reading["stats"]["queries"].values())


def is_cold(reading: Plain) -> bool:
    """Say whether clients should go to another process than this one for a moment."""
    return bool(reading["warming"]["cold"])


class Tally:
    """The sum over the processes that run and those that have ended."""

    def __init__(self) -> None:
        """None has ended yet."""
        self._ended = Stats()

    def end(self, last: Plain) -> None:
        """Keep the counters of a process that has ended, as they were when it was read last."""
        _add(self._ended, last["stats"], counters_only=True)

    def keep_upstreams(self, servers: Collection[str]) -> None:
        """Forget what ended processes counted for upstream servers that are no more in use."""
        for server in self._ended.upstreams.keys() - set(servers):
            del self._ended.upstreams[server]

    def total(self, readings: Sequence[Plain], workers: Sequence[WorkerState] = ()) -> Reading:
        """Return the sum over these readings and all that ended; round trips are the mean over who has one."""
        stats = Stats()
        _add(stats, _plain(self._ended), counters_only=True)
        stats.redis_up = bool(readings)
        round_trips: dict[str, list[float]] = {}
        for reading in readings:
            _add(stats, reading["stats"])
            for server, milliseconds in reading["round_trips"].items():
                round_trips.setdefault(server, []).append(milliseconds)
        return Reading(
            stats=stats,
            entries=sum(reading["entries"] for reading in readings),
            size=sum(reading["size"] for reading in readings),
            round_trips={server: _mean([each for each in found if each]) for server, found in round_trips.items()},
            warming=_least_advanced([WarmingState(**reading["warming"]) for reading in readings]),
            fleet=_fleet([ReplicaState(**replica) for reading in readings for replica in reading["fleet"]]),
            workers=workers,
        )


def _plain(value: Any) -> Any:  # noqa: ANN401 - walks whatever Stats is made of
    if isinstance(value, Stats | UpstreamStats | Histogram):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _add(held: Stats | UpstreamStats | Histogram, more: Plain, *, counters_only: bool = False) -> None:
    for name in held.__slots__:
        setattr(held, name, _sum(name, getattr(held, name), more[name], counters_only=counters_only))


def _sum(name: str, held: Any, more: Any, *, counters_only: bool) -> Any:  # noqa: ANN401 - see _plain
    if isinstance(held, UpstreamStats | Histogram):
        _add(held, more, counters_only=counters_only)
        return held
    if isinstance(held, dict):
        for key, value in more.items():
            held[key] = _sum(key, held[key], value, counters_only=counters_only)
        return held
    if isinstance(held, list):
        return [one + other for one, other in zip(held, more, strict=True)]
    if isinstance(held, bool):
        return held if counters_only else held and more if name in _UP else held or more
    return held if counters_only and name in _GAUGES else held + more


def _least_advanced(states: Sequence[WarmingState]) -> WarmingState:
    """Return the state of the process that has most before it, with the entries of all."""
    least = min(states, key=lambda one: _ADVANCE.index(one.state), default=WarmingState())
    return replace(least, entries=sum(one.entries for one in states))


def _fleet(seen: Sequence[ReplicaState]) -> list[ReplicaState]:
    """Return every replica that a process has seen, as the last to see it did; each knows which it is itself."""
    here = {replica.id for replica in seen if replica.here}
    latest = {one.id: one for one in sorted(seen, key=lambda one: one.seen_seconds_ago, reverse=True)}
    fleet = [replace(one, here=one.id in here) for one in latest.values()]
    return sorted(fleet, key=lambda one: (one.host, one.id))


def _mean(numbers: Sequence[float]) -> float:
    return round(sum(numbers) / len(numbers), 3) if numbers else 0.0
