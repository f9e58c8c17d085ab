"""What goes over the wire between a client and Heimdall, over UDP and TCP."""

import random
import socket
import struct
import time
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest

from tests.support.client import (
    TcpClient,
    addresses,
    ask,
    exchange,
    exchange_bytes,
    extended_errors,
    flags,
    query,
    rcode,
    udp_socket,
)
from tests.support.processes import Heimdall, Launcher, eventually
from tests.support.upstream import Asked, Sending, Upstream, altered, wire_of

NAME = "www.example.com"
HEADER = struct.Struct("!HHHHHH")
RD = 0x0100
QUESTION = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01"


@pytest.fixture
def server(heimdall: Launcher, upstream: Upstream) -> Heimdall:
    upstream.add(NAME, "A", "192.0.2.1")
    return heimdall()


def header(message_id: int, bits: int, *counts: int) -> bytes:
    return HEADER.pack(message_id, bits, *counts)


def first_heard_after(server: Heimdall, *datagrams: bytes) -> int:
    """Send datagrams and then a good query; return the id of the first answer, 0xBEEF when only the last got one."""
    good = header(0xBEEF, RD, 1, 0, 0, 0) + b"\x00\x00\x10\x00\x03"  # the root in class CH: refused at once
    answer = exchange_bytes(server.address, *datagrams, good)
    return int.from_bytes(answer[:2], "big")


def _is_closed(connection: TcpClient) -> bool:
    """Say whether the server has closed the connection, as far as the socket's own timeout shows."""
    try:
        return connection.closed_by_server()
    except TimeoutError:
        return False


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_id_rd_cd_and_case_come_back_on_a_miss_and_on_a_hit(
    server: Heimdall, upstream: Upstream, transport: str
) -> None:
    for name in ("wWw.ExAmPlE.cOm", "WWW.example.COM", "www.example.com"):
        for bits in (dns.flags.RD, dns.flags.RD | dns.flags.CD):
            message = query(name, flags=bits)
            answer = exchange(server.address, message, transport=transport)
            assert answer.id == message.id
            assert answer.question[0].name.to_text() == name + "."
            assert answer.flags == dns.flags.QR | dns.flags.RA | bits
            assert addresses(answer) == ["192.0.2.1"]
    assert upstream.count(NAME) == 2  # once for each CD, however the name was written


def test_records_carry_the_case_in_which_this_client_asked(server: Heimdall) -> None:
    server.ask(NAME)
    answer = server.ask("WWW.EXAMPLE.COM")
    assert answer.answer[0].name.to_text() == "WWW.EXAMPLE.COM."


@pytest.mark.parametrize(
    "datagram",
    [
        header(7, RD, 0, 0, 0, 0),
        header(7, RD, 2, 0, 0, 0) + QUESTION + QUESTION,
        header(7, RD, 1, 0, 0, 0) + QUESTION[:-3],
        header(7, RD, 1, 0, 0, 0) + QUESTION + b"garbage",
        header(7, RD, 1, 1, 0, 0) + QUESTION,
        header(7, RD, 1, 0, 0, 1) + QUESTION + b"\x00\x00\x29",
        header(7, RD, 1, 0, 0, 0) + b"\x40" + b"x" * 64 + b"\x00\x00\x01\x00\x01",
        header(7, RD, 1, 0, 0, 0) + b"\xc0\x0c\x00\x01\x00\x01",
        header(7, RD, 1, 0, 0, 0)
        + b"\x3fxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" * 4
        + QUESTION[4:],
        header(7, RD, 1, 0, 0, 2) + QUESTION + (b"\x00\x00\x29\x04\xd0" + b"\0" * 6) * 2,
        header(7, RD, 1, 0, 0, 1) + QUESTION + b"\x00\x00\x29\x04\xd0\0\0\0\0\x00\x03abc",
    ],
    ids=[
        "no question",
        "two questions",
        "question cut short",
        "bytes after the end",
        "an answer in a query",
        "OPT cut short",
        "label type not in use",
        "compressed question",
        "name too long",
        "OPT twice",
        "option cut short",
    ],
)
def test_a_readable_header_before_nonsense_gets_formerr(server: Heimdall, datagram: bytes) -> None:
    answer = exchange_bytes(server.address, datagram)
    assert answer[:2] == b"\0\7"
    assert answer[2] & 0x80
    assert answer[3] & 0x0F == 1
    assert len(answer) <= len(datagram) + 11  # its own OPT at most
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]


@pytest.mark.parametrize(
    "datagram",
    [b"", b"\x00", header(7, RD, 1, 0, 0, 0)[:11], header(7, 0x8100, 1, 0, 0, 0) + QUESTION, b"\xff" * 40],
    ids=["empty", "one octet", "header cut short", "a response", "all ones"],
)
def test_what_is_no_query_gets_no_answer(server: Heimdall, datagram: bytes) -> None:
    assert first_heard_after(server, datagram) == 0xBEEF
    assert server.metric("dropped_queries_total", reason="malformed") == 1


def test_no_bytes_whatever_stop_it_from_answering(server: Heimdall) -> None:
    chance = random.Random(20260131)
    whole = query(NAME, want_dnssec=True).to_wire()
    with udp_socket(server.address) as sock:
        for number in range(3000):
            mutated = bytearray(whole)
            for _ in range(chance.randrange(1, 6)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            sock.send(chance.randbytes(chance.randrange(80)) if number % 3 == 0 else mutated)

    def answered() -> bool:
        try:
            return addresses(server.ask(NAME, timeout=1.0)) == ["192.0.2.1"]
        except dns.exception.Timeout:  # the socket may still be full of what came before
            return False

    eventually(answered)
    assert not server.tracebacks


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_another_opcode_is_notimp(server: Heimdall, upstream: Upstream, opcode: int) -> None:
    answer = exchange_bytes(server.address, header(7, opcode << 11, 1, 0, 0, 0) + QUESTION)
    assert answer[3] & 0x0F == 4
    assert answer[2] >> 3 & 0x0F == opcode
    assert upstream.asked == []


@pytest.mark.parametrize("version", [1, 255])
def test_another_version_of_edns_is_badvers(server: Heimdall, version: int) -> None:
    answer = server.ask(NAME, use_edns=version)
    assert rcode(answer) == "BADVERS"
    assert answer.edns == 0
    assert answer.answer == []


def test_a_client_outside_allow_from_is_refused(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--allow-from", "192.0.2.0/24,::1")
    for transport in ("udp", "tcp"):
        message = query(NAME, use_edns=False)
        answer = exchange(server.address, message, transport=transport)
        assert rcode(answer) == "REFUSED"
        assert len(answer.to_wire()) <= len(message.to_wire())
    assert upstream.asked == []
    assert server.metric("responses_total", rcode="REFUSED") == 2


@pytest.mark.parametrize("name", ["version.bind", "VERSION.server", "id.server", "hostname.bind"])
def test_chaos_names_say_who_answers(server: Heimdall, name: str) -> None:
    (rrset,) = server.ask(name, "TXT", rdclass="CH").answer
    (text,) = rrset[0].strings
    assert text.startswith(b"Heimdall ") if "ersion" in name.lower() else text == socket.gethostname().encode()
    assert rrset.ttl == 0


@pytest.mark.parametrize(("name", "rdtype"), [("version.bind", "A"), ("www.example.com", "TXT"), (".", "NS")])
def test_class_chaos_is_otherwise_refused_and_never_asked_upstream(
    server: Heimdall, upstream: Upstream, name: str, rdtype: str
) -> None:
    assert rcode(server.ask(name, rdtype, rdclass="CH")) == "REFUSED"
    assert upstream.asked == []


def test_opt_is_in_the_answer_only_if_it_was_in_the_query(server: Heimdall) -> None:
    for _ in ("miss", "hit"):
        assert server.ask(NAME, use_edns=False).edns == -1
        with_opt = server.ask(NAME, use_edns=0, payload=4096)
        assert (with_opt.edns, with_opt.payload, with_opt.options) == (0, 1232, ())
        assert rcode(server.ask("nxdomain.example.com", use_edns=False)) == "NXDOMAIN"


def test_options_of_the_upstream_stay_with_it(heimdall: Launcher, upstream: Upstream) -> None:
    options = [
        dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"hop"),
        dns.edns.CookieOption(b"c" * 8, b"s" * 8),
    ]
    upstream.add(NAME, "A", "192.0.2.1")
    upstream.on(NAME, lambda _, answer: [Sending(altered(answer, lambda copy: copy.use_edns(0, options=options)))])
    server = heimdall()
    for _ in ("miss", "hit"):
        assert server.ask(NAME).options == ()


def test_do_is_passed_on_and_such_answers_are_kept_apart(server: Heimdall, upstream: Upstream) -> None:
    for _ in ("miss", "hit"):
        assert server.ask(NAME, want_dnssec=True).ednsflags & dns.flags.DO
        assert not server.ask(NAME).ednsflags & dns.flags.DO
        server.ask(NAME, use_edns=False)
    dnssec_ok = [bool(asked.message.ednsflags & dns.flags.DO) for asked in upstream.questions(NAME)]
    assert sorted(dnssec_ok) == [False, True]


def test_cd_is_passed_on(server: Heimdall, upstream: Upstream) -> None:
    server.ask(NAME, flags=dns.flags.RD | dns.flags.CD)
    (asked,) = upstream.questions(NAME)
    assert asked.message.flags & dns.flags.CD


def test_ad_is_shown_only_to_who_asks_for_it(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")

    def validated(_asked: Asked, answer: dns.message.Message) -> list[Sending]:
        answer.flags |= dns.flags.AD
        return [Sending(wire_of(answer))]

    upstream.on(NAME, validated)
    server = heimdall()
    for _ in ("miss", "hit"):
        assert "AD" not in flags(server.ask(NAME))
        assert "AD" in flags(server.ask(NAME, want_dnssec=True))
        assert "AD" in flags(server.ask(NAME, flags=dns.flags.RD | dns.flags.AD))


def test_client_subnet_and_cookie_stay_between_the_client_and_heimdall(server: Heimdall, upstream: Upstream) -> None:
    options = [dns.edns.ECSOption("198.51.100.0", 24), dns.edns.CookieOption(b"8 octets", b"")]
    for transport in ("udp", "tcp"):
        (option,) = server.ask(NAME, options=options, transport=transport).options
        assert option.to_wire()[:8] == b"8 octets"
    (asked,) = upstream.asked
    assert asked.message.edns == 0
    assert [option.otype for option in asked.message.options] == [dns.edns.OptionType.COOKIE]  # one of Heimdall's own
    assert b"8 octets" not in asked.wire
    assert server.ask(NAME).options == ()
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    ("options", "limit"),
    [({"use_edns": False}, 512), ({"payload": 1000}, 1000), ({"payload": 4096}, 1232), ({"payload": 100}, 512)],
    ids=["without EDNS", "a small buffer", "a large buffer", "a buffer too small to be meant"],
)
def test_what_is_too_large_for_udp_is_truncated_and_whole_over_tcp(
    server: Heimdall, upstream: Upstream, options: dict[str, Any], limit: int
) -> None:
    wanted = sorted(f"198.51.{number // 250}.{number % 250}" for number in range(300))
    upstream.add("large.example.com", "A", *wanted)
    message = query("large.example.com", **options)
    for _ in ("miss", "hit"):
        wire = exchange_bytes(server.address, message.to_wire())
        assert limit - 40 < len(wire) <= limit
        answer = dns.message.from_wire(wire)
        assert "TC" in flags(answer)
        assert set(addresses(answer)) < set(wanted)
        assert len(addresses(answer)) > 20  # what fits stays: there are clients that never come back over TCP
    whole = server.ask("large.example.com", transport="tcp", **options)
    assert addresses(whole) == wanted
    assert "TC" not in flags(whole)
    assert upstream.count("large.example.com", transport="tcp") == 1


def test_edns_udp_size_bounds_answers_and_is_advertised(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add("large.example.com", "A", *(f"198.51.100.{number}" for number in range(100)))
    server = heimdall("--edns-udp-size", "600")
    answer = server.ask("large.example.com", payload=4096)
    assert "TC" in flags(answer)
    assert answer.payload == 600
    assert {asked.message.payload for asked in upstream.asked} == {600}


def test_a_type_nobody_knows_passes_byte_for_byte(server: Heimdall, upstream: Upstream) -> None:
    data = bytes(range(256)) + b"\xc0\x0c\x03www\x00"  # looks like a compression pointer, and is none
    upstream.add("odd.example.com", "TYPE65280", f"\\# {len(data)} {data.hex()}")
    for transport in ("udp", "tcp"):
        (rrset,) = server.ask("odd.example.com", "TYPE65280", transport=transport).answer
        assert rrset[0].to_wire() == data


def test_a_name_of_any_octets_is_looked_up_as_it_is(server: Heimdall, upstream: Upstream) -> None:
    name = r"a\.b\000\255\032c.example.com"
    upstream.add(name, "A", "192.0.2.9")
    assert addresses(server.ask(name)) == ["192.0.2.9"]
    assert addresses(server.ask(name)) == ["192.0.2.9"]
    assert upstream.count(name) == 1


def test_without_rd_the_cache_answers_and_a_miss_is_refused(server: Heimdall, upstream: Upstream) -> None:
    answer = server.ask(NAME, flags=0)
    assert (rcode(answer), extended_errors(answer)) == ("REFUSED", [20])
    assert upstream.asked == []
    server.ask(NAME)
    answer = server.ask(NAME, flags=0)
    assert addresses(answer) == ["192.0.2.1"]
    assert "RD" not in flags(answer)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
def test_zone_transfers_are_notimp(server: Heimdall, upstream: Upstream, transport: str, rdtype: str) -> None:
    assert rcode(server.ask("example.com", rdtype, transport=transport)) == "NOTIMP"
    assert upstream.asked == []


def test_over_the_rate_limit_there_is_silence_or_an_invitation_to_tcp(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--rate-limit", "0.001")
    assert addresses(server.ask(NAME)) == ["192.0.2.1"]
    datagrams = [query(NAME, id=number, use_edns=False).to_wire() for number in (1, 2)]
    answer = dns.message.from_wire(exchange_bytes(server.address, *datagrams))
    assert answer.id == 2  # the first of the two got none
    assert "TC" in flags(answer)
    assert answer.answer == []
    assert server.metric("dropped_queries_total", reason="rate_limit") == 2


def test_several_listeners_of_both_families(heimdall: Launcher, upstream: Upstream) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no ::1: {error}")
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--bind-addr", "127.0.0.1:0,[::1]:0,127.0.0.2:0")
    assert [host for host, _ in server.addresses] == ["127.0.0.1", "::1", "127.0.0.2"]
    for address in server.addresses:
        for transport in ("udp", "tcp"):
            assert addresses(ask(address, NAME, transport=transport)) == ["192.0.2.1"]


def test_tcp_answers_queries_in_flight_as_they_finish(server: Heimdall, upstream: Upstream) -> None:
    upstream.add("slow.example.com", "A", "192.0.2.2")
    upstream.add("fast.example.com", "A", "192.0.2.3")
    gate = upstream.hold("slow.example.com")
    server.ask(NAME)
    with TcpClient(server.address) as connection:
        slow, fast, hit = query("slow.example.com"), query("fast.example.com"), query(NAME)
        connection.send(slow, fast, hit)
        assert {connection.receive().id, connection.receive().id} == {fast.id, hit.id}
        gate.set()
        answer = connection.receive()
        assert (answer.id, addresses(answer)) == (slow.id, ["192.0.2.2"])


def test_tcp_answers_hundreds_of_queries_in_one_segment(server: Heimdall, upstream: Upstream) -> None:
    messages = [query(f"n{number % 150}.example.com", id=number) for number in range(600)]
    with TcpClient(server.address) as connection:
        connection.send(*messages)
        answers = [connection.receive() for _ in messages]
    assert sorted(answer.id for answer in answers) == list(range(600))
    assert {answer.id: answer.question for answer in answers} == {each.id: each.question for each in messages}


def test_tcp_takes_a_query_octet_by_octet(server: Heimdall) -> None:
    wire = query(NAME).to_wire()
    with TcpClient(server.address) as connection:
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in struct.pack("!H", len(wire)) + wire:
            connection.sock.send(bytes((octet,)))
        assert addresses(connection.receive()) == ["192.0.2.1"]


def test_tcp_goes_on_after_messages_that_deserve_no_answer(server: Heimdall) -> None:
    with TcpClient(server.address) as connection:
        message = query(NAME)
        connection.send(b"", b"short", header(9, 0x8000, 1, 0, 0, 0) + QUESTION, message)
        assert connection.receive().id == message.id


def test_a_client_that_closed_its_side_is_still_answered(server: Heimdall, upstream: Upstream) -> None:
    upstream.add("slow.example.com", "A", "192.0.2.2")
    gate = upstream.hold("slow.example.com")
    with TcpClient(server.address) as connection:
        connection.send(query("slow.example.com"))
        connection.finish()
        eventually(lambda: upstream.count("slow.example.com"))
        gate.set()
        assert addresses(connection.receive()) == ["192.0.2.2"]
        assert connection.closed_by_server()
    server.wait_for_metric("tcp_connections", 0)


@pytest.mark.parametrize("beginning", [b"", b"\x00", b"\x00\x20\x00\x07"], ids=["nothing", "half a prefix", "half"])
def test_a_silent_tcp_connection_is_closed(heimdall: Launcher, beginning: bytes) -> None:
    server = heimdall("--tcp-idle-timeout", "0.3")
    with TcpClient(server.address) as connection:
        connection.sock.sendall(beginning)
        assert connection.closed_by_server()
    server.wait_for_metric("tcp_connections", 0)


def test_a_tcp_connection_that_takes_too_long_over_one_query_is_closed(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--tcp-idle-timeout", "0.5")
    message = query(NAME)
    with TcpClient(server.address) as connection:
        connection.send(message)
        assert connection.receive().id == message.id
        connection.sock.sendall(b"\xff\xff")
        connection.sock.settimeout(0.05)
        sent = 0
        while not (closed := _is_closed(connection)) and sent < 100:  # never silent for as long as the idle timeout
            connection.sock.sendall(b"x")
            sent += 1
        assert closed
    server.wait_for_metric("tcp_connections", 0)


def test_a_tcp_connection_is_not_idle_while_its_query_is_under_way(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add("slow.example.com", "A", "192.0.2.2")
    gate = upstream.hold("slow.example.com")
    server = heimdall("--tcp-idle-timeout", "0.2", "--upstream-timeout", "4")
    with TcpClient(server.address) as connection:
        connection.send(query("slow.example.com"))
        connection.sock.settimeout(0.7)
        with pytest.raises(TimeoutError):  # neither an answer nor the end
            connection.sock.recv(1)
        connection.sock.settimeout(10)
        gate.set()
        assert addresses(connection.receive()) == ["192.0.2.2"]


def test_beyond_the_connection_limit_a_newcomer_is_closed_and_the_others_stay(
    heimdall: Launcher, upstream: Upstream
) -> None:
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--max-tcp-connections", "2")
    with TcpClient(server.address) as first, TcpClient(server.address) as second:
        for connection in (first, second):
            connection.send(query(NAME))
            connection.receive()
        assert server.metric("tcp_connections") == 2
        with TcpClient(server.address) as third:
            assert third.closed_by_server()
        assert server.metric("dropped_queries_total", reason="connection_limit") == 1
        first.send(query(NAME))
        assert addresses(first.receive()) == ["192.0.2.1"]
    server.wait_for_metric("tcp_connections", 0)
    assert addresses(server.ask(NAME, transport="tcp")) == ["192.0.2.1"]


def test_a_client_that_reads_nothing_is_cut_off_and_disturbs_nobody(heimdall: Launcher, upstream: Upstream) -> None:
    upstream.add("large.example.com", "A", *(f"198.51.{number // 250}.{number % 250}" for number in range(3000)))
    upstream.add(NAME, "A", "192.0.2.1")
    server = heimdall("--tcp-idle-timeout", "0.5")
    with TcpClient(server.address) as greedy:
        greedy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire = query("large.example.com").to_wire()
        greedy.send(*[wire] * 400)  # 19 MB of answers, which nobody fetches
        started = time.monotonic()
        assert addresses(server.ask(NAME)) == ["192.0.2.1"]
        assert time.monotonic() - started < 5
        server.wait_for_metric("tcp_connections", 0)


def test_udp_and_tcp_give_the_same_answers(server: Heimdall) -> None:
    server.ask(NAME)
    server.ask("nxdomain.example.com", "AAAA")
    for message in (
        query(NAME),
        query(NAME, use_edns=False),
        query("nxdomain.example.com", "AAAA"),
        query("version.bind", "TXT", "CH"),
        query("example.com", "AXFR"),
        query(NAME, flags=0, want_dnssec=True),
    ):
        over_udp, over_tcp = (exchange(server.address, message, transport=each) for each in ("udp", "tcp"))
        assert over_udp == over_tcp
        assert over_udp.flags == over_tcp.flags
