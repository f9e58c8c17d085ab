"""The HTTP side: metrics, health, readiness and what the process knows of itself.

Rules: a request never touches the query path but by asking a real query; no secret and no address of a client in any
answer; an unknown path is 404, another method 405; what changes anything, and what tells names that were asked for,
is for those whom ``permission`` admits.
"""

import json
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from gevent.pywsgi import WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from heimdall_lib import page, wire
from heimdall_lib.errors import ChannelError, WireError
from heimdall_lib.invalidations import EVERYTHING, Flush
from heimdall_lib.names import type_number
from heimdall_lib.permission import why_no_change, why_no_names

log = logging.getLogger("heimdall.admin")

StartResponse = Callable[[str, list[tuple[str, str]]], object]
Answer = tuple[str, str, bytes]
"""Status line, content type and body."""


class _BadRequest(Exception):  # noqa: N818 - the asker's fault, not ours
    """What is wrong with a request, in words for whoever sent it."""


class Stats(Protocol):
    """What tells of the server."""

    def __call__(self, *, names: bool, series: bool) -> Mapping[str, object]:
        """Return what is known, ready for JSON; with names that were asked for, and the course of figures."""


class Admin:
    """A WSGI application."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        answers: Callable[[], str],
        ready: Callable[[], str],
        stats: Stats,
        flush: Callable[[Flush], Mapping[str, object]],
        entry: Callable[[bytes, int], Mapping[str, object]],
        token: str,
    ) -> None:
        """Serve these: ``answers`` and ``ready`` return why not, empty when all is well; ``token`` may be empty."""
        self._registry = registry
        self._answers = answers
        self._ready = ready
        self._stats = stats
        self._flush = flush
        self._entry = entry
        self._token = token.encode()
        self._routes: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "/": lambda _: ("200 OK", "text/html; charset=utf-8", page.HTML),
            "/metrics": self._metrics,
            "/healthz": lambda _: _health(self._answers()),
            "/health": lambda _: _health(self._answers()),
            "/readyz": lambda _: _health(self._ready()),
            "/stats": self._show_stats,
            "/cache/entry": self._show_entry,
        }
        self._changing: dict[str, Callable[[Mapping[str, Any]], Answer]] = {"/cache/flush": self._flush_cache}

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        status, content_type, body = self._answer(environ)
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *(page.HEADERS if content_type.startswith("text/html") else ()),
        ]
        if status.startswith("405"):
            headers.append(("Allow", "POST" if environ["PATH_INFO"] in self._changing else "GET, HEAD"))
        start_response(status, headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    def _answer(self, environ: Mapping[str, Any]) -> Answer:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        changes = path in self._changing
        route = self._changing.get(path) or self._routes.get(path)
        if route is None:
            return _text("404 Not Found", "no such page: try " + " ".join((*self._routes, *self._changing)))
        if method not in (("POST",) if changes else ("GET", "HEAD")):
            return _text("405 Method Not Allowed", "POST only" if changes else "GET only")
        why_not = why_no_change(environ, self._token) if changes else ""
        try:
            return _json("403 Forbidden", {"error": why_not}) if why_not else route(environ)
        except _BadRequest as error:
            return _json("400 Bad Request", {"error": str(error)})
        except ChannelError as error:
            return _json("503 Service Unavailable", {"error": str(error)})
        except Exception:
            log.exception("%s could not be answered", path)
            return _text("500 Internal Server Error", "see the log")

    def _flush_cache(self, environ: Mapping[str, Any]) -> Answer:
        fields = _fields(environ, "name", "type", "subtree", "all")
        everything, subtree = _truth(fields, "all"), _truth(fields, "subtree")
        if everything:
            if len(fields) > 1:
                raise _BadRequest("all: goes with nothing else")
            return _json("200 OK", self._flush(EVERYTHING))
        qtype = _type(fields["type"]) if "type" in fields else None
        return _json("200 OK", self._flush(Flush(_name(fields), qtype, subtree)))

    def _show_entry(self, environ: Mapping[str, Any]) -> Answer:
        fields = _fields(environ, "name", "type")
        return _json("200 OK", self._entry(_name(fields), _type(fields.get("type", "A"))))

    def _metrics(self, environ: Mapping[str, Any]) -> Answer:
        try:
            encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        except (TypeError, ValueError):  # a version that prometheus_client stumbles over
            encode, content_type = choose_encoder("")
        return "200 OK", content_type, encode(self._registry)

    def _show_stats(self, environ: Mapping[str, Any]) -> Answer:
        series = _truth(_fields(environ, "series"), "series")
        hidden = why_no_names(environ, self._token)
        stats = self._stats(names=not hidden, series=series)
        stats = {**stats, "names": {"hidden": hidden}} if hidden else stats
        # Written for a person, but not with each of thousands of figures on a line of its own.
        text = json.dumps(stats, indent=None if series else 2)
        return "200 OK", "application/json", text.encode() + b"\n"


def serve(sock: socket.socket, application: Admin) -> WSGIServer:
    """Return a server, not yet started, for a listening socket; requests are not logged, errors are."""
    return WSGIServer(sock, application, log=None, error_log=log)


def _health(why_not: str) -> Answer:
    return _text("503 Service Unavailable", why_not) if why_not else _text("200 OK", "ok")


def _text(status: str, text: str) -> Answer:
    return status, "text/plain; charset=utf-8", text.encode() + b"\n"


def _json(status: str, answer: Mapping[str, object]) -> Answer:
    return status, "application/json", json.dumps(answer).encode() + b"\n"


def _fields(environ: Mapping[str, Any], *known: str) -> dict[str, str]:
    """Return the fields of a request's query string, each of which is known and given once."""
    pairs = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    fields = dict(pairs)
    for field in fields:
        if field not in known:
            raise _BadRequest(f"unknown field: this takes {', '.join(known)}")
    if len(fields) != len(pairs):
        raise _BadRequest("a field is given twice")
    return fields


def _truth(fields: Mapping[str, str], field: str) -> bool:
    text = fields.get(field, "false").lower()
    if text not in ("true", "false"):
        raise _BadRequest(f"{field}: true or false")
    return text == "true"


def _name(fields: Mapping[str, str]) -> bytes:
    if "name" not in fields:
        raise _BadRequest("name: missing")
    try:
        return wire.from_presentation(fields["name"])
    except WireError as error:
        raise _BadRequest(f"name: {error}") from None


def _type(text: str) -> int:
    try:
        return type_number(text.upper())
    except ValueError:
        raise _BadRequest("type: a mnemonic such as AAAA, or TYPE28") from None
