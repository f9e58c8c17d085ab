"""The upstream of a soak: what it answers follows from the name alone, so that nothing has to be set up or kept.

The name's first label begins with a word: ``brief`` lives 2 s, ``kept`` 20 s, ``nx`` does not exist for 3 s, ``big`` is
too large for UDP; anything else lives 60 s. It can be silenced, as by a cut line.
"""

import socket
import struct
import threading

from benchmarks.errors import BenchmarkError

_HOST = "127.0.0.1"
_PREFIX = struct.Struct("!H")
_LIFETIMES = {b"brief": 2, b"kept": 20, b"nx": 3, b"big": 60}
_LIFETIME = 60
_BIG_RECORDS = 250  # of 16 bytes: four kilobytes
_TC, _NXDOMAIN = 0x0200, 3
_RESPONSE = 0x8180  # QR, RD, RA
_SOA, _A = 6, 1
_TRIES = 50
_CONNECTION_SECONDS = 60.0


class Upstream:
    """A name server on a loopback port, in threads of this process."""

    def __init__(self) -> None:
        """Answer at once, over UDP and TCP."""
        self.silent = False
        self.asked = 0
        """How many queries have come over UDP."""
        self._udp, self._tcp = _bound()
        self.port: int = self._udp.getsockname()[1]
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=serve, daemon=True).start()

    def _serve_udp(self) -> None:
        while True:
            query, client = self._udp.recvfrom(4096)
            self.asked += 1
            if not self.silent:
                self._udp.sendto(answer(query, truncate=True), client)

    def _serve_tcp(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            threading.Thread(target=self._serve_connection, args=(connection,), daemon=True).start()

    def _serve_connection(self, connection: socket.socket) -> None:
        connection.settimeout(_CONNECTION_SECONDS)
        try:
            with connection, connection.makefile("rb") as stream:
                while prefix := stream.read(_PREFIX.size):
                    query = stream.read(*_PREFIX.unpack(prefix))
                    if not self.silent:
                        reply = answer(query, truncate=False)
                        connection.sendall(_PREFIX.pack(len(reply)) + reply)
        except (OSError, struct.error):  # the other side has closed it, or says nothing
            return


def answer(query: bytes, *, truncate: bool) -> bytes:
    """Return the answer to ``query`` as its name has it, over UDP cut short with ``truncate`` when it is large."""
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12 : end + 5]
    word = question[1 : 1 + question[0]].lower().partition(b"-")[0]
    lifetime = _LIFETIMES.get(word, _LIFETIME)
    if word == b"nx":
        data = b"\0\0" + struct.pack("!5I", 1, 3600, 600, 86400, lifetime)
        return _message(query, _RESPONSE | _NXDOMAIN, question, authority=_record(_SOA, lifetime, data, owner=b"\0"))
    if word == b"big" and truncate:
        return _message(query, _RESPONSE | _TC, question)
    count = _BIG_RECORDS if word == b"big" else 1
    records = b"".join(_record(_A, lifetime, struct.pack("!I", 0xC0000200 + number)) for number in range(count))
    return _message(query, _RESPONSE, question, records, count)


def _message(
    query: bytes, flags: int, question: bytes, records: bytes = b"", count: int = 0, *, authority: bytes = b""
) -> bytes:
    return query[:2] + struct.pack("!5H", flags, 1, count, int(bool(authority)), 0) + question + records + authority


def _record(rtype: int, lifetime: int, data: bytes, owner: bytes = b"\xc0\x0c") -> bytes:
    return owner + struct.pack("!HHIH", rtype, 1, lifetime, len(data)) + data


def _bound() -> tuple[socket.socket, socket.socket]:
    for _ in range(_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((_HOST, 0))
        try:
            return udp, socket.create_server((_HOST, udp.getsockname()[1]))
        except OSError:
            udp.close()
    raise BenchmarkError("no loopback port is free for both UDP and TCP")
