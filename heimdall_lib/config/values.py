"""How the text of one setting becomes a typed value, and what is allowed instead.

Pure: no files, no sockets, no environment. A ``Kind`` carries both the parser and the words for what it accepts, so
that an error, ``--help`` and the documentation cannot disagree. Parsers raise ``ValueError`` whose message is what
is allowed; they never repeat the text they were given unless the setting is not a secret.
"""

import math
import re
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

from heimdall_lib.settings import ForwardZone, Network, Secret

LARGEST_TTL = 2**31 - 1
"""RFC 2181, section 8: a TTL is an unsigned number of 31 bits."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_PREFIX = re.compile(r"[!-~]+")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_BOOLEAN_WORDS = "true or false (also 1/0, yes/no, on/off, any case)"
_EVERYONE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_SHORTEST_SECRET = 16


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: its parser, what it accepts in words, its name in ``--help``, whether it is a comma list."""

    parse: Callable[[str], Any]
    allowed: str
    metavar: str
    many: bool = False


def integer(low: int, high: int, metavar: str = "N", note: str = "") -> Kind:
    """Accept a whole decimal number from ``low`` to ``high``; ``note`` explains a special one."""
    allowed = f"an integer from {low} to {high}" + (f"; {note}" if note else "")

    def parse(text: str) -> int:
        # The length comes first: int() refuses a number of thousands of digits with a ValueError of its own.
        if not _INTEGER.fullmatch(text) or len(text) > 20 or not low <= int(text) <= high:
            raise ValueError(allowed)
        return int(text)

    return Kind(parse, allowed, metavar)


def decimal(low: float, high: float, what: str, metavar: str, note: str = "", *, above: bool = False) -> Kind:
    """Accept a finite number from ``low`` to ``high``; with ``above``, ``low`` itself is refused."""
    span = f"more than {low:g} and at most {high:.12g}" if above else f"from {low:g} to {high:.12g}"
    allowed = f"{what}, {span}" + (f"; {note}" if note else "")

    def parse(text: str) -> float:
        number = float(text) if _DECIMAL.fullmatch(text) else math.nan
        # Written so that NaN, which compares false with everything, is refused.
        if not low <= number <= high or (above and number == low):
            raise ValueError(allowed)
        return number

    return Kind(parse, allowed, metavar)


def seconds(high: float) -> Kind:
    """Accept a duration that cannot be zero."""
    return decimal(0, high, "seconds", "SECONDS", above=True)


def seconds_or_zero(high: float, note: str) -> Kind:
    """Accept a duration for which zero has a meaning of its own, which ``note`` gives."""
    return decimal(0, high, "seconds", "SECONDS", note)


def _switch(text: str, allowed: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(allowed)
    return word in _TRUE


BOOLEAN = Kind(lambda text: _switch(text, _BOOLEAN_WORDS), _BOOLEAN_WORDS, "BOOL")


def _auto_or_switch(text: str) -> bool | None:
    return None if text.lower() == "auto" else _switch(text, AUTO_OR_BOOLEAN.allowed)


AUTO_OR_BOOLEAN = Kind(_auto_or_switch, f"auto, {_BOOLEAN_WORDS}", "WORD")
"""``None`` stands for ``auto``."""


def word(*words: str) -> Kind:
    """Accept one of ``words`` in any case; the value is lower case."""
    allowed = f"{', '.join(words[:-1])} or {words[-1]}"

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(allowed)
        return text.lower()

    return Kind(parse, allowed, "WORD")


def pattern(expression: str, allowed: str, metavar: str = "TEXT") -> Kind:
    """Accept text that ``expression`` matches from end to end."""
    compiled = re.compile(expression)

    def parse(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(allowed)
        return text

    return Kind(parse, allowed, metavar)


def optional(kind: Kind, empty: object) -> Kind:
    """Accept the empty text as well: it stands for "not set" and becomes ``empty``."""
    return replace(kind, parse=lambda text: kind.parse(text) if text else empty)


def _key_prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text) or len(text) > 128 or set(text) & set("*?[]\\{}"):
        raise ValueError(KEY_PREFIX.allowed)
    return text


KEY_PREFIX = Kind(_key_prefix, "1 to 128 printable ASCII characters, no spaces, none of *?[]{}\\", "TEXT")


def _password(text: str) -> Secret:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of the environment that are not UTF-8 arrive as lone surrogates
        raise ValueError(PASSWORD.allowed) from None
    return Secret(text)


PASSWORD = Kind(_password, "UTF-8 text", "TEXT")


def _token(text: str) -> Secret:
    # Visible ASCII only: it has to fit into an HTTP header, and a stray newline of a Secret is found at the start.
    if len(text) < _SHORTEST_SECRET or set(text) - set(string.ascii_letters + string.digits + string.punctuation):
        raise ValueError(TOKEN.allowed)
    return Secret(text)


TOKEN = Kind(_token, f"at least {_SHORTEST_SECRET} printable ASCII characters, no spaces", "TEXT")


def _keys(text: str) -> tuple[Secret, ...]:
    try:
        return tuple(_token(key.strip()) for key in text.split(","))
    except ValueError:
        raise ValueError(KEYS.allowed) from None


KEYS = Kind(_keys, f"a comma list of keys, each of {TOKEN.allowed}", "LIST", many=True)


def _network(item: str) -> tuple[Network, ...]:
    if item.lower() == "any":
        return _EVERYONE
    address, slash, length = item.partition("/")
    if "%" in address or (slash and not re.fullmatch("[0-9]{1,3}", length)):
        raise ValueError(f"{item!r} is none of them; {NETWORKS.allowed}")
    try:
        network = ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{item!r} is none of them; {NETWORKS.allowed}") from None
    if str(network.network_address) != str(ip_network(address).network_address):
        raise ValueError(f"{item!r} has host bits set; the network is {network}")
    return (network,)


def _networks(text: str) -> tuple[Network, ...]:
    found = (network for item in text.split(",") for network in _network(item.strip()))
    return tuple(dict.fromkeys(found))


NETWORKS = Kind(_networks, "a comma list of networks (10.0.0.0/8), addresses (::1) or the word any", "LIST", many=True)


def show(value: object) -> str:
    """Write a typed value the way an operator would set it, ``***`` for a secret and ``-`` for nothing."""
    if value is None:
        return "disabled"
    if isinstance(value, Secret):
        text = "***" if value else ""
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, tuple):
        text = ",".join(show(item) for item in value)
    elif isinstance(value, ForwardZone):
        text = f"{value.name}=" + "+".join(str(server) for server in value.servers)
    else:
        text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return text or "-"
