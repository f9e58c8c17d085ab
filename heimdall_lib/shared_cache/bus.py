"""The line between replicas: what one flushes or finds changed, the others hear of through Redis's pub/sub.

A flush is known by its generation, an instant on Redis's clock that Redis keeps. A replica that (re)connects reads it:
when it is one that it has not heard of, whatever the replica may hold from before goes.

Rules: one thread listens, connects only while the link to Redis is well, and no query waits for it; what is heard is
checked before it is believed; nothing here opens the breaker but the loss of Redis itself.
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, Protocol

import redis

from heimdall_lib.errors import SharedCacheError
from heimdall_lib.invalidations import EVERYTHING, Flush
from heimdall_lib.shared_cache import events
from heimdall_lib.shared_cache.client import Client, converse, encode, home, reason_of, translated
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.stats import Stats

log = logging.getLogger("heimdall.redis")

ACK_SECONDS = 1.0
SETTLED_SECONDS = 15.0
"""After which nothing of a flush is under way any more: acks, deleting in Redis, queries that began before it."""

_GENERATION_LIFE = 30 * 86400  # seconds; by then every entry of its time has expired
_MAX_DIGITS = 16
_MAX_AHEAD = 3_600_000  # milliseconds by which a generation may be ahead of the clock: another Redis, another clock
NOT_IN_USE = "Redis is not in use"
_TICK_SECONDS = 0.1
_LISTEN_SECONDS = 0.25
_SUBSCRIBE_SECONDS = 1.0
_SILENT_SECONDS = 5.0  # after which Redis is asked whether it is still there, and again that long to answer
_FIRST_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.25, 5.0


class Listener(Protocol):
    """What this replica does when it hears something; ``until`` is an instant of the monotonic clock."""

    def forget(self, flush: Flush, until: float) -> int:
        """Forget what was kept of a flush up to an instant; return how many answers there were."""

    def outdate(self, key: bytes, until: float) -> None:
        """Forget what was kept under a cache key up to an instant."""


class Told(NamedTuple):
    """How many replicas are to hear of a flush, this one included, and how many have forgotten."""

    expected: int
    acknowledged: int


class Bus:
    """One replica's end of the line."""

    def __init__(
        self, link: Link, *, connect: Callable[[], Client], prefix: str, replica: str, listener: Listener, stats: Stats
    ) -> None:
        """Be ready to start; ``replica`` is 16 hexadecimal digits of its own for each process."""
        self._link = link
        self._connect = connect
        self._prefix = prefix
        self._replica = replica
        self._listener = listener
        self._stats = stats
        self._channel = events.channel(prefix)
        self._key = f"{prefix}:generation"
        self._generation = 0
        self._owes_word = False  # of a flush that the others could not be told of
        self._began_at = time.monotonic()
        self._acks: dict[str, SimpleQueue[str]] = {}
        self._stopping = Event()
        self._told_why = ""
        self._thread = Thread(target=self._keep, name="redis-bus", daemon=True)
        self.connected = False
        """Whether this replica hears what the others say."""

    def start(self) -> None:
        """Listen from now on, whenever Redis is there."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Hang up; returns after ``timeout`` seconds at most."""
        self._stopping.set()
        self._thread.join(timeout)

    def tell(self, flush: Flush, present: Collection[str] = ()) -> Told:
        """Let every other replica forget, and wait until all who hear it have, for ``ACK_SECONDS`` at most.

        Who is ``present`` but does not hear is expected all the same. Raises SharedCacheError when none could be told.
        """
        number = secrets.token_hex(8)
        self._generation = max(self._link.now(), self._generation + 1)
        acks: SimpleQueue[str] = SimpleQueue()
        self._acks[number] = acks
        try:
            if self._link.open:
                raise SharedCacheError("connection", NOT_IN_USE)
            self._keep_generation()
            event = events.Flushed(self._replica, number, self._generation, flush)
            listeners = self._publish(self._channel, event)
            self._stats.redis_invalidations["sent"] += 1
            heard = _heard(acks, listeners)
        except SharedCacheError:
            self._owes_word = True
            raise
        finally:
            del self._acks[number]
        # Its own message comes back to it, unless it does not hear; but it has forgotten in any case.
        listeners += self._replica not in heard
        heard.add(self._replica)
        return Told(max(listeners, len(heard.union(present))), len(heard))

    def _keep(self) -> None:
        retry = _FIRST_RETRY_SECONDS
        while not self._stopping.is_set():
            if self._link.open:
                self._stopping.wait(_TICK_SECONDS)
                continue
            why = ""
            try:
                with translated():
                    self._listen()
            except SharedCacheError as error:
                why = f"{error.reason}: {error}"
            was_connected, self.connected = self.connected, False
            retry = _FIRST_RETRY_SECONDS if was_connected else min(2 * retry, _MAX_RETRY_SECONDS)
            if why and not was_connected:
                self._say_deaf(why)
            self._stopping.wait(retry)

    def _listen(self) -> None:
        """Subscribe, make good what was missed, and hear until the connection breaks or Redis is silent."""
        client = self._connect()
        line = home(client, self._channel).pubsub()
        try:
            line.subscribe(self._channel, events.ack_channel(self._prefix, self._replica))
            self._wait_for_subscriptions(line)
            self._catch_up(self._kept_generation())
            self.connected, self._told_why = True, ""
            self._hear(line)
        finally:
            line.close()
            client.close()

    def _wait_for_subscriptions(self, line: Any) -> None:  # noqa: ANN401 - redis-py's PubSub is typed in parts
        until = time.monotonic() + _SUBSCRIBE_SECONDS
        missing = 2
        while missing:
            message = line.get_message(timeout=max(0.0, until - time.monotonic()))
            if message is None:
                raise redis.TimeoutError("no answer to SUBSCRIBE")
            missing -= message["type"] == "subscribe"

    def _hear(self, line: Any) -> None:  # noqa: ANN401 - as above
        heard_at, asked = time.monotonic(), False
        while not self._stopping.is_set():
            if self._owes_word and not self._link.open:
                self._remind()
            message = line.get_message(timeout=_LISTEN_SECONDS)
            if message is not None:
                heard_at, asked = time.monotonic(), False
                if message["type"] == "message":
                    self._take(message["data"])
            elif time.monotonic() - heard_at >= _SILENT_SECONDS:
                if asked:
                    raise redis.TimeoutError("silent")
                line.ping()
                heard_at, asked = time.monotonic(), True

    def _take(self, message: object) -> None:
        event = events.decode(message)
        if event is None:
            self._stats.redis_rejected["event"] += 1
        elif isinstance(event, events.Acked) or (isinstance(event, events.Flushed) and event.origin == self._replica):
            if (acks := self._acks.get(event.number)) is not None:
                acks.put(event.origin)
        elif event.origin != self._replica:
            self._stats.redis_invalidations["received"] += 1
            self._obey(event)

    def _obey(self, event: events.Flushed | events.Changed | events.Generation) -> None:
        if isinstance(event, events.Changed):
            self._listener.outdate(event.key, min(time.monotonic(), self._link.instant(event.at)))
        elif isinstance(event, events.Flushed):
            if self._is_plausible(event.generation):
                self._generation = max(self._generation, event.generation)
            self._listener.forget(event.flush, time.monotonic())
            self._publish(events.ack_channel(self._prefix, event.origin), events.Acked(self._replica, event.number))
        elif self._is_plausible(event.generation):
            self._catch_up(event.generation)

    def _catch_up(self, generation: int) -> None:
        """Make good a flush that this replica has not heard of, or tell of one that was forgotten."""
        known, self._generation = self._generation, max(self._generation, generation)
        if generation < known:  # Redis has restarted, or is another
            self._remind()
        elif generation > known:
            until = min(time.monotonic(), self._link.instant(generation) + SETTLED_SECONDS)
            if until > self._began_at:
                removed = self._listener.forget(EVERYTHING, until)
                log.info("a flush was missed: %d answers forgotten", removed)

    def _remind(self) -> None:
        """Tell of the last flush that is known here: whoever does not know it makes it good."""
        if self._owes_word:
            self._generation = max(self._generation, self._link.now())
        self._owes_word = False
        self._keep_generation()
        self._publish(self._channel, events.Generation(self._replica, self._generation))

    def _is_plausible(self, generation: int) -> bool:
        return generation <= self._link.now() + _MAX_AHEAD

    def _kept_generation(self) -> int:
        value = self._command("get", self._key, encode(b"GET", self._key))
        good = isinstance(value, bytes) and value.isdigit() and len(value) < _MAX_DIGITS
        generation = int(value) if good and isinstance(value, bytes) else 0
        return generation if self._is_plausible(generation) else 0

    def _keep_generation(self) -> None:
        command = encode(b"SET", self._key, self._generation, b"EX", _GENERATION_LIFE)
        self._raised(self._command("set", self._key, command))

    def _publish(self, channel: str, event: events.Event) -> int:
        """Return how many heard it, at the server where this channel's listeners are."""
        reply = self._raised(self._command("publish", channel, encode(b"PUBLISH", channel, events.encode(event))))
        return reply if isinstance(reply, int) else 0

    def _command(self, operation: str, name: str, command: bytes) -> object:
        """Return what Redis replies; an error that it returns is no fault of the link's."""
        return self._link.run(operation, lambda client: converse(home(client, name), [command], replies=1)[0])

    def _raised(self, reply: object) -> object:
        if isinstance(reply, Exception):
            self._stats.redis_errors[reason_of(reply)] += 1
            raise SharedCacheError(reason_of(reply), str(reply))
        return reply

    def _say_deaf(self, why: str) -> None:
        """Log that the others cannot be heard, once until they can be again."""
        if not self._told_why and not self._link.open:
            log.warning("no word from other replicas (%s); what they flush is forgotten when they are heard again", why)
            self._told_why = why


def _heard(acks: SimpleQueue[str], listeners: int) -> set[str]:
    """Return which replicas have acknowledged, as soon as all have or the time is over."""
    heard: set[str] = set()
    until = time.monotonic() + ACK_SECONDS
    while len(heard) < listeners and (left := until - time.monotonic()) > 0:
        try:
            heard.add(acks.get(timeout=left))
        except Empty:
            break
    return heard
