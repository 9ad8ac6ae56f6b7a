"""docs/validation.svg: predicted over published of every row on a logarithmic axis, with intervals, as one drawing."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from math import log

from sim.validation.row import Row
from sim.validation.table import error

WIDTH, LABELS, ERRORS, LINE, HEAD, TOP = 1080, 440, 70, 14, 30, 92
"""Pixels: whole width, of names, of errors at the right; height of a row and of a group's head; first row."""
TICKS = (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
NEAR = (0.9, 1.1)
"""The band that is shaded: within a tenth."""
INK, FAINT, LINES, BAND = "#1f2933", "#5b6770", "#d5dade", "#eef4ee"
BLUE, PALE, PAPER = "#1f5fa8", "#a9c6e6", "#ffffff"
FILL = {"no": BLUE, "partly": PALE, "yes": PAPER}
MEANING = {
    "no": "figure not used", "partly": "made of inputs, or partly one", "yes": "an input",
}  # fmt: skip


def chart(rows: Sequence[Row]) -> str:
    """An SVG document; ratios beyond the axis are drawn at its ends."""
    parts: list[str] = []
    y = TOP
    for name, members in groupby(rows, key=lambda row: row.group):
        parts.append(text(16, y + HEAD - 10, name, size=13, weight="bold"))
        y += HEAD
        for row in members:
            parts.append(_row(row, y))
            y += LINE
    frame = f'<rect width="{WIDTH}" height="{y + 16}" fill="{PAPER}"/>'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 16}" font-family="sans-serif">'
    return "\n".join([opening, frame, _head(), _axis(y), *parts, "</svg>", ""])


def _x(ratio: float) -> float:
    """Abscissa of a ratio, pixels."""
    left, right = LABELS + 12, WIDTH - ERRORS - 12
    share = (log(ratio) - log(TICKS[0])) / (log(TICKS[-1]) - log(TICKS[0])) if ratio > 0 else 0.0
    return round(left + min(max(share, 0.0), 1.0) * (right - left), 1)


def _head() -> str:
    """Title and legend."""
    parts = [text(16, 28, "Predicted over published", size=17, weight="bold")]
    x = 16
    for kind, meaning in MEANING.items():
        parts += [_dot(x + 5, 50, kind), text(x + 16, 54, meaning, colour=FAINT)]
        x += 34 + 6 * len(meaning)
    parts += [_bar(x, x + 24, 50), text(x + 32, 54, "90 % interval", colour=FAINT)]
    return "\n".join(parts)


def _axis(bottom: int) -> str:
    low, high = (_x(ratio) for ratio in NEAR)
    parts = [f'<rect x="{low}" y="{TOP}" width="{high - low:.1f}" height="{bottom - TOP}" fill="{BAND}"/>']
    for ratio in TICKS:
        x, colour = _x(ratio), FAINT if ratio == 1 else LINES
        parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}" stroke="{colour}"/>')
        parts.append(text(x, TOP - 8, f"{ratio:g}", colour=FAINT, anchor="middle"))
    return "\n".join(parts)


def _row(row: Row, y: int) -> str:
    middle = y + LINE // 2
    parts = [text(LABELS, middle + 4, row.quantity, anchor="end")]
    if row.low is not None and row.high is not None:
        parts.append(_bar(_x(row.low / row.published), _x(row.high / row.published), middle))
    parts.append(_dot(_x(row.predicted / row.published), middle, row.input))
    parts.append(text(WIDTH - 16, middle + 4, error(row), colour=FAINT, anchor="end"))
    return "\n".join(parts)


def _bar(x1: float, x2: float, y: int) -> str:
    return f'<line x1="{x1}" x2="{x2}" y1="{y}" y2="{y}" stroke="{BLUE}" stroke-width="2" stroke-opacity="0.45"/>'


def _dot(x: float, y: int, kind: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="3.6" fill="{FILL[kind]}" stroke="{BLUE}" stroke-width="1.3"/>'


def text(
    x: float, y: int, words: str, size: int = 11, colour: str = INK, anchor: str = "start", weight: str = "normal"
) -> str:
    look = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text x="{x}" y="{y}" {look}>{escape(words, quote=False)}</text>'
