"""The zone that every server forwards to, nsd's configuration for it, and the files of names to ask for.

One wildcard answers for every name, so that a scenario may ask for names that nobody has asked for before.
"""

import random
from collections.abc import Iterable
from pathlib import Path

from benchmarks.dns import ZONE, mixed_case

NSD_PROGRAM = "nsd"
TTL = 86400  # nothing expires while it is measured


def write_nsd(directory: Path, port: int) -> list[str]:
    """Write the zone and the configuration; return the command that serves them."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "zone").write_text(zone_text())
    (directory / "nsd.conf").write_text(nsd_text(directory, port))
    return [NSD_PROGRAM, "-d", "-c", str(directory / "nsd.conf")]


def zone_text() -> str:
    """Return the zone: every name has one address."""
    return (
        f"$ORIGIN {ZONE}.\n$TTL {TTL}\n"
        f"@ SOA ns.{ZONE}. hostmaster.{ZONE}. 1 3600 900 604800 3600\n"
        "@ NS ns\n"
        "@ A 192.0.2.1\n"
        "ns A 127.0.0.1\n"
        "* A 192.0.2.2\n"
    )


def nsd_text(directory: Path, port: int) -> str:
    """Return nsd.conf: one process, and no rate limit, which would drop the load."""
    return f"""server:
    ip-address: 127.0.0.1
    port: {port}
    server-count: 1
    do-ip6: no
    rrl-ratelimit: 0
    minimal-responses: yes
    hide-version: yes
    username: ""
    chroot: ""
    database: ""
    zonesdir: "{directory}"
    pidfile: ""
    xfrdfile: "{directory}/xfrd.state"
    zonelistfile: "{directory}/zone.list"
    xfrdir: "{directory}"
    tcp-count: 1000
remote-control:
    control-enable: no
zone:
    name: {ZONE}
    zonefile: zone
"""


def names(prefix: str, count: int, *, zone: str = ZONE) -> list[str]:
    """Return ``count`` names of the same length that begin with ``prefix``."""
    return [f"{prefix}{number:07d}.{zone}" for number in range(count)]


def write_names(path: Path, wanted: Iterable[str], *, mixed: bool = False) -> Path:
    """Write a file of address queries for dnsperf, in the order given."""
    chance = random.Random(1)  # the same spelling in every run
    with path.open("w") as output:
        for name in wanted:
            output.write(f"{mixed_case(name, chance) if mixed else name} A\n")
    return path
