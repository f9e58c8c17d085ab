"""What end-to-end tests are given: a scripted upstream, Heimdalls that ask it, and a Redis for them to share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import REDIS
from tests.support.processes import Launcher, RedisServer
from tests.support.upstream import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """An upstream that every Heimdall of the test asks unless it is told to ask others."""
    with Upstream() as server:
        yield server


@pytest.fixture
def heimdall(upstream: Upstream) -> Iterator[Launcher]:
    """Starts Heimdalls; those that still run after the test are stopped and must exit cleanly."""
    launcher = Launcher("--upstream-servers", upstream.address)
    try:
        yield launcher
        upstream.release()  # or the answers that are held would hold up the end
        launcher.stop()
    finally:
        launcher.kill()


@pytest.fixture
def redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that runs; another engine for a test that is run on every one."""
    server = RedisServer(tmp_path, engine=getattr(request, "param", REDIS))
    try:
        yield server.start()
    finally:
        server.kill()
