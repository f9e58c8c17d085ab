"""Harm done to bytes, deterministic by the random numbers that it is given.

Rules: an input has one to a few faults, so that most of the code that reads it still takes it for what it was; a number
is drawn with ``Random.random``, the cheapest of its methods: this runs tens of millions of times.
"""

from collections.abc import Callable, Sequence
from random import Random

MAX_SIZE = 70_000
_NUMBERS = (0, 1, 2, 12, 13, 63, 64, 127, 128, 192, 254, 255)
_WORDS = (0, 1, 2, 12, 41, 0x3FFF, 0x7FFF, 0x8000, 0xC00C, 0xC000, 0xFFFF, 255, 256, 512, 4096)

_SMALL = 150

Fault = Callable[[bytearray, int, Callable[[], float]], None]
"""Harms some bytes at or near an offset."""


def pick(inputs: Sequence[bytes], draw: Callable[[], float]) -> int:
    """Return the index of an input; the larger it is, the more rarely, for its time is that of many small ones."""
    while True:
        index = int(draw() * len(inputs))
        size = len(inputs[index])
        if size <= _SMALL or draw() * size < _SMALL:
            return index


class Mutator:
    """Makes inputs of others; ``pieces`` are what it puts in, such as a record or a word that means something."""

    def __init__(self, pieces: Sequence[bytes], *, numbers: bool = True) -> None:
        """Know some pieces; without ``numbers`` the input is text, of which no octets are counted."""
        self._pieces = list(pieces)
        self._faults: list[Fault] = [_bit, _octet, _insert, _cut, _double, self._piece, self._piece]
        if numbers:
            self._faults += [_octet, _bit, _word, _word, _nudge, _nudge, _shorten]

    def vary(self, random: Random, whole: bytes, others: Sequence[bytes], places: Sequence[int] = ()) -> bytes:
        """Return ``whole`` with some faults; ``places`` are offsets at which one is likely to matter."""
        draw = random.random
        data = bytearray(whole)
        if draw() < 0.03:
            other = others[pick(others, draw)]
            data[int(draw() * (len(data) + 1)) :] = other[int(draw() * (len(other) + 1)) :]
        count = 1 if draw() < 0.6 else 1 + int(draw() * 5)
        faults, size = self._faults, len(self._faults)
        for _ in range(count):
            if places and draw() < 0.6:
                at = min(places[int(draw() * len(places))], len(data))
            else:
                at = int(draw() * (len(data) + 1))
            faults[int(draw() * size)](data, at, draw)
        return bytes(data[:MAX_SIZE])

    def _piece(self, data: bytearray, at: int, draw: Callable[[], float]) -> None:
        """Put in a piece, at times in place of what is there."""
        piece = self._pieces[int(draw() * len(self._pieces))]
        data[at : at + len(piece) * (draw() < 0.5)] = piece


def _bit(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    if at < len(data):
        data[at] ^= 1 << int(draw() * 8)


def _octet(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    if at < len(data):
        data[at] = _NUMBERS[int(draw() * len(_NUMBERS))] if draw() < 0.5 else int(draw() * 256)


def _word(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    data[at : at + 2] = _WORDS[int(draw() * len(_WORDS))].to_bytes(2, "big")


def _nudge(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    """Change a number by one: a length that is nearly right."""
    if at < len(data):
        data[at] = data[at] + (1 if draw() < 0.5 else -1) & 0xFF


def _insert(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    data[at:at] = bytes(int(draw() * 256) for _ in range(1 + int(draw() * 4)))


def _cut(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    del data[at : at + 1 + int(draw() * 12)]


def _shorten(data: bytearray, at: int, _draw: Callable[[], float]) -> None:
    del data[at:]


def _double(data: bytearray, at: int, draw: Callable[[], float]) -> None:
    size = 1 + int(draw() * 24)
    for _ in range(1 if draw() < 0.9 else 50):
        data[at:at] = data[at : at + size]
