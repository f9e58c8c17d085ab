"""What stands under a key in Redis: decoded, verified, examined, kept in L1 and given to a client; or a miss.

The bytes of an input are a value. Replicas without keys believe what is well-formed and answers the question; those
with keys believe what one of them has signed for this very name, and nothing else.
"""

import time
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.query import cache_key
from heimdall_lib.shared_cache.cache import Found
from heimdall_lib.shared_cache.codec import Codec, RejectedValueError, StoredAnswer, redis_key
from heimdall_lib.stats import Stats
from tests.fuzz import judge, reference
from tests.fuzz.mutation import Mutator, pick
from tests.fuzz.target import Target
from tests.fuzz.targets import query, reply
from tests.support import messages

KEYS = ("the first signing key", "the second signing key")
NOW = 1_800_000_000_000
"""The time on Redis's clock, in milliseconds."""
NAME = b"\3www\7example\3com\0\0\1\0\1"
_REASONS = {word: word for word in ("format", "version", "signature", "flags", "size", "compression")}
_HEAD = 19
_MAC = 16
_MOST = 65535
_PIECES = [b"HD\1", b"HD\2", zlib.compress(bytes(100)), zlib.compress(bytes(10_000_000), 9), *reply.PIECES]
_HEAD_PLACES = [*range(5), *range(11, _HEAD), *range(_HEAD, _HEAD + 12)]


class ValueTarget(Target):
    """Any bytes as the value under the Redis key of a cache key of ours."""

    name = "value"
    block = 10_000
    seconds = reply.ReplyTarget.seconds

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        stats = Stats()
        self._memory = MemoryCache(max_entries=1000, max_bytes=10_000_000, purge_interval=30, stats=stats)
        self._resolver = query.resolver(self._memory, stats)
        self._rejected = stats.redis_rejected
        self._responder = query.responder(self._memory, self._resolver, stats)
        self._open = Codec()
        self._signed = Codec(signing_keys=KEYS)
        self._writers = [
            Codec(signing_keys=keys, compress_min_bytes=least)
            for keys in ((), KEYS, KEYS[1:], ("somebody else's key",))
            for least in (0, 1)
        ]
        self._mutator = Mutator(_PIECES)
        self._messages = [message for data in inputs if (message := _plainly(data))]

    def vary(self, random: Random) -> bytes:
        """Return a value with some faults; or one that is well made, of a message with some."""
        draw = random.random
        if draw() < 0.5:
            data = self.inputs[pick(self.inputs, draw)]
            return self._mutator.vary(random, data, self.inputs, _HEAD_PLACES)
        message = self._messages[pick(self._messages, draw)]
        if draw() < 0.7:
            harmed = self._mutator.vary(random, message, self._messages)
            end = 12 + len(reply.question_in(message))
            message = message[:12] + harmed[12:] if draw() < 0.3 else message[:end] + harmed[end:]
        key, name = key_and_name(zlib.crc32(message))
        stored = StoredAnswer(message[:_MOST], NOW - int(draw() * 400_000), int(draw() * 1000))
        value, _ = self._writers[int(draw() * len(self._writers))].encode(name, key, stored)
        return value

    def check(self, data: bytes) -> str:
        """See the module; the key's bits are told from the value's own, as in most values they agree."""
        key, name = key_and_name(data[4] if len(data) > 4 else 0)
        stored, why = self._decoded(self._open, name, key, data)
        verified, why_not = self._decoded(self._signed, name, key, data)
        assert (verified is not None) is (stored is not None and _is_signed(name, data))
        if stored is None:
            return f"rejected: {why}"
        assert verified in (None, stored)
        assert stored.message == _expanded(data)
        if len(stored.message) > reply.LARGE:
            return f"large {self._resolver.keep(key, Found(stored.message, 0.0, 1))}"
        return f"{'verified' if verified else why_not} {self._kept(key, stored)}"

    def _decoded(self, codec: Codec, name: str, key: bytes, data: bytes) -> tuple[StoredAnswer | None, str]:
        try:
            stored = codec.decode(name, key, data)
        except RejectedValueError as error:
            return None, _REASONS[error.reason]
        assert 0 < len(stored.message) <= _MOST
        assert bytes((data[4],)) == key[-1:]
        return stored, ""

    def _kept(self, key: bytes, stored: StoredAnswer) -> str:
        """Offer a message to L1; what a client gets of it is what it said."""
        age = max(0, NOW - stored.stored_at) / 1000
        self._rejected.clear()
        began = time.monotonic()
        fresh = self._resolver.keep(key, Found(stored.message, age, stored.lifetime))
        entry = self._memory.get(key)
        if entry is None:
            assert not fresh
            return f"not kept {', '.join(self._rejected)}"
        try:
            assert reply.question_in(stored.message) == key[:-1]
            if not fresh:
                records = reference.read(stored.message, owners=False).records
                ends = [int.from_bytes(record.data[-4:], "big") for record in records if record.type == 6]
                assert age >= min(stored.lifetime, 3600, *map(reply.ttl_of, records), *ends)
                return "kept, stale"
            return self._given(key, stored.message, age, began)
        finally:
            self._memory.remove(key)

    def _given(self, key: bytes, message: bytes, age: float, began: float) -> str:
        flags = 0x0110 if key[-1] & 2 else 0x0100
        opt = messages.opt(dnssec_ok=bool(key[-1] & 1), udp_size=_MOST)
        asked = messages.assemble(key[:-1], flags=flags, additional=[opt])
        answer = self._responder.begin(asked, query.FRIEND, "tcp")
        assert isinstance(answer, bytes)
        given, was = reference.read(answer), reference.read(message, owners=False)
        if judge.sampled(message):
            judge.dnspython_reads(answer, given)
        assert answer[3] & 15 == message[3] & 15
        assert given.records[-1].type == 41
        before = next((opt.start for opt in was.of(41)), len(message))
        held = [record for record in was.records if record.start < before]
        positive = any(record.section == 1 and record.type == 1 for record in held)
        late = int(time.monotonic() - began) + 1
        for shown, record in zip(given.records[:-1], held, strict=True):
            assert shown._replace(owner=(), ttl=0) == record._replace(owner=(), ttl=0)
            ttl = min(reply.ttl_of(record), 86400) - int(age)
            assert shown.ttl <= max(0, ttl)
            assert not positive or shown.ttl >= ttl - late
        return "given"


def key_and_name(mark: int) -> tuple[bytes, str]:
    """Return the cache key with some bits, and the name of its Redis key."""
    key = cache_key(NAME, dnssec_ok=bool(mark & 1), checking_disabled=bool(mark & 2))
    return key, redis_key("prefix", "view", key)


def _expanded(data: bytes) -> bytes:
    """Return the message in a value that has been believed, read in a way of its own."""
    body = data[_HEAD : -_MAC if data[3] & 2 else len(data)]
    return zlib.decompress(body) if data[3] & 1 else body


def _plainly(data: bytes) -> bytes:
    """Return the message in a value of the corpus, empty when there is none."""
    body = data[_HEAD : -_MAC if data[3:4] == b"\2" else len(data)]
    return body if data[:2] == b"HD" and reply.question_in(body) else b""


def _is_signed(name: str, data: bytes) -> bool:
    """Say whether one of the keys has signed a value for a name (docs/redis.md)."""
    content, mac = data[:-_MAC], data[-_MAC:]
    for key in KEYS:
        secret = blake2b(key.encode(), digest_size=32).digest()
        if data[3] & 2 and blake2b(name.encode() + b"\0" + content, key=secret, digest_size=_MAC).digest() == mac:
            return True
    return False
