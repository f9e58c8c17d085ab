"""Pools of connections to Redis that hand out again, as it is, a connection that was in use a moment ago.

redis-py looks at each connection before it hands it out: whether it is still open, and whether nothing is left to read.
That takes half as long as a short command and its reply; for one that has just had a reply it is not worth it.

Rules: who waits for a connection gets the next one that is given back; one that failed, has rested, or belongs to a
server that is no longer the primary is looked at as redis-py does.
"""

import time
from typing import Any

import redis
from redis.sentinel import SentinelConnectionPool

Connection = Any  # redis-py's; a pool's connections have several types, which its methods name differently

_MOMENT_SECONDS = 1.0


class Pool(redis.BlockingConnectionPool):
    """A pool whose users wait for a free connection instead of failing."""

    def __init__(self, **keywords: object) -> None:
        """See redis.BlockingConnectionPool."""
        self._warm: list[tuple[Connection, float]] = []
        super().__init__(**keywords)

    def get_connection(self) -> Connection:  # type: ignore[override]
        """Return a connection, which ``release`` gets back; raises redis.ConnectionError when none is free in time."""
        try:
            connection, used_at = self._warm.pop()
        except IndexError:
            return super().get_connection()
        if time.monotonic() - used_at < _MOMENT_SECONDS:
            return connection
        super().release(connection)
        return super().get_connection()

    def release(self, connection: Connection) -> None:
        """Take a connection back."""
        # With places left in the queue, nobody waits. Asking ``empty`` would cost more than all else here: it locks.
        if self.pool.queue and connection.is_connected and self.owns_connection(connection):
            self._warm.append((connection, time.monotonic()))
        else:
            super().release(connection)


class SentinelPool(SentinelConnectionPool, Pool):
    """The same for the primary that sentinels know."""
