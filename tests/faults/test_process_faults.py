"""What befalls the process itself: no descriptors, no memory, no clock, no reader of its log, signals under load."""

import fcntl
import itertools
import os
import re
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import dns.exception
import dns.message
import pytest

from tests.support import messages
from tests.support.client import Address, TcpClient, addresses, ask, extended_errors, query, rcode, ttl, udp_socket
from tests.support.load import Load
from tests.support.processes import Heimdall, Launcher, Process, RedisServer, eventually, free_port, program
from tests.support.upstream import HOST, Asked, Sending, Upstream

NAME = "www.example.com"
SLOW = "slow.example.com"
NAMES = [f"n{number}.example.com" for number in range(20)]
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    """Return the bytes of memory that a process has resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def answered(wire: bytes) -> str:
    return rcode(dns.message.from_wire(wire))


@pytest.fixture
def known(upstream: Upstream) -> Upstream:
    """An upstream that has an address for every name that these tests ask for."""
    for name in (NAME, SLOW, *NAMES):
        upstream.add(name, "A", "192.0.2.1")
    return upstream


# Descriptors


def few_files(limit: int) -> list[str]:
    return ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(limit)]


def test_more_tcp_clients_than_files_take_nothing_from_the_others(heimdall: Launcher, known: Upstream) -> None:
    server = heimdall(prefix=few_files(64))
    server.wait_for_line("WARNING .* 32 TCP connections at most instead of 1024: the limit of open files is 64")
    server.ask(NAME)
    before = len(server.lines)
    with ExitStack() as stack:
        clients = [stack.enter_context(TcpClient(server.address)) for _ in range(100)]
        server.wait_for_metric("tcp_connections", 32)
        used = cpu_seconds(server.pid)
        for number in range(50):
            assert addresses(server.ask(NAME)) == ["192.0.2.1"]
            assert rcode(server.ask(f"new{number}.example.com")) == "NXDOMAIN"
        clients[0].send(query(NAME))
        assert addresses(clients[0].receive()) == ["192.0.2.1"]
        assert clients[-1].closed_by_server()
        assert cpu_seconds(server.pid) - used < 2
        assert server.metric("dropped_queries_total", reason="connection_limit") >= 100 - 32
    server.wait_for_metric("tcp_connections", 0)
    assert addresses(server.ask(NAME, transport="tcp")) == ["192.0.2.1"]
    assert server.lines[before:] == []


@contextmanager
def no_file_left(server: Heimdall) -> Iterator[None]:
    """Let the process open nothing more."""
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    # One less than it has open may be among those that it closes.
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)


def test_without_a_descriptor_left_hits_go_on_and_all_else_comes_back(heimdall: Launcher, known: Upstream) -> None:
    server = heimdall("--failure-ttl", "0")
    server.ask(NAME)
    time_to_stand_still = 1.0
    with no_file_left(server):
        waiting = TcpClient(server.address)
        waiting.send(query(NAME))
        server.wait_for_line("WARNING .*cannot accept connections for the moment: Too many open files")
        used, until = cpu_seconds(server.pid), time.monotonic() + time_to_stand_still
        while time.monotonic() < until:
            assert addresses(server.ask(NAME)) == ["192.0.2.1"]
            time.sleep(0.02)
        assert cpu_seconds(server.pid) - used < time_to_stand_still / 2
        assert rcode(server.ask(NAMES[0])) == "SERVFAIL"
    with waiting:
        assert addresses(waiting.receive()) == ["192.0.2.1"]
    eventually(lambda: addresses(server.ask(NAMES[0])) == ["192.0.2.1"])
    assert len([line for line in server.lines if "cannot accept" in line]) == 1


# Memory


def large(asked: Asked, _answer: dns.message.Message) -> Iterable[Sending]:
    """Answer with eight kilobytes."""
    text = messages.record(messages.TO_QUESTION, messages.TXT, 3600, 32 * (b"\xff" + 255 * b"x"))
    question = messages.question(asked.name, messages.TXT)
    return [Sending(messages.assemble(question, answer=[text], message_id=asked.message.id))]


def test_large_answers_without_end_stay_within_the_bounds_of_l1(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.reaction = large
    bound = 1_000_000
    server = heimdall("--max-cache-bytes", str(bound), "--upstream-servers", f"tcp://{upstream.address}")

    def ask_for(numbers: range) -> None:
        with udp_socket(server.address) as sock:
            for number in numbers:
                sock.send(query(f"large{number}.example.com", "TXT").to_wire())
                assert answered(sock.recv(65535)) == "NOERROR"

    ask_for(range(150))  # more than fits
    full = memory(server.pid)
    assert server.metric("cache_evictions_total") > 0
    ask_for(range(150, 750))
    assert bound / 2 < server.metric("cache_bytes") <= bound
    assert memory(server.pid) - full < 3 * bound  # five megabytes went through


# The clock


def test_steps_of_the_wall_clock_make_no_answer_older_or_younger(
    heimdall: Launcher, known: Upstream, redis: RedisServer, tmp_path: Path
) -> None:
    program("faketime")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    fake = {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    flags = ("--redis-url", redis.url, "--warm-cache-entries", "0", "--prefetch", "false", "--purge-interval", "0.1")
    server, other = heimdall(*flags, env=fake), heimdall(*flags)
    for each in (server, other):
        each.wait_for_redis()
    known.add(SLOW, "A", "192.0.2.0", ttl=1)
    server.ask(NAME)
    server.ask(SLOW)
    for number, (step, name) in enumerate([("+3600", NAMES[0]), ("-3600", NAMES[1])], start=1):
        offset.write_text(step)
        start = len(server.lines)
        server.send(signal.SIGHUP)
        line = server.wait_for_line("settings reloaded", start=start)
        logged_at, now = datetime.fromisoformat(line.split()[0]).timestamp(), time.time()
        assert abs(logged_at - now - int(step)) < 300  # the log goes by the wall clock: it was stepped
        known.add(SLOW, "A", f"192.0.2.{number}", ttl=1)
        while addresses(server.ask(SLOW)) != [f"192.0.2.{number}"]:  # it expires in its time, or the test in its own
            time.sleep(0.05)
        server.ask(name)
        for known_name in (NAME, name):  # stored before the step, and after it
            assert 250 < ttl(server.ask(known_name)) <= 300
            redis.wait_for_key(known_name)
            assert 250 < ttl(other.ask(known_name)) <= 300
    assert known.count(NAME) == known.count(NAMES[0]) == known.count(NAMES[1]) == 1


# Clients that vanish


def test_clients_that_vanish_before_their_answer_leave_nothing_behind(heimdall: Launcher, known: Upstream) -> None:
    known.hold(SLOW)
    server = heimdall("--upstream-timeout", "4")
    server.ask(NAME)
    files = open_files(server.pid)
    for _ in range(30):
        with udp_socket(server.address) as sock:  # whose port is closed when the answer comes
            sock.send(query(SLOW).to_wire())
        with TcpClient(server.address) as client:  # which resets the connection
            client.send(query(SLOW))
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.wait_for_metric("inflight_queries", 60)
    known.release()
    server.wait_for_metric("inflight_queries", 0)
    server.wait_for_metric("tcp_connections", 0)
    for transport in ("udp", "tcp"):
        assert addresses(server.ask(SLOW, transport=transport)) == ["192.0.2.1"]
    eventually(lambda: open_files(server.pid) <= files + 1)


# Overload


def waiting(port: int) -> int:
    """Return how many bytes the datagrams take that a socket has received and nobody has read; 0 if it is not told.

    While others open and close sockets, the kernel's list may miss one.
    """
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return next((int(row[4].partition(":")[2], 16) for row in rows if row[1].endswith(f":{port:04X}")), 0)


def test_in_a_flood_hits_are_answered_and_misses_sent_elsewhere_until_it_is_over(
    heimdall: Launcher, known: Upstream
) -> None:
    server = heimdall("--query-timeout", "12", "--upstream-timeout", "11")
    server.ask(NAME)
    room = 2 * min(1 << 19, int(Path("/proc/sys/net/core/rmem_max").read_text()))
    with udp_socket(server.address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        server.send(signal.SIGSTOP)
        hit, sent = query(NAME).to_wire(), 0
        while sent % 32 or waiting(server.address[1]) < 3 * room // 4:
            wire = hit if sent % 8 else query(f"miss{sent}.example.com").to_wire()
            sock.send(struct.pack("!H", sent) + wire[2:])
            sent += 1
        server.send(signal.SIGCONT)
        found = [dns.message.from_wire(sock.recv(65535)) for _ in range(sent)]
    hits = [message for message in found if message.id % 8]
    misses = {message.id: message for message in found if message.id % 8 == 0}
    assert {rcode(message) for message in hits} == {"NOERROR"}
    shed = [number for number, message in misses.items() if extended_errors(message) == [0]]
    assert {rcode(misses[number]) for number in shed} == {"SERVFAIL"}
    assert max(shed) < max(misses)  # once few enough wait, the misses among them are asked upstream
    assert server.metric("dropped_queries_total", reason="overload") == len(shed)
    assert rcode(server.ask("after.example.com")) == "NXDOMAIN"


# Signals and orders under load


def test_what_was_sent_before_the_end_is_answered_however_much_waits(heimdall: Launcher, known: Upstream) -> None:
    server = heimdall()
    for name in NAMES:
        server.ask(name)
    waiting = 150  # datagrams: as many as any receive buffer holds, and more than are read at once
    server.send(signal.SIGSTOP)
    with ExitStack() as stack:
        udp = stack.enter_context(udp_socket(server.address))
        for number in range(waiting):
            name = NAMES[number % len(NAMES)] if number % 10 else f"miss{number}.example.com"
            udp.send(query(name, id=number).to_wire())
        tcp = [stack.enter_context(TcpClient(server.address)) for _ in range(5)]
        for client in tcp:
            client.send(query(NAME), query(NAMES[0]))
        server.send(signal.SIGTERM)
        server.send(signal.SIGCONT)
        found = [dns.message.from_wire(udp.recv(65535)) for _ in range(waiting)]
        assert {message.id for message in found} == set(range(waiting))
        assert {rcode(message) for message in found} == {"NOERROR", "NXDOMAIN"}
        for client in tcp:
            assert [addresses(client.receive()) for _ in range(2)] == [["192.0.2.1"]] * 2
            assert client.closed_by_server()
    assert server.wait() == 0


def test_while_the_last_query_is_finished_hits_are_answered_and_misses_sent_elsewhere(
    heimdall: Launcher, known: Upstream
) -> None:
    known.hold(SLOW)
    server = heimdall("--query-timeout", "15", "--upstream-timeout", "14")
    server.ask(NAME)
    fresh = (f"new{number}.example.com" for number in itertools.count())
    with udp_socket(server.address) as sock:
        sock.send(query(SLOW).to_wire())
        eventually(lambda: known.count(SLOW))
        server.send(signal.SIGTERM)
        eventually(lambda: rcode(server.ask(next(fresh))) == "SERVFAIL")
        assert addresses(server.ask(NAME)) == ["192.0.2.1"]
        known.release()
        assert answered(sock.recv(65535)) == "NOERROR"
    assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_drain_under_load_loses_no_query(heimdall: Launcher, known: Upstream, workers: str) -> None:
    server = heimdall("--drain-seconds", "2", "--workers", workers)
    with Load(server.address, [*NAMES, NAME]) as load:
        load.go_on()
        server.send(signal.SIGTERM)
        eventually(lambda: server.get("/readyz").status == 503)
        load.go_on()
    assert load.outcomes == {"NOERROR": load.asked}  # who looks at /readyz has gone by now
    assert server.wait() == 0


def test_reloads_and_flushes_under_load_lose_no_query(heimdall: Launcher, known: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "heimdall.yaml"
    path.write_text("min-ttl: 0\n")
    server = heimdall("--config", str(path))
    with Load(server.address, [*NAMES, NAME]) as load:
        for number in range(1, 11):
            path.write_text(f"min-ttl: {number}\n")
            start = len(server.lines)
            server.send(signal.SIGHUP)
            server.wait_for_line("settings reloaded: --min-ttl", start=start)
            assert server.get("/cache/flush?all=true", method="POST").status == 200
            load.go_on(50)
    assert load.outcomes == {"NOERROR": load.asked}
    assert known.count(NAME) > 1


def test_a_worker_killed_under_load_costs_what_it_had_not_answered(heimdall: Launcher, known: Upstream) -> None:
    server = heimdall("--workers", "2")
    clients = 4
    with Load(server.address, [*NAMES, NAME], clients=clients, timeout=3) as load:
        load.go_on()
        (line,) = [line for line in server.lines if "workers: " in line]
        victim = int(line.rpartition(" ")[2])
        os.kill(victim, signal.SIGKILL)
        server.wait_for_line("worker 2 ended .*signal 9")
        load.go_on()
        server.wait_for_metric("workers", 2)
        load.go_on()
    outcomes = dict(load.outcomes)
    assert outcomes.pop("NOERROR") >= load.asked - clients
    assert sum(outcomes.values()) <= clients


# The log


@contextmanager
def logging_to(redirection: str, upstream: Upstream, *flags: str) -> Iterator[Process]:
    """Give a Heimdall that asks ``upstream``, its standard error redirected as a shell would; its log is not seen."""
    address = f"{HOST}:{free_port()}"
    settings = ("--bind-addr", address, "--http-bind-addr", "disabled", "--drain-seconds", "0")
    command = (sys.executable, "heimdall.py", *settings, "--upstream-servers", upstream.address, *flags)
    process = Process(["sh", "-c", f'exec "$@" 2{redirection}', "sh", *command])
    try:
        yield process
        assert process.stop() == 0
    finally:
        process.kill()


def address_of(process: Process) -> Address:
    """Return where a Heimdall was told to listen, once it does."""
    host, _, port = process.command[process.command.index("--bind-addr") + 1].rpartition(":")
    address = host, int(port)
    eventually(lambda: answers(address))
    return address


def answers(address: Address) -> bool:
    try:
        return addresses(ask(address, NAME, timeout=1)) == ["192.0.2.1"]
    except (OSError, dns.exception.Timeout):
        return False


def test_a_log_that_nobody_reads_holds_up_no_answer(known: Upstream, tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    room = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 16384)
    with logging_to(f'>"{fifo}"', known, "--query-log") as process:
        address = address_of(process)
        asked = 2 * room // len("2026-01-31T12:00:00.000Z INFO heimdall.query: query client=127.0.0.1 transport=udp")
        with udp_socket(address) as sock:
            for number in range(asked):
                sock.send(query(NAME, id=number).to_wire())
                assert answered(sock.recv(65535)) == "NOERROR"
        taken = os.read(reader, room)
        ask(address, "later.example.com")
        taken += os.read(reader, room)
    os.close(reader)
    *before, notice, last = taken.decode().splitlines()
    assert all(line.startswith("20") for line in before)
    assert re.search(r"WARNING heimdall.log: \d+ log lines were dropped: standard error did not take them$", notice)
    assert "name=later.example.com" in last
    assert len([line for line in before if "query client" in line]) + int(notice.split()[3]) > asked


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"], ids=["closed", "disk full"])
def test_a_log_that_can_go_nowhere_holds_up_no_answer(known: Upstream, redirection: str) -> None:
    with logging_to(redirection, known, "--query-log") as process:
        address = address_of(process)
        for transport in ("udp", "tcp"):
            for name in NAMES:
                assert addresses(ask(address, name, transport=transport)) == ["192.0.2.1"]


def test_a_reader_of_the_log_that_is_gone_holds_up_no_answer(known: Upstream, tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR)
    with logging_to(f'>"{fifo}"', known, "--query-log") as process:
        address = address_of(process)
        os.close(reader)
        for name in NAMES:
            assert addresses(ask(address, name)) == ["192.0.2.1"]
