"""Three replicas behind a load balancer, with and without Redis: who hits, how often, how fast."""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate

from benchmarks import dns, redis_server, zone
from benchmarks.bench import Bench
from benchmarks.figures import percentile
from benchmarks.measure import Subject, interleave
from benchmarks.prober import Probe, probe
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from benchmarks.server import Server

_REPLICAS = 3
_NAMES = 20_000
_QUERIES = 30_000
_OFFERED = 3000
_UPSTREAM_SECONDS = 0.02
_REDIS_SECONDS = 0.001
_SETTLED_SECONDS = 0.25  # after so long the answer to an earlier query for the name has reached every tier

Question = tuple[int, str]
"""Which replica is asked, and for what."""


def _fleet(bench: Bench) -> list[Row]:
    redis = redis_server.start(bench)
    distant = bench.distance(redis, _REDIS_SECONDS)
    upstream = bench.late_answers(_UPSTREAM_SECONDS)
    questions = zipf(bench.count(_QUERIES), bench.count(_NAMES))

    def measure(redis_port: int, *, hung: bool = False) -> dict[str, float]:
        redis_server.forget(redis)
        replicas = [
            bench.heimdall(name=f"replica {number + 1}", upstream=upstream, redis=redis_port)
            for number in range(_REPLICAS)
        ]
        bench.progress.say(f"{len(questions)} queries {'with' if redis_port else 'without'} Redis")
        with redis_server.hung(redis) if hung else nullcontext():
            found = probe(
                [server.port for server in replicas], [(to, dns.query(name, 0)) for to, name in questions], _OFFERED
            )
        shared = bool(redis_port) and not hung
        sample = _shares(replicas, len(questions)) | _latencies(questions, found, shared=shared)
        bench.stop(*replicas)
        return sample

    return interleave(
        bench,
        [
            Subject("with Redis", "variant", lambda _: measure(distant)),
            Subject("Redis hung", "variant", lambda _: measure(distant, hung=True)),
            Subject("without Redis", "variant", lambda _: measure(0)),
        ],
    )


def zipf(count: int, names: int, *, seed: int = 6) -> list[Question]:
    """Return questions whose names are as popular as Zipf says (the n-th in proportion to 1/n), replicas at random."""
    chance = random.Random(seed)
    weights = list(accumulate(1 / rank for rank in range(1, names + 1)))
    chosen = chance.choices(zone.names("zipf", names), cum_weights=weights, k=count)
    return [(chance.randrange(_REPLICAS), name) for name in chosen]


def tiers(questions: Sequence[Question], interval: float, *, shared: bool) -> list[str]:
    """Say for each question which tier should answer: l1, l2, miss, or '' when an earlier one may be under way."""
    asked: dict[Question, int] = {}
    asked_anywhere: dict[str, int] = {}
    found = []
    for number, (replica, name) in enumerate(questions):
        here = asked.setdefault((replica, name), number)
        anywhere = asked_anywhere.setdefault(name, number)
        first, tier = (
            (here, "l1") if here != number else (anywhere, "l2") if shared and anywhere != number else (0, "miss")
        )
        unsettled = tier != "miss" and (number - first) * interval < _SETTLED_SECONDS
        found.append("" if unsettled else tier)
    return found


def _latencies(questions: Sequence[Question], found: Probe, *, shared: bool) -> dict[str, float]:
    micros = [value / 1000 for value in found.nanoseconds]
    where = tiers(questions, 1 / _OFFERED, shared=shared)
    answered = [value for value in micros if value >= 0]
    sample = {"mean_us": sum(answered) / len(answered), "lost": found.lost}
    for tier in ("l1", "l2", "miss"):
        mine = [value for value, of in zip(micros, where, strict=True) if of == tier and value >= 0]
        if mine:
            sample |= {f"{tier}_p50_us": percentile(mine, 50), f"{tier}_p99_us": percentile(mine, 99)}
    return sample


def _shares(replicas: Sequence[Server], queries: int) -> dict[str, float]:
    def total(name: str) -> float:
        return sum(server.counter(name) for server in replicas)

    l1, l2 = total("cache_hits_total"), total("redis_hits_total")
    return {
        "l1_share": 100 * l1 / queries,
        "l2_share": 100 * l2 / queries,
        "hit_share": 100 * (l1 + l2) / queries,
        "upstream": total("upstream_queries_total"),
    }


SCENARIOS = (
    Scenario(
        name="fleet",
        title="Three replicas, with Redis, with one that hangs, and without",
        about=f"{_QUERIES} queries for {_NAMES} names, popular as Zipf says, {_OFFERED} a second, spread at random "
        f"over {_REPLICAS} replicas that start empty; upstream {_UPSTREAM_SECONDS * 1000:g} ms away, Redis "
        f"{_REDIS_SECONDS * 1000:g} ms, or stopped (SIGSTOP) before the first query. Shares and "
        "upstream queries are the replicas' own counters.",
        run=_fleet,
        rounds=2,
        shown=(
            *("l1_share", "l2_share", "hit_share", "upstream", "mean_us"),
            *("l1_p50_us", "l1_p99_us", "l2_p50_us", "l2_p99_us", "miss_p50_us", "miss_p99_us", "lost"),
        ),
        compared=("mean_us", "upstream"),
    ),
)
