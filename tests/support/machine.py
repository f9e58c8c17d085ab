"""A name server that others wrote, and a piece of machine in which Heimdall is the system's resolver.

Rules: the machine's own resolv.conf is never touched: the files that stand in for it are mounted over it inside a
mount namespace that ends with the test.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.processes import PATIENCE, Process, environment, program

_USER = ("--user", "--map-root-user")


class Nsd(Process):
    """NSD, authoritative for a few zones."""

    def __init__(
        self, directory: Path, zones: Mapping[str, str], *, address: str, port: int, prefix: Sequence[str] = ()
    ) -> None:
        """Serve ``zones`` (name to the text of a zone file), started behind a command line ``prefix``."""
        directory.mkdir()
        settings = [
            "server:",
            f"  ip-address: {address}@{port}",
            "  server-count: 1",
            '  username: ""',
            '  database: ""',
            f'  zonesdir: "{directory}"',
            f'  pidfile: "{directory}/nsd.pid"',
            f'  xfrdfile: "{directory}/xfrd.state"',
            f'  xfrdir: "{directory}"',
            f'  zonelistfile: "{directory}/zone.list"',
            "  rrl-ratelimit: 0",
            "remote-control:",
            "  control-enable: no",
        ]
        for name, text in zones.items():
            (directory / name).write_text(text)
            settings += ["zone:", f"  name: {name}", f'  zonefile: "{name}"']
        (directory / "nsd.conf").write_text("\n".join(settings) + "\n")
        super().__init__([*prefix, program("nsd"), "-d", "-c", str(directory / "nsd.conf")])
        try:
            self.wait_for_line("nsd started")
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Stop it together with the processes that it started, which a kill would leave behind."""
        try:
            if self.running:
                self.stop(signal.SIGTERM)
        finally:
            self.kill()


class NamespaceUnavailableError(Exception):
    """The machine gives no namespaces to this user; the message is what it said."""


class Namespace:
    """A network of its own with nothing but loopback, and a resolv.conf of its own."""

    def __init__(self, directory: Path, resolv_conf: str) -> None:
        """Raises NamespaceUnavailableError where namespaces cannot be had, with the reason."""
        directory.mkdir()
        options, joining = _options()
        mounts = {"resolv.conf": resolv_conf, "nsswitch.conf": "hosts: files dns\n"}
        script = [f"{program('ip')} link set lo up"]
        for name, text in mounts.items():
            (directory / name).write_text(text)
            script.append(f"if test -e /etc/{name}; then mount --bind {directory}/{name} /etc/{name}; fi")
        script += ["test -e /etc/resolv.conf", "echo ready >&2", "exec sleep 600"]
        self._holder = Process([program("unshare"), *options, "sh", "-ec", "\n".join(script)])
        self.prefix = [program("nsenter"), "--target", str(self._holder.pid), *joining, "--wd"]
        """What goes before a command line so that it runs inside, in the same working directory."""
        try:
            self._holder.wait_for_line("^ready$")
        except AssertionError as error:
            self._holder.kill()
            raise NamespaceUnavailableError(str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()

    def run(self, *command: str) -> str:
        """Run a command inside and return what it printed; it must succeed."""
        finished = subprocess.run(
            [*self.prefix, *command], env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert finished.returncode == 0, f"{command}: {finished.stdout}{finished.stderr}"
        return finished.stdout


def _options() -> tuple[list[str], list[str]]:
    """Return what unshare needs to make the namespaces and nsenter to join them."""
    refusals = []
    for user in ((), _USER) if os.geteuid() == 0 else (_USER,):
        command = [program("unshare"), *user, "--mount", "--net", "true"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if tried.returncode == 0:
            joining = ["--user", "--preserve-credentials"] if user else []
            return [*user, "--mount", "--net"], [*joining, "--mount", "--net"]
        refusals.append(f"{' '.join(command)}: {tried.stderr.strip()}")
    raise NamespaceUnavailableError("; ".join(refusals))
