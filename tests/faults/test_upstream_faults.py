"""Upstream servers and the network to them, with every fault that these may have: what a client sees of it.

One Heimdall asks many scripted servers, each of which has a zone of its own, so that no test disturbs another. Rules:
every query has an answer within ``--query-timeout``; what is not the truth reaches nobody; and whatever upstream does,
Heimdall is well afterwards. The tests are the rows of a table in docs/reliability.md.
"""

import ast
import itertools
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.message
import pytest

from tests.conformance.replies import question_in
from tests.support.client import addresses, ask_all, extended_errors, rcode
from tests.support.messages import TO_QUESTION, A, assemble, record, wire_name
from tests.support.processes import Launcher, eventually, free_port
from tests.support.upstream import (
    HOST,
    Asked,
    Reaction,
    Sending,
    Upstream,
    answering,
    cookie_of,
    giving_cookies,
    in_another_case,
    in_lower_case,
    silent,
    wire_of,
    with_cookie,
)

ATTEMPT, QUERY = 1.0, 3.5
"""What Heimdall is told with ``--upstream-timeout`` and ``--query-timeout``, in seconds."""

NOTICED = QUERY + 3.0
"""How late an answer may be on a machine that is busy with other tests."""

TRUTH, FORGED = "192.0.2.1", "192.0.2.66"
_TRUE, _FALSE = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 66))
_NUMBERS = itertools.count(1)

ZONES = [
    "well",
    "disorderly",
    "repeating",
    "slow",
    "noisy",
    "rotten",
    "forged",
    "shouting",
    "levelling",
    "without-tcp",
    "baking",
    "strict",
    "cut",
]


class Lossy:
    """A server of whose replies so many percent are lost, the same ones in every run; fast, so that none is late."""

    def __init__(self) -> None:
        self.percent = 0
        self._attempts: Counter[bytes] = Counter()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._sock.bind((HOST, 0))
        self.address = f"{HOST}:{self._sock.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def loses(self, name: bytes, attempt: int) -> bool:
        return zlib.crc32(name + bytes((attempt,))) % 100 < self.percent

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._sock.getsockname())
        self._thread.join(10)
        self._sock.close()

    def _serve(self) -> None:
        while True:
            query, client = self._sock.recvfrom(4096)
            if not query:
                return
            asked = question_in(query)
            name = asked[:-4].lower()
            self._attempts[name] += 1
            if not self.loses(name, self._attempts[name]):
                message_id = int.from_bytes(query[:2])
                address = record(TO_QUESTION, A, 300, _TRUE)
                self._sock.sendto(assemble(asked, answer=[address], message_id=message_id), client)


class Network:
    """A Heimdall and the servers of its zones."""

    def __init__(self, stack: ExitStack) -> None:
        self.upstreams = {zone: stack.enter_context(Upstream(tcp=zone != "without-tcp")) for zone in ZONES}
        self.lossy = Lossy()
        stack.callback(self.lossy.close)
        self.dead = free_port()
        zones = [f"{zone}.test={upstream.address}" for zone, upstream in self.upstreams.items()]
        zones.append(f"half-dead.test={HOST}:{self.dead}+{self.upstreams['well'].address}")
        zones.append(f"lossy.test={self.lossy.address}")
        zones.append(f"dead.test={HOST}:{self.dead}")
        launch = Launcher("--upstream-servers", self.upstreams["well"].address)
        stack.callback(launch.kill)
        limits = ("--upstream-timeout", str(ATTEMPT), "--query-timeout", str(QUERY), "--failure-ttl", "1")
        self.server = launch("--forward-zones", ",".join(zones), "--serve-stale", "0", *limits)
        self.stop = launch.stop

    def name(self, zone: str, address: str = TRUTH) -> str:
        """Return a name in a zone that nobody has asked for yet; it has this address."""
        name = f"n{next(_NUMBERS)}.{zone}.test"
        self.upstreams.get(zone, self.upstreams["well"]).add(name, "A", address)
        return name

    def react(self, zone: str, reaction: Reaction) -> Upstream:
        upstream = self.upstreams[zone]
        upstream.reaction = reaction
        return upstream

    def ask(self, name: str) -> tuple[dns.message.Message, float]:
        """Return the answer and how long it took, which no fault makes longer than the whole query may take."""
        started = time.monotonic()
        answer = self.server.ask(name)
        took = time.monotonic() - started
        assert took < NOTICED
        return answer, took

    def failures(self, zone: str, reason: str) -> float:
        server = f"udp://{self.upstreams[zone].address}"
        return self.server.metric("upstream_failures_total", server=server, reason=reason)


@pytest.fixture(scope="module")
def the_network() -> Iterator[Network]:
    with ExitStack() as stack:
        network = Network(stack)
        yield network
        network.stop()


@pytest.fixture
def network(the_network: Network) -> Iterator[Network]:
    """The network, and the proof that its Heimdall is well after the test."""
    yield the_network
    assert the_network.server.get("/healthz").status == 200
    assert the_network.server.tracebacks == []
    answer, _ = the_network.ask(the_network.name("well"))
    assert addresses(answer) == [TRUTH]


@pytest.mark.parametrize("percent", [1, 10, 50])
def test_loss(network: Network, percent: int) -> None:
    network.lossy.percent = percent
    names = [f"n{next(_NUMBERS)}.lossy.test" for _ in range(100)]
    lost = {name for name in names if all(network.lossy.loses(wire_name(name), attempt) for attempt in (1, 2, 3))}
    answers = ask_all(network.server.address, *names, timeout=NOTICED)
    assert len(answers) == len(names)
    assert {name for name in names if rcode(answers[name]) == "SERVFAIL"} == lost
    assert all(addresses(answers[name]) == [TRUTH] for name in names if name not in lost)


def test_reordering(network: Network) -> None:
    def disorderly(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        return [Sending(wire_of(answer), after=zlib.crc32(asked.wire) % 100 / 500)]

    network.react("disorderly", disorderly)
    names = {network.name("disorderly", f"198.51.100.{number}"): number for number in range(100)}
    answers = ask_all(network.server.address, *names)
    assert {name: addresses(answer) for name, answer in answers.items()} == {
        name: [f"198.51.100.{number}"] for name, number in names.items()
    }


def test_duplication(network: Network) -> None:
    def repeating(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        return [Sending(wire_of(answer)), Sending(wire_of(answer)), Sending(wire_of(answer), after=0.05)]

    network.react("repeating", repeating)
    for _ in range(3):
        names = {network.name("repeating", f"198.51.100.{number}"): number for number in range(30)}
        answers = ask_all(network.server.address, *names)
        assert [addresses(answers[name]) for name in names] == [[f"198.51.100.{number}"] for number in names.values()]


def test_latency_beyond_an_attempt(network: Network) -> None:
    network.react("slow", lambda _, answer: [Sending(wire_of(answer), after=2.0)])
    answer, took = network.ask(network.name("slow"))
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22])
    assert took > ATTEMPT


def test_latency_within_an_attempt(network: Network) -> None:
    patient = Launcher("--upstream-timeout", "4", "--query-timeout", "10", "--serve-stale", "0")
    with Upstream() as upstream:
        upstream.reaction = lambda _, answer: [Sending(wire_of(answer), after=2.0)]
        names = [f"n{number}.example.com" for number in range(50)]
        for name in names:
            upstream.add(name, "A", TRUTH)
        try:
            server = patient("--upstream-servers", upstream.address)
            answers = ask_all(server.address, *names)
            assert {name: addresses(answer) for name, answer in answers.items()} == {name: [TRUTH] for name in names}
            assert len(upstream.asked) == len(names)
            patient.stop()
        finally:
            patient.kill()


NOISE = [b"", b"\0", b"\xff" * 12, b"\0" * 512, bytes(range(256)) * 4, b"\xc0\x0c" * 600]


def test_garbage(network: Network) -> None:
    network.react("noisy", lambda _, answer: [*map(Sending, NOISE), Sending(wire_of(answer)), *map(Sending, NOISE)])
    for _ in range(3):
        answer, _ = network.ask(network.name("noisy"))
        assert addresses(answer) == [TRUTH]
    network.react("noisy", lambda asked, _: [Sending(asked.wire[:2] + noise) for noise in NOISE])
    answer, _ = network.ask(network.name("noisy"))
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22])


def forged(answer: dns.message.Message) -> bytearray:
    """Return the answer with a false address."""
    return bytearray(wire_of(answer).replace(_TRUE, _FALSE))


def put(offset: int, bits: int) -> Callable[[dns.message.Message], Sending]:
    def forge(answer: dns.message.Message) -> Sending:
        wire = forged(answer)
        wire[offset] ^= bits
        return Sending(bytes(wire))

    return forge


FORGERIES: dict[str, Callable[[dns.message.Message], Sending]] = {
    "id": put(0, 0x55),
    "name": put(13, 0x01),
    "opcode": put(2, 0x08),
    "a query": put(2, 0x80),
    "source port": lambda answer: Sending(bytes(forged(answer)), elsewhere=HOST),
    "source address": lambda answer: Sending(bytes(forged(answer)), elsewhere="127.0.0.2"),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
def test_forgery(network: Network, forge: Callable[[dns.message.Message], Sending]) -> None:
    network.react("forged", lambda _, answer: [forge(answer), forge(answer), Sending(wire_of(answer), after=0.05)])
    answer, _ = network.ask(network.name("forged"))
    assert addresses(answer) == [TRUTH]


def test_nothing_but_forgery(network: Network) -> None:
    network.react("forged", lambda _, answer: [forge(answer) for forge in FORGERIES.values()])
    answer, _ = network.ask(network.name("forged"))
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22])


def test_a_forged_reply_in_another_case(network: Network) -> None:
    def shouting(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if asked.transport == "tcp":
            return answering(asked, answer)
        return [Sending(each.wire.replace(_TRUE, _FALSE)) for each in in_another_case(asked, answer)]

    for _ in range(10):  # by which the server is known to repeat case; one name may have too few capitals
        answer, _ = network.ask(network.name("shouting"))
        assert addresses(answer) == [TRUTH]
    network.react("shouting", shouting)
    for _ in range(5):
        answer, _ = network.ask(network.name("shouting"))
        assert addresses(answer) == [TRUTH]
    assert network.failures("shouting", "case") >= 5
    assert network.failures("shouting", "timeout") == 0


@pytest.mark.parametrize("zone", ["levelling", "without-tcp"], ids=["with TCP", "without TCP"])
def test_a_server_that_does_not_repeat_case(network: Network, zone: str) -> None:
    upstream = network.react(zone, in_lower_case)
    for _ in range(6):
        answer, _ = network.ask(network.name(zone))
        assert addresses(answer) == [TRUTH]
    name = network.name(zone)
    network.ask(name)
    assert [asked.transport for asked in upstream.questions(name)] == ["udp"]
    line = f"udp://{upstream.address} does not repeat the case"
    assert sum(line in each for each in network.server.lines) == 1


def test_a_forged_cookie(network: Network) -> None:
    def false_cookies(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        if asked.transport == "tcp":
            return answering(asked, answer)
        return [Sending(with_cookie(asked, answer, bytes(16)).wire.replace(_TRUE, _FALSE))]

    network.react("baking", giving_cookies)
    network.ask(network.name("baking"))
    network.react("baking", false_cookies)
    for _ in range(5):
        answer, _ = network.ask(network.name("baking"))
        assert addresses(answer) == [TRUTH]
    network.react(
        "baking",
        lambda asked, answer: (
            [Sending(bytes(forged(answer)))] if asked.transport == "udp" else answering(asked, answer)
        ),
    )
    for _ in range(5):
        answer, _ = network.ask(network.name("baking"))
        assert addresses(answer) == [TRUTH]
    assert network.failures("baking", "cookie") >= 10


def test_a_server_that_demands_cookies(network: Network) -> None:
    secrets = iter(f"secret {number}".encode() for number in range(10, 99))
    secret = [next(secrets)]

    def strict(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        cookie = cookie_of(asked)[:8] + secret[0]
        known = asked.transport == "tcp" or cookie_of(asked) == cookie
        return [with_cookie(asked, answer, cookie, "" if known else "BADCOOKIE")]

    network.react("strict", strict)
    for _ in range(3):
        answer, _ = network.ask(network.name("strict"))
        assert addresses(answer) == [TRUTH]
        secret[0] = next(secrets)  # as after a restart
    assert network.failures("strict", "rcode") == 0


def truncating(asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
    if asked.transport == "tcp":
        return answering(asked, answer)
    wire = bytearray(forged(answer))
    wire[2] |= 0x02
    return [Sending(bytes(wire))]


def test_tc_on_everything(network: Network) -> None:
    upstream = network.react("cut", truncating)
    before = upstream.connections
    names = [network.name("cut") for _ in range(100)]
    answers = ask_all(network.server.address, *names)
    assert {name: addresses(answer) for name, answer in answers.items()} == {name: [TRUTH] for name in names}
    assert upstream.connections - before <= 4


def test_tcp_that_is_closed_after_connecting(network: Network) -> None:
    upstream = network.react("cut", truncating)
    upstream.hangs_up = True
    upstream.drop_connections()
    try:
        answer, _ = network.ask(network.name("cut"))
        assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [23])
    finally:
        upstream.hangs_up = False
    answer, _ = network.ask(network.name("cut"))
    assert addresses(answer) == [TRUTH]


def test_tcp_that_never_answers(network: Network) -> None:
    network.react(
        "cut", lambda asked, answer: silent(asked, answer) if asked.transport == "tcp" else truncating(asked, answer)
    )
    answer, took = network.ask(network.name("cut"))
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22])
    assert took > ATTEMPT
    network.react("cut", truncating)
    answer, _ = network.ask(network.name("cut"))
    assert addresses(answer) == [TRUTH]


def test_a_closed_port(network: Network) -> None:
    for _ in range(5):
        answer, took = network.ask(network.name("dead"))
        assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [23])
        assert took < ATTEMPT


@pytest.mark.parametrize("fault", ["silence", "closed ports"])
def test_all_servers_dead_and_back(fault: str) -> None:
    launch = Launcher("--upstream-timeout", "0.3", "--query-timeout", "1", "--failure-ttl", "1", "--serve-stale", "0")
    name = "www.example.com"
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        stack.callback(launch.kill)
        upstreams = [stack.enter_context(Upstream(port=port)) for port in ports] if fault == "silence" else []
        for upstream in upstreams:
            upstream.reaction = silent
        server = launch("--upstream-servers", ",".join(f"{HOST}:{port}" for port in ports))
        for answer in ask_all(server.address, *(f"n{number}.example.com" for number in range(4))).values():
            assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [22 if upstreams else 23])
        eventually(lambda: server.metric("upstream_up") == 0)
        assert rcode(server.ask(name)) == "SERVFAIL"
        upstreams = upstreams or [stack.enter_context(Upstream(port=port)) for port in ports]
        for upstream in upstreams:
            upstream.add(name, "A", TRUTH)
            upstream.add("other.example.com", "A", TRUTH)
            upstream.reaction = answering
        assert addresses(server.ask("other.example.com")) == [TRUTH]  # who rests is asked when nobody else is left
        came_back = time.monotonic()
        eventually(lambda: addresses(server.ask(name)) == [TRUTH])  # what failed is asked again after --failure-ttl
        assert time.monotonic() - came_back < 1 + NOTICED
        launch.stop()


def test_one_of_two_servers_dead(network: Network) -> None:
    names = [network.name("half-dead") for _ in range(50)]
    answers = ask_all(network.server.address, *names)
    assert {name: addresses(answer) for name, answer in answers.items()} == {name: [TRUTH] for name in names}


def test_a_reply_of_no_use(network: Network) -> None:
    def rotten(_asked: Asked, answer: dns.message.Message) -> Iterable[Sending]:
        wire = wire_of(answer)
        return [Sending(wire + record(wire_name("x"), 1, 1, bytes(4)))]

    network.react("rotten", rotten)
    answer, _ = network.ask(network.name("rotten"))
    assert (rcode(answer), extended_errors(answer)) == ("SERVFAIL", [23])


def test_every_fault_is_in_the_documentation() -> None:
    here = Path(__file__)
    table = (here.parents[2] / "docs" / "reliability.md").read_text()
    tests = [node.name for node in ast.parse(here.read_text()).body if isinstance(node, ast.FunctionDef)]
    faults = [name for name in tests if name.startswith("test_") and name != "test_every_fault_is_in_the_documentation"]
    assert [name for name in faults if f"`{name}`" not in table] == []
