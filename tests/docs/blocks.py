"""The fenced blocks of the documentation, and what those for a shell need.

A block whose first line is three backquotes and ``sh`` is run by the tests; ``sh needs=cluster`` is not (GitHub shows
both alike). A block without a language right after one that is run is what that one prints, with other numbers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.processes import REPOSITORY

NEEDS = {
    "cluster": "kubectl, Helm and a Kubernetes cluster",
    "engine": "a Docker engine",
    "packages": "what a package registry or a package mirror has",
    "time": "minutes",
    "privilege": "more rights than the tests have",
    "machine": "what is different on every machine, such as another server",
}
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "charts/heimdall/README.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
_FENCE = re.compile(r"^( *)```(.*)$")


@dataclass(frozen=True)
class Block:
    """One fenced block: the page, the line of its fence, what follows the backquotes, and what is between."""

    page: str
    line: int
    info: str
    text: str
    shown: str = ""
    """What the page shows as its output."""

    def __str__(self) -> str:
        """Return where to find it."""
        return f"{self.page}:{self.line}"

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def needs(self) -> str:
        """What it needs beyond this repository and the tests' programs; empty when it is to be run."""
        return self.info.partition(" needs=")[2]


def blocks() -> list[Block]:
    """Return the blocks of every page, output joined to the block before it."""
    found: list[Block] = []
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        name = str(page.relative_to(REPOSITORY))
        ended_at = -2
        for start, end, info in _fences(lines):
            text = "\n".join(line.strip() if info else line for line in lines[start + 1 : end])
            follows = found and not info and found[-1].language == "sh" and not any(lines[ended_at + 1 : start])
            if follows:
                before = found.pop()
                found.append(Block(name, before.line, before.info, before.text, text))
            else:
                found.append(Block(name, start + 1, info, text))
            ended_at = end
    return found


def _fences(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the numbers of the lines that open and close each block, and what the first says."""
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines):
        if match := _FENCE.match(line):
            if opened is None:
                opened = number, match[2].strip()
            else:
                yield opened[0], number, opened[1]
                opened = None
    assert opened is None, "a fence is not closed"
