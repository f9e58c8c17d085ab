"""What an operator types, against a server that answers as it is told."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from heimdall_lib.command import main
from tests.fakes import unused_port

REPOSITORY = Path(__file__).parents[2]
DONE = {
    "l1_removed": 2,
    "l2_removed": 1,
    "replicas": {"expected": 3, "acknowledged": 3},
    "redis": "ok",
    "complete": True,
}


class Server(HTTPServer):
    """Answers everything with ``status`` and ``body``, and remembers what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body = 200, json.dumps(DONE).encode()
        self.asked: list[str] = []
        self.tokens: list[str | None] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.tokens.append(self.headers["Authorization"])
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET  # noqa: N815 - as above

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def run(server: Server, *words: str, env: dict[str, str] | None = None) -> int:
    return main([words[0], "--http-addr", server.address, *words[1:]], env or {})


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["flush", "www.example.com"], "POST /cache/flush?name=www.example.com"),
        (["flush", "a", "--type", "AAAA"], "POST /cache/flush?name=a&type=AAAA"),
        (["flush", "a b&c", "--subtree"], "POST /cache/flush?name=a+b%26c&subtree=true"),
        (["flush", "--all"], "POST /cache/flush?all=true"),
    ],
)
def test_a_flush_is_asked_for_and_its_answer_told(
    server: Server, capsys: pytest.CaptureFixture[str], words: list[str], asked: str
) -> None:
    assert run(server, *words) == 0
    assert server.asked == [asked]
    out = capsys.readouterr().out
    assert "forgotten by 3 of 3 replicas" in out
    assert "2 from L1 here, 1 from Redis (ok)" in out


def test_a_flush_that_is_not_complete_is_exit_status_1(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = json.dumps(DONE | {"complete": False}).encode()
    assert run(server, "flush", "a") == 1
    assert "not complete" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["flush"],
        ["flush", "a", "--all"],
        ["flush", "--all", "--subtree"],
        ["flush", "--all", "--type", "A"],
        ["flush", "a", "--admin-token", "x", "--admin-token-file", "y"],
        ["flush", "a", "--admin-token-file", "/nonexistent"],
        ["flush", "a", "--admin-token", "a\nb"],
    ],
)
def test_what_cannot_be_meant_is_exit_status_2_and_asks_nobody(
    server: Server, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert run(server, *words) == 2
    assert server.asked == []
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("address", ["ftp://127.0.0.1", "127.0.0.1:x", "http://127.0.0.1:99999"])
def test_an_address_that_is_none(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert main(["entry", "a", "--http-addr", address], {}) == 2
    assert "--http-addr" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "exit_status"), [(400, 2), (403, 1), (503, 1)])
def test_a_refusal_is_told(server: Server, capsys: pytest.CaptureFixture[str], status: int, exit_status: int) -> None:
    server.status, server.body = status, b'{"error": "because"}'
    assert run(server, "flush", "a") == exit_status
    assert capsys.readouterr().err == "heimdall: because\n"


def test_somebody_elses_server(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = b"<html>"
    assert run(server, "flush", "a") == 1
    assert "no JSON" in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flush", "a", "--http-addr", f"127.0.0.1:{unused_port()}"], {}) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_the_server_is_where_its_own_setting_says(server: Server) -> None:
    assert main(["flush", "a"], {"HEIMDALL_HTTP_BIND_ADDR": f"0.0.0.0:{server.server_port}"}) == 0
    assert server.asked


def test_a_flag_wins_over_the_environment_for_the_token(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    env = {"HEIMDALL_ADMIN_TOKEN": "from-the-environment"}
    for words, extra in (
        ([], {}),
        ([], env),
        (["--admin-token", "from-a-flag"], env),
        (["--admin-token-file", str(file)], env),
        ([], {"HEIMDALL_ADMIN_TOKEN_FILE": str(file)}),
    ):
        assert run(server, "flush", "a", *words, env=extra) == 0
    environment, flag, from_file = "Bearer from-the-environment", "Bearer from-a-flag", "Bearer from-a-file"
    assert server.tokens == [None, environment, flag, from_file, from_file]


def test_an_entry_is_told_tier_by_tier(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    tier = {"fresh": True, "age": 1.5, "ttl": 298, "size": 44, "rcode": "NOERROR"}
    plain = {"dnssec_ok": False, "checking_disabled": False, "l1": tier, "l2": tier}
    both = {"dnssec_ok": True, "checking_disabled": True, "l1": {**tier, "fresh": False}, "l2": None}
    answer = {"name": "a", "type": "A", "where": "both", "now": "answered from L1", "redis": "ok"}
    server.body = json.dumps({**answer, "variants": [plain, both]}).encode()
    assert run(server, "entry", "a") == 0
    assert server.asked == ["GET /cache/entry?name=a&type=A"]
    assert capsys.readouterr().out.splitlines() == [
        "a A: in L1 and L2; a query now is answered from L1",
        "Redis: ok",
        "L1 -     NOERROR  age 1.5 s, TTL 298 s, 44 bytes",
        "L2 -     NOERROR  age 1.5 s, TTL 298 s, 44 bytes",
        "L1 DO CD NOERROR  age 1.5 s, TTL 298 s, 44 bytes, stale",
    ]


def test_the_command_starts_without_the_server() -> None:
    code = "import sys; import heimdall_lib.command; sys.exit(bool({'gevent', 'redis', 'dnslib'} & set(sys.modules)))"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=unmeasured, timeout=20, check=False)
    assert done.returncode == 0


def test_the_servers_help_names_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, "heimdall.py", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "heimdall.py flush NAME" in done.stdout
    assert "heimdall.py entry NAME" in done.stdout
