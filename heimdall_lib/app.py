"""The composition root: settings become objects, objects become a server, signals end it.

The only module that knows every floor.
"""

import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from heimdall_lib import __version__, healthcheck, wiring
from heimdall_lib import log as logs
from heimdall_lib.admin import Admin, serve
from heimdall_lib.config import describe, read_command_line, unknown_variables
from heimdall_lib.errors import ListenError, SettingError
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.metrics import StatsCollector, registry
from heimdall_lib.names import ChaosAnswers
from heimdall_lib.ready import ReadyAnswers
from heimdall_lib.resolver import Resolver
from heimdall_lib.responder import Responder
from heimdall_lib.server import listen
from heimdall_lib.server.misses import Misses
from heimdall_lib.server.tcp import TcpBounds, TcpServer
from heimdall_lib.server.udp import UdpServer
from heimdall_lib.settings import Settings
from heimdall_lib.shared_cache.cache import NoSharedCache
from heimdall_lib.stats import Stats
from heimdall_lib.status import SAMPLE_SECONDS, Status
from heimdall_lib.upstream.forwarder import Forwarder

log = logging.getLogger("heimdall.app")

_PURGE_STEP = 500  # entries taken out of L1 before others get their turn: well under a millisecond
_PROBE_SECONDS = 0.5
_SELF_QUERY_SECONDS = 1.0
_REDIS_STOP_SECONDS = 1.0
_LOOK_SECONDS = 0.02


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run Heimdall until a signal ends it; return the exit status: 0, 1 (cannot listen) or 2 (bad settings)."""
    try:
        invocation = read_command_line(argv, environ)
    except SettingError as error:
        print(f"heimdall: {error}", file=sys.stderr)
        return 2
    if invocation.check_config:
        print(describe(invocation.settings))
        return 0
    logs.configure(invocation.settings.log_level, invocation.settings.log_format)
    gevent.get_hub().print_exception = _log_crash
    for name in unknown_variables(environ):
        log.warning("%s is set, but is no setting of Heimdall", name)
    try:
        server = Server(invocation.settings, read_again=lambda: read_command_line(argv, environ).settings)
    except ListenError as error:
        print(f"heimdall: {error}", file=sys.stderr)
        return 1
    server.run()
    return 0


def _log_crash(
    context: object, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    log.error("a greenlet died: %s", context, exc_info=(kind, error, traceback))


class Server:
    """One process: the tiers, the listeners and the greenlets between them."""

    def __init__(self, settings: Settings, *, read_again: Callable[[], Settings]) -> None:
        """Build everything and bind every socket; raises ListenError. Nothing is answered before ``run``."""
        self._settings = settings
        self._read_again = read_again
        self._stop, self._hurry = Event(), Event()
        self._stats = stats = Stats()
        self._memory = MemoryCache(
            max_entries=settings.max_cache_size,
            max_bytes=settings.max_cache_bytes,
            purge_interval=settings.purge_interval,
            stats=stats,
        )
        self._forwarder = Forwarder(wiring.forwarding_plan(settings), stats)
        link = wiring.redis_link(settings, settings.redis_target, stats) if settings.redis_target else None
        self._redis = wiring.redis_cache(settings, link, stats) if link else None
        self._resolver = Resolver(
            policy=wiring.resolver_policy(settings),
            memory=self._memory,
            shared=self._redis or NoSharedCache(),
            upstreams=self._forwarder,
            spawn=gevent.spawn,
            stats=stats,
        )
        self._warming = wiring.warming(
            settings, link, self._redis, resolver=self._resolver, memory=self._memory, stats=stats
        )
        self._responder = Responder(
            policy=wiring.responder_policy(settings),
            resolver=self._resolver,
            ready={transport: ReadyAnswers(self._memory) for transport in stats.queries},
            chaos=ChaosAnswers(version=f"Heimdall {__version__}", server_id=socket.gethostname()),
            stats=stats,
        )
        self._misses = Misses(settings.max_inflight, stats)
        self._status = Status(
            stats=stats,
            memory=self._memory,
            forwarder=self._forwarder,
            redis=wiring.redis_words(settings),
            warming=self._warming.describe,
            shown=lambda: self._settings.shown,
        )
        self._udp, self._tcp, self._http = self._listeners()

    def run(self) -> None:
        """Answer until SIGTERM or SIGINT, then drain; a second signal cuts the drain short."""
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_signal)
        gevent.signal_handler(signal.SIGHUP, self.reload)
        if self._redis:
            self._redis.start()
        self._warming.start()
        for server in (*self._udp, *self._tcp, *self._http):
            server.start()
        for task in (self._purge, self._probe, self._sample):
            gevent.spawn(task)
        gc.collect()
        gc.freeze()  # what is there now stays, and needs no going through again whenever the collector runs
        self._log_start()
        self._status.not_ready = "warming"
        while self._warming.cold and not self._stop.wait(_LOOK_SECONDS):
            pass
        self._status.not_ready = ""
        self._stop.wait()
        self._drain()

    def reload(self) -> None:
        """Read the settings again and apply those that can change; keep the old ones when the new are invalid."""
        try:
            wanted = self._read_again()
        except SettingError as error:
            log.error("settings not reloaded, the old ones stay: %s", error)
            return
        self._settings, taken, fixed = wiring.merged(self._settings, wanted)
        settings = self._settings
        logs.set_level(settings.log_level)
        self._forwarder.configure(wiring.forwarding_plan(settings))
        self._resolver.policy = wiring.resolver_policy(settings)
        self._responder.configure(wiring.responder_policy(settings))
        self._misses.bound = settings.max_inflight
        log.info("settings reloaded: %s", wiring.flags(taken) or "nothing new")
        if fixed:
            log.warning("these settings change only with a restart: %s", wiring.flags(fixed))

    def _listeners(self) -> tuple[list[UdpServer], list[TcpServer], list[WSGIServer]]:
        settings = self._settings
        with listen.all_or_none() as sockets:
            pairs = [sockets.dns(endpoint) for endpoint in settings.bind_addr]
            web = [sockets.tcp(settings.http_bind_addr)] if settings.http_bind_addr else []
        admin = Admin(
            registry=registry(StatsCollector(self._stats, lambda: (len(self._memory), self._memory.bytes))),
            answers=self._ask_itself,
            ready=lambda: self._status.not_ready,
            stats=self._status.describe,
        )
        bounds = TcpBounds(idle_timeout=settings.tcp_idle_timeout, max_connections=settings.max_tcp_connections)
        inner = self._responder, self._misses, self._stats
        return (
            [UdpServer(datagrams, *inner) for datagrams, _ in pairs],
            [TcpServer(stream, *inner, bounds) for _, stream in pairs],
            [serve(sock, admin) for sock in web],
        )

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _drain(self) -> None:
        """Say unready but go on answering for a while; then read no more, finish what is in flight, and let go."""
        settings = self._settings
        self._status.not_ready = "draining"
        log.info("draining for %g s", settings.drain_seconds)
        self._hurry.wait(settings.drain_seconds)
        for udp in self._udp:
            udp.do_read()  # what came in before the end is answered too
            udp.stop_accepting()
        for tcp in self._tcp:
            tcp.close()
            tcp.hang_up()
        if not self._misses.wait(settings.query_timeout):
            log.warning("%d queries are left unanswered", self._stats.inflight)
        for udp in self._udp:
            udp.flush()
            udp.close()
        self._warming.stop(_REDIS_STOP_SECONDS)
        if self._redis:
            self._redis.stop(_REDIS_STOP_SECONDS)
        self._forwarder.close()
        for http in self._http:
            http.stop(timeout=0)
        log.info("stopped")

    def _ask_itself(self) -> str:
        """Ask the first listener over a real socket; return why it does not answer, empty when it does."""
        host, port = self._udp[0].address[:2]
        try:
            healthcheck.ask(healthcheck.LOOPBACK_OF_WILDCARD.get(host, host), port, _SELF_QUERY_SECONDS)
        except healthcheck.Unhealthy as error:
            return str(error)
        return ""

    def _purge(self) -> None:
        while True:
            gevent.sleep(self._settings.purge_interval)
            while self._memory.purge(time.monotonic(), _PURGE_STEP):
                gevent.sleep(0)

    def _probe(self) -> None:
        while True:
            gevent.sleep(_PROBE_SECONDS)
            self._forwarder.probe()

    def _sample(self) -> None:
        while True:
            self._status.sample()
            gevent.sleep(SAMPLE_SECONDS)

    def _log_start(self) -> None:
        settings = self._settings
        log.info("Heimdall %s", __version__)
        if idle := wiring.without_effect(settings):
            log.warning("these settings have no effect in this version: %s", wiring.flags(idle))
        log.info("upstream: %s", ", ".join(str(server) for server in settings.upstream_servers))
        for zone in settings.forward_zones:
            log.info("upstream for %s: %s", zone.name, ", ".join(str(server) for server in zone.servers))
        log.info("Redis: %s", wiring.redis_words(settings))
        for udp in self._udp:
            log.info("listening on %s port %d, UDP and TCP", *udp.address[:2])
        log.info("datagrams by %s", self._udp[0].io.name)
        for http in self._http:
            log.info("HTTP on %s port %d", *http.address[:2])
