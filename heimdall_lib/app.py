"""From the command line to the exit status: what is started, what signals do to it, and its HTTP side.

Rules: settings are read here and nowhere else; what answers queries, one process or several, is a ``Service`` and looks
the same from here.
"""

import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol

import gevent
from gevent.event import AsyncResult, Event
from gevent.pywsgi import WSGIServer

from heimdall_lib import __version__, wiring
from heimdall_lib import log as logs
from heimdall_lib.admin import Admin, serve
from heimdall_lib.config import describe, read_command_line, unknown_variables
from heimdall_lib.errors import ListenError, SettingError, WorkerError
from heimdall_lib.invalidations import Flush
from heimdall_lib.metrics import StatsCollector, registry
from heimdall_lib.process import Server
from heimdall_lib.recent import Recent
from heimdall_lib.series import SAMPLE_SECONDS
from heimdall_lib.server import listen
from heimdall_lib.settings import Endpoint, Settings
from heimdall_lib.status import Status
from heimdall_lib.supervised import Supervised
from heimdall_lib.supervisor import Supervisor
from heimdall_lib.tally import Reading
from heimdall_lib.top_names import TopNames
from heimdall_lib.workers import WORKER

log = logging.getLogger("heimdall.app")

_SELF_QUERIES_SECONDS = 1.0  # what came of a query to ourselves is good for so long, however often probes ask


class Service(Protocol):
    """What answers queries."""

    addresses: Sequence[Endpoint]
    """Where it listens."""
    settled: AsyncResult
    """Once it is known whether it has started: empty text, or why it could not."""

    def start(self) -> None:
        """Begin to answer."""

    def stop(self) -> None:
        """Read no more, finish what is in flight, and let go; returns within a bound."""

    def apply(self, settings: Settings) -> None:
        """Go by ``settings`` from now on, as far as can be without a restart."""

    def flush(self, flush: Flush) -> Mapping[str, object]:
        """Forget in L1 and L2, on every replica; return what came of it."""

    def entry(self, name: bytes, qtype: int) -> Mapping[str, object]:
        """Return where the answers to a question are."""

    def look(self) -> Reading:
        """Return what was counted and what is held now."""

    def names(self) -> TopNames:
        """Return which names clients ask for most."""

    def pids(self) -> Sequence[int]:
        """Return the ids of other processes that belong to it."""

    def silent(self, transports: Sequence[str]) -> str:
        """Ask a real query over real sockets, ``udp`` or ``tcp``; return why there is no answer, empty if there is."""

    def unready(self) -> str:
        """Return why clients should go elsewhere, empty when they need not."""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run Heimdall until a signal ends it; return the exit status: 0, 1 (cannot listen) or 2 (bad settings)."""
    gevent.get_hub().print_exception = _log_crash
    if argv[:1] == [WORKER]:
        return _work(argv[1:])
    try:
        invocation = read_command_line(argv, environ)
    except SettingError as error:
        return _refuse(error, 2)
    if invocation.check_config:
        print(describe(invocation.settings))
        return 0
    logs.configure(invocation.settings.log_level, invocation.settings.log_format)
    for name in unknown_variables(environ):
        log.warning("%s is set, but is no setting of Heimdall", name)
    try:
        Heimdall(invocation.settings, read_again=lambda: read_command_line(argv, environ).settings).run()
    except (ListenError, WorkerError) as error:
        return _refuse(error, 1)
    return 0


def _work(argv: Sequence[str]) -> int:
    try:
        number, descriptor = map(int, argv)
        channel = socket.socket(fileno=descriptor)
    except (ValueError, OSError):
        return _refuse(f"{WORKER}: only for processes that Heimdall starts itself; see --workers", 2)
    return Supervised(number, channel).run()


def _refuse(why: object, status: int) -> int:
    print(f"heimdall: {why}", file=sys.stderr)
    return status


def _log_crash(
    context: object, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    log.error("a greenlet died: %s", context, exc_info=(kind, error, traceback))


class Heimdall:
    """The program: a service with its HTTP side, from its start to its drain."""

    def __init__(self, settings: Settings, *, read_again: Callable[[], Settings]) -> None:
        """Build everything and bind every socket; raises ListenError. Nothing is answered before ``run``."""
        self._settings = settings
        self._read_again = read_again
        self._stop, self._hurry = Event(), Event()
        count = wiring.worker_count(settings)
        with listen.all_or_none() as sockets:
            self._service: Service = Supervisor(settings, count) if count > 1 else Server(settings, sockets)
            web = [sockets.tcp(settings.http_bind_addr)] if settings.http_bind_addr else []
        self._status = Status(
            look=self._service.look,
            names=self._service.names,
            unready=self._service.unready,
            redis=wiring.redis_words(settings),
            shown=lambda: self._settings.shown,
        )
        self._http: list[WSGIServer] = [serve(sock, self._admin()) for sock in web]

    def run(self) -> None:
        """Answer until SIGTERM or SIGINT, then drain; a second signal cuts the drain short. Raises WorkerError."""
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_signal)
        gevent.signal_handler(signal.SIGHUP, self.reload)
        self._log_settings()
        for http in self._http:
            http.start()
        self._service.start()
        gevent.spawn(self._sample)
        gevent.wait([self._service.settled, self._stop], count=1)
        why = self._service.settled.value
        if why == "":
            self._status.not_ready = ""
            self._log_addresses()
            self._stop.wait()
            self._drain()
        self._service.stop()
        for http in self._http:
            http.stop(timeout=0)
        if why:
            raise WorkerError(why)
        log.info("stopped")

    def reload(self) -> None:
        """Read the settings again and apply those that can change; keep the old ones when the new are invalid."""
        try:
            wanted = self._read_again()
        except SettingError as error:
            log.error("settings not reloaded, the old ones stay: %s", error)
            return
        self._settings, taken, fixed = wiring.merged(self._settings, wanted)
        logs.set_level(self._settings.log_level)
        self._service.apply(self._settings)
        log.info("settings reloaded: %s", wiring.flags(taken) or "nothing new")
        if fixed:
            log.warning("these settings change only with a restart: %s", wiring.flags(fixed))

    def _admin(self) -> Admin:
        # TCP decides about traffic only: a restart for its sake would cost the L1 that still answers over UDP.
        alive = Recent(lambda: self._service.silent(["udp"]), seconds=_SELF_QUERIES_SECONDS)
        answers = Recent(lambda: self._service.silent(["udp", "tcp"]), seconds=_SELF_QUERIES_SECONDS)
        return Admin(
            registry=registry(StatsCollector(self._service.look), self._service.pids),
            answers=alive,
            ready=lambda: self._status.unready() or answers(),
            stats=self._status.describe,
            flush=self._service.flush,
            entry=self._service.entry,
            token=self._settings.admin_token,
        )

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _drain(self) -> None:
        """Say unready but go on answering for a while."""
        self._status.not_ready = "draining"
        log.info("draining for %g s", self._settings.drain_seconds)
        self._hurry.wait(self._settings.drain_seconds)

    def _sample(self) -> None:
        while True:
            self._status.sample()
            gevent.sleep(SAMPLE_SECONDS)

    def _log_settings(self) -> None:
        settings = self._settings
        log.info("Heimdall %s", __version__)
        log.info("upstream: %s", ", ".join(str(server) for server in settings.upstream_servers))
        for zone in settings.forward_zones:
            log.info("upstream for %s: %s", zone.name, ", ".join(str(server) for server in zone.servers))
        log.info("Redis: %s", wiring.redis_words(settings))

    def _log_addresses(self) -> None:
        for address in self._service.addresses:
            log.info("listening on %s port %d, UDP and TCP", address.host, address.port)
        if pids := self._service.pids():
            log.info("workers: %s", ", ".join(map(str, pids)))
        for http in self._http:
            log.info("HTTP on %s port %d", *http.address[:2])
