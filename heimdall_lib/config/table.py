"""Every setting in one table: its flag, default, kind, meaning, and whether SIGHUP re-reads it.

The flag gives the other names: ``max-cache-size`` is ``--max-cache-size``, ``HEIMDALL_MAX_CACHE_SIZE``, the key
``max-cache-size`` in the file and the field ``max_cache_size`` of ``Settings``. docs/configuration.md says the same,
and a test compares the two.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from heimdall_lib.config.addresses import HTTP_LISTENER, LISTENERS
from heimdall_lib.config.redis_target import URL, masked
from heimdall_lib.config.upstreams import SERVERS, ZONES
from heimdall_lib.config.values import (
    AUTO_OR_BOOLEAN,
    BOOLEAN,
    KEY_PREFIX,
    KEYS,
    LARGEST_TTL,
    NETWORKS,
    PASSWORD,
    TOKEN,
    Kind,
    decimal,
    integer,
    optional,
    pattern,
    seconds,
    seconds_or_zero,
    word,
)
from heimdall_lib.settings import Secret


def _hidden(_: str) -> str:
    return "***"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: ``default`` is text and is parsed like any other; ``mask`` is what an error may show of a value."""

    flag: str
    default: str
    kind: Kind
    help: str
    reloadable: bool = False
    mask: Callable[[str], str] = str

    @property
    def field(self) -> str:
        """The name of the field of ``Settings``."""
        return self.flag.replace("-", "_")

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return "HEIMDALL_" + self.field.upper()


_FILE = optional(pattern(r"[^\0]+", "the path of a readable file", "FILE"), "")
_TTL = integer(0, LARGEST_TTL, "SECONDS")
_BURST = decimal(1, 1e9, "2x (twice rate-limit, at least 1) or a number of queries", "QUERIES")
_PRIVATE = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7,169.254.0.0/16,fe80::/10"
BURST = Kind(lambda text: None if text.lower() == "2x" else _BURST.parse(text), _BURST.allowed, _BURST.metavar)
"""``None`` stands for ``2x``."""

TABLE: tuple[Setting, ...] = (
    Setting("config", "", _FILE, "YAML file with settings; its keys are the flags without --"),
    Setting("bind-addr", "127.0.0.1:1053", LISTENERS, "where DNS is answered, UDP and TCP"),
    Setting("http-bind-addr", "127.0.0.1:8080", HTTP_LISTENER, "where metrics, health and admin are answered"),
    Setting("upstream-servers", "auto", SERVERS,
            "who is asked; auto = the name servers of resolv.conf (never itself), else 1.1.1.1,8.8.8.8", True),
    Setting("forward-zones", "", optional(ZONES, ()), "zones with servers of their own; the longest suffix wins", True),
    Setting("upstream-policy", "fastest", word("fastest", "sequential", "random"), "which server is asked first", True),
    Setting("upstream-timeout", "1.5", seconds(3600), "one attempt at one server; at most query-timeout", True),
    Setting("query-timeout", "4.5", seconds(3600),
            "a whole query, after which the client has an answer (stale or SERVFAIL)", True),
    Setting("max-cache-size", "100000", integer(1, 100_000_000, "ENTRIES"), "entries in memory, of one process"),
    Setting("max-cache-bytes", "268435456", integer(1, 2**40, "BYTES"),
            "bytes in memory, of one process; whichever is met first"),
    Setting("min-ttl", "0", _TTL, "shortest TTL of a positive answer; at most max-ttl", True),
    Setting("max-ttl", "86400", _TTL, "longest TTL of a positive answer", True),
    Setting("max-negative-ttl", "3600", _TTL, "longest TTL of NXDOMAIN and NODATA", True),
    Setting("failure-ttl", "5", seconds_or_zero(300, "0 = off"),
            "how long a SERVFAIL or an unreachable upstream is remembered (RFC 2308, section 7)", True),
    Setting("serve-stale", "86400", integer(0, LARGEST_TTL, "SECONDS", "0 = off"),
            "how long past expiry an answer may serve when upstreams fail (RFC 8767)", True),
    Setting("stale-reply-ttl", "30", integer(1, LARGEST_TTL, "SECONDS"),
            "the TTL that a stale answer carries (RFC 8767, section 4)", True),
    Setting("stale-client-timeout", "1.8", seconds_or_zero(3600, "0 = a stale answer goes out at once"),
            "how long a client waits before a stale answer is given; below query-timeout", True),
    Setting("prefetch", "true", BOOLEAN, "refresh popular entries shortly before they expire", True),
    Setting("purge-interval", "30", seconds(86400), "how often expired entries leave memory"),
    Setting("redis-url", "", optional(URL, ""), "the shared cache; detected when not set", mask=masked),
    Setting("redis-enabled", "auto", AUTO_OR_BOOLEAN, "auto = when detected; true = refuse to start without"),
    Setting("redis-username", "", optional(pattern(r"[!-~]+", "printable ASCII, no spaces", "NAME"), ""),
            "the ACL user; wins over the one in the URL"),
    Setting("redis-password", "", optional(PASSWORD, Secret("")),
            "the password; wins over the one in the URL", mask=_hidden),
    Setting("redis-password-file", "", _FILE, "file with the password"),
    Setting("redis-ca-cert", "", _FILE, "certificates (PEM) that Redis's certificate is checked against"),
    Setting("redis-client-cert", "", _FILE, "our own certificate (PEM), together with redis-client-key"),
    Setting("redis-client-key", "", _FILE, "the key of our own certificate (PEM)"),
    Setting("redis-key-prefix", "heimdall:dns:cache", KEY_PREFIX, "first part of every key and channel"),
    Setting("redis-view", "auto", pattern(r"[A-Za-z0-9._-]{1,64}", "auto, or 1 to 64 letters, digits, . _ -", "NAME"),
            "replicas share entries within one view; auto = a fingerprint of the upstreams of a name"),
    Setting("redis-timeout", "0.25", seconds(60), "connecting, and one command"),
    Setting("redis-read-budget", "0.02", seconds(60), "how long a query waits for Redis before upstream is asked too"),
    Setting("redis-max-connections", "16", integer(1, 10_000), "size of the pool of one process"),
    Setting("redis-compress-min-bytes", "512", integer(0, 2**20, "BYTES", "0 = never"), "larger values are compressed"),
    Setting("redis-signing-key", "", optional(KEYS, ()),
            "entries are authenticated: all keys verify, the first one signs", mask=_hidden),
    Setting("redis-signing-key-file", "", _FILE, "file with the signing keys"),
    Setting("warm-cache-entries", "10000", integer(0, 100_000_000, "ENTRIES", "0 = off"),
            "how many entries are fetched from Redis at start"),
    Setting("workers", "1", integer(0, 64, "N", "0 = one per core"), "processes that share the port (SO_REUSEPORT)"),
    Setting("max-inflight", "4096", integer(1, 1_000_000),
            "misses under way at once in one process; the newest beyond is shed", True),
    Setting("allow-from", _PRIVATE, NETWORKS, "who may ask; others get REFUSED", True),
    Setting("rate-limit", "0", decimal(0, 1e9, "queries per second", "RATE", "0 = off"),
            "per client (IPv4 /32, IPv6 /56), in one process", True),
    Setting("rate-limit-burst", "2x", BURST, "queries that a client may ask at once; needs rate-limit", True),
    Setting("edns-udp-size", "1232", integer(512, 65535, "BYTES"), "largest UDP answer, and what is advertised"),
    Setting("tcp-idle-timeout", "10", seconds(3600), "a TCP connection without a query is closed (RFC 7766)"),
    Setting("max-tcp-connections", "1024", integer(1, 1_000_000), "open TCP connections of one process"),
    Setting("max-tcp-connections-per-client", "128", integer(1, 1_000_000),
            "the part of them that one client may have (IPv4 /32, IPv6 /56)"),
    Setting("admin-token", "", optional(TOKEN, Secret("")),
            "bearer token of the changing endpoints; without it they answer loopback only", mask=_hidden),
    Setting("admin-token-file", "", _FILE, "file with the token"),
    Setting("drain-seconds", "5", seconds_or_zero(3600, "0 = no draining"),
            "after SIGTERM: unready but still answering for so long"),
    Setting("log-level", "info", word("debug", "info", "warning", "error"), "least severity that is logged", True),
    Setting("log-format", "text", word("text", "json"), "one line of text or one JSON object per event"),
    Setting("query-log", "false", BOOLEAN, "one line per query: client, name, type, rcode, source, microseconds", True),
)  # fmt: skip

ONLY_FLAGS = ("check-config", "version", "help")
"""Flags that are requests, not settings: no variable and no key in the file."""

RELOADABLE = frozenset(row.field for row in TABLE if row.reloadable)
"""Fields of ``Settings`` that SIGHUP can change without a restart."""

# What Kubernetes (and Docker links) put into a pod for a Service whose name begins with "heimdall".
_SERVICE_LINK = re.compile(
    r"HEIMDALL(_[A-Z0-9]+)*"
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def is_service_link(variable: str) -> bool:
    """Tell whether the variable has the shape of a Kubernetes service link and is therefore no setting."""
    return _SERVICE_LINK.fullmatch(variable) is not None


def unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the ``HEIMDALL_*`` variables that set nothing: most likely typing mistakes, worth a warning."""
    known = {row.variable for row in TABLE}
    ours = sorted(name for name in environ if name.startswith("HEIMDALL_") and name not in known)
    return tuple(name for name in ours if not is_service_link(name))
