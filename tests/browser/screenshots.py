"""Takes the pictures of the status page that are in docs/: ``.venv/bin/python -m tests.browser.screenshots``.

Two replicas answer for a minute, or until the upstream server that goes away meanwhile rests; all of it on loopback.
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS
from tests.support import client
from tests.support.processes import REPOSITORY, Launcher, RedisServer
from tests.support.upstream import Upstream, late, silent

_WORDS = ("www", "api", "mail", "static", "login", "shop", "news", "images", "auth", "files")
_NAMES = [f"{word}.example.com" for word in _WORDS]
_NAMES += [f"host{number}.example.org" for number in range(400)]
_WEIGHTS = [1 / (rank + 1) for rank in range(len(_NAMES))]
_SECONDS, _TAKEN_AWAY_AFTER = 70, 45
_PICTURES = {
    "status-page": {"viewport": {"width": 1180, "height": 1010}, "color_scheme": "light"},
    "status-page-phone": {"viewport": {"width": 360, "height": 780}, "color_scheme": "dark"},
}


def main() -> int:
    """Write the pictures; return the exit status."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as directory, Upstream() as lasting, Upstream() as failing:
        for upstream, seconds in ((lasting, 0.012), (failing, 0.004)):
            upstream.reaction = late(seconds)
            for name in _NAMES:
                upstream.add(name, "A", "192.0.2.1", ttl=30)
        redis = RedisServer(Path(directory)).start()
        launcher = Launcher("--upstream-servers", f"{lasting.address},{failing.address}", "--redis-url", redis.url)
        try:
            replicas = [launcher(), launcher()]
            until = time.monotonic() + _SECONDS
            while (left := until - time.monotonic()) > 0 or replicas[0].metric("upstream_up") > 1:
                for name in chance.choices(_NAMES, _WEIGHTS, k=chance.randint(2, 9)):
                    client.ask(chance.choice(replicas).address, name, chance.choice(("A", "AAAA")))
                if left < _SECONDS - _TAKEN_AWAY_AFTER:
                    failing.reaction = silent
            _take(f"http://127.0.0.1:{replicas[0].http[1]}/")
            launcher.stop()
        finally:
            launcher.kill()
            redis.kill()
    return 0


def _take(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for name, options in _PICTURES.items():
            page = browser.new_page(**options)  # type: ignore[arg-type]
            page.goto(url)
            page.locator("#asked tr").first.wait_for()
            page.screenshot(path=REPOSITORY / "docs" / f"{name}.png", animations="disabled")
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
