"""The status page: one file that a browser needs nothing beside, and the headers that hold the browser to that.

Rules: the page loads nothing from elsewhere, runs no script but its own, and is no part of another page; what it
shows it reads from ``/stats`` and ``/cache/entry``, and whatever comes from there is put in as text.
"""

import base64
import hashlib
import re
from pathlib import Path

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)

HTML = (Path(__file__).parent / "status.html").read_bytes()


def _policy(page: str) -> str:
    """Return the Content-Security-Policy under which exactly what stands in ``page`` works (CSP level 3)."""
    hashes = {
        kind: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for kind, text in _INLINE.findall(page)
    }
    return "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            "img-src data:",
            *(f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items()),
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


HEADERS = (
    ("Content-Security-Policy", _policy(HTML.decode())),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
