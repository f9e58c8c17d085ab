"""The HTTP side: metrics, health, readiness and what the process knows of itself.

Rules: a request never touches the query path but by asking a real query; no secret and no address of a client in any
answer; an unknown path is 404, another method 405.
"""

import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gevent.pywsgi import WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

log = logging.getLogger("heimdall.admin")

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Answer = tuple[str, str, bytes]
"""Status line, content type and body."""


class Admin:
    """A WSGI application."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        answers: Callable[[], str],
        ready: Callable[[], str],
        stats: Callable[[], Mapping[str, object]],
    ) -> None:
        """Serve these: ``answers`` and ``ready`` return why not, empty when all is well."""
        self._registry = registry
        self._answers = answers
        self._ready = ready
        self._stats = stats
        self._routes: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "/metrics": self._metrics,
            "/healthz": lambda _: _health(self._answers()),
            "/health": lambda _: _health(self._answers()),
            "/readyz": lambda _: _health(self._ready()),
            "/stats": self._show_stats,
        }

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        status, content_type, body = self._answer(environ)
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        start_response(status, headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _answer(self, environ: Mapping[str, Any]) -> Answer:
        route = self._routes.get(environ["PATH_INFO"])
        if route is None:
            return _text("404 Not Found", "no such page: try " + " ".join(self._routes))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _text("405 Method Not Allowed", "GET only")
        try:
            return route(environ)
        except Exception:
            log.exception("%s could not be answered", environ["PATH_INFO"])
            return _text("500 Internal Server Error", "see the log")

    def _metrics(self, environ: Mapping[str, Any]) -> Answer:
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return "200 OK", content_type, encode(self._registry)

    def _show_stats(self, _environ: Mapping[str, Any]) -> Answer:
        return "200 OK", "application/json", json.dumps(self._stats(), indent=2).encode() + b"\n"


def serve(sock: socket.socket, application: Admin) -> WSGIServer:
    """Return a server, not yet started, for a listening socket; requests are not logged, errors are."""
    return WSGIServer(sock, application, log=None, error_log=log)


def _health(why_not: str) -> Answer:
    return _text("503 Service Unavailable", why_not) if why_not else _text("200 OK", "ok")


def _text(status: str, text: str) -> Answer:
    return status, "text/plain; charset=utf-8", text.encode() + b"\n"
