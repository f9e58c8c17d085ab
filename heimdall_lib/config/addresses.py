"""Addresses and ports as text: what a listener, an upstream server and a Redis URL have in common.

Pure. The ``ValueError`` of ``endpoint`` does not repeat its text, because that may be part of a URL with a password
in the wrong place.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from heimdall_lib.config.values import Kind
from heimdall_lib.settings import Endpoint

_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER_LAST = re.compile(r"(?:.*\.)?[0-9]+\.?")
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?")
_BARE = re.compile(r"([^\[\]:]*)(?::([0-9]{1,5}))?")


def address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an IP address, or ``None`` when the text is not one; an IPv4-mapped one is the IPv4 address it means."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def is_host_name(text: str) -> bool:
    """Tell whether the text is a host name; one that ends in a number would be a mistyped IPv4 address."""
    return len(text) <= 253 and bool(_HOST_NAME.fullmatch(text)) and not _NUMBER_LAST.fullmatch(text)


def endpoint(text: str, default_port: int | None = None, lowest_port: int = 1) -> Endpoint:
    """Read ``host[:port]``, where host is an IPv4 address, an IPv6 address in brackets, or a host name.

    Addresses come back in their canonical form, host names in lower case without the final dot. Without
    ``default_port`` the port must be there. Raises ``ValueError`` saying which part is wrong.
    """
    match = (_BRACKETED if text.startswith("[") else _BARE).fullmatch(text)
    if match is None:
        raise ValueError("host:port is allowed, an IPv6 address in brackets")
    host, digits = match.groups()
    if digits is None and default_port is None:
        raise ValueError("the port is missing; host:port is allowed")
    port = default_port if digits is None else int(digits)
    if port is None or not lowest_port <= port <= 65535:
        raise ValueError(f"a port from {lowest_port} to 65535 is allowed")
    return Endpoint(_host(host, bracketed=text.startswith("[")), port)


def _host(text: str, *, bracketed: bool) -> str:
    found = address(text)
    if bracketed and (found is None or ":" not in text):
        raise ValueError("only an IPv6 address may stand in brackets")
    if found is not None:
        return str(found)
    if not is_host_name(text):
        raise ValueError("the host must be an IP address (IPv6 in brackets) or a host name")
    return text.lower().removesuffix(".")


def _listener(item: str) -> Endpoint:
    try:
        found = endpoint(item, lowest_port=0)
    except ValueError as error:
        raise ValueError(f"{item!r}: {error}") from None
    if address(found.host) is None:
        raise ValueError(f"{item!r}: an IP address is needed to listen on, not a host name")
    return found


def _listeners(text: str) -> tuple[Endpoint, ...]:
    found = tuple(_listener(item.strip()) for item in text.split(","))
    for position, listener in enumerate(found):
        if listener in found[:position]:
            raise ValueError(f"{listener} is listed twice")
    return found


def _http_listener(text: str) -> Endpoint | None:
    return None if text.lower() == "disabled" else _listener(text)


LISTENERS = Kind(_listeners, "a comma list of address:port, IPv6 as [::1]:1053; port 0 = a free one", "LIST", many=True)
HTTP_LISTENER = Kind(_http_listener, "address:port, IPv6 as [::1]:8080, or disabled; port 0 = a free one", "ADDRESS")


def covers(listener: Endpoint, other: Endpoint) -> bool:
    """Tell whether two sockets could not listen on both: the same port, and the same address or a wildcard."""
    same_host = listener.host == other.host or any(is_wildcard(each.host) for each in (listener, other))
    return bool(listener.port) and listener.port == other.port and same_host


def is_wildcard(host: str) -> bool:
    """Tell whether listening on ``host`` means listening on every local address."""
    found = address(host)
    return found is not None and found.is_unspecified
