"""What is read as text: a name that an operator or another replica wrote, a Redis key's name, a word on the bus."""

import json
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from heimdall_lib import wire
from heimdall_lib.errors import WireError
from heimdall_lib.invalidations import Invalidations
from heimdall_lib.names import type_name, type_number
from heimdall_lib.shared_cache import events
from heimdall_lib.shared_cache.clearing import pattern
from heimdall_lib.shared_cache.codec import cache_key, redis_key
from tests.fuzz import reference
from tests.fuzz.mutation import Mutator, pick
from tests.fuzz.target import Target

PREFIX, VIEW = "heimdall:dns:cache", "view"
KEY = f"{PREFIX}:1:{VIEW}:"


_VALUES: tuple[object, ...] = (
    *(
        "",
        ".",
        "www.example.com",
        "WWW.example.com.",
        "a..b",
        "\\255\\000",
        "\ud800",
        "x" * 64,
        "1." * 127,
        "A",
        "TYPE1",
    ),
    *(
        "TYPE99999",
        "0123456789abcdef",
        "0123456789ABCDEF",
        "acked",
        "flushed",
        "changed",
        "generation",
        True,
        False,
        None,
    ),
    *(0, 1, 3, 4, -1, 65535, 65536, 2**53 - 1, 2**53, 2**64, 1.0, 1e300, [], {}, ["A"], 1_800_000_000_000),
)


class TextTarget(Target):
    """A target whose inputs are texts; ``pieces`` are words that mean something in them."""

    pieces: ClassVar[Sequence[bytes]] = ()

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._mutator = Mutator(self.pieces, numbers=False)

    def vary(self, random: Random) -> bytes:
        """Return a text with some faults."""
        return self._mutator.vary(random, self.inputs[pick(self.inputs, random.random)], self.inputs)


class NameTarget(TextTarget):
    """Any text as a domain name, as a type, and as the name of a Redis key; any bytes as a cache key."""

    name = "name"
    pieces = (
        *(
            b".",
            b"..",
            b"\\",
            b"\\.",
            b"\\255",
            b"\\256",
            b"\\000",
            b"\\046",
            b"a" * 63,
            b"\xc3\xa4",
            b"*",
            b" ",
            b"\0",
        ),
        *(b":A:IN", b":AAAA:IN", b":TYPE1:IN", b":TYPE65280:CLASS9", b":do", b":cd", b":lease", KEY.encode(), b":1:"),
    )

    def check(self, data: bytes) -> str:
        """What is accepted can be written again, and says the same then."""
        text = data.decode("utf-8", "surrogateescape")
        outcomes = [self._name(text), self._type(text), self._redis_key(text)]
        if outcomes == ["", "", ""]:
            self._cache_key(data)
            return "nothing"
        return ", ".join(filter(None, outcomes))

    def _name(self, text: str) -> str:
        try:
            name = wire.from_presentation(text)
        except WireError:
            return ""
        labels, end = reference.read_name(name, 0)
        assert end == len(name) <= 255
        assert name == name.lower()
        written = wire.presentation(name)
        assert written.isascii()
        assert written.isprintable()
        assert not set(written) & set(" :*?[]{}\"'")
        assert wire.from_presentation(written) == wire.from_presentation(written + "." * bool(labels)) == name
        return f"name of {min(len(labels), 4)} labels"

    def _type(self, text: str) -> str:
        try:
            number = type_number(text)
        except ValueError:
            return ""
        assert 0 <= number <= 0xFFFF
        assert type_number(type_name(number)) == number
        return "type"

    def _redis_key(self, text: str) -> str:
        for name in (text, KEY + text):
            key = cache_key(PREFIX, VIEW, name)
            if key is not None:
                assert redis_key(PREFIX, VIEW, key) == name
                return "key"
        return ""

    def _cache_key(self, data: bytes) -> None:
        """Whatever name a client asks for has a Redis key that is its own."""
        try:
            _, end = reference.read_name(data, 0)
        except ValueError:
            return
        if data[end - 2 : end - 1] >= b"\xc0":
            return
        key = data[:end].lower() + (data[end:] + bytes(5))[:4] + bytes((len(data) & 3,))
        assert cache_key(PREFIX, VIEW, redis_key(PREFIX, VIEW, key)) == key


class EventTarget(TextTarget):
    """Any bytes as a message from another replica."""

    name = "event"
    pieces = (
        *(b'"v":1', b'"v":true', b'"v":1.0', b'"kind":"flushed"', b'"kind":"changed"', b'"kind":[]', b'"subtree":true'),
        *(b'"name":""', b'"name":"\\\\000.example"', b'"name":null', b'"type":"A"', b'"type":0', b'"generation":-1'),
        *(b'"generation":1e309', b'"generation":9007199254740992', b'"at":0', b'"bits":4', b'"class":65536', b"null"),
        *(b"[" * 500, b"{}", b"NaN", b"\\ud800", b"\xff", b"\0", b",", b'"', b"0" * 5000, b"0123456789abcdef"),
    )

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._floors = Invalidations()

    def check(self, data: bytes) -> str:
        """A message is understood wholly or not at all; what it says to forget is forgotten, as far as it says."""
        event = events.decode(data)
        if event is None:
            return "not understood"
        written = events.encode(event)
        assert events.decode(written) == event
        assert len(written) <= events.MAX_SIZE
        if isinstance(event, events.Changed):
            self._floors.changed(event.key, event.at)
            assert self._floors.floor(event.key) >= event.at
            assert reference.read_name(event.key, 0)[1] == len(event.key) - 5
        elif isinstance(event, events.Flushed):
            self._flush(event)
        return type(event).__name__.lower()

    def _flush(self, event: events.Flushed) -> None:
        flush = event.flush
        if flush.name:
            assert reference.read_name(flush.name, 0)[1] == len(flush.name)
        key = (flush.name or b"\0") + (flush.qtype or 1).to_bytes(2, "big") + b"\0\1\0"
        self._floors.flushed(flush, event.generation)
        assert event.generation <= self._floors.floor(key)
        assert flush.covers(key) or (not flush.name and flush.qtype not in (None, 1))
        assert pattern(PREFIX, flush).startswith(PREFIX)

    def vary(self, random: Random) -> bytes:
        """Return a message with some faults, or with other values that are JSON."""
        if random.random() < 0.5:
            return super().vary(random)
        try:
            fields = json.loads(random.choice(self.inputs))
            for _ in range(random.choice((1, 1, 2))):
                fields[random.choice(list(fields))] = random.choice(_VALUES)
        except (ValueError, TypeError, IndexError, RecursionError):
            return random.choice(self.inputs)
        return json.dumps(fields).encode()
