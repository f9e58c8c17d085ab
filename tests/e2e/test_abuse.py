"""Clients that mean harm: what they get, what it costs the others, and what they cannot do."""

import json
import random
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import dns.edns
import dns.message
import pytest

from tests.support import messages
from tests.support.client import TcpClient, addresses, exchange_bytes, flags, metrics, query, rcode, udp_socket
from tests.support.machine import Namespace, NamespaceUnavailableError
from tests.support.processes import Heimdall, Launcher, program
from tests.support.upstream import Upstream

NAME = "www.example.com"
NEIGHBOUR = "127.0.0.2"  # another client on the same machine
OUTSIDE = "198.51.100.1"
NEVER = ("--rate-limit", "0.001", "--rate-limit-burst")
"""A rate at which no token comes back while a test runs; a burst follows."""


@pytest.fixture(autouse=True)
def _known_name(upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")


def answer_to(server: Heimdall, wire: bytes, transport: str) -> bytes:
    if transport == "udp":
        return exchange_bytes(server.address, wire)
    with TcpClient(server.address) as connection:
        connection.send(wire)
        return connection.receive().to_wire()


# Connections


def test_one_client_has_its_share_of_the_connections_and_others_have_theirs(heimdall: Launcher) -> None:
    server = heimdall("--max-tcp-connections-per-client", "3")
    with ExitStack() as stack:
        mine = [stack.enter_context(TcpClient(server.address)) for _ in range(3)]
        for connection in mine:
            connection.send(query(NAME))
            assert addresses(connection.receive()) == ["192.0.2.1"]
        assert stack.enter_context(TcpClient(server.address)).closed_by_server()
        assert server.metric("dropped_queries_total", reason="connection_limit") == 1
        theirs = stack.enter_context(TcpClient(server.address, source=NEIGHBOUR))
        theirs.send(query(NAME))
        assert addresses(theirs.receive()) == ["192.0.2.1"]
        assert server.metric("tcp_connections") == 4
    server.wait_for_metric("tcp_connections", 0)
    assert addresses(server.ask(NAME, transport="tcp")) == ["192.0.2.1"]


def test_listeners_share_the_bound(heimdall: Launcher) -> None:
    server = heimdall("--bind-addr", "127.0.0.1:0,127.0.0.3:0", "--max-tcp-connections-per-client", "1")
    one, other = server.addresses
    with TcpClient(one, source=NEIGHBOUR) as first:
        first.send(query(NAME))
        first.receive()
        with TcpClient(other, source=NEIGHBOUR) as second:
            assert second.closed_by_server()


# The rate limit


@pytest.mark.parametrize("hit", [True, False])
def test_a_client_over_its_rate_is_sent_to_tcp_and_answered_there(heimdall: Launcher, hit: bool) -> None:
    server = heimdall(*NEVER, "2")
    asked = NAME if hit else "nobody.example.com"
    for _ in range(2):
        server.ask(NAME)
    datagrams = [query(asked, id=number, use_edns=False).to_wire() for number in range(1, 7)]
    with udp_socket(server.address) as sock:
        for datagram in datagrams:
            sock.send(datagram)
        found = [dns.message.from_wire(sock.recv(512)) for _ in range(3)]
    assert [answer.id for answer in found] == [2, 4, 6]
    assert all("TC" in flags(answer) and not answer.answer for answer in found)
    assert rcode(server.ask(asked, transport="tcp")) == ("NOERROR" if hit else "NXDOMAIN")
    assert server.metric("dropped_queries_total", reason="rate_limit") == 6


def test_other_clients_are_answered_meanwhile(heimdall: Launcher) -> None:
    server = heimdall(*NEVER, "1")
    server.ask(NAME)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as neighbour:
        neighbour.settimeout(15)
        neighbour.bind((NEIGHBOUR, 0))
        neighbour.sendto(query(NAME).to_wire(), server.address)
        assert addresses(dns.message.from_wire(neighbour.recv(512))) == ["192.0.2.1"]


# Random names


def test_a_flood_of_random_names_costs_the_working_set_no_more_than_a_sixteenth_of_l1(
    heimdall: Launcher, upstream: Upstream
) -> None:
    server = heimdall("--max-cache-size", "64")
    wanted = [f"wanted{number}.example.com" for number in range(40)]
    for name in wanted * 2:
        server.ask(name)
    for number in range(300):
        server.ask(f"random{number}.example.com")
    upstream.asked.clear()
    for name in wanted:
        server.ask(name)
    lost = len(upstream.asked)
    assert lost <= 64 / 16
    assert server.metric("cache_size") == 64
    assert server.metric("cache_evictions_total") == 300 + len(wanted) + lost - 64


def test_what_was_asked_for_once_is_a_part_of_l1_to_the_operator(heimdall: Launcher) -> None:
    server = heimdall("--max-cache-size", "64")
    for number in range(100):
        server.ask(f"random{number}.example.com")
    look = "/cache/entry?name=random99.example.com"
    assert json.loads(server.get(look).body)["where"] == "l1"
    assert json.loads(server.get("/cache/flush?name=random99.example.com", method="POST").body)["l1_removed"] == 1
    assert json.loads(server.get(look).body)["where"] == "nowhere"
    assert json.loads(server.get("/cache/flush?all=true", method="POST").body)["l1_removed"] == 63
    assert (server.metric("cache_size"), server.metric("cache_bytes")) == (0, 0)


# Amplification


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_refusal_is_no_larger_than_its_query(heimdall: Launcher, transport: str) -> None:
    server = heimdall("--allow-from", "192.0.2.0/24")
    cookie = dns.edns.CookieOption(b"8 octets", b"")
    keepalive = dns.edns.GenericOption(dns.edns.OptionType.make(11), b"")
    for message in (
        query(NAME, use_edns=False),
        query("."),
        query(NAME, "ANY", want_dnssec=True, options=[cookie]),
        query(NAME, flags=0, options=[keepalive]),
        query("version.bind", "TXT", "CH"),
    ):
        answer = answer_to(server, message.to_wire(), transport)
        assert rcode(dns.message.from_wire(answer)) == "REFUSED"
        assert len(answer) <= len(message.to_wire())


def test_an_answer_to_what_cannot_be_understood_is_no_larger_either(heimdall: Launcher) -> None:
    server = heimdall()
    question = messages.question(NAME)
    cookie = messages.option(10, b"8 octets")
    for datagram in (
        messages.assemble(b"", flags=messages.RD),
        messages.assemble(question[:-1], flags=messages.RD),
        messages.assemble(question + b"\0", flags=messages.RD),
        messages.assemble(question * 2, flags=messages.RD, questions=2),
        messages.assemble(question, flags=messages.RD, additional=[messages.opt(), messages.opt()]),
        messages.assemble(question, flags=messages.RD, additional=[messages.opt(options=cookie + b"\0")]),
        messages.assemble(b"\xc0\x0c\0\1\0\1", flags=messages.RD),
    ):
        answer = exchange_bytes(server.address, datagram)
        assert answer[3] & 0x0F == 1
        assert len(answer) <= len(datagram)


# Logs and metrics


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_forges_no_line_and_no_field_of_the_log(heimdall: Launcher, form: str) -> None:
    server = heimdall("--query-log", "true", "--log-format", form)
    forged = b"x\n2026-01-01T00:00:00.000Z ERROR heimdall: rcode=FORGED\x1b[2J\r"
    label = bytes((len(forged),)) + forged
    exchange_bytes(server.address, messages.assemble(label + b"\0\0\1\0\1", flags=messages.RD))
    line = server.wait_for_line("query")
    start = server.lines.index(line)
    server.ask(NAME)
    server.wait_for_line(NAME)
    assert len(server.lines[start:]) == 2
    assert "x\\010" in line.replace("\\\\", "\\")
    assert line.isprintable()
    assert "rcode=FORGED" not in line
    if form == "json":
        assert json.loads(line)["query"]["rcode"] == "NXDOMAIN"


def series(server: Heimdall) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """The time series of Heimdall's own metrics, but for those that a slow machine may add."""
    found = metrics(server.http).values()
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in found
        for sample in family.samples
        if sample.name.startswith("heimdall_") and "SERVFAIL" not in sample.labels.values()
        if sample.name != "heimdall_upstream_failures_total"
    }


def test_clients_cannot_add_to_the_series_that_are_measured(heimdall: Launcher) -> None:
    server = heimdall()
    chance = random.Random(8)

    def everything() -> None:
        """A question of every kind of name, type, class, opcode and option, over both transports."""
        sent = [
            messages.assemble(
                messages.question(
                    f"{chance.randbytes(4).hex()}.example.com",
                    chance.randrange(0x10000),
                    chance.choice([1, 3, 4, 255, 9]),
                ),
                flags=messages.RD | opcode << 11,
                additional=[
                    messages.opt(version=chance.choice([0, 0, 0, 1]), options=chance.randbytes(chance.choice([0, 5])))
                ],
            )
            for opcode in [*range(16), *[0] * 48]
        ]
        for source in ("127.0.0.1", NEIGHBOUR):
            with TcpClient(server.address, source=source) as connection:
                connection.send(*sent)
                connection.send(query("version.bind", "TXT", "CH", id=7))
                while connection.receive().id != 7:
                    pass
            with udp_socket(server.address) as sock:
                for each in sent:
                    sock.send(each)
                    sock.recv(65535)

    everything()
    before = series(server)
    for _ in range(3):
        everything()
    assert series(server) == before
    assert not any("example" in text or NEIGHBOUR in text for _, labels in before for _, text in labels)
    assert len(before) < 400


# The admin surface


POST = """
import sys, urllib.error, urllib.request
headers = {"Authorization": sys.argv[2]} if sys.argv[2] else {}
try:
    print(urllib.request.urlopen(urllib.request.Request(sys.argv[1], b"", headers), timeout=15).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def test_from_outside_nothing_can_be_changed_and_nothing_asked(heimdall: Launcher, tmp_path: Path) -> None:
    """In a network of its own, where the machine has an address that is neither loopback's nor private."""
    token = "a token of 24 characters".replace(" ", "-")
    try:
        namespace = Namespace(tmp_path / "machine", "nameserver 127.0.0.1\n")
    except NamespaceUnavailableError as error:
        pytest.skip(f"no namespace can be made here: {error}")
    with namespace:
        namespace.run(program("ip"), "address", "add", OUTSIDE, "dev", "lo")
        everywhere = ("--bind-addr", "0.0.0.0:0", "--http-bind-addr", "0.0.0.0:0")
        closed = heimdall(*everywhere, prefix=namespace.prefix)
        guarded = heimdall(*everywhere, "--admin-token", token, prefix=namespace.prefix)

        def posted(server: Heimdall, address: str, authorization: str = "") -> int:
            url = f"http://{address}:{server.http[1]}/cache/flush?all=true"
            return int(namespace.run(sys.executable, "-c", POST, url, authorization))

        assert posted(closed, OUTSIDE) == 403
        assert posted(closed, "127.0.0.1") == 200
        assert posted(guarded, "127.0.0.1") == 403
        assert posted(guarded, OUTSIDE, "Bearer wrong") == 403
        assert posted(guarded, OUTSIDE, f"Bearer {token}") == 200
        asked = [program("dig"), f"@{OUTSIDE}", "-b", OUTSIDE, "-p", str(closed.address[1]), NAME]
        assert "status: REFUSED" in namespace.run(*asked)
        for server in (closed, guarded):
            server.stop()
