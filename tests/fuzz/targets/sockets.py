"""What comes over real sockets: from upstream servers, from Redis, and from another process of Heimdall.

Slower by far than the targets without sockets, and so for what only a socket shows: no exception but those that are
told, nothing that waits longer than it may.
"""

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from heimdall_lib.channel import Channel
from heimdall_lib.errors import ChannelError, SharedCacheError, UpstreamError, WireError
from heimdall_lib.invalidations import Flush
from heimdall_lib.reply import examine
from heimdall_lib.settings import Endpoint, RedisTarget, UpstreamServer
from heimdall_lib.shared_cache import ranking
from heimdall_lib.shared_cache.clearing import clear
from heimdall_lib.shared_cache.client import (
    REASONS,
    Client,
    ClientOptions,
    connect,
    multi_delete,
    multi_get,
    multi_set,
    publish,
)
from heimdall_lib.shared_cache.lease import Leases, Wanted
from heimdall_lib.shared_cache.link import Link
from heimdall_lib.stats import Stats, UpstreamStats
from heimdall_lib.upstream.server import Upstream
from tests.fuzz import reference
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import reply
from tests.fuzz.targets.texts import TextTarget
from tests.support import messages

# A timeout is said as well of what over UDP is not believed and over TCP no reply: at once, not when the time is over.
_UPSTREAM_REASONS = {word: word for word in ("malformed", "network", "timeout")}
_REDIS_REASONS = {word: word for word in REASONS}
_PATIENCE = 10.0  # of whoever waits for a thread of the target's own
_SLACK = 3.0  # by which what has a time limit may be late on a busy machine
_ASKING_SECONDS = 5.0
_LARGEST_DATAGRAM = 60_000


class Peer:
    """Serves connections on loopback one after the other, and datagrams if told to: in threads that end with it."""

    def __init__(
        self, serve: Callable[[socket.socket], None], datagram: Callable[[bytes], Sequence[bytes]] | None = None
    ) -> None:
        self._serve = serve
        self._datagram = datagram
        self._streams, self._datagrams = _on_one_port()
        self.port: int = self._streams.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        if datagram is not None:
            self._threads.append(threading.Thread(target=self._receive, daemon=True))
        self._closed = False
        for thread in self._threads:
            thread.start()

    def _accept(self) -> None:
        while not self._closed:
            sock, _ = self._streams.accept()
            with sock, contextlib.suppress(OSError):  # whoever is talked to may be gone
                self._serve(sock)

    def _receive(self) -> None:
        while not self._closed and self._datagram is not None:
            data, peer = self._datagrams.recvfrom(65535)
            for each in self._datagram(data):
                self._datagrams.sendto(each, peer)

    def close(self) -> None:
        """Wake the threads, and see them end."""
        self._closed = True
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        if self._datagram is not None:
            with socket.socket(type=socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(_PATIENCE)
        self._streams.close()
        self._datagrams.close()


def _on_one_port() -> tuple[socket.socket, socket.socket]:
    """Return a socket that listens and one for datagrams, on a port that was free for both."""
    while True:
        streams, datagrams = socket.create_server(("127.0.0.1", 0)), socket.socket(type=socket.SOCK_DGRAM)
        try:
            datagrams.bind(streams.getsockname())
        except OSError:  # somebody else's datagrams
            streams.close()
            datagrams.close()
        else:
            return streams, datagrams


class UpstreamTarget(TextTarget):
    """A message that an upstream server sends before the good one; over TCP, when that or chance will have it."""

    name = "upstream"
    block = 200
    seconds = 0.2
    pieces = reply.PIECES

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__([data for data in inputs if len(data) < _LARGEST_DATAGRAM])
        self._mutator = Mutator(reply.PIECES)
        self._bad = b""
        self._question = b""
        self._peer = Peer(self._talk, self._replies)

    def check(self, data: bytes) -> str:
        """What is believed is the first reply that answers the question under the query's id."""
        mark = zlib.crc32(data)
        self._bad = data[:_LARGEST_DATAGRAM]
        self._question = reply.question_in(data) or messages.question("www.example.com.")
        server = UpstreamServer("udp" if mark & 3 else "tcp", "127.0.0.1", self._peer.port)
        upstream = Upstream(server, udp_size=1232, stats=UpstreamStats())
        began = time.monotonic()
        try:
            found = upstream.ask(self._question + b"\0", _ASKING_SECONDS)
        except UpstreamError as error:
            return _UPSTREAM_REASONS[error.reason]
        finally:
            upstream.close()
            assert time.monotonic() - began < _ASKING_SECONDS
        said = [self._good(b"\0\0", self._question)]
        if reference.is_reply_to(self._bad, self._question):
            said.append(self._bad)
        believed = []
        for each in said:
            with contextlib.suppress(WireError):
                believed.append(examine(each, self._question))
        assert found in believed
        return f"{server.transport} {found.kind.value}"

    def _replies(self, query: bytes) -> list[bytes]:
        """Return the bad reply and the good one; both repeat the case of the question, or neither were believed."""
        asked = query[12 : 12 + len(self._question)]
        bad = query[:2] + self._bad[2:] if zlib.crc32(self._bad) & 12 else self._bad
        if bad[12 : 12 + len(asked)].lower() == asked.lower():
            bad = bad[:12] + asked + bad[12 + len(asked) :]
        return [bad, self._good(query[:2], asked)]

    def _good(self, message_id: bytes, asked: bytes) -> bytes:
        record = messages.record(messages.TO_QUESTION, 1, 300, bytes(4))
        return message_id + messages.assemble(asked, answer=[record])[2:]

    def _talk(self, sock: socket.socket) -> None:
        """Answer one query over TCP; at times the bytes are a stream as they are, without a length before them."""
        sock.settimeout(_PATIENCE)
        query = sock.recv(4096)[2:]
        bad, good = ((len(each).to_bytes(2, "big") + each) for each in self._replies(query))
        sock.sendall((self._bad if zlib.crc32(self._bad) & 48 == 0 else bad) + good)

    def close(self) -> None:
        """End the server."""
        self._peer.close()


class RespTarget(TextTarget):
    """Bytes that a Redis sends for every command, before it hangs up."""

    name = "redis"
    block = 200
    seconds = 0.2
    pieces = (
        *(
            b"\r\n",
            b"+OK\r\n",
            b"-ERR no\r\n",
            b"-WRONGTYPE x\r\n",
            b"-NOSCRIPT x\r\n",
            b"-MOVED 1 10.0.0.1:1\r\n",
            b":1\r\n",
        ),
        *(
            b"$-1\r\n",
            b"$5\r\nhello\r\n",
            b"$0\r\n\r\n",
            b"*0\r\n",
            b"*-1\r\n",
            b"*2\r\n",
            b"$99999999\r\n",
            b"$-2\r\n",
        ),
        *(
            b":\r\n",
            b":x\r\n",
            b"-\r\n",
            b"*1\r\n" * 300,
            b"*99999999\r\n",
            b"%1\r\n",
            b"_\r\n",
            b"#t\r\n",
            b",inf\r\n",
            b">1\r\n",
        ),
        *(b"-LOADING x\r\n", b"-OOM x\r\n", b"-NOAUTH x\r\n", b"-READONLY x\r\n", b"-MISCONF x\r\n", b"-NOPERM x\r\n"),
    )

    def __init__(self, inputs: Sequence[bytes]) -> None:
        super().__init__(inputs)
        self._said = b""
        self._peer = Peer(self._talk)
        self._target = RedisTarget("standalone", (Endpoint("127.0.0.1", self._peer.port),), "fuzz")
        self._operations: list[Callable[[Link], object]] = [
            lambda link: link.run("get", _leased),
            lambda link: link.run("get", lambda client: _typed(multi_get(client, ["a", "b"]), bytes, type(None))),
            lambda link: link.run(
                "set", lambda client: _typed(multi_set(client, [("a", b"", 1)]), Exception, type(None))
            ),
            lambda link: link.run("del", lambda client: _typed(multi_delete(client, ["a"]), Exception, type(None))),
            lambda link: link.run("publish", lambda client: _typed(publish(client, "c", [b"m"]), Exception, int)),
            lambda link: clear(link, "prefix", Flush(b"\1a\0", 1), known=["prefix:1:view:a:A:IN"], seconds=0.02),
            lambda link: link.run("popular", lambda client: ranking.add(client, "ranking", [("a", 1)])),
            _ranked,
        ]

    def check(self, data: bytes) -> str:
        """A link to Redis raises what says why, and nothing else, and never waits for longer than it may."""
        self._said = data
        client = connect(self._target, ClientOptions(timeout=0.5))
        stats = Stats()
        link = Link(lambda: client, name="the fuzzer's", slow_seconds=5.0, expected=False, stats=stats)
        began = time.monotonic()
        try:
            link._probe()
            self._operations[zlib.crc32(data) % len(self._operations)](link)
        except SharedCacheError as error:
            return _REDIS_REASONS[error.reason]
        finally:
            client.close()
            assert time.monotonic() - began < 0.5 + _SLACK
            assert set(stats.redis_errors) <= set(REASONS)
        return "in use" if stats.redis_up else "understood"

    def _talk(self, sock: socket.socket) -> None:
        sock.settimeout(_PATIENCE)
        if sock.recv(65536):
            sock.sendall(self._said)

    def close(self) -> None:
        """End the server."""
        self._peer.close()


def _typed(results: Sequence[object], *kinds: type) -> Sequence[object]:
    assert all(isinstance(each, kinds) for each in results)
    return results


def _leased(client: Client) -> object:
    found = Leases().read(client, [Wanted("a", 1000), Wanted("b", 1000)], now=0, lease=300)
    assert len(found) == 2
    for value, elsewhere in found:
        assert value is None or isinstance(value, bytes)
        assert isinstance(elsewhere, bool)
    return found


class _Enough(Exception):  # noqa: N818 - the end of a walk that a Redis could make endless
    pass


def _ranked(link: Link) -> None:
    rounds = iter(range(8))

    def ask(operation: str, call: Callable[[Client], Any]) -> Any:
        if next(rounds, None) is None:
            raise _Enough
        return link.run(operation, call, bulk=True)

    with contextlib.suppress(_Enough):
        for name, view in ranking.names_by_rank(ask, "prefix", ["view"], 1_800_000_000_000):
            assert isinstance(name, str)
            assert view == "view"


class ChannelTarget(TextTarget):
    """Bytes that another process of Heimdall sends, of which it has just been asked something, before it is gone."""

    name = "channel"
    block = 500
    seconds = 0.2
    pieces = (
        *(
            b'{"answer": 1, "number": 1}\n',
            b'{"error": "no", "number": 1}\n',
            b'{"error": {}, "number": 1}\n',
            b'{"number": 1}\n',
        ),
        *(
            b'{"ask": "x", "with": null, "number": 1}\n',
            b'{"ask": [], "with": {}, "number": {}}\n',
            b'{"ask": "x"}\n',
            b"null\n",
        ),
        *(
            b"[]\n",
            b'"ask"\n',
            b"1\n",
            b"\n",
            b"[" * 3000 + b"\n",
            b"\xff",
            b"\\ud800",
            b'"number": []',
            b"NaN",
            b"1" * 5000,
        ),
    )

    def vary(self, random: Random) -> bytes:
        """Return lines that are sound, with some faults behind them or before."""
        harmed = super().vary(random)
        return random.choice((harmed, random.choice(self.inputs) + harmed, self.pieces[0] + harmed))

    def check(self, data: bytes) -> str:
        """Who asks has an answer or learns that there is none; the channel ends with the other side."""
        ours, theirs = socket.socketpair()
        channel = Channel(ours, lambda wanted, argument: [wanted, argument])
        reader = threading.Thread(target=channel.run, daemon=True)
        deaths: list[str] = []
        before, threading.excepthook = threading.excepthook, lambda args: deaths.append(repr(args.exc_value))
        try:
            reader.start()
            speaker = threading.Thread(target=_speak, args=(theirs, data), daemon=True)
            speaker.start()
            try:
                channel.ask("anything", timeout=_PATIENCE)
            except ChannelError as error:
                outcome = "late" if "no answer within" in str(error) else "no answer"
            else:
                outcome = "an answer"
            for thread in (reader, speaker):
                thread.join(_PATIENCE)
                assert not thread.is_alive()
        finally:
            threading.excepthook = before
            theirs.close()
        assert not deaths, deaths[0]
        assert outcome != "late"
        return outcome


def _speak(sock: socket.socket, data: bytes) -> None:
    """Wait for a question, say something, and be gone."""
    with contextlib.suppress(OSError):
        sock.settimeout(_PATIENCE)
        sock.recv(4096)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
