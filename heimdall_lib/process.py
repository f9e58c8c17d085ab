"""One process that answers: the tiers, the listeners and the greenlets between them.

Rules: nothing is answered before ``start``, and after ``stop`` nothing is left unanswered that could be answered in
time; when that is, and how the settings came to be, others decide.
"""

import gc
import logging
import secrets
import socket
import time
from collections.abc import Sequence
from typing import Any

import gevent
from gevent.event import AsyncResult

from heimdall_lib import __version__, healthcheck, top_names, wiring
from heimdall_lib import log as logs
from heimdall_lib.cache_commands import CacheCommands
from heimdall_lib.invalidations import Flush, Invalidations
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.names import ChaosAnswers
from heimdall_lib.popularity import FADE_SECONDS
from heimdall_lib.ready import ReadyAnswers
from heimdall_lib.replica import Replica
from heimdall_lib.resolver import Resolver
from heimdall_lib.responder import Responder
from heimdall_lib.server import listen
from heimdall_lib.server.listen import Sockets
from heimdall_lib.server.misses import Misses
from heimdall_lib.server.pressure import Pressure
from heimdall_lib.server.runners import Runners
from heimdall_lib.server.tcp import TcpServer
from heimdall_lib.server.udp import UdpServer
from heimdall_lib.settings import Endpoint, Settings
from heimdall_lib.shared_cache.cache import NoSharedCache
from heimdall_lib.shared_cache.fleet import Fleet, NoFleet, RedisFleet
from heimdall_lib.stats import Stats
from heimdall_lib.tally import Reading
from heimdall_lib.top_names import TopNames
from heimdall_lib.upstream.forwarder import Forwarder

log = logging.getLogger("heimdall.process")

_PURGE_STEP = 500  # entries taken out of L1 before others get their turn: well under a millisecond
_PROBE_SECONDS = 0.5
_TOP_KEYS = 4 * top_names.MOST  # of which some may be the same question, with and without DO and CD
_SELF_QUERY_SECONDS = 1.0
_REDIS_STOP_SECONDS = 1.0
_FINISH_POLL_SECONDS = 0.01


class Server:
    """See ``app.Service``."""

    def __init__(self, settings: Settings, sockets: Sockets, *, shared: bool = False) -> None:
        """Build everything and bind every socket; raises ListenError.

        With ``shared``, other processes may listen on the same addresses.
        """
        self.settled: AsyncResult = AsyncResult()
        self._settings = settings
        self._stats = stats = Stats()
        self._memory = MemoryCache(
            max_entries=settings.max_cache_size,
            max_bytes=settings.max_cache_bytes,
            purge_interval=settings.purge_interval,
            stats=stats,
        )
        self._forwarder = Forwarder(wiring.forwarding_plan(settings), stats)
        invalidations, runners = Invalidations(), Runners()
        target, name = settings.redis_target, secrets.token_hex(8)
        link = wiring.redis_link(settings, target, stats) if target else None
        self._redis = (
            wiring.redis_cache(settings, link, replica=name, invalidations=invalidations, stats=stats) if link else None
        )
        self._resolver = Resolver(
            policy=wiring.resolver_policy(settings),
            memory=self._memory,
            shared=self._redis or NoSharedCache(),
            invalidations=invalidations,
            upstreams=self._forwarder,
            spawn=runners.run,
            stats=stats,
        )
        replica = Replica(self._memory, invalidations, self._resolver)
        self._bus = None
        fleet: Fleet = NoFleet()
        if target and link:
            self._bus = wiring.redis_bus(settings, target, link, replica=name, listener=replica, stats=stats)
            roster = wiring.redis_roster(settings, link, replica=name, stats=stats)
            fleet = RedisFleet(link, self._bus, roster, codec=wiring.codec(settings), prefix=settings.redis_key_prefix)
        self._fleet, self._replica, self._commands = fleet, replica, CacheCommands(replica, fleet)
        self._warming = wiring.warming(
            settings, link, self._redis, resolver=self._resolver, memory=self._memory, stats=stats
        )
        self._responder = Responder(
            policy=wiring.responder_policy(settings),
            resolver=self._resolver,
            ready={
                one: ReadyAnswers(self._memory, self._resolver.popularity, truncates=one == "udp")
                for one in stats.queries
            },
            chaos=ChaosAnswers(version=f"Heimdall {__version__}", server_id=socket.gethostname()),
            stats=stats,
        )
        self._misses = Misses(settings.max_inflight, stats, runners, pressed=Pressure().high)
        limit = wiring.connection_limit(settings, listen.room_for(settings.max_tcp_connections))
        idle_timeout = settings.tcp_idle_timeout
        inner = self._responder, self._misses, stats
        pairs = [sockets.dns(endpoint, shared=shared) for endpoint in settings.bind_addr]
        self._udp = [UdpServer(datagrams, *inner) for datagrams, _ in pairs]
        self._tcp = [TcpServer(stream, *inner, limit=limit, idle_timeout=idle_timeout) for _, stream in pairs]
        self.addresses: Sequence[Endpoint] = [Endpoint(*udp.address[:2]) for udp in self._udp]

    def start(self) -> None:
        """Begin to answer."""
        if self._redis and self._bus:
            self._redis.start()
            self._bus.start()
        self._warming.start()
        for udp in self._udp:
            udp.start()
        for tcp in self._tcp:
            tcp.start()
        for task in (self._purge, self._probe, self._fade):
            gevent.spawn(task)
        log.info("datagrams by %s", self._udp[0].io.name)
        gc.collect()
        gc.freeze()  # what is there now stays, and needs no going through again whenever the collector runs
        self.settled.set("")

    def stop(self) -> None:
        """Answer what came in before, finish what is in flight, and let go.

        What comes in until then is answered from memory, and else SERVFAIL, so that its client asks another server.
        """
        for udp in self._udp:
            udp.answer_waiting()
            udp.shed_misses()
        for tcp in self._tcp:
            tcp.hang_up()
        if not self._finished():
            log.warning(
                "%d queries are left unanswered, %d connections open", self._stats.inflight, self._stats.tcp_connections
            )
        for udp in self._udp:
            udp.answer_waiting()
            udp.flush()
            udp.close()
        self._warming.stop(_REDIS_STOP_SECONDS)
        if self._redis and self._bus:
            self._bus.stop(_REDIS_STOP_SECONDS)
            self._fleet.leave(_REDIS_STOP_SECONDS)
            self._redis.stop(_REDIS_STOP_SECONDS)
        self._forwarder.close()

    def apply(self, settings: Settings) -> None:
        """Go by ``settings`` from now on, as far as a running process can."""
        self._settings = settings
        logs.set_level(settings.log_level)
        self._forwarder.configure(wiring.forwarding_plan(settings))
        self._resolver.configure(wiring.resolver_policy(settings))
        self._responder.configure(wiring.responder_policy(settings))
        self._misses.bound = settings.max_inflight

    def look(self) -> Reading:
        """Return what was counted and what is held now."""
        upstreams: list[dict[str, Any]] = self._forwarder.describe()
        return Reading(
            stats=self._stats,
            entries=len(self._memory),
            size=self._memory.bytes,
            round_trips={each["server"]: each["round_trip_ms"] for each in upstreams},
            warming=self._warming.describe(),
            fleet=self._fleet.replicas(),
        )

    def forget(self, flush: Flush) -> int:
        """Forget in L1; return how many answers there were."""
        return self._replica.forget(flush, time.monotonic())

    def flush(self, flush: Flush) -> dict[str, Any]:
        """Forget in L1 and L2, on every replica; return what came of it."""
        return self._commands.flush(flush)

    def entry(self, name: bytes, qtype: int) -> dict[str, Any]:
        """Return where the answers to a question are."""
        return self._commands.entry(name, qtype)

    def names(self) -> TopNames:
        """Return which names were found in L1 most of late, and for which L1 had no answer most."""
        names: dict[str, list[top_names.Asked]] = {}
        for kind, counts in zip(top_names.KINDS, (self._resolver.popularity, self._resolver.missed), strict=True):
            names[kind] = top_names.in_words(counts.top(_TOP_KEYS))  # 1 ms when there are many
            gevent.sleep(0)
        return names

    def pids(self) -> list[int]:
        """Return the ids of other processes that belong to this one: there are none."""
        return []

    def silent(self, transports: Sequence[str]) -> str:
        """Ask the first listener over real sockets; return why it does not answer, empty when it does."""
        address = self.addresses[0]
        before = self._stats.turned_away
        for transport in transports:
            why = healthcheck.trouble(address.host, address.port, _SELF_QUERY_SECONDS, transport=transport)
            if why and self._stats.turned_away == before:  # who is turned away by a limit was heard
                return why
        return ""

    def unready(self) -> str:
        """Return why clients should go elsewhere, though this process, once started, always answers."""
        return "warming" if self._warming.describe().cold else ""

    def _finished(self) -> bool:
        """Wait until nothing is in flight and no client connected, as long as a query may take; say if it is so."""
        deadline = time.monotonic() + self._settings.query_timeout
        while self._stats.inflight or self._stats.tcp_connections:
            if time.monotonic() >= deadline:
                return False
            gevent.sleep(_FINISH_POLL_SECONDS)
        return True

    def _purge(self) -> None:
        while True:
            gevent.sleep(self._settings.purge_interval)
            while self._memory.purge(time.monotonic(), _PURGE_STEP):
                gevent.sleep(0)

    def _probe(self) -> None:
        while True:
            gevent.sleep(_PROBE_SECONDS)
            self._forwarder.probe()

    def _fade(self) -> None:
        while True:
            gevent.sleep(FADE_SECONDS)
            for counts in (self._resolver.popularity, self._resolver.missed):
                counts.fade()
                gevent.sleep(0)
