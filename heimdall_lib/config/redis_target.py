"""Where Redis is: its URL as text, and the order in which Heimdall looks for it.

Pure: nothing here connects or resolves. A URL may hold a password, so no error repeats any part of it, and
``masked`` decides what of it may be shown: only what is certain not to be a credential.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from heimdall_lib.config.addresses import endpoint
from heimdall_lib.config.values import PASSWORD, Kind
from heimdall_lib.errors import SettingError
from heimdall_lib.settings import Endpoint, RedisTarget, RedisTopology, Secret

STEP_SERVICE = "Kubernetes service name heimdall-redis"
STEP_NONE = "not detected"
STEP_DISABLED = "--redis-enabled false"

_SCHEMES: dict[str, tuple[RedisTopology, bool]] = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_FORMS = {
    "standalone": "redis[s]://[user:password@]host[:port][/db]",
    "unix": "unix://[user:password@]/path[?db=0]",
    "sentinel": "redis[s]+sentinel://[user:password@]host[:port],.../service[/db]",
    "cluster": "redis[s]+cluster://[user:password@]host[:port],...",
}
_ALLOWED = "a URL whose scheme is one of " + ", ".join(_SCHEMES)
_DATABASE = re.compile(r"[0-9]{1,5}")
_SERVICE_PATH = re.compile(r"([A-Za-z0-9._-]+)(?:/([0-9]{1,5})?)?")
_SCHEME_SHAPE = re.compile(r"[A-Za-z][A-Za-z+]{0,30}")
_SHOWN_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
_SHOWN_REST = re.compile(rf"(?:{_SHOWN_HOST}(?:,{_SHOWN_HOST})*)?(?:/[A-Za-z0-9._/-]*)?(?:\?db=[0-9]{{1,5}})?")


def masked(url: str) -> str:
    """Show a Redis URL in an error: the scheme, then the hosts only where they cannot be a misplaced password."""
    scheme, separator, rest = url.partition("://")
    if not separator or not _SCHEME_SHAPE.fullmatch(scheme):
        return "***"
    _, at_sign, place = rest.rpartition("@")
    # A socket has no host: what stands in its place is most likely a password without its @.
    harmless = _SHOWN_REST.fullmatch(place) and (scheme.lower() != "unix" or place.startswith("/"))
    return f"{scheme}://" + ("***@" if at_sign else "") + (place if harmless else "***")


def parse_redis_url(url: str, step: str = "", *, guessed: bool = False) -> RedisTarget:
    """Read a Redis URL; user name and password are percent-decoded.

    Raises ``ValueError`` that says what is allowed and repeats nothing of ``url``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise ValueError(_ALLOWED)
    topology, tls = _SCHEMES[scheme.lower()]
    try:
        parts = _unix(rest) if topology == "unix" else _network(topology, rest)
        username, password = _credentials(parts.credentials)
    except ValueError as error:
        raise ValueError(f"{error}; {_FORMS[topology]}") from None
    return RedisTarget(
        topology=topology,
        hosts=parts.hosts,
        step=step,
        database=parts.database,
        path=parts.path,
        service_name=parts.service_name,
        tls=tls,
        username=username,
        password=password,
        guessed=guessed,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    credentials: str
    hosts: tuple[Endpoint, ...] = ()
    database: int = 0
    path: str = ""
    service_name: str = ""


def _unix(rest: str) -> _Parts:
    authority, slash, path = rest.partition("/")
    path, question, query = path.partition("?")
    if not slash or not path or (authority and not authority.endswith("@")):
        raise ValueError("the path of the socket is missing")
    if question and not query.startswith("db="):
        raise ValueError("an unknown query parameter")
    return _Parts(
        credentials=authority.removesuffix("@"),
        database=_database(query.removeprefix("db=")) if question else 0,
        path="/" + unquote(path),
    )


def _network(topology: RedisTopology, rest: str) -> _Parts:
    # The last @, so that a password may hold characters which should have been percent-encoded.
    credentials, _, place = rest.rpartition("@")
    if "?" in place:
        raise ValueError("an unknown query parameter")
    hosts, _, path = place.partition("/")
    listed = _hosts(hosts, 26379 if topology == "sentinel" else 6379)
    if topology == "standalone" and len(listed) > 1:
        raise ValueError("only one host is possible")
    if topology == "sentinel":
        match = _SERVICE_PATH.fullmatch(path)
        if match is None:
            raise ValueError("the service that the sentinels watch is missing or malformed")
        service_name, database = match.groups()
        return _Parts(credentials=credentials, hosts=listed, service_name=service_name, database=int(database or 0))
    database = _database(path or "0")
    if topology == "cluster" and database:
        raise ValueError("a cluster has database 0 only")
    return _Parts(credentials=credentials, hosts=listed, database=database)


def _hosts(text: str, default_port: int) -> tuple[Endpoint, ...]:
    hosts = tuple(endpoint(item.strip(), default_port) for item in text.split(","))
    if len(set(hosts)) < len(hosts):
        raise ValueError("a host is listed twice")
    return hosts


def _database(text: str) -> int:
    if not _DATABASE.fullmatch(text):
        raise ValueError("the database must be a number from 0 to 99999")
    return int(text)


def _credentials(text: str) -> tuple[str, Secret]:
    username, _, password = text.partition(":")
    try:
        return unquote(username, errors="strict"), PASSWORD.parse(unquote(password, errors="strict"))
    except ValueError:
        raise ValueError("user name and password must be UTF-8, percent-encoded") from None


def _checked_url(text: str) -> str:
    parse_redis_url(text)
    return text


URL = Kind(_checked_url, "; ".join(_FORMS.values()), "URL")


def detect(
    url: str, url_step: str, environ: Mapping[str, str], *, enabled: bool | None
) -> tuple[RedisTarget | None, str]:
    """Find Redis: the setting, REDIS_URL, the service variables, the service name in Kubernetes, else nothing.

    ``url_step`` says where ``url`` comes from; ``enabled`` is ``None`` for ``auto``. The second value names the step
    that decided. Raises ``SettingError`` for a wrong value.
    """
    if enabled is False:
        return None, STEP_DISABLED
    steps: tuple[tuple[str, Callable[[], str]], ...] = (
        (url_step, lambda: url),
        ("REDIS_URL", lambda: environ.get("REDIS_URL", "")),
        ("HEIMDALL_REDIS_SERVICE_HOST", lambda: _service_url(environ)),
        (STEP_SERVICE, lambda: "redis://heimdall-redis:6379" if environ.get("KUBERNETES_SERVICE_HOST") else ""),
    )
    for step, read in steps:
        if found := read():
            # Who says that there is a Redis wants to hear when the guessed name does not exist.
            return _target(found, step, guessed=step == STEP_SERVICE and not enabled), step
    return None, STEP_NONE


def _target(url: str, step: str, *, guessed: bool) -> RedisTarget:
    try:
        return parse_redis_url(url, step, guessed=guessed)
    except ValueError as error:
        raise SettingError(step, masked(url), str(error)) from None


def _service_url(environ: Mapping[str, str]) -> str:
    host = environ.get("HEIMDALL_REDIS_SERVICE_HOST", "")
    if not host:
        return ""
    port = environ.get("HEIMDALL_REDIS_SERVICE_PORT") or "6379"
    try:
        where = endpoint(f"[{host}]" if ":" in host else host, 6379)
    except ValueError:
        raise SettingError("HEIMDALL_REDIS_SERVICE_HOST", host, "an IP address or a host name") from None
    if not port.isdecimal() or not port.isascii() or len(port) > 5 or not 1 <= int(port) <= 65535:
        raise SettingError("HEIMDALL_REDIS_SERVICE_PORT", port, "a port from 1 to 65535")
    return f"redis://{Endpoint(where.host, int(port))}"
