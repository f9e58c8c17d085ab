"""The health check, against small servers that answer well, badly or never, over UDP and TCP."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heimdall_lib import healthcheck
from heimdall_lib.healthcheck import Unhealthy, ask, main, parse_address, where

Reply = Callable[[bytes], bytes | None]
REPOSITORY = Path(__file__).parents[2]


def good(query: bytes, rcode: int = 0) -> bytes:
    return query[:2] + bytes((0x84, rcode)) + query[4:]


def answering(rcode: int) -> Reply:
    return lambda query: good(query, rcode)


@contextmanager
def dns_server(reply: Reply, host: str = "127.0.0.1") -> Iterator[int]:
    """Answer one datagram with ``reply(query)``, or not at all when that is None; yield the port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError as error:
            pytest.skip(f"this machine has no {host}: {error}")
        sock.settimeout(5)

        def serve() -> None:
            query, client = sock.recvfrom(512)
            answer = reply(query)
            if answer is not None:
                sock.sendto(answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1]
        thread.join()


@contextmanager
def stream_server(reply: Reply) -> Iterator[int]:
    """Answer one query over TCP with ``reply(query)``, an octet at a time, then close; yield the port.

    ``reply`` gives the answer with its length; None is silence until the client goes.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                query = connection.recv(512)
                assert query[:2] == bytes((0, len(query) - 2))
                answer = reply(query[2:])
                if answer is None:
                    assert connection.recv(1) == b""
                for octet in answer or b"":
                    connection.send(bytes((octet,)))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def framed(answer: bytes) -> bytes:
    return len(answer).to_bytes(2, "big") + answer


def unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        return port


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1053", ("127.0.0.1", 1053)),
        ("0.0.0.0:1053", ("127.0.0.1", 1053)),
        ("[::]:53", ("::1", 53)),
        ("[2001:db8::1]:1053", ("2001:db8::1", 1053)),
        ("192.0.2.1:53,[::]:53", ("192.0.2.1", 53)),
        (" 192.0.2.1:53 , [::]:53", ("192.0.2.1", 53)),
        ("localhost:1053", ("localhost", 1053)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
    ],
)
def test_asks_the_first_listening_address_and_loopback_for_a_wildcard(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1053",
        ":1053",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:dns",
        "::1:53",
        "[]:1",
    ],
)
def test_an_address_of_another_form_is_refused_by_name(text: str) -> None:
    with pytest.raises(Unhealthy) as reason:
        parse_address(text)
    assert repr(text) in str(reason.value)


def test_the_question_is_id_server_txt_in_class_chaos_and_its_id_is_random() -> None:
    queries: list[bytes] = []

    def remember(query: bytes) -> bytes:
        queries.append(query)
        return good(query)

    for _ in range(4):
        with dns_server(remember) as port:
            ask("127.0.0.1", port)
    assert {query[2:] for query in queries} == {b"\0\0\0\1\0\0\0\0\0\0\x02id\x06server\0\0\x10\0\x03"}
    assert len({query[:2] for query in queries}) > 1


@pytest.mark.parametrize("rcode", [healthcheck.NOERROR, healthcheck.REFUSED])
def test_a_server_that_answers_or_refuses_is_healthy(rcode: int) -> None:
    with dns_server(answering(rcode)) as port:
        ask("127.0.0.1", port)


def test_the_question_may_come_back_in_another_case_and_with_records_after_it() -> None:
    with dns_server(lambda query: good(query).replace(b"server", b"SERVER") + b"\0" * 20) as port:
        ask("127.0.0.1", port)


def test_ipv6_is_asked_over_ipv6() -> None:
    with dns_server(good, host="::1") as port:
        ask("::1", port)


BAD_ANSWERS: list[tuple[str, Reply, str]] = [
    ("nothing", lambda _: b"", "only 0 bytes"),
    ("short", lambda query: query[:11], "only 11 bytes"),
    ("wrong id", lambda query: bytes((query[0] ^ 1,)) + good(query)[1:], "another query's id"),
    ("echo", lambda query: query, "not marked as a response"),
    ("no question", lambda query: query[:2] + b"\x84\0\0\0" + query[6:12], "another question"),
    ("cut question", lambda query: good(query)[:-1], "another question"),
    ("another name", lambda query: good(query).replace(b"\x02id", b"\x02ie"), "another question"),
    ("another class", lambda query: good(query)[:-1] + b"\x01", "another question"),
    ("garbage", lambda query: query[:2] + b"\xff" * 60, "another question"),
    ("SERVFAIL", answering(2), "response code 2"),
    ("FORMERR", answering(1), "response code 1"),
]


@pytest.mark.parametrize(("reply", "reason"), [case[1:] for case in BAD_ANSWERS], ids=[case[0] for case in BAD_ANSWERS])
def test_a_wrong_answer_is_unhealthy_for_a_reason(reply: Reply, reason: str) -> None:
    with dns_server(reply) as port, pytest.raises(Unhealthy, match=reason):
        ask("127.0.0.1", port)


def test_tcp_is_asked_the_same_and_its_answer_may_come_in_pieces() -> None:
    with stream_server(lambda query: framed(good(query))) as port:
        ask("127.0.0.1", port, transport="tcp")


@pytest.mark.parametrize(("reply", "reason"), [case[1:] for case in BAD_ANSWERS], ids=[case[0] for case in BAD_ANSWERS])
def test_a_wrong_answer_over_tcp_is_unhealthy_for_the_same_reason(reply: Reply, reason: str) -> None:
    with stream_server(lambda query: framed(reply(query) or b"")) as port, pytest.raises(Unhealthy, match=reason):
        ask("127.0.0.1", port, transport="tcp")


@pytest.mark.parametrize("size", [0, 1, 2, 12])
def test_a_connection_that_ends_early_is_unhealthy(size: int) -> None:
    with (
        stream_server(lambda query: framed(good(query))[:size]) as port,
        pytest.raises(Unhealthy, match="closed before the answer"),
    ):
        ask("127.0.0.1", port, transport="tcp")


def test_silence_over_tcp_is_unhealthy_after_the_timeout() -> None:
    with stream_server(lambda _: None) as port, pytest.raises(Unhealthy, match=r"over TCP within 0\.05 s"):
        ask("127.0.0.1", port, timeout_seconds=0.05, transport="tcp")


def test_trouble_is_the_reason_in_words_and_empty_when_there_is_none() -> None:
    with stream_server(lambda query: framed(good(query))) as port:
        assert not healthcheck.trouble("0.0.0.0", port, 5, transport="tcp")
    refused = healthcheck.trouble("127.0.0.1", port := unused_port(), 5, transport="tcp")
    assert refused == f"127.0.0.1 port {port} over TCP: Connection refused"


def test_silence_is_unhealthy_after_the_timeout() -> None:
    with dns_server(lambda _: None) as port, pytest.raises(Unhealthy, match=r"no answer .* within 0\.05 s"):
        ask("127.0.0.1", port, timeout_seconds=0.05)


def test_a_closed_port_is_unhealthy_at_once() -> None:
    with pytest.raises(Unhealthy, match="Connection refused"):
        ask("127.0.0.1", unused_port(), timeout_seconds=60)


@pytest.mark.parametrize("host", ["255.255.255.255", "a..b"])
def test_a_host_that_cannot_be_asked_is_unhealthy(host: str) -> None:
    with pytest.raises(Unhealthy, match="port 53: "):
        ask(host, 53, timeout_seconds=0.05)


def test_an_argument_goes_before_the_environment_and_that_before_the_servers_default() -> None:
    environ = {"HEIMDALL_BIND_ADDR": "192.0.2.1:53"}
    assert where(["192.0.2.2:53"], environ) == ("192.0.2.2", 53)
    assert where([], environ) == ("192.0.2.1", 53)
    assert where([], {"HEIMDALL_BIND_ADDR": ""}) == ("127.0.0.1", 1053)
    assert where([], {}) == ("127.0.0.1", 1053)


def test_a_healthy_server_is_status_0_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with dns_server(good) as port:
        assert main([], {"HEIMDALL_BIND_ADDR": f"0.0.0.0:{port},[::]:{port}"}) == 0
    assert capsys.readouterr() == ("", "")


def test_the_reason_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    port = unused_port()
    assert main([f"127.0.0.1:{port}"], {}) == 1
    assert capsys.readouterr() == ("", f"unhealthy: 127.0.0.1 port {port}: Connection refused\n")


def test_more_than_one_argument_is_answered_with_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["127.0.0.1:53", "[::1]:53"], {}) == 1
    assert capsys.readouterr().err.startswith("unhealthy: usage: ")


def test_as_a_command_it_imports_the_standard_library_only() -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['healthcheck', 'nonsense']\n"
        "try:\n    runpy.run_module('heimdall_lib.healthcheck', run_name='__main__')\n"
        "except SystemExit as ending:\n    status = ending.code\n"
        "foreign = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}\n"
        "print(status, sorted(foreign), sorted(name for name in sys.modules if name.startswith('heimdall_lib.')))\n"
    )
    # Coverage would add modules of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    run = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "1 ['heimdall_lib'] []\n"
    assert run.stderr.startswith("unhealthy: not an address")
