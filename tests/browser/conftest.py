"""What the status page's tests are given: a browser, and pages that are watched.

Where there is no Chromium, or Playwright has no wheel, these tests are left out, and pytest's header says so.
"""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import heimdall, redis, upstream
from tests.support.processes import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["heimdall", "redis", "upstream"]

REBOUND = "rebound.example"
"""A name that the browser takes to this machine, as an attacker's name server would."""

CHROMIUM = shutil.which("chromium")
_NEEDED = {"chromium": CHROMIUM, "playwright": importlib.util.find_spec("playwright")}
_MISSING = [name for name, found in _NEEDED.items() if not found]
FLAGS = (
    "--no-sandbox",  # the tests may run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
)

collect_ignore_glob = ["test_*.py"] if _MISSING else []


def pytest_report_header() -> list[str]:
    return [f"tests/browser is left out: no {' and no '.join(_MISSING)} here"] if _MISSING else []


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import expect, sync_playwright  # noqa: PLC0415 - where there is none, there are no tests

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture
def open_page(browser: "Browser") -> "Iterator[Callable[..., Page]]":
    """Opens a URL in a browser of its own, with Playwright's options for a context.

    Nothing may be wrong with any page in the end: nothing in its console, no crash, no request to another server.
    """
    contexts, wrong = [], []

    def open_page(url: str, *, forgiven: str = "", **options: Any) -> "Page":
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.clock.install()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if is_wrong(message.type, message.text) else None)
        page.on(
            "request", lambda request: None if request.url.startswith((url, "data:")) else wrong.append(request.url)
        )

        def is_wrong(kind: str, text: str) -> bool:
            return kind in {"error", "warning"} and not (forgiven and forgiven in text)

        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
