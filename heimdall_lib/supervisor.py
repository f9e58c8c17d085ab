"""Several workers that answer as one server: one port, one reading, one word to all of them.

Rules: queries never pass through here; whoever asks the workers waits for the slowest of them, and never longer than
``ASK_SECONDS`` (a flush: ``_FLUSH_SECONDS``); only the first start may fail, later a worker that ends is replaced; when
this process dies, its workers notice and end.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import gevent
from gevent.event import AsyncResult

from heimdall_lib import healthcheck, top_names
from heimdall_lib.errors import ChannelError
from heimdall_lib.invalidations import Flush
from heimdall_lib.server.listen import Sockets
from heimdall_lib.settings import Endpoint, Settings
from heimdall_lib.tally import Reading, Tally
from heimdall_lib.top_names import TopNames
from heimdall_lib.workers import ASK_SECONDS, Worker, packed, packed_flush

log = logging.getLogger("heimdall.supervisor")

_SELF_QUERIES, _SELF_QUERY_SECONDS = 16, 0.125  # with half of the workers hanging, all fail once in thousands of times
_FLUSH_SECONDS = 15.0  # acks, and deleting in Redis
_STOP_MARGIN_SECONDS = 5.0  # beyond the time that queries in flight may take: 1 s for each part that lets go of Redis


class Supervisor:
    """Has the workers; see ``app.Service``."""

    def __init__(self, settings: Settings, count: int) -> None:
        """Reserve the addresses that the workers will share; raises ListenError."""
        self.settled: AsyncResult = AsyncResult()
        self._reserved = Sockets()
        self.addresses: Sequence[Endpoint] = [self._reserved.reserve(each) for each in settings.bind_addr]
        self._settings = settings
        self._tally = Tally()
        self._workers = [self._worker(number) for number in range(1, count + 1)]
        self._keepers: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Start the workers; ``settled`` says when all of them answer, or why not."""
        self._keepers = [gevent.spawn(worker.run) for worker in self._workers]

    def stop(self) -> None:
        """Let every worker finish what is in flight; end those that take too long."""
        self._together(Worker.stop)
        gevent.joinall(self._keepers, timeout=self._settings.query_timeout + _STOP_MARGIN_SECONDS)
        for worker in self._workers:
            worker.kill()
        gevent.joinall(self._keepers)
        self._reserved.release()

    def apply(self, settings: Settings) -> None:
        """Go by ``settings`` from now on, in every worker."""
        self._settings = settings
        zones = (server for zone in settings.forward_zones for server in zone.servers)
        self._tally.keep_upstreams({str(server) for server in (*settings.upstream_servers, *zones)})
        _, silent = self.ask_all("settings", packed(self._told()))
        for number, why in silent.items():
            log.warning("worker %d has not confirmed the settings: %s", number, why)

    def ask_all(
        self, wanted: str, argument: object = None, *, timeout: float = ASK_SECONDS
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Ask every worker at once; return their answers, and why some gave none, by the workers' numbers."""
        answers: dict[int, Any] = {}
        silent: dict[int, str] = {}

        def ask(worker: Worker) -> None:
            try:
                answers[worker.number] = worker.ask(wanted, argument, timeout=timeout)
            except ChannelError as error:
                silent[worker.number] = str(error)

        self._together(ask)
        return answers, silent

    def flush(self, flush: Flush) -> dict[str, Any]:
        """Forget in every worker's L1, then let one of them do it in L2 and on every replica."""
        removed, silent = self.ask_all("forget", packed_flush(flush), timeout=_FLUSH_SECONDS)
        answer = self._first("flush", packed_flush(flush), timeout=_FLUSH_SECONDS)
        answer["l1_removed"] += sum(removed.values())
        answer["complete"] = answer["complete"] and not silent
        return answer

    def entry(self, name: bytes, qtype: int) -> dict[str, Any]:
        """Return where the answers to a question are, as one of the workers sees it: each has an L1 of its own."""
        return self._first("entry", [name.hex(), qtype], timeout=ASK_SECONDS)

    def _first(self, wanted: str, argument: object, *, timeout: float) -> dict[str, Any]:
        """Return the answer of the first worker that has one; raises ChannelError when none has."""
        why = ChannelError("no worker answers")
        for worker in self._workers:
            try:
                answer: dict[str, Any] = worker.ask(wanted, argument, timeout=timeout)
            except ChannelError as error:
                why = error
            else:
                return {**answer, "worker": worker.number}
        raise why

    def look(self) -> Reading:
        """Return the sum over all workers; one that does not answer is counted as it was read last."""
        self._together(Worker.read)
        return self._as_read_last()

    def names(self) -> TopNames:
        """Return which names were asked for most, of those that the workers name: the sum over who answers."""
        lists, _ = self.ask_all("names")
        return top_names.total(lists.values())

    def pids(self) -> list[int]:
        """Return the ids of the workers' processes."""
        return [worker.pid for worker in self._workers if worker.pid]

    def silent(self, transports: Sequence[str]) -> str:
        """Ask over real sockets, from a new port each time, until some worker answers; return why none did."""
        address = self.addresses[0]
        before = self._as_read_last().stats.turned_away
        left, why = list(transports), ""
        for _ in range(_SELF_QUERIES):
            why = healthcheck.trouble(address.host, address.port, _SELF_QUERY_SECONDS, transport=left[0])
            if not why:
                del left[0]
            if not left:
                return ""
        return "" if self.look().stats.turned_away > before else why

    def unready(self) -> str:
        """Return why clients should go elsewhere, empty when some worker answers that is not cold."""
        up = [worker for worker in self._workers if worker.up]
        if not up:
            return "no worker answers"
        return "warming" if all(worker.cold for worker in up) else ""

    def _worker(self, number: int) -> Worker:
        return Worker(
            number,
            settings=self._told,
            tally=self._tally,
            on_ready=self._on_ready,
            replaced=lambda why: self._replaced(number, why),
        )

    def _told(self) -> Settings:
        """Return what a worker goes by: the settings, with the ports that 0 became."""
        return replace(self._settings, bind_addr=tuple(self.addresses))

    def _on_ready(self) -> None:
        self._reserved.release()  # a worker has the addresses now, and what the reservation received would be lost
        if all(worker.ready for worker in self._workers):
            self.settled.set("")

    def _replaced(self, number: int, why: str) -> bool:
        if not self.settled.ready():
            self.settled.set(f"worker {number} did not start: {why}")
        return not self.settled.value

    def _as_read_last(self) -> Reading:
        readings = [worker.reading for worker in self._workers if worker.reading]
        return self._tally.total(readings, [worker.state() for worker in self._workers])

    def _together(self, do: Callable[[Worker], object]) -> None:
        gevent.joinall([gevent.spawn(do, worker) for worker in self._workers])
