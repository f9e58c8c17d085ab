"""What the tests of a module share: a scripted upstream, and few Heimdalls that outlive a test.

A test's docstring is ``RFC <number>, section <number>: <rule>.``, one line, and a row of docs/conformance.md. Rules:
black box, bytes over sockets; every test asks for names of its own, so that nothing of another's is in the cache.
"""

import itertools
from collections.abc import Iterator

import pytest

from tests.support.processes import Heimdall, Launcher
from tests.support.upstream import Upstream

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """Answers whatever the tests script for their own names."""
    with Upstream() as server:
        yield server


@pytest.fixture(scope="module")
def launch(upstream: Upstream) -> Iterator[Launcher]:
    """Starts a Heimdall for a test that needs other settings, or that would leave the shared one changed."""
    launcher = Launcher("--upstream-servers", upstream.address)
    try:
        yield launcher
        upstream.release()
        launcher.stop()
    finally:
        launcher.kill()


@pytest.fixture(scope="module")
def server(launch: Launcher) -> Heimdall:
    """A Heimdall with the default settings."""
    return launch()


@pytest.fixture(scope="module")
def impatient(launch: Launcher) -> Heimdall:
    """A Heimdall that waits for nobody: TCP clients have half a second, upstream servers a fifth."""
    timeouts = ("--tcp-idle-timeout", "0.5", "--upstream-timeout", "0.2", "--query-timeout", "1")
    return launch(*timeouts, "--serve-stale", "0")


@pytest.fixture(scope="module")
def forgetful(launch: Launcher) -> Heimdall:
    """A Heimdall that remembers a failure for one second."""
    return launch("--failure-ttl", "1")


@pytest.fixture
def name() -> str:
    """A name that nobody has asked for yet."""
    return f"n{next(_NUMBERS)}.example.com"
