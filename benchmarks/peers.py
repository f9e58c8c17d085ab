"""The peers: which program, which package, which configuration.

Every peer gets what Heimdall gets: one thread that answers, a cache for as many entries, no DNSSEC validation (Heimdall
does none), and nsd on loopback to forward to. Everything else stays at the default of its Debian package's program.
"""

import getpass
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import ENVIRONMENT


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What one server of a scenario is told."""

    port: int
    upstream: int
    entries: int
    directory: Path
    zones: Mapping[str, int] = field(default_factory=dict)
    """Zones with an upstream of their own: zone → loopback port."""
    redis: int = 0
    """The port of Redis, for the peer that can share a cache through it."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A DNS server that Debian has."""

    name: str
    program: str
    package: str
    version_argv: tuple[str, ...]
    configure: Callable[[Setup], list[str]]
    """Writes the configuration into the setup's directory and returns the command."""
    needs: str = ""
    """What the program must name among its features (with ``version_argv``) to count as installed."""
    relay: bool = False
    """A packet cache in front of resolvers, which does less on a miss than a cache that understands the answer."""

    def installed(self) -> bool:
        """Say whether this machine has the program."""
        return on_path(self.program) and self.needs in _output(self.program, *self.version_argv)

    def version(self) -> str:
        """Return the version that the program states."""
        return program_version(self.program, *self.version_argv)


def on_path(program: str) -> bool:
    """Say whether this machine has a program."""
    return shutil.which(program, path=ENVIRONMENT["PATH"]) is not None


def program_version(*argv: str) -> str:
    """Return the first thing like a version number in what a command prints."""
    match = re.search(r"\d+\.\d+(?:\.\d+)*", _output(*argv))
    return match[0] if match else "unknown"


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _unbound(setup: Setup) -> list[str]:
    forwards = {".": setup.upstream, **setup.zones}
    text = f"""server:
    interface: 127.0.0.1@{setup.port}
    num-threads: 1
    do-ip6: no
    do-daemonize: no
    do-not-query-localhost: no
    module-config: "{"cachedb " if setup.redis else ""}iterator"
    msg-cache-size: {_bytes(setup)}
    rrset-cache-size: {2 * _bytes(setup)}
    incoming-num-tcp: 1000
    outgoing-range: 8192
    num-queries-per-thread: 4096
    username: ""
    chroot: ""
    directory: "{setup.directory}"
    pidfile: ""
    use-syslog: no
    verbosity: 0
remote-control:
    control-enable: no
""" + "".join(f'forward-zone:\n    name: "{zone}"\n    forward-addr: 127.0.0.1@{to}\n' for zone, to in forwards.items())
    if setup.redis:
        text += (
            f"cachedb:\n    backend: redis\n    redis-server-host: 127.0.0.1\n    redis-server-port: {setup.redis}\n"
        )
    return ["unbound", "-d", "-c", _write(setup, "unbound.conf", text)]


def _dnsmasq(setup: Setup) -> list[str]:
    text = f"""port={setup.port}
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
keep-in-foreground
user={getpass.getuser()}
pid-file={setup.directory}/dnsmasq.pid
cache-size={setup.entries}
dns-forward-max=4096
server=127.0.0.1#{setup.upstream}
""" + "".join(f"server=/{zone}/127.0.0.1#{to}\n" for zone, to in setup.zones.items())
    return ["dnsmasq", f"--conf-file={_write(setup, 'dnsmasq.conf', text)}"]


def _recursor(setup: Setup) -> list[str]:
    forwards = {".": setup.upstream, **setup.zones}
    text = f"""local-address=127.0.0.1
local-port={setup.port}
threads=1
pdns-distributes-queries=no
forward-zones-recurse={",".join(f"{zone}=127.0.0.1:{to}" for zone, to in forwards.items())}
dont-query=
hint-file=no
dnssec=off
max-cache-entries={2 * setup.entries}
max-packetcache-entries={setup.entries}
max-mthreads=4096
security-poll-suffix=
socket-dir={setup.directory}
daemon=no
write-pid=no
disable-syslog=yes
quiet=yes
"""
    return ["pdns_recursor", f"--config-dir={Path(_write(setup, 'recursor.conf', text)).parent}"]


def _dnsdist(setup: Setup) -> list[str]:
    text = f"""setLocal("127.0.0.1:{setup.port}")
setSecurityPollSuffix("")
setMaxTCPClientThreads(1)
newServer({{address="127.0.0.1:{setup.upstream}"}}):setUp()
getPool(""):setCache(newPacketCache({setup.entries}))
""" + "".join(
        f'newServer({{address="127.0.0.1:{to}", pool="{zone}"}}):setUp()\n'
        f'getPool("{zone}"):setCache(newPacketCache({setup.entries}))\n'
        f'addAction("{zone}.", PoolAction("{zone}"))\n'
        for zone, to in setup.zones.items()
    )
    return ["dnsdist", "--supervised", "--disable-syslog", "-C", _write(setup, "dnsdist.conf", text)]


def _knot(setup: Setup) -> list[str]:
    # FORWARD, not STUB: with STUB it asks upstream again for what it was given more than five seconds ago.
    text = f"""net.ipv6 = false
net.listen("127.0.0.1", {setup.port}, {{ kind = "dns" }})
trust_anchors.remove(".")
modules.unload("ta_update")
modules.unload("ta_signal_query")
modules.unload("priming")
modules.unload("detect_time_skew")
modules.unload("detect_time_jump")
cache.open({_bytes(setup)}, "lmdb://{setup.directory}")
""" + "".join(
        f'policy.add(policy.suffix(policy.FORWARD("127.0.0.1@{to}"), {{ todname("{zone}.") }}))\n'
        for zone, to in setup.zones.items()
    )
    text += f'policy.add(policy.all(policy.FORWARD("127.0.0.1@{setup.upstream}")))\n'
    return ["kresd", "--noninteractive", "--config", _write(setup, "kresd.conf", text), str(setup.directory)]


def _bytes(setup: Setup) -> int:
    """Return the size of a cache that is set in bytes: 1 KiB an entry, and room to begin with."""
    return (64 << 20) + 1024 * setup.entries


def _write(setup: Setup, name: str, text: str) -> str:
    setup.directory.mkdir(parents=True, exist_ok=True)
    path = setup.directory / name
    path.write_text(text)
    return str(path)


PEERS = (
    Peer(name="unbound", program="unbound", package="unbound", version_argv=("-V",), configure=_unbound),
    Peer(name="dnsmasq", program="dnsmasq", package="dnsmasq-base", version_argv=("-v",), configure=_dnsmasq),
    Peer(
        name="recursor",
        program="pdns_recursor",
        package="pdns-recursor",
        version_argv=("--version",),
        configure=_recursor,
    ),
    Peer(name="knot", program="kresd", package="knot-resolver", version_argv=("-V",), configure=_knot),
    Peer(
        name="dnsdist",
        program="dnsdist",
        package="dnsdist",
        version_argv=("--version",),
        configure=_dnsdist,
        relay=True,
    ),
)

UNBOUND_CACHEDB = Peer(
    name="unbound cachedb",
    program="unbound",
    package="unbound",
    version_argv=("-V",),
    needs="cachedb",
    configure=_unbound,
)
