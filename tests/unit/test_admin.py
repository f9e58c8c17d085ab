"""The HTTP side, called as a WSGI server would call it."""

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from heimdall_lib.admin import Admin, serve
from heimdall_lib.metrics import StatsCollector, registry
from heimdall_lib.stats import Stats
from heimdall_lib.tally import Reading
from tests.fakes import Lines


@dataclass
class Process:
    """What the application asks."""

    answers: str = ""
    ready: str = ""
    stats: Any = field(default_factory=lambda: {"version": "1", "l1": {"hit_ratio": None}})

    def admin(self) -> Admin:
        return Admin(
            registry=registry(StatsCollector(lambda: Reading(Stats(), entries=7, size=700))),
            answers=lambda: self.answers,
            ready=lambda: self.ready,
            stats=lambda: self.stats,
        )


@dataclass
class Response:
    status: str
    headers: Mapping[str, str]
    body: str


def request(process: Process, path: str, method: str = "GET", **environ: str) -> Response:
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body: Iterable[bytes] = process.admin()(
        {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", **environ},
        lambda status, headers: started.append((status, headers)),
    )
    [(status, headers)] = started
    assert len(dict(headers)) == len(headers)
    return Response(status, dict(headers), b"".join(body).decode())


@pytest.fixture
def process() -> Process:
    return Process()


def test_metrics_in_the_text_format(process: Process) -> None:
    response = request(process, "/metrics")
    assert response.status == "200 OK"
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert "\nheimdall_cache_size 7.0\n" in response.body


def test_metrics_in_the_openmetrics_format_for_those_who_accept_it(process: Process) -> None:
    response = request(process, "/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert response.body.endswith("# EOF\n")


@pytest.mark.parametrize("path", ["/healthz", "/health"])
class TestHealth:
    def test_well(self, process: Process, path: str) -> None:
        response = request(process, path)
        assert (response.status, response.body) == ("200 OK", "ok\n")

    def test_not_well(self, process: Process, path: str) -> None:
        process.answers = "no answer within 1 s"
        response = request(process, path)
        assert (response.status, response.body) == ("503 Service Unavailable", "no answer within 1 s\n")

    def test_it_has_nothing_to_do_with_readiness(self, process: Process, path: str) -> None:
        process.ready = "draining"
        assert request(process, path).status == "200 OK"


def test_ready(process: Process) -> None:
    response = request(process, "/readyz")
    assert (response.status, response.body) == ("200 OK", "ok\n")


@pytest.mark.parametrize("why", ["starting", "draining"])
def test_not_ready(process: Process, why: str) -> None:
    process.ready = why
    response = request(process, "/readyz")
    assert (response.status, response.body) == ("503 Service Unavailable", f"{why}\n")


def test_stats_as_json(process: Process) -> None:
    response = request(process, "/stats")
    assert (response.status, response.headers["Content-Type"]) == ("200 OK", "application/json")
    assert json.loads(response.body) == process.stats
    assert response.body.endswith("}\n")


@pytest.mark.parametrize("path", ["/nothing", "", "/metrics/", "/METRICS", "//metrics"])
def test_an_unknown_path_is_not_found(process: Process, path: str) -> None:
    response = request(process, path)
    assert response.status == "404 Not Found"
    assert "/metrics" in response.body


def test_an_unknown_path_is_not_echoed(process: Process) -> None:
    assert "script" not in request(process, "/<script>").body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/stats"])
def test_another_method_is_not_allowed(process: Process, path: str, method: str) -> None:
    response = request(process, path, method)
    assert response.status == "405 Method Not Allowed"
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/stats", "/nothing"])
def test_head_is_get_without_the_body(process: Process, path: str) -> None:
    response = request(process, path, "HEAD")
    assert response.body == ""
    assert response.status == request(process, path).status
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/healthz", "/stats", "/nothing", "/readyz"])
def test_every_answer_says_how_to_treat_it(process: Process, path: str) -> None:
    response = request(process, path)
    assert int(response.headers["Content-Length"]) == len(response.body)
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "Allow" not in response.headers


def test_a_crash_is_one_answer_and_one_log_entry_without_its_cause(process: Process) -> None:
    process.stats = {"secret": object()}
    with Lines("heimdall.admin") as lines:
        response = request(process, "/stats")
    assert (response.status, response.body) == ("500 Internal Server Error", "see the log\n")
    assert list(lines) == ["ERROR /stats could not be answered"]
    assert request(process, "/healthz").status == "200 OK"


def test_the_server_is_for_the_application_and_not_yet_started(process: Process) -> None:
    admin = process.admin()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = serve(sock, admin)
        assert server.application is admin
        assert not server.started
        server.close()
