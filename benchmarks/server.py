"""A server that has been started, and what it says about itself."""

import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from benchmarks.errors import BenchmarkError
from benchmarks.processes import Child
from benchmarks.results import Kind

_HTTP_SECONDS = 10.0
_REDIS_SECONDS = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Server:
    """A server that answers on a loopback port."""

    name: str
    kind: Kind
    port: int
    child: Child
    http_port: int = 0
    """Heimdall's; 0: a server without one."""

    def counter(self, name: str) -> float:
        """Return one of Heimdall's metrics, summed over its labels."""
        connection = HTTPConnection("127.0.0.1", self.http_port, timeout=_HTTP_SECONDS)
        try:
            connection.request("GET", "/metrics")
            return metric_sum(connection.getresponse().read().decode(), f"heimdall_{name}")
        except (OSError, HTTPException) as error:
            raise BenchmarkError(f"{self.name} shows no metrics: {error}") from None
        finally:
            connection.close()

    def wait_for_redis(self) -> None:
        """Return when Heimdall has reached Redis, which it does behind the first queries."""
        deadline = time.monotonic() + _REDIS_SECONDS
        while not self.counter("redis_up"):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name} did not reach Redis: {self.child.last_words()}")
            time.sleep(_POLL_SECONDS)


def metric_sum(text: str, name: str) -> float:
    """Return the sum of a metric's samples in Prometheus's text format."""
    lines = (line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)
