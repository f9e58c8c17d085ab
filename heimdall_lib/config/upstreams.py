"""Upstream servers and forward zones: their text, ``auto``, and the loop that must not be.

Reading text is pure. What depends on the machine (a host name's address, resolv.conf, which addresses are local) is
asked through a ``Machine``, so that tests need neither network nor files of the system. A server that is one of our
own listeners would make Heimdall ask itself: ``auto`` leaves it out, anything explicit is refused.
"""

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from heimdall_lib.config.addresses import address, endpoint, is_host_name, is_wildcard
from heimdall_lib.config.values import Kind
from heimdall_lib.settings import Endpoint, ForwardZone, Transport, UpstreamServer

PUBLIC_SERVERS = (UpstreamServer("udp", "1.1.1.1", 53), UpstreamServer("udp", "8.8.8.8", 53))
"""What ``auto`` falls back to when resolv.conf names no server but ourselves."""

_TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
_ONE_SERVER = "[udp://|tcp://|tls://]host[:port][#tls-name]"
_DEFAULT_PORTS: dict[Transport, int] = {"udp": 53, "tcp": 53, "tls": 853}


def resolve_host(name: str) -> str:
    """Ask the system's resolver for one address of ``name``; raises ``OSError`` when there is none."""
    return str(socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)[0][4][0])


def is_local(host: str) -> bool:
    """Tell whether the IP address ``host`` belongs to this machine: loopback, or one that can be bound."""
    found = address(host)
    if found is not None and found.is_loopback:
        return True
    try:
        family, kind, _, _, name = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(name)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the settings need to know about the machine; ``resolve`` raises ``OSError`` for an unknown host name."""

    resolve: Callable[[str], str] = resolve_host
    resolv_conf: str = "/etc/resolv.conf"
    is_local: Callable[[str], bool] = is_local


THIS_MACHINE = Machine()


def _server(item: str) -> UpstreamServer:
    scheme, separator, rest = item.partition("://")
    transport = next((known for known in _TRANSPORTS if known == scheme.lower()), None) if separator else "udp"
    if transport is None:
        raise ValueError(f"{item!r}: the transport is one of udp, tcp, tls")
    place, hash_sign, tls_name = (rest if separator else item).partition("#")
    try:
        where = endpoint(place, _DEFAULT_PORTS[transport])
    except ValueError as error:
        raise ValueError(f"{item!r}: {error}; {_ONE_SERVER}") from None
    found = address(where.host)
    if found is not None and (found.is_unspecified or found.is_multicast):
        raise ValueError(f"{item!r}: no server can be reached at this address")
    if hash_sign:
        tls_name = _tls_name(item, transport, tls_name)
    elif transport == "tls":
        tls_name = where.host.partition("%")[0]
    return UpstreamServer(transport, where.host, where.port, tls_name)


def _tls_name(item: str, transport: Transport, name: str) -> str:
    if transport != "tls":
        raise ValueError(f"{item!r}: a TLS name goes with tls:// only")
    found = address(name)
    if found is None and not is_host_name(name):
        raise ValueError(f"{item!r}: the TLS name must be a host name or an IP address")
    return name.lower().removesuffix(".") if found is None else str(found)


def _once(servers: Iterable[UpstreamServer]) -> tuple[UpstreamServer, ...]:
    places: dict[UpstreamServer, UpstreamServer] = {}
    for server in servers:
        place = replace(server, tls_name="")
        if place in places:
            raise ValueError(f"{place} is listed twice")
        places[place] = server
    return tuple(places.values())


def _servers(text: str) -> tuple[UpstreamServer, ...]:
    if text.lower() == "auto":
        return ()
    return _once(_server(item.strip()) for item in text.split(","))


SERVERS = Kind(_servers, f"auto, or a comma list of {_ONE_SERVER}; IPv6 in brackets", "LIST", many=True)
"""The empty tuple stands for ``auto``; hosts may still be names, see ``resolved``."""


def _zone_name(item: str, text: str) -> str:
    name = text.strip().lower().removesuffix(".")
    if not name:
        raise ValueError(f"{item!r}: the zone is missing; for all names use upstream-servers")
    labels = name.split(".")
    if len(name) > 253 or not all(0 < len(label) <= 63 for label in labels):
        raise ValueError(f"{item!r}: a zone has labels of 1 to 63 bytes and at most 253 bytes in all")
    if not all(char.isascii() and (char.isalnum() or char in "-_/") for label in labels for char in label):
        raise ValueError(f"{item!r}: a zone is made of ASCII letters, digits, - _ / and dots (xn--... for others)")
    return name


def _zones(text: str) -> tuple[ForwardZone, ...]:
    zones: dict[str, ForwardZone] = {}
    for item in (each.strip() for each in text.split(",")):
        name, equals, servers = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r}: zone=server is allowed")
        zone = _zone_name(item, name)
        if zone in zones:
            raise ValueError(f"the zone {zone} is listed twice")
        zones[zone] = ForwardZone(zone, _once(_server(server.strip()) for server in servers.split("+")))
    return tuple(zones.values())


ZONES = Kind(_zones, "a comma list of zone=server+server, servers written as for upstream-servers", "LIST", many=True)


def resolved(
    servers: Iterable[UpstreamServer], listeners: Iterable[Endpoint], machine: Machine
) -> tuple[UpstreamServer, ...]:
    """Turn host names into addresses, once, and refuse a server that is one of ``listeners``.

    Raises ``ValueError`` that names the server and says what is wrong with it.
    """
    listeners = tuple(listeners)
    found = _once(_with_address(server, machine) for server in servers)
    for server in found:
        if _is_own(server, listeners, machine):
            raise ValueError(f"{server} is where Heimdall itself listens (bind-addr), which would be a loop")
    return found


def _with_address(server: UpstreamServer, machine: Machine) -> UpstreamServer:
    if address(server.host) is not None:
        return server
    try:
        found = machine.resolve(server.host)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the host name {server.host} does not resolve ({error}); an IP address would do") from None
    return replace(server, host=str(address(found) or found))


def _is_own(server: UpstreamServer, listeners: Iterable[Endpoint], machine: Machine) -> bool:
    return any(
        listener.port == server.port
        and (listener.host == server.host or (is_wildcard(listener.host) and machine.is_local(server.host)))
        for listener in listeners
    )


def system_servers(listeners: Iterable[Endpoint], machine: Machine) -> tuple[UpstreamServer, ...]:
    """List the name servers of resolv.conf that are not ourselves, else the public ones; what ``auto`` means."""
    listeners = tuple(listeners)
    try:
        lines = Path(machine.resolv_conf).read_text(errors="replace").splitlines()
    except OSError:  # a machine without the file is a machine without servers of its own
        lines = []
    words = [line.split() for line in lines]
    named = (address(line[1]) for line in words if line[:1] == ["nameserver"] and len(line) > 1)
    servers = (UpstreamServer("udp", str(ip), 53) for ip in named if ip and not ip.is_unspecified)
    return tuple(dict.fromkeys(each for each in servers if not _is_own(each, listeners, machine))) or PUBLIC_SERVERS
