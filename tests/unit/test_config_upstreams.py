"""Upstream servers and forward zones: their text, host names, resolv.conf and loops."""

from collections.abc import Callable
from pathlib import Path

import pytest

from heimdall_lib.config.upstreams import (
    PUBLIC_SERVERS,
    SERVERS,
    THIS_MACHINE,
    ZONES,
    Machine,
    is_local,
    resolve_host,
    resolved,
    system_servers,
)
from heimdall_lib.config.values import Kind
from heimdall_lib.settings import Endpoint, ForwardZone, UpstreamServer

LOOPBACK_53 = (Endpoint("127.0.0.1", 53),)
EVERYWHERE_53 = (Endpoint("0.0.0.0", 53), Endpoint("::", 53))
HIGH_PORT = (Endpoint("0.0.0.0", 1053),)


def refusal(kind: Kind, text: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what the tests look at
        kind.parse(text)
    return str(caught.value)


def udp(host: str, port: int = 53) -> UpstreamServer:
    return UpstreamServer("udp", host, port)


def unknown_host(name: str) -> str:
    raise OSError(f"no address for {name}")


def machine(
    resolv_conf: Path | str = "/nonexistent/resolv.conf",
    local: tuple[str, ...] = (),
    resolve: Callable[[str], str] = unknown_host,
) -> Machine:
    return Machine(resolve=resolve, resolv_conf=str(resolv_conf), is_local=lambda host: host in local)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", udp("192.0.2.1")),
        ("udp://192.0.2.1", udp("192.0.2.1")),
        ("UDP://192.0.2.1:5353", udp("192.0.2.1", 5353)),
        ("tcp://192.0.2.1", UpstreamServer("tcp", "192.0.2.1", 53)),
        ("tls://192.0.2.1", UpstreamServer("tls", "192.0.2.1", 853, "192.0.2.1")),
        ("tls://192.0.2.1:8853#dns.example", UpstreamServer("tls", "192.0.2.1", 8853, "dns.example")),
        ("tls://192.0.2.1#DNS.Example.", UpstreamServer("tls", "192.0.2.1", 853, "dns.example")),
        ("tls://192.0.2.1#2001:DB8::1", UpstreamServer("tls", "192.0.2.1", 853, "2001:db8::1")),
        ("tls://dns.example", UpstreamServer("tls", "dns.example", 853, "dns.example")),
        ("tls://dns.example#other.example", UpstreamServer("tls", "dns.example", 853, "other.example")),
        ("tls://[2001:db8::1]", UpstreamServer("tls", "2001:db8::1", 853, "2001:db8::1")),
        ("tls://[fe80::1%eth0]", UpstreamServer("tls", "fe80::1%eth0", 853, "fe80::1")),
        ("[2001:DB8::1]", udp("2001:db8::1")),
        ("[2001:db8::1]:5353", udp("2001:db8::1", 5353)),
        ("udp://[fe80::1%eth0]:53", udp("fe80::1%eth0")),
        ("[::ffff:192.0.2.1]", udp("192.0.2.1")),
        ("Dns.Example.", udp("dns.example")),
        ("localhost:5300", udp("localhost", 5300)),
    ],
)
def test_one_server(text: str, server: UpstreamServer) -> None:
    assert SERVERS.parse(text) == (server,)
    assert SERVERS.parse(f" {text} , 198.51.100.1") == (server, udp("198.51.100.1"))


@pytest.mark.parametrize("text", ["auto", "AUTO", "Auto"])
def test_auto_is_left_open(text: str) -> None:
    assert SERVERS.parse(text) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': the host must be an IP address"),
        ("192.0.2.1,", "'': the host must be an IP address"),
        ("auto,192.0.2.1,,", "'': the host must be"),
        ("https://192.0.2.1", "'https://192.0.2.1': the transport is one of udp, tcp, tls"),
        ("://192.0.2.1", "'://192.0.2.1': the transport is one of"),
        ("192.0.2.1:0", "'192.0.2.1:0': a port from 1 to 65535"),
        ("192.0.2.1:dns", "'192.0.2.1:dns': host:port is allowed"),
        ("192.0.2.256", "'192.0.2.256': the host must be"),
        ("2001:db8::1", "'2001:db8::1': host:port is allowed, an IPv6 address in brackets"),
        ("192.0.2.1/24", "'192.0.2.1/24': the host must be"),
        ("0.0.0.0", "'0.0.0.0': no server can be reached"),
        ("[::]:53", "'[::]:53': no server can be reached"),
        ("224.0.0.251:5353", "'224.0.0.251:5353': no server can be reached"),
        ("192.0.2.1#dns.example", "'192.0.2.1#dns.example': a TLS name goes with tls:// only"),
        ("tcp://192.0.2.1#dns.example", "'tcp://192.0.2.1#dns.example': a TLS name goes with tls:// only"),
        ("tls://192.0.2.1#", "'tls://192.0.2.1#': the TLS name must be"),
        ("tls://192.0.2.1#a b", "'tls://192.0.2.1#a b': the TLS name must be"),
        ("192.0.2.1,udp://192.0.2.1:53", "udp://192.0.2.1:53 is listed twice"),
        ("tls://192.0.2.1#a.example,tls://192.0.2.1#b.example", "tls://192.0.2.1:853 is listed twice"),
    ],
)
def test_servers_that_are_refused(text: str, message: str) -> None:
    assert refusal(SERVERS, text).startswith(message)


def test_the_same_address_over_another_transport_is_another_server() -> None:
    assert len(SERVERS.parse("192.0.2.1,tcp://192.0.2.1,tls://192.0.2.1,192.0.2.1:54")) == 4


@pytest.mark.parametrize(
    ("text", "zones"),
    [
        ("corp.example=192.0.2.1", (ForwardZone("corp.example", (udp("192.0.2.1"),)),)),
        ("Corp.Example.=192.0.2.1", (ForwardZone("corp.example", (udp("192.0.2.1"),)),)),
        (
            " a = 192.0.2.1 + [2001:db8::1]:54 , b=tls://192.0.2.2#dns.example ",
            (
                ForwardZone("a", (udp("192.0.2.1"), udp("2001:db8::1", 54))),
                ForwardZone("b", (UpstreamServer("tls", "192.0.2.2", 853, "dns.example"),)),
            ),
        ),
        ("0/25.2.0.192.in-addr.arpa=192.0.2.1", (ForwardZone("0/25.2.0.192.in-addr.arpa", (udp("192.0.2.1"),)),)),
        ("_msdcs.corp=192.0.2.1", (ForwardZone("_msdcs.corp", (udp("192.0.2.1"),)),)),
        (f"{'a' * 63}=192.0.2.1", (ForwardZone("a" * 63, (udp("192.0.2.1"),)),)),
    ],
)
def test_forward_zones(text: str, zones: tuple[ForwardZone, ...]) -> None:
    assert ZONES.parse(text) == zones


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corp.example", "'corp.example': zone=server is allowed"),
        ("a=192.0.2.1,192.0.2.2", "'192.0.2.2': zone=server is allowed"),
        ("a=192.0.2.1,", "'': zone=server is allowed"),
        ("=192.0.2.1", "'=192.0.2.1': the zone is missing; for all names use upstream-servers"),
        (".=192.0.2.1", "'.=192.0.2.1': the zone is missing; for all names use upstream-servers"),
        ("a..b=192.0.2.1", "'a..b=192.0.2.1': a zone has labels of 1 to 63 bytes"),
        (".a=192.0.2.1", "'.a=192.0.2.1': a zone has labels of 1 to 63 bytes"),
        (f"{'a' * 64}=192.0.2.1", f"'{'a' * 64}=192.0.2.1': a zone has labels of 1 to 63 bytes"),
        (f"{'a.' * 127}=192.0.2.1", "the zone "),
        (f"{'a.' * 127}b=192.0.2.1", f"'{'a.' * 127}b=192.0.2.1': a zone has labels"),
        ("*.corp=192.0.2.1", "'*.corp=192.0.2.1': a zone is made of ASCII letters"),
        ("bücher.example=192.0.2.1", "'bücher.example=192.0.2.1': a zone is made of ASCII letters"),
        ("a b=192.0.2.1", "'a b=192.0.2.1': a zone is made of ASCII letters"),
        ("a=192.0.2.1,A.=192.0.2.2", "the zone a is listed twice"),
        ("a=", "'': the host must be"),
        ("a=192.0.2.1+", "'': the host must be"),
        ("a=192.0.2.1+192.0.2.1:53", "udp://192.0.2.1:53 is listed twice"),
        ("a=auto", "auto"),
    ],
)
def test_forward_zones_that_are_refused(text: str, message: str) -> None:
    if text in (f"{'a.' * 127}=192.0.2.1", "a=auto"):
        # 253 bytes are the most that a name may have; "auto" is a host name like any other here.
        assert len(ZONES.parse(text)) == 1
    else:
        assert refusal(ZONES, text).startswith(message)


def test_host_names_are_resolved_once() -> None:
    asked: list[str] = []

    def resolve(name: str) -> str:
        asked.append(name)
        return "2001:DB8::7"

    servers = SERVERS.parse("192.0.2.1,tls://dns.example,tcp://[2001:db8::1]")
    assert resolved(servers, LOOPBACK_53, machine(resolve=resolve)) == (
        udp("192.0.2.1"),
        UpstreamServer("tls", "2001:db8::7", 853, "dns.example"),
        UpstreamServer("tcp", "2001:db8::1", 53),
    )
    assert asked == ["dns.example"]


def test_a_host_name_without_an_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dns\.example does not resolve \(no address for dns\.example\)"):
        resolved(SERVERS.parse("dns.example"), LOOPBACK_53, machine())


def test_two_names_of_one_server_are_refused() -> None:
    servers = SERVERS.parse("dns.example,192.0.2.1")
    with pytest.raises(ValueError, match=r"udp://192\.0\.2\.1:53 is listed twice"):
        resolved(servers, LOOPBACK_53, machine(resolve=lambda name: "192.0.2.1"))


@pytest.mark.parametrize(
    ("server", "listeners"),
    [
        ("127.0.0.1", LOOPBACK_53),
        ("tcp://127.0.0.1", LOOPBACK_53),
        ("[::ffff:127.0.0.1]", LOOPBACK_53),
        ("192.0.2.1,127.0.0.1", LOOPBACK_53),
        ("me.example", LOOPBACK_53),
        ("127.0.0.53", EVERYWHERE_53),
        ("[::1]", EVERYWHERE_53),
        ("10.0.0.7:1053", HIGH_PORT),
        ("tls://10.0.0.7:1053", HIGH_PORT),
    ],
)
def test_a_server_that_is_ourselves_is_refused(server: str, listeners: tuple[Endpoint, ...]) -> None:
    here = machine(local=("127.0.0.53", "::1", "10.0.0.7"), resolve=lambda name: "127.0.0.1")
    with pytest.raises(ValueError, match="is where Heimdall itself listens"):
        resolved(SERVERS.parse(server), listeners, here)


@pytest.mark.parametrize(
    ("server", "listeners"),
    [
        ("127.0.0.1:54", LOOPBACK_53),
        ("127.0.0.53", LOOPBACK_53),
        ("192.0.2.1", EVERYWHERE_53),
        ("10.0.0.7", HIGH_PORT),
        ("127.0.0.1", ()),
    ],
)
def test_a_server_beside_ourselves_is_accepted(server: str, listeners: tuple[Endpoint, ...]) -> None:
    servers = SERVERS.parse(server)
    assert resolved(servers, listeners, machine(local=("10.0.0.7",))) == servers


RESOLV_CONF = """\
# nameserver 203.0.113.1
; nameserver 203.0.113.2
search corp.example
nameserver 192.0.2.1
  nameserver\t2001:DB8::1   # with a comment
nameserver fe80::1%eth0
nameserver 192.0.2.1
nameserver
nameserver not-an-address
nameserver 0.0.0.0
options ndots:5 timeout:1
"""


def test_auto_is_what_resolv_conf_lists(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(RESOLV_CONF)
    expected = (udp("192.0.2.1"), udp("2001:db8::1"), udp("fe80::1%eth0"))
    assert system_servers(LOOPBACK_53, machine(path)) == expected


@pytest.mark.parametrize(
    ("listeners", "expected"),
    [
        (LOOPBACK_53, (udp("127.0.0.53"), udp("10.0.0.7"), udp("192.0.2.1"))),
        ((Endpoint("127.0.0.53", 53),), (udp("10.0.0.7"), udp("192.0.2.1"))),
        (EVERYWHERE_53, (udp("192.0.2.1"),)),
        (HIGH_PORT, (udp("127.0.0.53"), udp("10.0.0.7"), udp("192.0.2.1"))),
    ],
)
def test_auto_leaves_ourselves_out(
    tmp_path: Path, listeners: tuple[Endpoint, ...], expected: tuple[UpstreamServer, ...]
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.53\nnameserver 10.0.0.7\nnameserver 192.0.2.1\n")
    assert system_servers(listeners, machine(path, local=("127.0.0.53", "10.0.0.7"))) == expected


@pytest.mark.parametrize("content", ["", "search corp.example\n", "nameserver 127.0.0.1\n", "nameserver \xff\n", None])
def test_auto_without_another_server_is_the_public_ones(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "resolv.conf"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    assert system_servers(LOOPBACK_53, machine(path)) == PUBLIC_SERVERS
    assert [server.host for server in PUBLIC_SERVERS] == ["1.1.1.1", "8.8.8.8"]


def test_the_machine_knows_its_own_addresses() -> None:
    assert THIS_MACHINE.is_local is is_local
    assert THIS_MACHINE.resolv_conf == "/etc/resolv.conf"
    assert is_local("127.0.0.1")
    assert is_local("127.9.9.9")
    assert is_local("::1")
    assert is_local("0.0.0.0")  # the one address beside loopback that can be bound anywhere
    assert not is_local("192.0.2.1")
    assert not is_local("fe80::1%no-such-link")


def test_the_machine_resolves_an_address_to_itself() -> None:
    assert THIS_MACHINE.resolve is resolve_host
    assert resolve_host("192.0.2.1") == "192.0.2.1"
