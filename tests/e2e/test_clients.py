"""The clients and the name server that people have: dig, kdig, dnspython, glibc with curl, and NSD."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.resolver
import pytest

from tests.support.client import addresses, flags, rcode
from tests.support.machine import Namespace, NamespaceUnavailableError, Nsd
from tests.support.processes import PATIENCE, Heimdall, Launcher, Process, environment, eventually, free_port, program
from tests.support.upstream import HOST, Upstream

LARGE = sorted(f"198.51.100.{number}" for number in range(1, 121))
ZONE = """\
$ORIGIN example.test.
$TTL 300
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 192.0.2.53
www A 192.0.2.1
www AAAA 2001:db8::1
alias CNAME www
web A 127.0.0.1
* TXT "a wildcard"
""" + "".join(f"large A {address}\n" for address in LARGE)
CLUSTER_ZONE = """\
$ORIGIN cluster.local.
$TTL 30
@ SOA ns.dns hostmaster 1 3600 600 86400 5
@ NS ns.dns
ns.dns A 192.0.2.53
api.default.svc A 10.96.0.7
"""
ZONES = {"example.test": ZONE, "cluster.local": CLUSTER_ZONE}
CURL = ("curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "15")
PAGE = "what only Heimdall could find\n"
RESOLVER = "127.0.0.53"  # Heimdall, inside the namespace
AUTHORITY = "127.0.0.54"  # NSD, inside the namespace
WEB_SERVER = """\
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), handler)
print("serving", file=sys.stderr, flush=True)
server.serve_forever()
"""
LOOK_UP = """\
import socket, sys
found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)
print("\\n".join(sorted(address[0] for *_, address in found)))
"""


@pytest.fixture
def behind_nsd(heimdall: Launcher, tmp_path: Path) -> Iterator[Heimdall]:
    """A Heimdall whose upstream is NSD."""
    port = free_port()
    with Nsd(tmp_path / "nsd", ZONES, address=HOST, port=port):
        yield heimdall("--upstream-servers", f"{HOST}:{port}")


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    """A piece of machine whose resolv.conf looks like a pod's."""
    search = "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:5 attempts:2\n"
    try:
        made = Namespace(tmp_path / "etc", f"nameserver {RESOLVER}\nnameserver {AUTHORITY}\n{search}")
    except NamespaceUnavailableError as error:
        pytest.skip(f"no namespace can be made here: {error}")
    with made:
        yield made


@pytest.fixture
def resolver(namespace: Namespace, tmp_path: Path) -> Iterator[Process]:
    """Heimdall as the resolver of the namespace, with NSD behind it, found through resolv.conf."""
    with Nsd(tmp_path / "nsd", ZONES, address=AUTHORITY, port=53, prefix=namespace.prefix):
        flags_inside = ("--bind-addr", f"{RESOLVER}:53", "--http-bind-addr", f"{HOST}:8080")
        server = Heimdall(*flags_inside, prefix=namespace.prefix)
        try:
            yield server
            assert server.stop() == 0
            assert not server.tracebacks
        finally:
            server.kill()


def tool(name: str, server: Heimdall, *words: str) -> str:
    """Ask Heimdall with dig or kdig, and return what it printed, which must be without complaint."""
    command = [program(name), f"@{server.address[0]}", "-p", str(server.address[1]), *words]
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
    complaints = [line for line in finished.stderr.splitlines() if line and "truncated reply" not in line]
    assert (finished.returncode, complaints) == (0, []), finished.stdout
    assert "WARNING" not in finished.stdout.upper(), finished.stdout
    return finished.stdout


@pytest.mark.parametrize("name", ["dig", "kdig"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig_and_kdig(behind_nsd: Heimdall, name: str, transport: str) -> None:
    for _ in ("miss", "hit"):
        assert tool(name, behind_nsd, transport, "+short", "www.example.test", "A") == "192.0.2.1\n"
        assert tool(name, behind_nsd, transport, "+short", "www.example.test", "AAAA") == "2001:db8::1\n"
        aliased = tool(name, behind_nsd, transport, "+short", "alias.example.test", "A")
        assert aliased == "www.example.test.\n192.0.2.1\n"
        assert "NXDOMAIN" in tool(name, behind_nsd, transport, "no.such.www.example.test")
        assert "status: NOERROR" in tool(name, behind_nsd, transport, "www.example.test", "MX")
    whole = tool(name, behind_nsd, "+short", "large.example.test")  # truncated over UDP, then fetched over TCP
    assert sorted(whole.split()) == LARGE


def test_dig_with_every_option_that_it_has_for_edns(behind_nsd: Heimdall) -> None:
    options = ["+dnssec", "+cookie", "+subnet=198.51.100.0/24", "+nsid", "+expire", "+keepalive", "+padding=128"]
    printed = tool("dig", behind_nsd, *options, "+ednsopt=65001:abcd", "+multiline", "www.example.test")
    assert "status: NOERROR" in printed
    assert "192.0.2.1" in printed
    printed = tool("dig", behind_nsd, "+edns=1", "+noednsnegotiation", "www.example.test")
    assert "status: BADVERS" in printed
    assert "192.0.2.1" in tool("dig", behind_nsd, "+edns=1", "www.example.test")  # it comes back with version 0
    assert "192.0.2.1" in tool("dig", behind_nsd, "+noedns", "+cdflag", "+adflag", "www.example.test")


def test_dig_shows_why_there_is_no_answer(heimdall: Launcher) -> None:
    server = heimdall("--upstream-servers", f"{HOST}:{free_port()}")
    printed = tool("dig", server, "www.example.test")
    assert "status: SERVFAIL" in printed
    assert "EDE: 23 (Network Error)" in printed


@pytest.mark.parametrize("tcp", [False, True], ids=["UDP", "TCP"])
def test_the_stub_resolver_of_dnspython(behind_nsd: Heimdall, tcp: bool) -> None:
    stub = dns.resolver.Resolver(configure=False)
    stub.nameservers, stub.port = [behind_nsd.address[0]], behind_nsd.address[1]
    stub.use_edns(0, 0, 1232)
    for _ in ("miss", "hit"):
        assert [each.to_text() for each in stub.resolve("alias.example.test", "A", tcp=tcp)] == ["192.0.2.1"]
        assert sorted(each.to_text() for each in stub.resolve("large.example.test", "A", tcp=tcp)) == LARGE
        with pytest.raises(dns.resolver.NXDOMAIN):
            stub.resolve("no.such.www.example.test", "A", tcp=tcp)
        with pytest.raises(dns.resolver.NoAnswer):
            stub.resolve("www.example.test", "MX", tcp=tcp)
        assert stub.resolve("any.example.test", "TXT", tcp=tcp)[0].to_text() == '"a wildcard"'


def test_what_nsd_says_comes_through_unchanged(behind_nsd: Heimdall) -> None:
    for _ in ("miss", "hit"):
        answer = behind_nsd.ask("www.example.test")
        assert addresses(answer) == ["192.0.2.1"]
        assert "AA" not in flags(answer)  # a cache is no authority
        assert [rrset.to_text() for rrset in answer.authority] == ["example.test. 300 IN NS ns.example.test."]
        assert [rrset.to_text() for rrset in answer.additional] == ["ns.example.test. 300 IN A 192.0.2.53"]
    missing = behind_nsd.ask("no.such.www.example.test")
    assert (rcode(missing), missing.authority[0].ttl) == ("NXDOMAIN", 60)
    assert rcode(behind_nsd.ask("www.elsewhere.test")) == "SERVFAIL"  # NSD refuses what is not its own


def test_glibc_and_curl_find_what_only_heimdall_knows(namespace: Namespace, resolver: Process, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text(PAGE)
    web = Process([*namespace.prefix, sys.executable, "-c", WEB_SERVER, str(tmp_path)])
    try:
        web.wait_for_line("serving")
        page = namespace.run(*CURL, "http://web.example.test:8000/page.txt")
    finally:
        web.kill()
    assert page == PAGE


def look_up(namespace: Namespace, name: str) -> list[str]:
    return namespace.run(sys.executable, "-c", LOOK_UP, name).split()


def test_getaddrinfo_gets_both_families_search_lists_and_large_answers(namespace: Namespace, resolver: Process) -> None:
    assert look_up(namespace, "www.example.test") == ["192.0.2.1", "2001:db8::1"]
    assert look_up(namespace, "api") == ["10.96.0.7"]
    assert look_up(namespace, "large.example.test") == LARGE
    metrics = namespace.run(*CURL, f"http://{HOST}:8080/metrics")
    counted = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(counted['heimdall_queries_total{transport="udp"}']) >= 6
    assert float(counted['heimdall_queries_total{transport="tcp"}']) >= 1


def test_auto_takes_the_servers_of_resolv_conf_but_never_itself(namespace: Namespace, resolver: Process) -> None:
    assert resolver.wait_for_line("upstream: ").endswith(f"upstream: udp://{AUTHORITY}:53")
    asked = namespace.run("dig", f"@{RESOLVER}", "+short", "www.example.test")
    assert asked == "192.0.2.1\n"


def test_the_health_check_of_the_image_is_content(heimdall: Launcher, upstream: Upstream) -> None:
    server = heimdall()
    command = [sys.executable, "-m", "heimdall_lib.healthcheck", f"{server.address[0]}:{server.address[1]}"]

    def status() -> int:
        return subprocess.run(command, env=environment(), capture_output=True, timeout=PATIENCE, check=False).returncode

    assert status() == 0
    server.stop()
    eventually(lambda: status() != 0)
