r"""The inputs that are kept in the repository, as text: what comes of them is tried in every run of the tests.

A file holds inputs with an empty line between them. A line that begins with ``#`` is a comment, of which the first is
the input's name; one that begins with ``"`` is text as JSON writes it, an octet a character; any other is hexadecimal,
where ``ab*3`` is ``ababab``. ``seeds.py`` writes the files of its own; failures are kept in ``found/``.
"""

import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

DIRECTORY = Path(__file__).parent / "corpus"
_COLUMNS = 110

Piece = bytes | tuple[bytes, int]
"""A part of an input; a pair is octets and how many times they come."""


class Input(NamedTuple):
    """One input with its name."""

    name: str
    data: bytes


_SHARED = {"upstream": "reply"}
"""Targets whose inputs are another's as well."""


def load(target: str, directory: Path = DIRECTORY) -> list[Input]:
    """Return a target's inputs: those of ``seeds.py`` and those that were found."""
    files = [directory / f"{_SHARED.get(target, target)}.txt", *sorted((directory / "found").glob(f"{target}-*.txt"))]
    return [each for file in files if file.exists() for each in read(file.read_text("ascii"))]


def keep(target: str, data: bytes, why: str, directory: Path = DIRECTORY) -> Path:
    """Keep an input that failed, and return its file."""
    file = directory / "found" / f"{target}-{blake2b(data, digest_size=5).hexdigest()}.txt"
    file.parent.mkdir(exist_ok=True)
    name = " ".join(why.split())[:100].encode("ascii", "backslashreplace").decode()
    file.write_text(write(name, [data]) + "\n", "ascii")
    return file


def read(text: str) -> list[Input]:
    """Return the inputs that a file's text holds."""
    return [_input(paragraph.splitlines()) for paragraph in text.split("\n\n") if paragraph.strip()]


def _input(lines: Iterable[str]) -> Input:
    name, data = "", bytearray()
    for line in lines:
        if line.startswith("#"):
            name = name or line.removeprefix("#").strip()
        elif line.startswith('"'):
            data += json.loads(line).encode("latin-1")
        else:
            data += b"".join(map(_octets, line.split()))
    return Input(name, bytes(data))


def _octets(word: str) -> bytes:
    digits, _, times = word.partition("*")
    return bytes.fromhex(digits) * int(times or 1)


def write(name: str, pieces: Iterable[Piece], *, text: bool = False) -> str:
    """Return the text of one input."""
    lines = [f"# {name}"]
    if text:
        lines += [json.dumps(piece.decode("latin-1")) for piece in pieces if isinstance(piece, bytes)]
    else:
        for piece in pieces:
            if isinstance(piece, bytes):
                digits = piece.hex()
                lines += [digits[start : start + _COLUMNS] for start in range(0, len(digits), _COLUMNS)]
            else:
                lines.append(f"{piece[0].hex()}*{piece[1]}")
    return "\n".join(lines) + "\n"
