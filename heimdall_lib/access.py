"""Who may ask, how often, and over how many connections.

Rules: no clock (``now`` is an argument, in seconds), no socket; what is remembered of clients is bounded.
"""

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from lru import LRU

from heimdall_lib.buckets import TokenBuckets
from heimdall_lib.settings import Network

_REMEMBERED = 16384


class AllowList:
    """The networks whose clients get answers; what is decided of an address is remembered."""

    def __init__(self, networks: Iterable[Network]) -> None:
        """Allow the addresses of ``networks`` and no others."""
        self._networks = tuple(networks)
        self._decided: LRU[str, bool] = LRU(_REMEMBERED)

    def allows(self, host: str) -> bool:
        """Say whether a client's address (text, an IPv6 zone id may follow ``%``) is in one of the networks."""
        allowed = self._decided.get(host)
        if allowed is None:
            allowed = self._decided[host] = self._decide(host)
        return allowed

    def _decide(self, host: str) -> bool:
        address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


class RateLimiter:
    """A token bucket for every client and transport; a client is a /32 of IPv4 or a /56 of IPv6.

    A datagram's source may be forged, a connection's may not: who has been robbed of his tokens for UDP is still
    answered over TCP.
    """

    def __init__(self, *, rate: float, burst: float) -> None:
        """Refill ``rate`` tokens per second, up to ``burst``."""
        self.rate = rate
        """Tokens (queries) per second; 0 allows everything."""
        self.burst = max(burst, 1.0)
        self._buckets = {
            transport: TokenBuckets(rate=rate, burst=self.burst, remembered=_REMEMBERED) for transport in ("udp", "tcp")
        }
        self._slipped: LRU[str | bytes, bool] = LRU(_REMEMBERED)

    def allows(self, host: str, now: float, transport: str) -> bool:
        """Take a token for one query from ``host`` at ``now``, over ``udp`` or ``tcp``; say whether there was one."""
        return not self.rate or self._buckets[transport].take(client_network(host), now)

    def slips(self, host: str) -> bool:
        """Say whether a client that is over its rate is told so this time: every second time, whatever others do."""
        client = client_network(host)
        turn = self._slipped[client] = not self._slipped.get(client, True)
        return turn


class ConnectionLimit:
    """The TCP connections that are open, of all clients and of each: /32 for IPv4, /56 for IPv6."""

    def __init__(self, *, most: int, most_per_client: int) -> None:
        """Let ``most`` be open at once, ``most_per_client`` of them one client's."""
        self._most = most
        self._most_per_client = most_per_client
        self._open: Counter[str | bytes] = Counter()
        self.open = 0
        """How many there are."""

    def enter(self, host: str) -> bool:
        """Count one more connection from ``host`` if there may be one, for which ``leave`` is owed; say whether so."""
        client = client_network(host)
        if self.open >= self._most or self._open[client] >= self._most_per_client:
            return False
        self._open[client] += 1
        self.open += 1
        return True

    def leave(self, host: str) -> None:
        """Count one connection less."""
        client = client_network(host)
        self.open -= 1
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]


def client_network(host: str) -> str | bytes:
    """Return what stands for all addresses of one client: the address for IPv4, the /56 for IPv6.

    An IPv4 client of an IPv6 socket is an IPv4 client.
    """
    if ":" not in host:
        return host
    address = IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped) if address.ipv4_mapped else address.packed[:7]
