"""What a client sends over TCP, cut into segments anywhere: each whole query is answered, and nothing else is sent."""

import socket
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import cast

from heimdall_lib.query import Query
from heimdall_lib.server.misses import Misses
from heimdall_lib.server.tcp import Connection
from tests.fuzz import corpus
from tests.fuzz.mutation import pick
from tests.fuzz.targets import query
from tests.fuzz.targets.texts import TextTarget

_MOST_QUERIES = 5


class Segments:
    """A connected socket that receives segments and remembers what is sent."""

    def __init__(self, data: bytes, readable: socket.socket) -> None:
        self._segments = _cut(data)
        self._readable = readable
        self.sent = b""

    def recv(self, _size: int) -> bytes:
        return next(self._segments, b"")

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def settimeout(self, _seconds: float) -> None:
        pass

    def shutdown(self, _how: int) -> None:
        pass

    def fileno(self) -> int:
        """Return a file that can always be read: what comes next is there already."""
        return self._readable.fileno()


class AtOnce:
    """Runs what would wait, at once."""

    def run(self, function: Callable[..., None], *args: object) -> bool:
        function(*args)
        return True


class TcpTarget(TextTarget):
    """Bytes as all that one client sends before it closes its side."""

    name = "tcp"
    block = 2000
    seconds = 0.2  # hundreds of queries, each asked several times over
    pieces = (b"\0\0", b"\0\x01", b"\0\x0c", b"\0\x21", b"\xff\xff", b"\0", *query.PIECES)

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._queries = [each.data for each in corpus.load("query") if len(each.data) < 600]
        self._judge = query.QueryTarget(self._queries)
        self._readable, self._other = socket.socketpair()
        self._other.send(b"readable")

    def vary(self, random: Random) -> bytes:
        """Return some queries, each behind its length, and at times a fault."""
        if random.random() < 0.1:
            return super().vary(random)
        queries = [self._queries[pick(self._queries, random.random)] for _ in range(random.randint(1, _MOST_QUERIES))]
        stream = b"".join(map(_frame, queries))
        return stream if random.random() < 0.5 else self._mutator.vary(random, stream, self.inputs)

    def check(self, data: bytes) -> str:
        """Every whole query has the answer that it has on its own; the answers may be in another order."""
        whole, cut = _frames(data)
        for _ in range(3):  # a second may be over in between, and a failure that is remembered is said to be
            before = self._answers(whole)
            given, left = _frames(self._sent(data))
            assert not left
            if Counter(given) in (before, self._answers(whole)):
                return f"{min(len(given), _MOST_QUERIES)} answers{' and a rest' if cut else ''}"
        raise AssertionError(f"other answers than {sorted(before)}: {sorted(given)}")

    def _sent(self, data: bytes) -> bytes:
        """Return all that is sent on a connection on which some bytes are received."""
        sock = Segments(data, self._readable)
        connection = Connection(
            cast(socket.socket, sock), query.FRIEND, self._judge.responder, cast(Misses, AtOnce()), idle_timeout=10.0
        )
        connection.serve()
        return sock.sent

    def _answers(self, queries: Sequence[bytes]) -> Counter[bytes]:
        """Return the answers to some queries, each on its own."""
        return Counter(answer for each in queries if (answer := self._answer(each)))

    def _answer(self, data: bytes) -> bytes:
        answer = self._judge.responder.begin(data, query.FRIEND, "tcp")
        return self._judge.responder.finish(answer) if isinstance(answer, Query) else answer

    def close(self) -> None:
        """Close the sockets."""
        self._readable.close()
        self._other.close()


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the messages in a stream, and what follows the last one that is whole."""
    found: list[bytes] = []
    while len(data) >= 2 and len(data) >= (end := 2 + int.from_bytes(data[:2], "big")):
        found.append(data[2:end])
        data = data[end:]
    return found, data


def _cut(data: bytes) -> Iterator[bytes]:
    """Yield a stream in segments, cut in a way that its bytes decide."""
    random = Random(zlib.crc32(data))
    while data:
        size = random.choice((1, 2, 3, 13, 40, 600, len(data), len(data)))
        yield data[:size]
        data = data[size:]
