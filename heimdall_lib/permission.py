"""Who may change the cache over HTTP, and who may see which names were asked for.

Rules: where there is a token, the token alone decides; where there is none, loopback may, and a browser there obeys
no web page but Heimdall's own: one that it was asked for by an address that no name server can make up.
"""

import hmac
import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

_LOOPBACK_HOST = re.compile(r"(localhost|127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_NOBODY, _OWN_PAGE = "none", "same-origin"  # who made a browser ask, by its own account (Fetch Metadata)


def why_no_change(environ: Mapping[str, Any], token: bytes) -> str:
    """Return why a request may change nothing, empty when it may."""
    why = _why_not_trusted(environ, token)
    if why or token or not _from_a_page(environ):
        return why
    # Any page may make a browser on this machine ask, and the browser says which page it was. Of a page whose name
    # was made to point here (DNS rebinding) it says that the page is our own: then the name is not one of loopback.
    if _is_own_origin(environ) and _is_addressed_as_loopback(environ):
        return ""
    return "without an admin token no web page may ask this but the status page, opened as localhost or 127.0.0.1"


def why_no_names(environ: Mapping[str, Any], token: bytes) -> str:
    """Return why who asks is not shown the names that were asked for, empty when it is."""
    why = _why_not_trusted(environ, token)
    if why or token or _is_addressed_as_loopback(environ):  # a browser names no page when one only reads
        return why
    return "without an admin token names are shown under the addresses localhost and 127.0.0.1 only"


def _why_not_trusted(environ: Mapping[str, Any], token: bytes) -> str:
    if token:
        given = environ.get("HTTP_AUTHORIZATION", "").encode("latin-1", "replace")
        right = hmac.compare_digest(given, b"Bearer " + token)
        return "" if right else "this needs the admin token: Authorization: Bearer ..."
    return "" if _is_loopback(environ["REMOTE_ADDR"]) else "without an admin token this is answered on loopback only"


def _from_a_page(environ: Mapping[str, Any]) -> bool:
    return "HTTP_ORIGIN" in environ or environ.get("HTTP_SEC_FETCH_SITE", _NOBODY) != _NOBODY


def _is_own_origin(environ: Mapping[str, Any]) -> bool:
    origin, host = str(environ.get("HTTP_ORIGIN")).lower(), str(environ.get("HTTP_HOST")).lower()
    return origin == f"http://{host}" and environ.get("HTTP_SEC_FETCH_SITE", _OWN_PAGE) == _OWN_PAGE


def _is_addressed_as_loopback(environ: Mapping[str, Any]) -> bool:
    return _LOOPBACK_HOST.fullmatch(environ.get("HTTP_HOST", "")) is not None


def _is_loopback(address: str) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback
