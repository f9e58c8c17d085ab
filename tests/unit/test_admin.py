"""The HTTP side, called as a WSGI server would call it."""

import base64
import hashlib
import inspect
import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from heimdall_lib import permission
from heimdall_lib.admin import Admin, serve
from heimdall_lib.errors import ChannelError
from heimdall_lib.invalidations import EVERYTHING, Flush
from heimdall_lib.metrics import StatsCollector, registry
from heimdall_lib.stats import Stats
from heimdall_lib.tally import Reading
from tests.fakes import Lines

FROM_HERE = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8080"}


@dataclass
class Process:
    """What the application asks."""

    answers: str = ""
    ready: str = ""
    stats: Any = field(default_factory=lambda: {"version": "1", "l1": {"hit_ratio": None}})

    token: str = ""
    flushed: list[Flush] = field(default_factory=list)
    wanted: list[tuple[bool, bool]] = field(default_factory=list)
    gone: bool = False

    def flush(self, flush: Flush) -> Mapping[str, object]:
        if self.gone:
            raise ChannelError("no worker answers")
        self.flushed.append(flush)
        return {"complete": True}

    def entry(self, name: bytes, qtype: int) -> Mapping[str, object]:
        return {"name": name.hex(), "type": qtype}

    def show(self, *, names: bool, series: bool) -> Any:
        self.wanted.append((names, series))
        return self.stats

    def admin(self) -> Admin:
        return Admin(
            registry=registry(StatsCollector(lambda: Reading(Stats(), entries=7, size=700))),
            answers=lambda: self.answers,
            ready=lambda: self.ready,
            stats=self.show,
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
        {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": "", **FROM_HERE, **environ},
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


class TestStats:
    def test_names_are_shown_to_who_asks_on_loopback(self, process: Process) -> None:
        request(process, "/stats")
        assert process.wanted == [(True, False)]

    @pytest.mark.parametrize(
        ("asker", "why"),
        [
            ({"REMOTE_ADDR": "192.0.2.1"}, "without an admin token this is answered on loopback only"),
            (
                {"HTTP_HOST": "evil.example:8080"},  # a name that was made to point here: DNS rebinding
                "without an admin token names are shown under the addresses localhost and 127.0.0.1 only",
            ),
        ],
    )
    def test_others_are_told_why_they_see_none(self, process: Process, asker: Mapping[str, str], why: str) -> None:
        response = request(process, "/stats", **asker)
        assert process.wanted == [(False, False)]
        assert json.loads(response.body) == {**process.stats, "names": {"hidden": why}}

    def test_with_a_token_it_decides_alone(self, process: Process) -> None:
        process.token = TOKEN
        request(process, "/stats")
        request(process, "/stats", HTTP_AUTHORIZATION=f"Bearer {TOKEN}x")
        request(process, "/stats", HTTP_AUTHORIZATION=f"Bearer {TOKEN}", REMOTE_ADDR="192.0.2.1", HTTP_HOST="a.example")
        assert [names for names, _ in process.wanted] == [False, False, True]

    def test_the_course_of_figures_is_for_who_wants_it_and_then_all_is_one_line(self, process: Process) -> None:
        response = request(process, "/stats", QUERY_STRING="series=true")
        assert process.wanted == [(True, True)]
        assert response.body.count("\n") == 1
        assert json.loads(response.body) == process.stats

    def test_other_fields_are_refused(self, process: Process) -> None:
        response = request(process, "/stats", QUERY_STRING="serious=true")
        assert response.status == "400 Bad Request"
        assert json.loads(response.body) == {"error": "unknown field: this takes series"}


class TestPage:
    def test_it_is_html(self, process: Process) -> None:
        response = request(process, "/")
        assert (response.status, response.headers["Content-Type"]) == ("200 OK", "text/html; charset=utf-8")
        assert response.body.startswith("<!DOCTYPE html>")

    def test_it_may_run_its_own_script_and_load_nothing_from_elsewhere(self, process: Process) -> None:
        response = request(process, "/")
        policy = dict(each.split(" ", 1) for each in response.headers["Content-Security-Policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "connect-src": "'self'",
            "img-src": "data:",
            "script-src": self.hashed("script", response.body),
            "style-src": self.hashed("style", response.body),
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }

    def test_there_is_one_script_and_one_style_and_nothing_else_is_loaded(self, process: Process) -> None:
        body = request(process, "/").body
        assert [len(re.findall(f"<{tag}\\b", body)) for tag in ("script", "style", "img", "iframe")] == [1, 1, 0, 0]
        assert re.findall(r"https?://[^'\"\s]+", body) == ["http://www.w3.org/2000/svg"] * 2, "names, not addresses"
        assert [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(") if word in body] == []

    def test_only_the_page_has_a_page_s_headers(self, process: Process) -> None:
        own = set(request(process, "/").headers) - set(request(process, "/stats").headers)
        assert own == {
            "Content-Security-Policy",
            "Cross-Origin-Resource-Policy",
            "Referrer-Policy",
        }

    @staticmethod
    def hashed(tag: str, body: str) -> str:
        inside = body.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"


@pytest.mark.parametrize("path", ["/nothing", "", "/metrics/", "/METRICS", "//metrics"])
def test_an_unknown_path_is_not_found(process: Process, path: str) -> None:
    response = request(process, path)
    assert response.status == "404 Not Found"
    assert "/metrics" in response.body


def test_an_unknown_path_is_not_echoed(process: Process) -> None:
    assert "script" not in request(process, "/<script>").body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/stats"])
def test_another_method_is_not_allowed(process: Process, path: str, method: str) -> None:
    response = request(process, path, method)
    assert response.status == "405 Method Not Allowed"
    assert response.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/stats", "/nothing"])
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

    @pytest.mark.parametrize("token", ["", TOKEN])
    def test_whatever_changes_anything_is_closed_to_the_outside(self, process: Process, token: str) -> None:
        process.token = token
        changing = list(process.admin()._changing)
        assert changing
        for path in changing:
            status = request(process, path, "POST", QUERY_STRING="all=true", REMOTE_ADDR="192.0.2.1").status
            assert status == "403 Forbidden"
        assert not process.flushed

    def test_a_token_is_compared_in_constant_time(self) -> None:
        """How long a refusal takes must not tell how much of the token was right, and no clock can show that here."""
        source = inspect.getsource(permission)
        assert "hmac.compare_digest(given" in source
        assert "given ==" not in source

    @pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "127.0.0.2"])
    def test_the_status_page_may_as_a_page_of_this_very_address(self, process: Process, host: str) -> None:
        own = {"HTTP_HOST": host, "HTTP_ORIGIN": f"http://{host.lower()}"}
        assert self.flush(process, **own) == "200 OK"
        assert self.flush(process, **own, HTTP_SEC_FETCH_SITE="same-origin") == "200 OK"

    @pytest.mark.parametrize(
        "origin",
        [
            "",
            "null",
            "http://evil.example",
            "http://evil.example:8080",
            "http://127.0.0.1:3000",  # another server on this machine
            "http://localhost:8080",  # may be another one, on ::1
            "https://127.0.0.1:8080",
            "http://127.0.0.1:8080.evil.example",
            "http://evil.example,http://127.0.0.1:8080",
            "http://127.0.0.1:8080/",
        ],
    )
    def test_no_other_page_may(self, process: Process, origin: str) -> None:
        assert self.flush(process, HTTP_ORIGIN=origin) == "403 Forbidden"
        assert self.flush(process, HTTP_ORIGIN=origin, HTTP_SEC_FETCH_SITE="same-origin") == "403 Forbidden"

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example:8080",
            "127.0.0.1.evil.example:8080",
            "localhost.evil.example",
            "localhost:8080:8080",
            "127.0.0.1:",
            "0.0.0.0:8080",
            "192.0.2.1:8080",
            "localhost@evil.example",
            "",
        ],
    )
    def test_nor_one_whose_name_was_made_to_point_here(self, process: Process, host: str) -> None:
        assert self.flush(process, HTTP_HOST=host, HTTP_ORIGIN=f"http://{host}") == "403 Forbidden"

    @pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
    def test_nor_one_that_the_browser_calls_another(self, process: Process, site: str) -> None:
        assert self.flush(process, HTTP_SEC_FETCH_SITE=site) == "403 Forbidden"
        own = {"HTTP_ORIGIN": "http://127.0.0.1:8080"}
        assert self.flush(process, **own, HTTP_SEC_FETCH_SITE=site) == "403 Forbidden"

    def test_nor_one_without_an_origin_whatever_the_browser_calls_it(self, process: Process) -> None:
        assert self.flush(process, HTTP_SEC_FETCH_SITE="same-origin") == "403 Forbidden"

    def test_nor_the_status_page_from_elsewhere(self, process: Process) -> None:
        own = {"HTTP_ORIGIN": "http://127.0.0.1:8080", "REMOTE_ADDR": "192.0.2.1"}
        assert self.flush(process, **own) == "403 Forbidden"

    def test_a_program_on_this_machine_may_by_whatever_name_it_calls_the_server(self, process: Process) -> None:
        assert self.flush(process, HTTP_HOST="this.machine.example:8080") == "200 OK"

    def test_with_a_token_whoever_has_it_is_answered_from_anywhere(self, process: Process) -> None:
        process.token = TOKEN
        assert self.flush(process, REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION=f"Bearer {TOKEN}") == "200 OK"

    def test_a_page_that_has_been_given_the_token_too(self, process: Process) -> None:
        process.token = TOKEN
        page = {"HTTP_HOST": "heimdall.example", "HTTP_ORIGIN": "https://heimdall.example"}
        assert self.flush(process, **page) == "403 Forbidden"
        assert self.flush(process, **page, HTTP_AUTHORIZATION=f"Bearer {TOKEN}") == "200 OK"

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
