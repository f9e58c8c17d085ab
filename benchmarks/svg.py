"""Charts as SVG, drawn by hand: horizontal bars, ranges and shares. No library, so that anyone can make them anew.

Rules: every figure that is drawn is also written; colour never carries meaning alone; a white ground, so that charts
are readable on a dark page, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 860
_LEFT = 190
_RIGHT = 120
_TOP = 74
_STEP = 30
_BAR = 18
_FOOT = 62
_OURS, _THEIRS, _FLOOR, _INK, _FAINT = "#0b6bcb", "#a9b4c2", "#dfe4ea", "#1f2933", "#6b7785"
_FONT = "system-ui, 'DejaVu Sans', sans-serif"
_SHARES = ("#0b6bcb", "#69a9e8", "#dfe4ea")


@dataclass(frozen=True)
class Bar:
    """A figure with its spread over the rounds."""

    label: str
    value: float
    low: float
    high: float
    text: str
    ours: bool = False
    floor: bool = False


@dataclass(frozen=True)
class Range:
    """Two figures of the same thing, as p50 and p99."""

    label: str
    low: float
    high: float
    text: str
    ours: bool = False


@dataclass(frozen=True)
class Shares:
    """Parts that make a hundred per cent."""

    label: str
    parts: Sequence[tuple[str, float]]


def bars(title: str, subtitle: str, foot: Sequence[str], rows: Sequence[Bar]) -> str:
    """Draw bars with a line from the lowest to the highest round."""
    scale = _scale(max(max(row.high, row.value) for row in rows))
    body = []
    for number, row in enumerate(rows):
        top = _TOP + number * _STEP
        middle = top + _BAR / 2
        colour = _OURS if row.ours else _FLOOR if row.floor else _THEIRS
        body += [
            _label(row.label, middle, bold=row.ours),
            _rectangle(_LEFT, top, row.value * scale, colour),
            _line(_LEFT + row.low * scale, middle, _LEFT + row.high * scale, middle, _INK),
            _text(_LEFT + row.high * scale + 8, middle + 4, row.text, weight="600" if row.ours else "400"),
        ]
    return _page(title, subtitle, foot, len(rows), body)


def ranges(title: str, subtitle: str, foot: Sequence[str], rows: Sequence[Range]) -> str:
    """Draw a dot for the lower figure, a ring for the higher one, and a line between them."""
    scale = _scale(max(row.high for row in rows))
    body = []
    for number, row in enumerate(rows):
        middle = _TOP + number * _STEP + _BAR / 2
        colour = _OURS if row.ours else _FAINT
        low, high = _LEFT + row.low * scale, _LEFT + row.high * scale
        body += [
            _label(row.label, middle, bold=row.ours),
            _line(low, middle, high, middle, colour, width=3),
            f'<circle cx="{low:.1f}" cy="{middle}" r="6" fill="{colour}"/>',
            f'<circle cx="{high:.1f}" cy="{middle}" r="5" fill="#fff" stroke="{colour}" stroke-width="3"/>',
            _text(high + 14, middle + 4, row.text, weight="600" if row.ours else "400"),
        ]
    return _page(title, subtitle, foot, len(rows), body)


def shares(title: str, subtitle: str, foot: Sequence[str], rows: Sequence[Shares]) -> str:
    """Draw one bar a row, divided into its parts."""
    scale = (_WIDTH - _LEFT - _RIGHT / 3) / 100
    body = []
    for number, row in enumerate(rows):
        top, left = _TOP + number * _STEP, float(_LEFT)
        body.append(_label(row.label, top + _BAR / 2))
        for index, (name, percent) in enumerate(row.parts):
            width = percent * scale
            body.append(_rectangle(left, top, width, _SHARES[index]))
            if percent >= 8:
                ink = "#fff" if index == 0 else _INK
                body.append(_text(left + 6, top + 13, f"{name} {percent:.0f} %", fill=ink))
            left += width
    return _page(title, subtitle, foot, len(rows), body)


def _page(title: str, subtitle: str, foot: Sequence[str], rows: int, body: Sequence[str]) -> str:
    height = _TOP + rows * _STEP + _FOOT
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{escape(title)}" font-family="{_FONT}" font-size="13">'
    )
    lines = [
        opening,
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#fff"/>',
        _text(20, 30, title, size=17, weight="600"),
        _text(20, 52, subtitle, fill=_FAINT),
        _line(_LEFT, _TOP - 6, _LEFT, _TOP + rows * _STEP - 6, _FAINT, width=1),
        *body,
        *(_text(20, height - 32 + 16 * number, line, size=11, fill=_FAINT) for number, line in enumerate(foot)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _scale(largest: float) -> float:
    return (_WIDTH - _LEFT - _RIGHT) / largest if largest else 0.0


def _label(text: str, middle: float, *, bold: bool = False) -> str:
    return _text(_LEFT - 10, middle + 4, text, weight="600" if bold else "400", anchor="end")


def _rectangle(left: float, top: float, width: float, colour: str) -> str:
    return f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{colour}" stroke="#fff"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1.5) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _text(
    x: float, y: float, text: str, *, size: int = 13, weight: str = "400", fill: str = _INK, anchor: str = "start"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" fill="{fill}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
