"""What an answer takes in Redis: typical ones, stored by Heimdall and weighed by Redis."""

import hashlib
import socket
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import mean
from threading import Thread
from typing import Any

import redis
from dnslib import EDNS0, RCODE, RR, DNSRecord

from benchmarks import redis_server
from benchmarks.bench import Bench
from benchmarks.errors import BenchmarkError
from benchmarks.results import Row
from benchmarks.scenario import Scenario

_NAMES = 1000
_ZONE = "shop.example"
_SECONDS = 10.0
_POLL_SECONDS = 0.05
_UDP_SIZE = 1232
_VALUES = "heimdall:dns:cache:1:*"
_SOA = f"{_ZONE}. 300 IN SOA ns1.{_ZONE}. hostmaster.{_ZONE}. 2026010101 7200 3600 1209600 300"
# As long as ECDSA's with P-256, the usual algorithm; whether it is right, nobody looks here.
_SIGNATURE = b64encode(hashlib.sha512(b"signature").digest()).decode()
_POLICY = "v=spf1 " + " ".join(f"include:spf{number}.mail.example" for number in range(8)) + " -all"
_TOKENS = [f"service{number}-verification={hashlib.sha256(bytes((number,))).hexdigest()}" for number in range(12)]

KINDS: Sequence[tuple[str, str, Sequence[str]]] = (
    ("A", "A", ["@ 300 A 192.0.2.1"]),
    ("AAAA, two addresses", "AAAA", ["@ 300 AAAA 2001:db8::1", "@ 300 AAAA 2001:db8::2"]),
    (
        "CNAME chain of two, four addresses",
        "A",
        [
            "@ 300 CNAME shop.edge.cdn.example.",
            "shop.edge.cdn.example. 300 CNAME pop7.cdn.example.",
            *(f"pop7.cdn.example. 60 A 192.0.2.{number}" for number in range(1, 5)),
        ],
    ),
    ("NXDOMAIN with SOA", "A", []),
    (
        "A, signed (DNSSEC)",
        "A",
        [
            "@ 300 A 192.0.2.1",
            f"@ 300 RRSIG A 13 3 300 20260801000000 20260701000000 4711 {_ZONE}. {_SIGNATURE}",
        ],
    ),
    ("TXT, thirteen texts", "TXT", [f'@ 300 TXT "{text}"' for text in (_POLICY, *_TOKENS)]),
)
"""What the report calls it, the type that is asked for, and the answer, whose owner is ``@``; none is NXDOMAIN."""


def _sizes(bench: Bench) -> list[Row]:
    port = redis_server.start(bench)
    with redis.Redis(port=port, protocol=2) as store, _upstream() as upstream:
        heimdall = bench.heimdall(upstream=upstream, redis=port)

        def weigh(number: int, begins: str) -> dict[str, float]:
            kind, rdtype, _ = KINDS[number]
            bench.progress.say(kind)
            redis_server.forget(port)
            before = _used(store)
            names = [f"k{number}{begins}{each:05d}.{_ZONE}" for each in range(bench.count(_NAMES))]
            message = mean(_ask(heimdall.port, names, rdtype, signed=", signed" in kind))
            keys = _stored(store, len(names))
            return {
                "message_bytes": message,
                "value_bytes": mean(store.strlen(key) for key in keys),
                "key_bytes": mean(len(key) for key in keys),
                "redis_bytes": mean(store.memory_usage(key) for key in keys),
                "whole_bytes": (_used(store) - before) / len(keys),
            }

        weigh(0, "-first-")  # what Redis takes once and for all is no answer's
        return [Row(kind, "variant", [weigh(number, "-")]) for number, (kind, _, _) in enumerate(KINDS)]


def answer(query: bytes) -> bytes:
    """Return what the upstream says: the name's second octet tells which of the kinds it is."""
    asked = DNSRecord.parse(query)
    reply = asked.reply()
    name = str(asked.q.qname)
    _, _, lines = KINDS[int(name[1]) if name[:1] in ("k", "K") else 0]
    for line in lines:
        reply.add_answer(*RR.fromZone(line.replace("@", name, 1)))
    if not lines:
        reply.header.rcode = RCODE.NXDOMAIN
        reply.add_auth(*RR.fromZone(_SOA))
    return bytes(reply.pack())


@contextmanager
def _upstream() -> Iterator[int]:
    """Answer over UDP meanwhile; yield the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = Thread(target=_serve, args=(sock,), daemon=True)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            sock.sendto(b"", sock.getsockname())
            thread.join(_SECONDS)


def _serve(sock: socket.socket) -> None:
    while True:
        query, client = sock.recvfrom(4096)
        if not query:
            return
        sock.sendto(answer(query), client)


def _ask(port: int, names: Sequence[str], rdtype: str, *, signed: bool) -> list[int]:
    """Ask Heimdall for names, one after the other, over TCP, since UDP would cut the largest; return the sizes."""
    sizes = []
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as sock, sock.makefile("rb") as stream:
        for name in names:
            query = DNSRecord.question(name, rdtype)
            query.add_ar(EDNS0(flags="do" if signed else "", udp_len=_UDP_SIZE))
            packed = query.pack()
            sock.sendall(len(packed).to_bytes(2, "big") + packed)
            sizes.append(len(stream.read(int.from_bytes(stream.read(2), "big"))))
    return sizes


def _stored(store: Any, wanted: int) -> list[bytes]:  # noqa: ANN401 - redis-py's types mix answers and awaitables
    """Return the keys of all answers, once they are stored and the leases on them are over."""
    deadline = time.monotonic() + _SECONDS
    while True:
        keys: list[bytes] = store.keys(_VALUES)
        if len(keys) == wanted and not any(key.endswith(b":lease") for key in keys):
            return keys
        if time.monotonic() > deadline:
            raise BenchmarkError(f"{len(keys)} of {wanted} answers are in Redis")
        time.sleep(_POLL_SECONDS)


def _used(store: Any) -> int:  # noqa: ANN401 - as above
    return int(store.info("memory")["used_memory"])


SCENARIOS = (
    Scenario(
        name="sizes",
        title="What an answer takes in Redis",
        about=f"{_NAMES} answers of each kind under names of 21 characters, stored with the defaults: compressed from "
        "512 bytes on, not signed. A key with its value as MEMORY USAGE says, and what INFO's used_memory grew by for "
        "each: with Redis's own tables, and the expiry.",
        run=_sizes,
        rounds=1,
        shown=("message_bytes", "value_bytes", "key_bytes", "redis_bytes", "whole_bytes"),
        compared=(),
    ),
)
