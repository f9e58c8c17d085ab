"""The HTTP side, called as a WSGI server would call it."""

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from heimdall_lib.admin import Admin, serve
from heimdall_lib.errors import ChannelError
from heimdall_lib.invalidations import EVERYTHING, Flush
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

    token: str = ""
    flushed: list[Flush] = field(default_factory=list)
    gone: bool = False

    def flush(self, flush: Flush) -> Mapping[str, object]:
        if self.gone:
            raise ChannelError("no worker answers")
        self.flushed.append(flush)
        return {"complete": True}

    def entry(self, name: bytes, qtype: int) -> Mapping[str, object]:
        return {"name": name.hex(), "type": qtype}

    def admin(self) -> Admin:
        return Admin(
            registry=registry(StatsCollector(lambda: Reading(Stats(), entries=7, size=700))),
            answers=lambda: self.answers,
            ready=lambda: self.ready,
            stats=lambda: self.stats,
            flush=self.flush,
            entry=self.entry,
            token=self.token,
        )


@dataclass
class Response:
    status: str
    headers: Mapping[str, str]
    body: str


def request(process: Process, path: str, method: str = "GET", **environ: str) -> Response:
    started: list[tuple[str, list[tuple[str, str]]]] = []
    body: Iterable[bytes] = process.admin()(
        {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", "REMOTE_ADDR": "127.0.0.1", **environ},
        lambda status, headers: started.append((status, headers)),
    )
    [(status, headers)] = started
    assert len(dict(headers)) == len(headers)
    return Response(status, dict(headers), b"".join(body).decode())


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.mark.parametrize("version", ["1.0.x", "1.0.0.ext", "x", ""])
def test_metrics_for_who_asks_for_a_version_that_there_is_not(process: Process, version: str) -> None:
    response = request(process, "/metrics", HTTP_ACCEPT=f"application/openmetrics-text; version={version}")
    assert response.status == "200 OK"
    assert "\nheimdall_cache_size 7.0\n" in response.body


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


EXAMPLE = b"\7example\3com\0"
TOKEN = "0123456789abcdef"


class TestFlush:
    @pytest.mark.parametrize(
        ("query", "flush"),
        [
            ("name=Example.COM.", Flush(EXAMPLE)),
            ("name=example.com&type=aaaa", Flush(EXAMPLE, 28)),
            ("name=example.com&type=TYPE65280&subtree=true", Flush(EXAMPLE, 65280, subtree=True)),
            ("name=example.com&subtree=false&all=false", Flush(EXAMPLE)),
            ("name=.", Flush(b"\0")),
            ("all=true", EVERYTHING),
        ],
    )
    def test_what_is_asked_for_is_flushed(self, process: Process, query: str, flush: Flush) -> None:
        response = request(process, "/cache/flush", "POST", QUERY_STRING=query)
        assert (response.status, response.headers["Content-Type"]) == ("200 OK", "application/json")
        assert json.loads(response.body) == {"complete": True}
        assert process.flushed == [flush]

    @pytest.mark.parametrize(
        ("query", "why"),
        [
            ("", "name: missing"),
            ("subtree=true", "name: missing"),
            ("name=a..b", "name: a label is empty or longer than 63 octets"),
            ("name=", "name: a label is empty or longer than 63 octets"),
            ("name=a&type=NONE_SUCH", "type: a mnemonic such as AAAA, or TYPE28"),
            ("name=a&type=TYPE65536", "type: a mnemonic such as AAAA, or TYPE28"),
            ("name=a&subtree=perhaps", "subtree: true or false"),
            ("name=a&all=true", "all: goes with nothing else"),
            ("name=a&name=b", "a field is given twice"),
            ("name=a&tpye=A", "unknown field: this takes name, type, subtree, all"),
        ],
    )
    def test_what_cannot_be_meant_is_one_line_and_flushes_nothing(self, process: Process, query: str, why: str) -> None:
        response = request(process, "/cache/flush", "POST", QUERY_STRING=query)
        assert response.status == "400 Bad Request"
        assert json.loads(response.body) == {"error": why}
        assert response.body.count("\n") == 1
        assert not process.flushed

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
    def test_another_method_is_not_allowed(self, process: Process, method: str) -> None:
        response = request(process, "/cache/flush", method, QUERY_STRING="all=true")
        assert response.status == "405 Method Not Allowed"
        assert response.headers["Allow"] == "POST"
        assert not process.flushed

    @pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
    def test_without_a_token_it_is_answered_on_loopback(self, process: Process, address: str) -> None:
        assert self.flush(process, REMOTE_ADDR=address) == "200 OK"

    @pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", ""])
    def test_and_nowhere_else(self, process: Process, address: str) -> None:
        assert self.flush(process, REMOTE_ADDR=address) == "403 Forbidden"

    def test_nor_for_a_web_page(self, process: Process) -> None:
        assert self.flush(process, HTTP_ORIGIN="http://127.0.0.1:8080") == "403 Forbidden"

    def test_with_a_token_whoever_has_it_is_answered_from_anywhere(self, process: Process) -> None:
        process.token = TOKEN
        assert self.flush(process, REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION=f"Bearer {TOKEN}") == "200 OK"

    @pytest.mark.parametrize("given", ["", TOKEN, f"bearer{TOKEN}", f"Bearer {TOKEN}x", "Bearer é", "Bearer \ud800"])
    def test_and_nobody_else_from_nowhere(self, process: Process, given: str) -> None:
        process.token = TOKEN
        assert self.flush(process, HTTP_AUTHORIZATION=given) == "403 Forbidden"
        assert TOKEN not in request(process, "/cache/flush", "POST").body

    def test_a_service_that_does_not_answer(self, process: Process) -> None:
        process.gone = True
        response = request(process, "/cache/flush", "POST", QUERY_STRING="all=true")
        assert response.status == "503 Service Unavailable"
        assert json.loads(response.body) == {"error": "no worker answers"}

    @staticmethod
    def flush(process: Process, **environ: str) -> str:
        status = request(process, "/cache/flush", "POST", QUERY_STRING="all=true", **environ).status
        assert bool(process.flushed) is (status == "200 OK")
        return status


class TestEntry:
    def test_a_question_is_looked_up(self, process: Process) -> None:
        response = request(process, "/cache/entry", QUERY_STRING="name=example.com&type=MX")
        assert (response.status, response.headers["Content-Type"]) == ("200 OK", "application/json")
        assert json.loads(response.body) == {"name": EXAMPLE.hex(), "type": 15}

    def test_an_address_unless_another_type_is_named(self, process: Process) -> None:
        assert json.loads(request(process, "/cache/entry", QUERY_STRING="name=example.com").body)["type"] == 1

    @pytest.mark.parametrize("query", ["", "name=a..b", "name=a&type=x", "name=a&subtree=true"])
    def test_what_cannot_be_looked_up(self, process: Process, query: str) -> None:
        assert request(process, "/cache/entry", QUERY_STRING=query).status == "400 Bad Request"
