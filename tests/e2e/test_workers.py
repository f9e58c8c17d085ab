"""`--workers`: several processes behind one port that are started, watched, told, read and ended as one server."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import dns.exception
import dns.message
import pytest

from heimdall_lib.channel import Channel
from heimdall_lib.config import load
from heimdall_lib.workers import WORKER, packed
from tests.support.client import TcpClient, addresses, query, rcode, ttl, udp_socket
from tests.support.processes import (
    PATIENCE,
    REPOSITORY,
    Heimdall,
    Launcher,
    Process,
    RedisServer,
    environment,
    eventually,
    run_heimdall,
)
from tests.support.upstream import HOST, Upstream

NAME = "www.example.com"
SLOW = "slow.example.com"
ASKED = 40
"""From so many ports that one worker gets none of the queries once in 2^39 times."""

QUICK_END = ("--query-timeout", "0.5", "--upstream-timeout", "0.5", "--serve-stale", "0")


def workers(server: Heimdall) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(server.get("/stats").text)["workers"]
    return found


def pids(server: Heimdall) -> list[int]:
    return [worker["pid"] for worker in workers(server)]


def runs(pid: int) -> bool:
    """Say whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until_gone(gone: list[int], *, timeout: float = PATIENCE) -> None:
    eventually(lambda: not any(runs(pid) for pid in gone), timeout=timeout)


def wait_until_replaced(server: Heimdall, pid: int, *, timeout: float = PATIENCE) -> None:
    eventually(
        lambda: pid not in pids(server) and all(worker["up"] for worker in workers(server)), timeout=timeout, pause=0.1
    )


@pytest.fixture
def pair(heimdall: Launcher, upstream: Upstream) -> Heimdall:
    """Two workers, which have answered nothing yet."""
    upstream.add(NAME, "A", "192.0.2.1")
    return heimdall("--workers", "2")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_clients_are_spread_over_the_workers(pair: Heimdall, transport: str) -> None:
    for _ in range(ASKED):
        assert addresses(pair.ask(NAME, transport=transport)) == ["192.0.2.1"]
    states = workers(pair)
    assert [(state["number"], state["up"], state["restarts"]) for state in states] == [(1, True, 0), (2, True, 0)]
    assert all(state["queries"] and state["uptime_seconds"] > 0 for state in states)
    assert sum(state["queries"] for state in states) == ASKED


def test_metrics_and_stats_are_the_sum(pair: Heimdall, upstream: Upstream) -> None:
    for _ in range(ASKED):
        pair.ask(NAME)
    for number in range(7):
        pair.ask(f"n{number}.example.com", transport="tcp")
    asked_upstream = upstream.count(NAME) + 7
    assert pair.metric("queries_total", transport="udp") == ASKED
    assert pair.metric("queries_total", transport="tcp") == 7
    assert pair.metric("responses_total", rcode="NXDOMAIN") == 7
    assert pair.metric("query_duration_seconds_count") == ASKED + 7
    assert pair.metric("cache_misses_total") == pair.metric("cache_size") == asked_upstream
    assert pair.metric("cache_hits_total") == ASKED + 7 - asked_upstream
    assert pair.metric("upstream_queries_total", server=f"udp://{upstream.address}") == asked_upstream
    assert pair.metric("upstream_up") == pair.metric("build_info") == 1
    assert (pair.metric("workers"), pair.metric("worker_restarts_total")) == (2, 0)
    stats = json.loads(pair.get("/stats").text)
    assert stats["queries"]["by_transport"] == {"udp": ASKED, "tcp": 7}
    assert stats["l1"]["entries"] == asked_upstream
    assert [each["queries"] for each in stats["upstreams"]] == [asked_upstream]
    assert (stats["ready"], stats["settings"]["workers"]) == (True, "2")
    missed = {each["name"]: each["times"] for each in stats["names"]["missed"]}
    assert missed == {NAME: upstream.count(NAME), **{f"n{number}.example.com": 1 for number in range(7)}}
    assert [each["name"] for each in stats["names"]["asked"]] == [NAME]


def test_the_redis_cache_is_shared_by_the_workers_and_up_when_it_is_for_all(
    heimdall: Launcher, upstream: Upstream, redis: RedisServer
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    patient = ("--redis-timeout", "5", "--redis-read-budget", "4")
    server = heimdall("--workers", "2", "--redis-url", redis.url, *patient)
    for number in (1, 2):
        server.wait_for_line(rf"\[worker {number}\].* entries from Redis after")
    server.wait_for_metric("redis_up", 1)
    server.ask(NAME)
    redis.wait_for_key(NAME)
    for _ in range(ASKED):
        assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    assert upstream.count(NAME) == 1
    assert server.metric("redis_hits_total") == 1
    redis.kill()
    for number in range(ASKED):
        server.ask(f"n{number}.example.com")
    server.wait_for_metric("redis_up", 0)


class Load:
    """A client that asks all the time, again when there is no answer, and a scraper that reads all the time."""

    def __init__(self, server: Heimdall) -> None:
        self._server = server
        self._over = threading.Event()
        self.asked, self.unanswered = 0, 0
        self.scraped: list[dict[str, float]] = []
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._scrape)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _ask(self) -> None:
        while not self._over.is_set():
            self.asked += 1
            for _ in range(5):
                with contextlib.suppress(dns.exception.Timeout, OSError):
                    assert addresses(self._server.ask(NAME, timeout=0.5)) == ["192.0.2.1"]
                    break
            else:
                self.unanswered += 1
            time.sleep(0.005)

    def _scrape(self) -> None:
        while not self._over.is_set():
            text = self._server.get("/metrics").text
            found = re.findall(r"^(\w+(?:_total|_count|_bucket|_sum)(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
            self.scraped.append({name: float(value) for name, value in found if not name.startswith("python_")})
            time.sleep(0.02)


def test_a_killed_worker_is_replaced_while_the_other_answers_and_no_counter_goes_back(pair: Heimdall) -> None:
    with Load(pair) as load:
        for restarts in (1, 2):
            eventually(lambda: all(worker["queries"] > 20 for worker in workers(pair)))
            victim = workers(pair)[0]["pid"]
            os.kill(victim, signal.SIGKILL)
            wait_until_replaced(pair, victim)
            assert [worker["restarts"] for worker in workers(pair)] == [restarts, 0]
            pair.wait_for_line(f"ERROR .*worker 1 ended .*signal 9, Killed.*replaced in {[0, 0.5][restarts - 1]:g} s")
        eventually(lambda: workers(pair)[0]["queries"] > 20)
    assert load.unanswered == 0
    assert pair.metric("worker_restarts_total") == 2
    for before, after in zip(load.scraped, load.scraped[1:], strict=False):
        gone_back = {name: (value, after.get(name)) for name, value in before.items() if after.get(name, -1) < value}
        assert not gone_back
    counted = pair.metric("queries_total")
    # What the two counted after they were read last is lost: at most a second of load each.
    assert load.asked - 400 <= counted <= load.asked + 50


def test_a_worker_that_hangs_delays_nobody_who_looks_and_is_replaced(pair: Heimdall) -> None:
    for _ in range(ASKED):
        pair.ask(NAME)
    eventually(lambda: sum(worker["queries"] for worker in workers(pair)) == ASKED)
    hanging = workers(pair)[1]["pid"]
    os.kill(hanging, signal.SIGSTOP)
    for path in ("/metrics", "/stats", "/readyz", "/healthz"):
        started = time.monotonic()
        assert pair.get(path).status == 200, path
        assert time.monotonic() - started < 5, path
    assert [worker["up"] for worker in workers(pair)] == [True, False]
    assert pair.metric("workers") == 1
    assert pair.metric("queries_total") >= ASKED
    pair.wait_for_line("WARNING .*worker 2 .*does not answer")
    pair.send(signal.SIGHUP)
    pair.wait_for_line("WARNING .*worker 2 has not confirmed the settings: no answer within 1 s")
    pair.wait_for_line("settings reloaded")
    wait_until_replaced(pair, hanging, timeout=60)
    pair.wait_for_line("ERROR .*worker 2 .*hangs and is killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_workers_and_leaves_none(
    pair: Heimdall, upstream: Upstream, number: signal.Signals
) -> None:
    upstream.add(SLOW, "A", "192.0.2.1")
    gate = upstream.hold(SLOW)
    started = pids(pair)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(udp_socket(pair.address)) for _ in range(ASKED)]
        stream = stack.enter_context(TcpClient(pair.address))
        for client in clients:
            client.send(query(SLOW).to_wire())
        stream.send(query(SLOW))
        pair.wait_for_metric("inflight_queries", ASKED + 1)
        pair.send(number)
        pair.wait_for_line("draining")
        gate.set()
        answers = [dns.message.from_wire(client.recv(65535)) for client in clients]
        assert [addresses(answer) for answer in (*answers, stream.receive())] == [["192.0.2.1"]] * (ASKED + 1)
    assert pair.wait() == 0
    assert not any(runs(pid) for pid in started)
    assert pair.lines[-1].endswith("stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_is_one_signal(heimdall: Launcher, number: signal.Signals) -> None:
    """A terminal interrupts the whole foreground group, and systemd ends every process of a service."""
    server = heimdall("--workers", "2", "--drain-seconds", "600")
    everyone = [server.pid, *pids(server)]
    for pid in everyone:
        os.kill(pid, number)
    eventually(lambda: server.get("/readyz").status == 503)
    assert "draining" in server.get("/readyz").text
    for turn in range(ASKED):
        assert rcode(server.ask(f"n{turn}.example.com")) == "NXDOMAIN"
    assert (server.get("/healthz").status, pids(server)) == (200, everyone[1:])
    assert server.stop(number) == 0  # the second one hurries
    assert not any(runs(pid) for pid in everyone)


def test_a_worker_that_hangs_does_not_hold_up_the_end(heimdall: Launcher) -> None:
    server = heimdall("--workers", "2", *QUICK_END)
    started = pids(server)
    os.kill(started[0], signal.SIGSTOP)
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    assert "worker 1" in server.wait_for_line("hangs and is killed")
    assert not any(runs(pid) for pid in started)


def test_no_worker_outlives_its_supervisor(pair: Heimdall, upstream: Upstream) -> None:
    upstream.add(SLOW, "A", "192.0.2.1")
    gate = upstream.hold(SLOW)
    orphans = pids(pair)
    with udp_socket(pair.address) as sock:
        sock.send(query(SLOW).to_wire())
        eventually(lambda: upstream.count(SLOW))
        pair.send(signal.SIGKILL)
        gate.set()
        assert addresses(dns.message.from_wire(sock.recv(65535))) == ["192.0.2.1"]  # what is in flight is finished
    wait_until_gone(orphans, timeout=10)


def write(path: Path, **settings: object) -> None:
    path.write_text("".join(f"{key.replace('_', '-')}: {value}\n" for key, value in settings.items()))


def test_sighup_reaches_every_worker_and_those_that_come_later(
    heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "heimdall.yaml"
    write(path, min_ttl=0, max_cache_size=1000)
    server = heimdall("--workers", "2", "--config", str(path))

    def ttls(label: str) -> set[int]:
        for number in range(ASKED):
            upstream.add(f"{label}{number}.example.com", "A", "192.0.2.1", ttl=10)
        return {ttl(server.ask(f"{label}{number}.example.com")) for number in range(ASKED)}

    assert ttls("before") == {10}
    write(path, min_ttl=60, max_cache_size=2000)
    server.send(signal.SIGHUP)
    server.wait_for_line("settings reloaded: --min-ttl")
    server.wait_for_line("only with a restart: --max-cache-size")
    assert len([line for line in server.lines if "reloaded" in line]) == 1
    assert ttls("after") == {60}
    settings = json.loads(server.get("/stats").text)["settings"]
    assert (settings["min-ttl"], settings["max-cache-size"]) == ("60", "1000")

    path.write_text("min-ttl: never\n")
    server.send(signal.SIGHUP)
    server.wait_for_line("not reloaded, the old ones stay")
    victim = pids(server)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until_replaced(server, victim)
    assert ttls("later") == {60}


def test_after_new_upstream_servers_the_old_ones_are_forgotten_even_by_a_worker_that_is_gone(
    heimdall: Launcher, upstream: Upstream, tmp_path: Path
) -> None:
    path = tmp_path / "heimdall.yaml"
    write(path, upstream_servers=upstream.address)
    server = Heimdall("--workers", "2", "--config", str(path))
    try:
        server.ask(NAME)
        victim = next(worker["pid"] for worker in workers(server) if worker["queries"])
        eventually(lambda: server.metric("upstream_queries_total") == 1)
        os.kill(victim, signal.SIGKILL)
        wait_until_replaced(server, victim)
        assert server.metric("upstream_queries_total", server=f"udp://{upstream.address}") == 1
        with Upstream() as other:
            write(path, upstream_servers=other.address)
            server.send(signal.SIGHUP)
            server.wait_for_line("settings reloaded")
            upstreams = json.loads(server.get("/stats").text)["upstreams"]
            assert [each["server"] for each in upstreams] == [f"udp://{other.address}"]
        assert server.stop() == 0
    finally:
        server.kill()


def test_all_workers_share_the_ports_that_the_kernel_chose(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--workers", "2", "--bind-addr", "127.0.0.1:0,127.0.0.2:0")
    assert [host for host, _ in server.addresses] == ["127.0.0.1", "127.0.0.2"]
    for address in server.addresses:
        server.addresses = [address]
        for transport in ("udp", "tcp"):
            for _ in range(ASKED // 4):
                assert addresses(server.ask(NAME, transport=transport)) == ["192.0.2.1"]
    assert all(worker["queries"] for worker in workers(server))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_a_busy_port_is_one_line_and_exit_1(kind: socket.SocketKind, *, shared: bool) -> None:
    with socket.socket(socket.AF_INET, kind) as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        busy.bind((HOST, 0))
        if kind == socket.SOCK_STREAM:
            busy.listen()
        refused(busy.getsockname()[1], "--workers", "2")


@pytest.mark.parametrize("count", ["1", "2"])
def test_another_heimdall_does_not_share_the_port(pair: Heimdall, count: str) -> None:
    refused(pair.address[1], "--workers", count)
    assert pair.get("/healthz").status == 200


def test_a_busy_http_port_is_one_line_and_exit_1(pair: Heimdall) -> None:
    flags = ("--bind-addr", f"{HOST}:0", "--http-bind-addr", f"{HOST}:{pair.http[1]}")
    finished = run_heimdall("--workers", "2", *flags, "--upstream-servers", "192.0.2.53")
    assert (finished.returncode, len(finished.stderr.splitlines())) == (1, 1)
    assert f"{HOST}:{pair.http[1]}" in finished.stderr


def refused(port: int, *flags: str) -> None:
    address = f"{HOST}:{port}"
    addresses_ = ("--bind-addr", address, "--http-bind-addr", f"{HOST}:0", "--upstream-servers", "192.0.2.53")
    finished = run_heimdall(*addresses_, *flags)
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    assert address in line
    assert "Address already in use" in line


def test_a_wrong_setting_is_one_line_and_exit_2() -> None:
    finished = run_heimdall("--workers", "2", "--max-ttl", "never")
    assert (finished.returncode, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert "--max-ttl: 'never'" in line


def test_workers_0_is_one_for_each_core(heimdall: Launcher) -> None:
    cores = len(os.sched_getaffinity(0))
    stats = json.loads(heimdall("--workers", "0").get("/stats").text)
    assert len(stats.get("workers", [])) == (cores if cores > 1 else 0)


def test_one_worker_is_the_process_itself(heimdall: Launcher) -> None:
    server = heimdall("--workers", "1")
    assert not children(server.pid)
    assert "workers" not in json.loads(server.get("/stats").text)
    assert "heimdall_worker" not in server.get("/metrics").text


def test_the_containers_health_check_is_answered(pair: Heimdall) -> None:
    command = [sys.executable, "-m", "heimdall_lib.healthcheck", f"{HOST}:{pair.address[1]}"]
    assert subprocess.run(command, cwd=REPOSITORY, timeout=PATIENCE, check=False).returncode == 0


def test_the_process_families_cover_the_workers(pair: Heimdall, heimdall: Launcher) -> None:
    def memory(server: Heimdall) -> float:
        samples = re.findall(r"^process_resident_memory_bytes (\S+)$", server.get("/metrics").text, re.MULTILINE)
        return float(samples[0])

    assert memory(pair) > 2 * memory(heimdall())


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_workers_lines_say_which_it_is(heimdall: Launcher, form: str) -> None:
    server = heimdall("--workers", "2", "--query-log", "--log-format", form)
    for number in range(ASKED):
        server.ask(f"n{number}.example.com")
    assert server.stop() == 0
    logged = [line for line in server.lines if "heimdall.query" in line]
    assert len(logged) == ASKED
    if form == "json":
        assert {json.loads(line)["worker"] for line in logged} == {1, 2}
    else:
        found = [re.search(r" INFO \[worker (\d)\] heimdall\.query: ", line) for line in logged]
        assert {match[1] for match in found if match} == {"1", "2"}
        assert all(found)


class Fault:
    """Makes workers fail before they run a line of Heimdall, while a file is there."""

    def __init__(self, directory: Path, code: str) -> None:
        self._file = directory / "broken"
        at_fault = f"'{WORKER}' in sys.orig_argv and os.path.exists({str(self._file)!r})"
        (directory / "sitecustomize.py").write_text(f"import os, sys, time\nif {at_fault}:\n    {code}\n")
        self.env = {"PYTHONPATH": str(directory)}

    def begin(self) -> None:
        self._file.touch()

    def end(self) -> None:
        self._file.unlink()


@pytest.fixture
def started(upstream: Upstream) -> Iterator[Callable[[Fault], Process]]:
    """Starts two workers with a fault, and does not wait until they are ready."""
    begun: list[Process] = []

    def start(fault: Fault) -> Process:
        fault.begin()
        flags = ("--bind-addr", f"{HOST}:0", "--http-bind-addr", f"{HOST}:0", "--workers", "2", *QUICK_END)
        command = [sys.executable, "heimdall.py", *flags, "--upstream-servers", upstream.address]
        begun.append(Process(command, env=fault.env))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()


def test_workers_that_cannot_start_end_everything(started: Callable[[Fault], Process], tmp_path: Path) -> None:
    process = started(Fault(tmp_path, "os._exit(3)"))
    assert process.wait() == 1
    (line,) = [line for line in process.lines if " INFO " not in line]
    assert re.fullmatch("heimdall: worker [12] did not start: exit status 3", line)


def test_workers_that_cannot_listen_end_everything(started: Callable[[Fault], Process], tmp_path: Path) -> None:
    process = started(Fault(tmp_path, "import socket; socket.SO_REUSEPORT = socket.SO_KEEPALIVE"))
    assert process.wait() == 1
    (line,) = [line for line in process.lines if " INFO " not in line]
    why = rf"cannot listen on {HOST}:\d+ \((UDP|TCP)\): Address already in use"
    assert re.fullmatch(rf"heimdall: worker [12] did not start: {why}", line)


def test_a_signal_while_workers_start_ends_everything(started: Callable[[Fault], Process], tmp_path: Path) -> None:
    process = started(Fault(tmp_path, "time.sleep(600)"))
    process.wait_for_line("Redis: ")
    eventually(lambda: len(children(process.pid)) == 2)
    found = children(process.pid)
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert not any(runs(pid) for pid in found)


def test_later_a_worker_that_cannot_start_is_tried_again_while_the_other_answers(
    heimdall: Launcher, tmp_path: Path
) -> None:
    fault = Fault(tmp_path, "os._exit(3)")
    server = heimdall("--workers", "2", env=fault.env)
    fault.begin()
    os.kill(pids(server)[0], signal.SIGKILL)
    server.wait_for_line("worker 1 ended .*exit status 3.*replaced in 0.5 s")
    for number in range(ASKED):
        assert rcode(server.ask(f"n{number}.example.com")) == "NXDOMAIN"
    assert [worker["up"] for worker in workers(server)] == [False, True]
    assert {server.get(path).status for path in ("/readyz", "/healthz")} == {200}
    fault.end()
    eventually(lambda: all(worker["up"] for worker in workers(server)))


def test_without_any_worker_it_is_neither_ready_nor_well_until_one_is_back(heimdall: Launcher, tmp_path: Path) -> None:
    fault = Fault(tmp_path, "os._exit(3)")
    server = heimdall("--workers", "2", env=fault.env)
    fault.begin()
    for pid in pids(server):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.get("/readyz").status == 503)
    assert server.get("/readyz").text == "no worker answers\n"
    eventually(lambda: server.get("/healthz").status == 503)
    assert server.metric("workers") == 0
    fault.end()
    eventually(lambda: server.get("/readyz").status == server.get("/healthz").status == 200)


def test_workers_that_take_no_tcp_are_unready_but_are_not_to_be_restarted(upstream: Upstream) -> None:
    server = Heimdall("--workers", "2", "--upstream-servers", upstream.address)
    try:
        eventually(lambda: server.get("/readyz").status == 200)
        limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids(server)}
        for pid, (_, hard) in limits.items():  # every descriptor is in use, so there is none for another connection
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        eventually(lambda: server.get("/readyz").status == 503)
        assert "over TCP" in server.get("/readyz").text
        assert server.get("/healthz").status == 200
        for pid, before in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: server.get("/readyz").status == 200)
        assert server.stop() == 0
    finally:
        server.kill()


def test_workers_that_have_as_many_tcp_connections_as_they_may_have_are_ready(heimdall: Launcher) -> None:
    server = heimdall("--workers", "2", "--max-tcp-connections", "1")
    with contextlib.ExitStack() as stack:
        for _ in range(ASKED):
            stack.enter_context(TcpClient(server.address))
        eventually(lambda: server.metric("tcp_connections") == 2)
        assert server.get("/readyz").status == 200


def test_a_worker_says_why_it_cannot_listen(upstream: Upstream) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as busy:
        busy.bind((HOST, 0))
        busy.listen()
        address = f"{HOST}:{busy.getsockname()[1]}"
        settings = load(["--bind-addr", address, "--upstream-servers", upstream.address], {})
        ours, theirs = socket.socketpair()
        command = [sys.executable, "heimdall.py", WORKER, "1", str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), pass_fds=[theirs.fileno()])
        theirs.close()
        said: list[object] = []
        channel = Channel(ours, lambda word, text: said.append((word, text)))
        threading.Thread(target=channel.run, daemon=True).start()
        channel.ask("settings", packed(settings), timeout=PATIENCE)
        assert process.wait(PATIENCE) == 1
        channel.close()
    assert said == [("refused", f"cannot listen on {address} (TCP): Address already in use")]


@pytest.mark.parametrize("words", [[], ["1"], ["one", "2"], ["1", "999"], ["1", "2", "3"]])
def test_nobody_else_can_start_a_worker(words: list[str]) -> None:
    finished = run_heimdall(WORKER, *words)
    assert (finished.returncode, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert "--workers" in line
