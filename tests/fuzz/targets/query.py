"""Queries over UDP and TCP, through both hit paths: no answer but the right one, in no more room than there is."""

import time
import zlib
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from random import Random

from heimdall_lib import entry as entries
from heimdall_lib.access import AllowList, RateLimiter
from heimdall_lib.errors import NoAnswerError
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.memory_cache import MemoryCache
from heimdall_lib.names import ChaosAnswers
from heimdall_lib.popularity import Popularity
from heimdall_lib.query import Query
from heimdall_lib.ready import ReadyAnswers
from heimdall_lib.reply import Reply
from heimdall_lib.resolver import Resolver, ResolverPolicy
from heimdall_lib.responder import Responder, ResponderPolicy
from heimdall_lib.shared_cache.cache import NoSharedCache
from heimdall_lib.stats import Stats
from tests.fuzz import judge, reference
from tests.fuzz.answers import CD, DO, HELD
from tests.fuzz.mutation import Mutator, pick
from tests.fuzz.target import Target
from tests.support import messages

UDP_SIZE = 1232
STALE_TTL = 30
FRIEND, STRANGER = "127.0.0.1", "203.0.113.9"
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
_ADDED = 6 + 8 + 2 + 24  # an error's EDE and its text, the server's half of a cookie, a keepalive's time: octets
_UPSTREAM_DOWN = "nobody there"
_OUR_OPTIONS = {10, 11, 15}

PIECES = [
    messages.opt(),
    messages.opt(udp_size=0, dnssec_ok=True),
    messages.opt(udp_size=0xFFFF, options=messages.option(10, bytes(range(8)))),
    messages.opt(version=1),
    messages.opt(options=messages.option(11, b"") + messages.option(8, b"\0\1\x18\0\xc0\0\2")),
    messages.option(10, bytes(8)),
    messages.option(10, bytes(24)),
    messages.option(3, b""),
    messages.record(b"\0", messages.A, 1, bytes(4)),
    messages.record(messages.TO_QUESTION, messages.TXT, 1, b"\1a"),
    b"\0\1\0\1",
    b"\xc0\x0c",
    b"\xc0\x00",
    b"\0",
    b"\x3f" + b"a" * 63,
    b"\3www\7example\3com\0",
]

Key = tuple[tuple[bytes, ...], int, int, bool, bool]


class Unreachable:
    """Upstream servers that answer nobody."""

    def view(self, _key: bytes) -> str:
        return "view"

    def views(self) -> set[str]:
        return {"view"}

    def all_resting(self, _key: bytes) -> bool:
        return False

    def ask(self, _key: bytes, _deadline: float) -> Reply:
        raise NoAnswerError(22, _UPSTREAM_DOWN)


def at_once(function: Callable[..., object], *args: object) -> None:
    """Run what would run beside."""
    function(*args)


def resolver(memory: MemoryCache, stats: Stats) -> Resolver:
    """Return a resolver of which L1 is the only tier that has anything."""
    return Resolver(
        policy=ResolverPolicy(stale_client_timeout=0.0),
        memory=memory,
        shared=NoSharedCache(),
        invalidations=Invalidations(),
        upstreams=Unreachable(),
        spawn=at_once,
        stats=stats,
    )


def responder(
    memory: MemoryCache, resolving: Resolver, stats: Stats, *, rate: float = 0, log: bool = False
) -> Responder:
    """Return a responder for FRIEND, over UDP and TCP."""
    return Responder(
        policy=ResponderPolicy(
            allow=AllowList((ip_network("127.0.0.0/8"),)),
            limiter=RateLimiter(rate=rate, burst=1),
            udp_size=UDP_SIZE,
            stale_reply_ttl=STALE_TTL,
            query_log=log,
        ),
        resolver=resolving,
        ready={one: ReadyAnswers(memory, Popularity(), truncates=one == "udp") for one in ("udp", "tcp")},
        chaos=ChaosAnswers(version="Heimdall", server_id="fuzz"),
        stats=stats,
    )


class Answer:
    """What L1 holds under one key, as a rendering has to show it."""

    def __init__(self, message: bytes, stored_at: float, *, stale: bool) -> None:
        self.message = message
        self.offsets = tuple(record.fixed + 4 for record in reference.read(message).records)
        self.stored_at = stored_at
        self.stale = stale

    def shown(self, data: bytes, asked: reference.Message, seconds: int, *, ad: bool) -> bytes:
        """Return the whole answer to a query, its OPT apart, after some seconds."""
        if self.stale:
            shown = bytearray(self.message)
            for at in self.offsets:
                shown[at : at + 4] = STALE_TTL.to_bytes(4, "big")
        else:
            shown = bytearray(judge.count_down(self.message, self.offsets, seconds))
        shown[:2] = data[:2]
        shown[2] |= data[2] & 0x01
        shown[3] = shown[3] & (0xFF if ad else 0xDF) | data[3] & 0x10
        shown[12 : 12 + len(asked.question)] = asked.question
        return bytes(shown)


class QueryTarget(Target):
    """Any bytes as a query of a client: one that may ask, one that may not, one that asks too often."""

    name = "query"
    block = 10_000

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        stats = Stats()
        memory = MemoryCache(max_entries=1000, max_bytes=10_000_000, purge_interval=30, stats=stats)
        now = self._began = time.monotonic()
        self._held: dict[Key, Answer] = {}
        for held in HELD:
            stored_at = now - held.age
            answer = Answer(held.message, stored_at, stale=held.age >= held.lifetime)
            asked = reference.read(held.message)
            bits = bytes((held.bits,))
            self._held[asked.name, held.type, held.rclass, bool(held.bits & DO), bool(held.bits & CD)] = answer
            entry = entries.make(
                held.message, answer.offsets, stored_at=stored_at, lifetime=held.lifetime, stale=86400.0
            )
            memory.put(asked.question + bits, entry)
        resolving = resolver(memory, stats)
        self.responder = responder(memory, resolving, stats)
        self._logging = responder(memory, resolving, stats, log=True)
        self._limited = responder(memory, resolving, stats, rate=1e-9)
        self._mutator = Mutator(PIECES)
        self._places = [reference.places(data) for data in self.inputs]

    def vary(self, random: Random) -> bytes:
        """Return a query with another id and case, most often with a fault or two, else with other wishes."""
        draw = random.random
        index = pick(self.inputs, draw)
        data = bytearray(self.inputs[index])
        data[:2] = random.getrandbits(16).to_bytes(2, "big")
        for at in range(12, min(len(data), 44)):
            if 0x40 < data[at] & 0xDF < 0x5B and draw() < 0.3:
                data[at] ^= 0x20
        if draw() < 0.6:
            return self._mutator.vary(random, bytes(data), self.inputs, self._places[index])
        if len(data) > 12:
            data[2] ^= draw() < 0.1
            data[3] ^= int(draw() * 4) << 4
        if data[-11:-8] == b"\0\0\x29":
            data[-8:-6] = int(draw() * 2000).to_bytes(2, "big")
            data[-4] ^= 0x80 * (draw() < 0.5)
        return bytes(data)

    def check(self, data: bytes) -> str:
        """See the module; which client asks is told from the bytes."""
        who = zlib.crc32(data) >> 8 & 15
        if who == 0:
            return self._of_a_stranger(data)
        if who == 1:
            return self._too_often(data)
        transport = "tcp" if who < 5 else "udp"
        answer, ways = self._answer(data, transport, self._logging if who == 5 else self.responder)
        return f"{transport} {ways} {self._judged(data, answer, transport)}"

    def _answer(self, data: bytes, transport: str, responder: Responder) -> tuple[bytes, str]:
        """Return the one answer that all ways come to, and which ways have one."""
        while True:
            second = self._second()
            first, (answer, has_records) = _ready(responder, data, transport), _begun(responder, data, transport)
            again = _ready(responder, data, transport) if first or has_records else b""
            if second == self._second():  # else TTLs may have counted down in between
                break
        for other in (first, again):
            assert other in (b"", answer), f"two ways, two answers: {other.hex()} and {answer.hex()}"
        return answer, "ready" if first else "kept" if again else "general"

    def _second(self) -> int:
        """Return a number that is another one whenever the TTLs of what L1 holds have counted down."""
        return int(time.monotonic() - self._began + 0.5)

    def _of_a_stranger(self, data: bytes) -> str:
        assert not _ready(self.responder, data, "udp", STRANGER)
        answer = self.responder.begin(data, STRANGER, "udp")
        assert isinstance(answer, bytes)
        if not answer:
            assert len(data) < 12 or data[2] & 0x80
            return "stranger silence"
        assert len(answer) <= len(data)
        assert _bare(data, answer) == REFUSED
        return "stranger refused"

    def _too_often(self, data: bytes) -> str:
        self._limited.begin(data, FRIEND, "udp")  # has the token there is, and then every other is dropped
        assert not _ready(self._limited, data, "udp")
        answer = self._limited.begin(data, FRIEND, "udp")
        assert isinstance(answer, bytes)
        if answer:
            assert len(answer) <= len(data) + _ADDED
            assert answer[2] & 0x02
            _bare(data, answer)
        return "limited slip" if answer else "limited silence"

    def _judged(self, data: bytes, answer: bytes, transport: str) -> str:
        if len(data) < 12 or data[2] & 0x80:
            assert not answer
            return "silence"
        assert answer[:2] == data[:2]
        assert answer[2] & 0xF8 == 0x80 | data[2] & 0x78
        try:
            query = reference.read(data, owners=False)
        except ValueError:
            return f"unreadable {_error(data, answer, {FORMERR, NOTIMP, NOERROR, BADVERS})}"
        asked = reference.asked(query)
        if asked is None or not _sound_options(data, query):
            return f"unsound {_error(data, answer, {FORMERR, NOTIMP})}"
        room = 65535 if transport == "tcp" else min(asked.room, UDP_SIZE)
        assert len(answer) <= room
        body = _without_opt(answer, query, asked)
        if asked.version:
            return f"version {_error(data, answer, {BADVERS})}"
        held = self._held.get((query.name, query.type, query.rclass, asked.dnssec_ok, asked.checking_disabled))
        if held is not None and (not held.stale or data[2] & 1):
            return self._shown(data, query, body, held, room - (len(answer) - len(body)))
        if query.rclass == 3 and len(query.name) == 2 and query.type in (16, 255) and not body[3] & 15:
            assert query.name in {
                (b"version", b"bind"),
                (b"version", b"server"),
                (b"id", b"server"),
                (b"hostname", b"bind"),
            }
            return "chaos"
        return f"miss {_error(data, answer, _codes(query, data[2] & 1))}"

    def _shown(self, data: bytes, query: reference.Message, body: bytes, held: Answer, room: int) -> str:
        """The answer is what L1 holds, or whole records from its beginning and no more room for the next."""
        ad = bool(data[3] & 0x20) or any(opt.ttl & 0x8000 for opt in query.of(41))
        seconds = time.monotonic() - held.stored_at
        for age in (int(seconds), int(seconds) - 1):
            whole = held.shown(data, query, age, ad=ad)
            if body == whole:
                return "stale" if held.stale else "whole"
            if body[12:] == whole[12 : len(body)] and body[:2] + body[3:4] == whole[:2] + whole[3:4]:
                assert len(whole) > room
                kept, all_of_it = reference.read(body), reference.read(whole)
                assert kept.records == all_of_it.records[: len(kept.records)]
                missing = {record.section for record in all_of_it.records[len(kept.records) :]}
                assert bool(body[2] & 0x02) is bool(missing & {1, 2})
                assert all(record.section != 3 for record in kept.records) or not missing & {3}
                return "truncated" if body[2] & 0x02 else "less additional"
        raise AssertionError(f"not what L1 holds: {body.hex()}")


def _ready(responder: Responder, data: bytes, transport: str, client: str = FRIEND) -> bytes:
    answers, rest = responder.ready([(data, client)], str, transport)
    assert len(answers) + len(rest) == 1
    return answers[0][0] if answers else b""


def _begun(responder: Responder, data: bytes, transport: str) -> tuple[bytes, bool]:
    """Return the general way's answer, and whether it was there at once with records in it."""
    answer = responder.begin(data, FRIEND, transport)
    if isinstance(answer, Query):
        return responder.finish(answer), False
    return answer, len(answer) >= 12 and answer[6:10] != bytes(4)


def _bare(data: bytes, answer: bytes) -> int:
    """Return the response code of an answer that has the query's own question, if any, and no records but an OPT."""
    assert answer[6:10] == bytes(4)
    code = answer[3] & 15
    if not answer[5]:
        assert answer[4:6] == b"\0\0"
        return code
    message = reference.read(answer)
    assert data[12 : 12 + len(message.question)] == message.question
    for record in message.records:
        assert record.type == 41
        code |= record.ttl >> 24 << 4
    return code


def _error(data: bytes, answer: bytes, codes: set[int]) -> int:
    """Return the response code of an answer that says no more, which is one of some."""
    code = _bare(data, answer)
    assert code in codes, f"answered with response code {code}"
    assert len(answer) <= len(data) + _ADDED
    if code in (FORMERR, NOTIMP) and not answer[11]:
        assert len(answer) <= len(data)
    return code


def _sound_options(data: bytes, query: reference.Message) -> bool:
    """Say whether a query's OPT is written at the root, has whole options, and a cookie of a size that there is."""
    for opt in query.of(41):
        try:
            cookies = [len(value) for code, value in reference.options(opt.data) if code == 10]
        except ValueError:
            return False
        if data[opt.start] or (cookies and cookies[0] != 8 and not 16 <= cookies[0] <= 40):
            return False
    return True


def _without_opt(answer: bytes, query: reference.Message, asked: reference.Asked) -> bytes:
    """Return an answer without its OPT: it is there for a client that sent one, at the end, with nothing of others."""
    message = reference.read(answer)
    assert message.question == query.question
    if judge.sampled(answer):
        judge.dnspython_reads(answer, message)
    opts = message.of(41)
    assert len(opts) == asked.edns
    if not opts:
        return answer
    opt = opts[0]
    assert (opt.section, opt.owner, opt.rclass, opt.ttl & 0xFFFFFF) == (3, (), UDP_SIZE, 0x8000 * asked.dnssec_ok)
    assert {code for code, _ in reference.options(opt.data)} <= _OUR_OPTIONS
    assert opt.end == len(answer)
    count = int.from_bytes(answer[10:12], "big") - 1
    return answer[:10] + count.to_bytes(2, "big") + answer[12 : opt.start]


def _codes(query: reference.Message, recursion_desired: int) -> set[int]:
    """Return what a query may be told that L1 has nothing fresh for while upstream is down."""
    if query.rclass == 3:
        return {REFUSED}
    if query.type in (251, 252):
        return {NOTIMP}
    if query.type == 41:
        return {FORMERR}
    return {SERVFAIL} if recursion_desired else {REFUSED}
