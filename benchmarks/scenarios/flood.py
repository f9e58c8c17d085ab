"""A working set in L1 while somebody asks for names that nobody asks for twice: what is left of the hits.

L1 is asked in this process, without a server around it, so that the number of queries is what decides and not the speed
of the machine; a plain least-recently-used cache is given the same queries.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from typing import Any

from lru import LRU

from benchmarks.bench import Bench
from benchmarks.measure import Subject, interleave
from benchmarks.results import Row
from benchmarks.scenario import Scenario
from heimdall_lib import entry as entries
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.stats import Stats

_NAMES = 20_000
_TOO_MANY_NAMES = 200_000
_ENTRIES = 25_000
_QUERIES = 100_000
_FLOODS = (0, 5, 20)
_ANSWER = entries.make(bytes(80), (40,), stored_at=0.0, lifetime=86400.0, stale=0.0)

Ask = Callable[[bytes], bool]
"""Look a key up, keep an answer under it when there is none, and say whether there was one."""


def _flood(bench: Bench) -> list[Row]:
    caches = {"Heimdall's L1": heimdall, "plain LRU": plain}
    loads = {f"{flood} random names a query": (_NAMES, flood) for flood in _FLOODS}
    loads[f"none, but {_TOO_MANY_NAMES} names"] = (_TOO_MANY_NAMES, 0)

    def measure(make: Callable[[int], Ask], names: int, flood: int, _: int) -> dict[str, float]:
        ask, queries = make(bench.count(_ENTRIES)), bench.count(_QUERIES)
        return {"hit_share": hit_share(ask, names=bench.count(names), queries=queries, flood=flood)}

    return interleave(
        bench,
        [
            Subject(f"{name}, {words}", "variant", partial(measure, make, *load))
            for words, load in loads.items()
            for name, make in caches.items()
        ],
    )


def hit_share(ask: Ask, *, names: int, queries: int, flood: int) -> float:
    """Return the share (%) of queries for a working set that hit, while ``flood`` random names go with each.

    The working set, as popular as Zipf says, has been asked for as many ``queries`` before the flood begins.
    """
    chosen, random_names = _zipf(names), _never_the_same()
    for _ in range(queries):
        ask(next(chosen))
    hits = 0
    for _ in range(queries):
        hits += ask(next(chosen))
        for _ in range(flood):
            ask(next(random_names))
    return 100 * hits / queries


def heimdall(size: int) -> Ask:
    """Return L1 as the resolver asks it."""
    memory = MemoryCache(max_entries=size, max_bytes=1 << 30, purge_interval=30.0, stats=Stats())

    def ask(key: bytes) -> bool:
        if memory.get(key) or memory.admit(key):
            return True
        memory.put(key, _ANSWER)
        return False

    return ask


def plain(size: int) -> Ask:
    """Return a cache that keeps what was asked for last."""
    memory: Any = LRU(size)

    def ask(key: bytes) -> bool:
        if memory.get(key):
            return True
        memory[key] = _ANSWER
        return False

    return ask


def _zipf(names: int) -> Iterator[bytes]:
    chance, keys = random.Random(7), [b"name %d" % number for number in range(names)]
    weights = list(accumulate(1 / rank for rank in range(1, names + 1)))
    while True:
        yield from chance.choices(keys, cum_weights=weights, k=1000)


def _never_the_same() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield b"random %d" % number


SCENARIOS = (
    Scenario(
        name="flood",
        title="A flood of random names",
        about=f"{_QUERIES} queries for {_NAMES} names, popular as Zipf says, in a cache of {_ENTRIES} entries that has "
        "answered as many before, while names that nobody asks for twice come with them: several for each of these "
        "queries. Beside Heimdall's L1, a cache that knows nothing but who was asked for last. At the end there is no "
        f"flood, but a working set of {_TOO_MANY_NAMES} names.",
        run=_flood,
        rounds=1,
        shown=("hit_share",),
        compared=(),
    ),
)
