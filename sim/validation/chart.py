"""docs/validation.svg: predicted over published of every row on a logarithmic axis, with intervals, as one drawing."""

from collections.abc import Sequence
from html import escape
from itertools import groupby
from math import log
from typing import NamedTuple

from sim.validation.row import Row
from sim.validation.table import error

WIDTH, LABELS, ERRORS, LINE, HEAD, TOP = 1080, 440, 70, 14, 30, 92
"""Pixels: whole width, of names, of errors at the right; height of a row and of a group's head; first row."""
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
    return "\n".join([opening, frame, _head(), AXIS.drawn(y), *parts, "</svg>", ""])


class Axis(NamedTuple):
    """A logarithmic axis of ratios, from its first tick to its last. left, right, top: pixels."""

    left: float
    right: float
    top: int
    ticks: tuple[float, ...]

    def at(self, ratio: float) -> float:
        """Abscissa of a ratio, pixels; those beyond are at its ends."""
        first, last = log(self.ticks[0]), log(self.ticks[-1])
        share = (log(ratio) - first) / (last - first) if ratio > 0 else 0.0
        return round(self.left + min(max(share, 0.0), 1.0) * (self.right - self.left), 1)

    def drawn(self, bottom: int) -> str:
        """Its ticks and the band that is shaded."""
        low, high = (self.at(ratio) for ratio in NEAR)
        height = bottom - self.top
        parts = [f'<rect x="{low}" y="{self.top}" width="{high - low:.1f}" height="{height}" fill="{BAND}"/>']
        for ratio in self.ticks:
            x, colour = self.at(ratio), FAINT if ratio == 1 else LINES
            parts.append(f'<line x1="{x}" x2="{x}" y1="{self.top}" y2="{bottom}" stroke="{colour}"/>')
            parts.append(text(x, self.top - 8, f"{ratio:g}", colour=FAINT, anchor="middle"))
        return "\n".join(parts)


AXIS = Axis(LABELS + 12, WIDTH - ERRORS - 12, TOP, (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0))


def _head() -> str:
    """Title and legend."""
    parts = [text(16, 28, "Predicted over published", size=17, weight="bold")]
    x = 16
    for kind, meaning in MEANING.items():
        parts += [_dot(x + 5, 50, kind), text(x + 16, 54, meaning, colour=FAINT)]
        x += 34 + 6 * len(meaning)
    parts += [_bar(x, x + 24, 50), text(x + 32, 54, "90 % interval", colour=FAINT)]
    return "\n".join(parts)


def _row(row: Row, y: int) -> str:
    middle = y + LINE // 2
    parts = [text(LABELS, middle + 4, row.quantity, anchor="end")]
    if row.low is not None and row.high is not None:
        parts.append(_bar(AXIS.at(row.low / row.published), AXIS.at(row.high / row.published), middle))
    parts.append(_dot(AXIS.at(row.predicted / row.published), middle, row.input))
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
