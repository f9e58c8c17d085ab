"""From the command line to the exit status: starting, changing settings, logging, draining, and refusing to start."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest

from heimdall_lib import __version__
from tests.support.client import TcpClient, addresses, extended_errors, metrics, query, rcode, ttl, udp_socket
from tests.support.processes import Heimdall, Launcher, RedisServer, eventually, run_heimdall
from tests.support.upstream import HOST, Upstream

NAME = "www.example.com"
SLOW = "slow.example.com"

# What Kubernetes puts into a pod beside Services called heimdall, heimdall-redis and kubernetes.
SERVICE_LINKS = {
    "HEIMDALL_SERVICE_HOST": "10.96.0.20",
    "HEIMDALL_SERVICE_PORT": "53",
    "HEIMDALL_SERVICE_PORT_DNS": "53",
    "HEIMDALL_SERVICE_PORT_DNS_TCP": "53",
    "HEIMDALL_PORT": "udp://10.96.0.20:53",
    "HEIMDALL_PORT_53_UDP": "udp://10.96.0.20:53",
    "HEIMDALL_PORT_53_UDP_PROTO": "udp",
    "HEIMDALL_PORT_53_UDP_PORT": "53",
    "HEIMDALL_PORT_53_UDP_ADDR": "10.96.0.20",
    "HEIMDALL_REDIS_PORT": "tcp://10.96.0.21:6379",
    "HEIMDALL_REDIS_PORT_6379_TCP": "tcp://10.96.0.21:6379",
    "HEIMDALL_REDIS_PORT_6379_TCP_PROTO": "tcp",
    "HEIMDALL_REDIS_PORT_6379_TCP_PORT": "6379",
    "HEIMDALL_REDIS_PORT_6379_TCP_ADDR": "10.96.0.21",
    "HEIMDALL_REDIS_SERVICE_PORT_REDIS": "6379",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
}


def wait_until_unready(server: Heimdall) -> None:
    eventually(lambda: server.get("/readyz").status == 503)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_makes_it_unready_while_queries_are_still_answered(
    heimdall: Launcher, upstream: Upstream, number: signal.Signals
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--drain-seconds", "600")
    assert server.get("/readyz").status == 200
    server.send(number)
    wait_until_unready(server)
    assert "draining" in server.get("/readyz").text
    assert server.get("/healthz").status == 200
    for turn in range(50):
        assert addresses(server.ask(NAME)) == ["192.0.2.1"]
        assert rcode(server.ask(f"n{turn}.example.com", transport="tcp")) == "NXDOMAIN"
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_drain_ends_by_itself(heimdall: Launcher, number: signal.Signals) -> None:
    server = heimdall("--drain-seconds", "0.5")
    started = time.monotonic()
    assert server.stop(number) == 0
    assert time.monotonic() - started >= 0.5
    assert server.lines[-1].endswith("stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cuts_the_drain_short(heimdall: Launcher, number: signal.Signals) -> None:
    server = heimdall("--drain-seconds", "600")
    server.send(signal.SIGTERM)
    wait_until_unready(server)
    server.send(number)
    assert server.wait() == 0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_query_in_flight_at_the_end_is_still_answered(heimdall: Launcher, upstream: Upstream, transport: str) -> None:
    upstream.add(SLOW, "A", "192.0.2.1")
    gate = upstream.hold(SLOW)
    server = heimdall("--upstream-timeout", "4")
    message = query(SLOW)
    with udp_socket(server.address) as datagrams, TcpClient(server.address) as stream:
        if transport == "udp":
            datagrams.send(message.to_wire())
        else:
            stream.send(message)
        eventually(lambda: upstream.count(SLOW))
        server.send(signal.SIGTERM)
        server.wait_for_line("draining")
        gate.set()
        answer = dns.message.from_wire(datagrams.recv(65535)) if transport == "udp" else stream.receive()
    assert (answer.id, addresses(answer)) == (message.id, ["192.0.2.1"])
    assert server.wait() == 0


def test_what_was_to_be_shared_is_written_before_the_end(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    server = heimdall("--redis-url", redis.url, "--redis-timeout", "5", "--redis-read-budget", "4")
    server.wait_for_redis()
    with TcpClient(server.address) as connection:
        messages = [query(f"n{number}.example.com") for number in range(200)]
        connection.send(*messages)
        for _ in messages:
            connection.receive()
    assert server.stop() == 0
    assert len(redis.stored()) == 200


def test_an_unanswerable_query_does_not_hold_up_the_end(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.hold(SLOW)
    limits = ("--query-timeout", "1", "--upstream-timeout", "1", "--serve-stale", "0")
    server = heimdall(*limits)
    with udp_socket(server.address) as sock:
        sock.send(query(SLOW).to_wire())
        eventually(lambda: upstream.count(SLOW))
        server.send(signal.SIGTERM)
        assert rcode(dns.message.from_wire(sock.recv(65535))) == "SERVFAIL"
        assert server.wait(timeout=10) == 0


def write(path: Path, **settings: object) -> None:
    path.write_text("".join(f"{key.replace('_', '-')}: {value}\n" for key, value in settings.items()))


def reload(server: Heimdall, pattern: str) -> str:
    """Send SIGHUP and return the line in which Heimdall says what came of it."""
    start = len(server.lines)
    server.send(signal.SIGHUP)
    return server.wait_for_line(pattern, start=start)


@pytest.fixture
def from_file(tmp_path: Path, upstream: Upstream) -> Iterator[Heimdall]:
    """A Heimdall whose upstream is set in ``heimdall.yaml``, where it can be changed."""
    write(tmp_path / "heimdall.yaml", upstream_servers=upstream.address)
    server = Heimdall("--config", str(tmp_path / "heimdall.yaml"))
    try:
        yield server
        assert server.stop() == 0
        assert not server.tracebacks
    finally:
        server.kill()


def settings_of(server: Heimdall) -> dict[str, str]:
    settings: dict[str, str] = json.loads(server.get("/stats").text)["settings"]
    return settings


def test_sighup_applies_what_changed_in_the_file(from_file: Heimdall, upstream: Upstream, tmp_path: Path) -> None:
    upstream.add("one.example.com", "A", "192.0.2.1", ttl=10)
    assert ttl(from_file.ask("one.example.com")) == 10
    with Upstream() as other:
        other.add("two.example.com", "A", "192.0.2.2", ttl=10)
        other.add("zone.corp.example", "A", "192.0.2.3")
        changed = {
            "upstream-servers": other.address,
            "min-ttl": "60",
            "query-log": "true",
            "allow-from": "127.0.0.0/8",
            "forward-zones": f"corp.example={other.address}",
        }
        write(tmp_path / "heimdall.yaml", **changed)
        line = reload(from_file, "settings reloaded")
        assert all(f"--{flag}" in line for flag in changed)

        answer = from_file.ask("two.example.com")
        assert (addresses(answer), ttl(answer)) == (["192.0.2.2"], 60)
        assert addresses(from_file.ask("zone.corp.example")) == ["192.0.2.3"]
        from_file.wait_for_line("name=two.example.com")
        assert addresses(from_file.ask("one.example.com")) == ["192.0.2.1"]  # what is cached stays
        assert upstream.count("one.example.com") == 1
        assert (settings_of(from_file)["min-ttl"], settings_of(from_file)["query-log"]) == ("60", "true")
        samples = metrics(from_file.http)["heimdall_upstream_queries"].samples
        assert {sample.labels["server"] for sample in samples} == {f"udp://{other.address}"}


def test_sighup_changes_the_log_level(from_file: Heimdall, upstream: Upstream, tmp_path: Path) -> None:
    write(tmp_path / "heimdall.yaml", upstream_servers=upstream.address, query_log="true", log_level="warning")
    from_file.send(signal.SIGHUP)
    eventually(lambda: settings_of(from_file)["log-level"] == "warning")
    from_file.ask("quiet.example.com")
    write(tmp_path / "heimdall.yaml", upstream_servers=upstream.address, query_log="true", log_level="info")
    reload(from_file, "settings reloaded: --log-level")
    from_file.ask("loud.example.com")
    from_file.wait_for_line("loud")
    assert "quiet" not in from_file.log


def test_sighup_changes_nothing_that_a_flag_or_a_variable_has_set(heimdall: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    write(path, min_ttl=1, max_ttl=1000)
    server = heimdall("--config", str(path), "--min-ttl", "5", env={"HEIMDALL_MAX_TTL": "500"})
    write(path, min_ttl=2, max_ttl=2000)
    assert "nothing new" in reload(server, "settings reloaded")
    assert (settings_of(server)["min-ttl"], settings_of(server)["max-ttl"]) == ("5", "500")


def test_sighup_says_what_needs_a_restart_and_takes_the_rest(heimdall: Launcher, tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    write(path, max_cache_size=1000, min_ttl=0)
    server = heimdall("--config", str(path))
    write(path, max_cache_size=2000, min_ttl=5, tcp_idle_timeout=3)
    assert "--min-ttl" in reload(server, "settings reloaded")
    line = server.wait_for_line("only with a restart")
    assert line.endswith("--max-cache-size, --tcp-idle-timeout")
    assert (settings_of(server)["max-cache-size"], settings_of(server)["min-ttl"]) == ("1000", "5")


@pytest.mark.parametrize("content", ["max-ttl: never\n", "no-such-key: 1\n", "{", "min-ttl: 100000\n"])
def test_sighup_keeps_the_old_settings_when_the_new_are_invalid(
    heimdall: Launcher, upstream: Upstream, tmp_path: Path, content: str
) -> None:
    upstream.add(NAME, "A", "192.0.2.1", ttl=10)
    path = tmp_path / "heimdall.yaml"
    write(path, min_ttl=60)
    server = heimdall("--config", str(path))
    path.write_text(content)
    assert "the old ones stay" in reload(server, "not reloaded")
    assert ttl(server.ask(NAME)) == 60
    path.unlink()
    assert "the old ones stay" in reload(server, "not reloaded")
    assert server.get("/readyz").status == 200


def test_sighup_during_queries_loses_none(heimdall: Launcher, upstream: Upstream, tmp_path: Path) -> None:
    upstream.add(SLOW, "A", "192.0.2.1")
    gate = upstream.hold(SLOW)
    path = tmp_path / "heimdall.yaml"
    write(path, min_ttl=0, upstream_timeout=4)
    server = heimdall("--config", str(path))
    with udp_socket(server.address) as sock:
        sock.send(query(SLOW).to_wire())
        eventually(lambda: upstream.count(SLOW))
        for number in range(1, 6):
            write(path, min_ttl=number, upstream_timeout=4)
            reload(server, "settings reloaded")
        gate.set()
        assert addresses(dns.message.from_wire(sock.recv(65535))) == ["192.0.2.1"]


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
@pytest.mark.parametrize("flag", ["--bind-addr", "--http-bind-addr"])
def test_a_busy_port_is_one_line_and_exit_1(kind: socket.SocketKind, flag: str) -> None:
    if flag == "--http-bind-addr":
        kind = socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as busy:
        busy.bind((HOST, 0))
        if kind == socket.SOCK_STREAM:
            busy.listen()
        address = f"{HOST}:{busy.getsockname()[1]}"
        free = "--http-bind-addr" if flag == "--bind-addr" else "--bind-addr"
        finished = run_heimdall(flag, address, free, f"{HOST}:0", "--upstream-servers", "192.0.2.53")
    assert finished.returncode == 1
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert address in line
    assert "Address already in use" in line


@pytest.mark.parametrize(
    ("flags", "env", "named"),
    [
        (["--no-such-flag", "1"], {}, "--no-such-flag"),
        (["--max-cache-sise", "1"], {}, "max-cache-size"),
        (["--max-cache-size", "many"], {}, "--max-cache-size: 'many'"),
        (["--max-cache-size"], {}, "--max-cache-size"),
        (["--bind-addr", "localhost"], {}, "--bind-addr"),
        (["--min-ttl", "10", "--max-ttl", "5"], {}, "--min-ttl"),
        (["--redis-enabled", "true"], {}, "--redis-enabled"),
        (["--config", "/no/such/file"], {}, "/no/such/file"),
        (["stray"], {}, "stray"),
        ([], {"HEIMDALL_MAX_TTL": "x"}, "HEIMDALL_MAX_TTL"),
        (["--max-ttl", "x", "--check-config"], {}, "--max-ttl"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_2(flags: list[str], env: dict[str, str], named: str) -> None:
    finished = run_heimdall(*flags, env=env)
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert named in line


def test_check_config_prints_the_effective_settings(tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    write(path, max_ttl=1000, min_ttl=7, admin_token="a-secret-of-the-file")
    flags = ("--config", str(path), "--max-ttl", "3000", "--upstream-servers", "192.0.2.53", "--check-config")
    finished = run_heimdall(*flags, env={"HEIMDALL_MAX_TTL": "2000", "HEIMDALL_FAILURE_TTL": "3"})
    assert (finished.returncode, finished.stderr) == (0, "")
    shown = dict(line.split(" = ", 1) for line in finished.stdout.splitlines())
    assert (shown["max-ttl"], shown["min-ttl"], shown["failure-ttl"]) == ("3000", "7", "3")
    assert shown["upstream-servers"] == "udp://192.0.2.53:53"
    assert shown["admin-token"] == "***"
    assert "a-secret" not in finished.stdout


def test_version_and_help_go_to_standard_output() -> None:
    version, usage = run_heimdall("--version"), run_heimdall("--help")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"heimdall {__version__}\n", "")
    assert (usage.returncode, usage.stderr) == (0, "")
    assert "--redis-read-budget" in usage.stdout


def test_a_pod_full_of_service_links_starts_cleanly(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall(env=SERVICE_LINKS)
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    assert "redis://heimdall-redis:6379" in server.wait_for_line("Redis: ")
    assert server.metric("redis_up") == 0
    assert server.stop() == 0
    assert not [line for line in server.lines if "WARNING" in line or "ERROR" in line]


def test_the_service_variables_of_redis_are_found(heimdall: Launcher, redis: RedisServer) -> None:
    redis_service = {"HEIMDALL_REDIS_SERVICE_HOST": HOST, "HEIMDALL_REDIS_SERVICE_PORT": str(redis.port)}
    server = heimdall(env=SERVICE_LINKS | redis_service)
    assert "HEIMDALL_REDIS_SERVICE_HOST" in server.wait_for_line("Redis: ")
    server.wait_for_redis()
    off = heimdall("--redis-enabled", "false", env=SERVICE_LINKS | redis_service)
    assert "off" in off.wait_for_line("Redis: ")


def test_a_variable_that_sets_nothing_is_pointed_out(heimdall: Launcher) -> None:
    heimdall(env={"HEIMDALL_MAX_CACHE_SISE": "5"}).wait_for_line("WARNING .*HEIMDALL_MAX_CACHE_SISE")


def test_the_query_log_has_a_line_for_every_query(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--query-log")
    server.ask(NAME)
    server.ask("WWW.example.com", transport="tcp")
    server.ask(r"a\010b=.com", "AAAA")
    server.ask("version.bind", "TXT", rdclass="CH")
    server.wait_for_line("version.bind")
    logged = [line.partition("query client=")[2] for line in server.lines if "heimdall.query" in line]
    assert [re.sub(r"microseconds=\d+$", "microseconds=", line) for line in logged] == [
        f"{HOST} transport=udp name=www.example.com type=A class=IN rcode=NOERROR source=upstream microseconds=",
        f"{HOST} transport=tcp name=www.example.com type=A class=IN rcode=NOERROR source=l1 microseconds=",
        rf"{HOST} transport=udp name=a\010b\061.com type=AAAA class=IN rcode=NXDOMAIN source=upstream microseconds=",
        f"{HOST} transport=udp name=version.bind type=TXT class=CH rcode=NOERROR source=local microseconds=",
    ]


def test_as_json_every_line_is_an_object(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--query-log", "--log-format", "json")
    server.ask(NAME)
    server.wait_for_line("www.example.com")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.lines]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    (logged,) = [line["query"] for line in lines if "query" in line]
    assert logged.pop("microseconds") > 0
    assert logged == {
        "client": HOST,
        "transport": "udp",
        "name": NAME,
        "type": "A",
        "class": "IN",
        "rcode": "NOERROR",
        "source": "upstream",
    }


@pytest.mark.parametrize("level", ["info", "debug"])
def test_without_the_query_log_no_name_and_no_client_is_logged(
    heimdall: Launcher, upstream: Upstream, level: str
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--log-level", level)
    for _ in range(3):
        server.ask(NAME)
        server.ask("nxdomain.example.com", transport="tcp")
    assert server.stop() == 0
    assert "example" not in server.log


def test_beyond_max_inflight_the_newest_miss_is_shed_and_hits_go_on(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    for number in range(2):
        upstream.add(f"slow{number}.example.com", "A", "192.0.2.2")
        upstream.hold(f"slow{number}.example.com")
    server = heimdall("--max-inflight", "2", "--upstream-timeout", "4")
    server.ask(NAME)
    with udp_socket(server.address) as sock:
        for number in range(2):
            sock.send(query(f"slow{number}.example.com").to_wire())
        server.wait_for_metric("inflight_queries", 2)
        for transport in ("udp", "tcp"):
            shed = server.ask("newest.example.com", transport=transport)
            assert (rcode(shed), extended_errors(shed)) == ("SERVFAIL", [0])
            assert addresses(server.ask(NAME, transport=transport)) == ["192.0.2.1"]
        assert server.metric("dropped_queries_total", reason="overload") == 2
        assert server.get("/readyz").status == 200
        upstream.release()
        assert {tuple(addresses(dns.message.from_wire(sock.recv(65535)))) for _ in range(2)} == {("192.0.2.2",)}
    assert rcode(server.ask("newest.example.com")) == "NXDOMAIN"


def test_the_cache_stays_within_its_bounds(heimdall: Launcher) -> None:
    server = heimdall("--max-cache-size", "50", "--max-cache-bytes", "1000000")
    for number in range(120):
        server.ask(f"n{number}.example.com")
    assert server.metric("cache_size") == 50
    assert server.metric("cache_evictions_total") == 70


def test_expired_entries_leave_the_cache_by_themselves(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.negative_ttl = 1
    server = heimdall("--serve-stale", "0", "--purge-interval", "0.2")
    for number in range(20):
        server.ask(f"n{number}.example.com")
    assert server.metric("cache_bytes") > 0
    server.wait_for_metric("cache_size", 0)
    assert server.metric("cache_bytes") == 0
    assert server.metric("cache_expired_total") == 20


def test_without_http_it_answers_all_the_same(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--http-bind-addr", "disabled")
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    assert not [line for line in server.lines if "HTTP on" in line]
