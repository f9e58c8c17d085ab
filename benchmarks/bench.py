"""The bench: starts the servers of a scenario and holds what they share. Scenarios know nothing of processes."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import dns, zone
from benchmarks.errors import BenchmarkError
from benchmarks.machine import REPOSITORY, Cores
from benchmarks.peers import PEERS, Peer, Setup
from benchmarks.processes import Nursery
from benchmarks.progress import Progress
from benchmarks.results import FLOOR, HEIMDALL, Kind
from benchmarks.server import Server

_START_SECONDS = 15.0
_DEFAULT_ENTRIES = 100_000
_PYTHON = sys.executable


@dataclass(kw_only=True)
class Bench:
    """What a scenario works with. One scenario, one bench: whatever it starts ends with it."""

    nursery: Nursery
    directory: Path
    cores: Cores
    progress: Progress
    rounds: int
    seconds: float
    """How long one server is measured in one round."""
    quick: bool = False
    """A rehearsal: the same steps with few names."""
    wanted: frozenset[str] | None = None
    """The peers to compare with; None: all that are installed."""
    floor_program: Path | None = None
    notes: list[str] = field(default_factory=list)
    _upstream: Server | None = None
    _files: int = 0

    def upstream(self) -> Server:
        """Return nsd, which is started when it is first asked for."""
        if self._upstream is None:
            port = dns.free_port()
            child = self.nursery.start("nsd", zone.write_nsd(self.directory / "nsd", port), cores=self.cores.backend)
            dns.wait_until_answered(port, seconds=_START_SECONDS, alive=child.check)
            self._upstream = Server("nsd, asked directly", "beside", port, child)
        return self._upstream

    def heimdall(
        self,
        *flags: str,
        name: str = HEIMDALL,
        kind: Kind = "heimdall",
        entries: int = _DEFAULT_ENTRIES,
        zones: Mapping[str, int] | None = None,
        upstream: int = 0,
        redis: int = 0,
        cores: Iterable[int] | None = None,
    ) -> Server:
        """Start Heimdall with its defaults; ``redis`` and ``upstream`` are ports, ``zones`` maps zones to ports."""
        port, http_port = dns.free_port(), dns.free_port()
        argv = [_PYTHON, str(REPOSITORY / "heimdall.py"), "--bind-addr", f"127.0.0.1:{port}"]
        argv += ["--http-bind-addr", f"127.0.0.1:{http_port}"]
        argv += ["--upstream-servers", f"127.0.0.1:{upstream or self.upstream().port}"]
        # A replica that has warmed its memory from Redis would not ask there for what is measured.
        l2 = ["--redis-url", f"redis://127.0.0.1:{redis}", "--warm-cache-entries", "0"]
        argv += l2 if redis else ["--redis-enabled", "false"]
        argv += ["--max-cache-size", str(entries)] if entries != _DEFAULT_ENTRIES else []
        argv += ["--drain-seconds", "0"]
        if zones:
            argv += ["--forward-zones", ",".join(f"{zone}=127.0.0.1:{to}" for zone, to in zones.items())]
        self.progress.say(f"starting {name}")
        child = self.nursery.start(name, [*argv, *flags], cores=cores or self.cores.server, cwd=self.directory)
        dns.wait_until_answered(port, seconds=_START_SECONDS, alive=child.check)
        server = Server(name, kind, port, child, http_port)
        if redis:
            server.wait_for_redis()
        return server

    def peers(
        self,
        *only: str,
        entries: int = _DEFAULT_ENTRIES,
        zones: Mapping[str, int] | None = None,
        compare_relays: bool = True,
    ) -> list[Server]:
        """Start every wanted peer (of ``only``, when given) that is installed; one that does not start is noted."""
        started = []
        for peer in PEERS:
            wanted = self.wanted is None or peer.name in self.wanted
            if wanted and (not only or peer.name in only) and peer.installed():
                kind: Kind = "beside" if peer.relay and not compare_relays else "peer"
                try:
                    started.append(self.peer(peer, kind, entries=entries, zones=zones))
                except BenchmarkError as error:
                    self.notes.append(f"{peer.name} was left out: {error}")
        return started

    def peer(
        self,
        peer: Peer,
        kind: Kind,
        *,
        entries: int = _DEFAULT_ENTRIES,
        zones: Mapping[str, int] | None = None,
        redis: int = 0,
    ) -> Server:
        """Start one peer; raises when it gives no answer."""
        self.progress.say(f"starting {peer.name}")
        port = dns.free_port()
        setup = Setup(
            port=port,
            upstream=self.upstream().port,
            entries=entries,
            directory=self.directory / f"{peer.name}-{port}",
            zones=zones or {},
            redis=redis,
        )
        child = self.nursery.start(peer.name, peer.configure(setup), cores=self.cores.server)
        try:
            dns.wait_until_answered(port, seconds=_START_SECONDS, alive=child.check)
        except BenchmarkError:
            self.nursery.stop(child)
            raise
        return Server(peer.name, kind, port, child)

    def floor(self) -> list[Server]:
        """Start the bare echo, when it could be compiled."""
        if self.floor_program is None:
            return []
        port = dns.free_port()
        child = self.nursery.start(FLOOR, [str(self.floor_program), str(port)], cores=self.cores.server)
        dns.wait_until_answered(port, seconds=_START_SECONDS, alive=child.check)
        return [Server(FLOOR, "floor", port, child)]

    def late_answers(self, seconds: float) -> int:
        """Start a DNS server that answers late; return its port."""
        return self._delay("dns", seconds)

    def distance(self, port: int, seconds: float) -> int:
        """Put a round trip of ``seconds`` in front of a TCP port; return the port of its far end."""
        return self._delay("tcp", seconds, port)

    def stop(self, *servers: Server) -> None:
        """End servers before the scenario ends."""
        self.nursery.stop(*(server.child for server in servers))

    def names_file(self, names: Iterable[str], *, mixed: bool = False) -> Path:
        """Write names for dnsperf; return the file."""
        self._files += 1
        return zone.write_names(self.directory / f"names-{self._files}", names, mixed=mixed)

    def count(self, number: int) -> int:
        """Return ``number``, or a small part of it in a rehearsal."""
        return max(100, number // 50) if self.quick else number

    def _delay(self, kind: str, seconds: float, *target: int) -> int:
        port = dns.free_port()
        argv = [_PYTHON, "-m", "benchmarks.delay", kind, *map(str, (port, *target)), f"{seconds:g}"]
        child = self.nursery.start(f"delay {kind}", argv, cores=self.cores.backend, cwd=REPOSITORY)
        if kind == "dns":
            dns.wait_until_answered(port, seconds=_START_SECONDS + seconds, alive=child.check)
        else:
            dns.wait_until_accepted(port, seconds=_START_SECONDS, alive=child.check)
        return port
