"""The choice among upstream servers: which zone's, in which order, and what happens when one fails.

Rules: the longest zone that holds the name decides; a timeout is tried again while there is time, a refusal is not;
the deadline is kept whatever the servers do.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import SystemRandom

from heimdall_lib.errors import NoAnswerError, UpstreamError
from heimdall_lib.reply import Kind, Reply
from heimdall_lib.settings import ForwardZone, UpstreamPolicy, UpstreamServer
from heimdall_lib.stats import Stats
from heimdall_lib.upstream.server import Upstream

_ROUNDS = 3
_NO_REACHABLE_AUTHORITY, _NETWORK_ERROR = 22, 23  # Extended DNS Errors (RFC 8914, section 4)
_shuffle = SystemRandom().shuffle


@dataclass(frozen=True, slots=True)
class ForwardingPlan:
    """What the operator said about upstream servers; ``timeout`` is one attempt's, in seconds."""

    servers: tuple[UpstreamServer, ...]
    zones: tuple[ForwardZone, ...] = ()
    policy: UpstreamPolicy = "fastest"
    timeout: float = 1.5
    udp_size: int = 1232


@dataclass(frozen=True, slots=True)
class Group:
    """The servers that answer for one zone; ``view`` is a fingerprint of who they are."""

    upstreams: tuple[Upstream, ...]
    view: str


class Forwarder:
    """Answers questions by asking upstream servers."""

    def __init__(self, plan: ForwardingPlan, stats: Stats) -> None:
        """Ask nobody yet."""
        self._stats = stats
        self._upstreams: dict[UpstreamServer, Upstream] = {}
        self.configure(plan)

    def configure(self, plan: ForwardingPlan) -> None:
        """Go by ``plan`` from the next question on; servers that stay keep their health and connections."""
        before, self._upstreams = self._upstreams, {}
        self._plan = plan
        for server in {*plan.servers, *(server for zone in plan.zones for server in zone.servers)}:
            self._upstreams[server] = (
                before.pop(server)
                if server in before
                else Upstream(server, udp_size=plan.udp_size, stats=self._stats.upstream(str(server)))
            )
        for server, gone in before.items():
            gone.close()
            del self._stats.upstreams[str(server)]
        self._default = self._group(plan.servers)
        self._zones = {_wire_suffix(zone.name): self._group(zone.servers) for zone in plan.zones}

    def group(self, key: bytes) -> Group:
        """Return the servers for a cache key's name: those of the longest zone that holds it (whole labels)."""
        offset = 0
        while self._zones and key[offset]:
            if group := self._zones.get(key[offset:-5]):
                return group
            offset += key[offset] + 1
        return self._default

    def view(self, key: bytes) -> str:
        """Return a fingerprint of the servers that answer for a cache key's name."""
        return self.group(key).view

    def views(self) -> set[str]:
        """Return every view that a name may have."""
        return {group.view for group in (self._default, *self._zones.values())}

    def all_resting(self, key: bytes) -> bool:
        """Say whether every server for a cache key's name has failed again and again and not answered since."""
        return all(upstream.resting for upstream in self.group(key).upstreams)

    def ask(self, key: bytes, deadline: float) -> Reply:
        """Return the first usable reply to a cache key's question.

        Raises NoAnswerError when no server gave one before ``deadline`` (an instant of the monotonic clock).
        """
        done: list[Upstream] = []
        why: tuple[int, str] = (_NO_REACHABLE_AUTHORITY, "no upstream server answered in time")
        for upstream in self._ordered(self.group(key)) * _ROUNDS:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            if upstream in done:
                continue
            try:
                reply = upstream.ask(key, min(self._plan.timeout, remaining))
            except UpstreamError as error:
                if error.reason != "timeout":
                    done.append(upstream)
                    why = (_NETWORK_ERROR, f"upstream {error.reason}")
                continue
            if reply.kind is not Kind.FAILURE:
                return reply
            done.append(upstream)
            text = f"upstream rcode {reply.rcode}" if reply.rcode else "upstream gave no answer to the question"
            why = reply.error or (_NO_REACHABLE_AUTHORITY, text)
        raise NoAnswerError(*why)

    def probe(self) -> None:
        """Ask every resting server whose probe is due whether it is back; blocks for one timeout a server at most."""
        now = time.monotonic()
        for upstream in list(self._upstreams.values()):
            if upstream.probe_due(now):
                upstream.probe(self._plan.timeout)

    def describe(self) -> list[dict[str, object]]:
        """Return each server and how it does, for people."""
        return [upstream.describe() for upstream in self._upstreams.values()]

    def close(self) -> None:
        """Close every open connection."""
        for upstream in self._upstreams.values():
            upstream.close()

    def _group(self, servers: Sequence[UpstreamServer]) -> Group:
        names = ",".join(sorted(str(server) for server in servers))
        view = hashlib.blake2b(names.encode(), digest_size=5).hexdigest()
        return Group(tuple(self._upstreams[server] for server in servers), view)

    def _ordered(self, group: Group) -> tuple[Upstream, ...]:
        """Return the servers in the order in which to try them, the resting ones last."""
        if len(group.upstreams) == 1:
            return group.upstreams
        order = list(group.upstreams)
        if self._plan.policy == "random":
            _shuffle(order)
        elif self._plan.policy == "fastest":
            order.sort(key=lambda upstream: upstream.round_trip)
        order.sort(key=lambda upstream: upstream.resting)
        for upstream in order[1:]:
            upstream.passed_over()
        return tuple(order)


def _wire_suffix(name: str) -> bytes:
    """Return a zone's name (text, lower case, without the final dot) in wire format."""
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
