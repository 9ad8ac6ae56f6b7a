"""Small charts as SVG text: bars laid end to end, bars side by side with ranges, and lines on logarithmic axes.

No scripts, no fonts of their own, a white ground: they read the same on a page of any colour. Sizes are CSS pixels.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

INK, MUTED, RULE = "#1f2a37", "#5d6b7a", "#d5dbe2"
COLOURS = ("#3d4a8a", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#9aa5b1")
"""After Okabe and Ito (see reports.palette)."""
WIDTH, SIZE, LINE = 860, 12, 17
"""Of a chart, of its letters, and from one line of text or bar to the next."""
LEFT, RIGHT, TOP = 190, 80, 74
LETTER = 7.0
"""Room for a letter of the legend; an upper bound for text in most fonts of this size."""
TICKS = 6
"""At most about so many on an axis."""


class Series(NamedTuple):
    """A named row of values; low and high: the ends of their ranges, or nothing."""

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def stacked(title: str, unit: str, names: Sequence[str], parts: Sequence[Series]) -> str:
    """Horizontal bars, one a name, of parts laid end to end; parts below zero go to the left. "" leaves a gap."""
    above = [sum(max(p.values[i], 0.0) for p in parts) for i in range(len(names))]
    below = [sum(min(p.values[i], 0.0) for p in parts) for i in range(len(names))]
    ticks = [t for t in _ticks(min(below), max(above)) if t >= min(below)]
    height = TOP + LINE * len(names) + 2 * LINE
    x = _scale(min(below), max(above), LEFT, WIDTH - RIGHT)
    out = [_grid(x(t), TOP - 4, height - 2 * LINE, f"{t:g}") for t in ticks]
    for i, name in enumerate(names):
        y = TOP + LINE * i
        ends = [0.0, 0.0]
        out.append(_text(LEFT - 8, y + SIZE, name, "end"))
        for p, colour in zip(parts, COLOURS, strict=False):
            value = p.values[i]
            side = value > 0
            a, b = ends[side], ends[side] + value
            ends[side] = b
            if value:
                out.append(_box(x(min(a, b)), y + 2, x(max(a, b)) - x(min(a, b)), LINE - 4, colour))
        if name:
            out.append(_text(x(ends[1]) + 5, y + SIZE, f"{sum(ends):.2f}", "start", MUTED))
    return _page(height, title, unit, [(p.name, c) for p, c in zip(parts, COLOURS, strict=False)], out)


def grouped(title: str, unit: str, names: Sequence[str], series: Sequence[Series]) -> str:
    """Horizontal bars side by side, one a series in each group; ranges as whiskers."""
    top = max(max([*s.values, *s.high]) for s in series)
    ticks = _ticks(0.0, top)
    step = LINE * len(series) + 8
    height = TOP + step * len(names) + 2 * LINE
    x = _scale(0.0, top, LEFT, WIDTH - RIGHT)
    out = [_grid(x(t), TOP - 4, height - 2 * LINE, f"{t:g}") for t in ticks]
    for i, name in enumerate(names):
        out.append(_text(LEFT - 8, TOP + step * i + step / 2 + 2, name, "end"))
        for j, (s, colour) in enumerate(zip(series, COLOURS, strict=False)):
            y, value = TOP + step * i + LINE * j, s.values[i]
            out.append(_box(x(0.0), y + 2, x(value) - x(0.0), LINE - 4, colour))
            end = value
            if s.low:
                end = s.high[i]
                out.append(_line([(x(s.low[i]), y + LINE / 2), (x(end), y + LINE / 2)], INK, 1.5))
            out.append(_text(x(end) + 5, y + SIZE, f"{value:.2f}", "start", MUTED))
    return _page(height, title, unit, [(s.name, c) for s, c in zip(series, COLOURS, strict=False)], out)


def lines(
    title: str, unit: str, across: Sequence[float], series: Sequence[Series], height: int = 330, linear: bool = False
) -> str:
    """Lines with points over `across`, both axes logarithmic unless linear; whiskers for ranges; the last value is
    written."""
    values = [v for s in series for v in (*s.values, *s.low, *s.high)]
    scale, marks = (_scale, _ticks(min(values), max(values))) if linear else (_log, _marks(min(values), max(values)))
    x = scale(across[0], across[-1], 70, WIDTH - 100)
    y = scale(marks[0], max(marks[-1], *values) if linear else marks[-1], height - 2 * LINE, TOP)
    out = [_text(62, y(m) + 4, f"{m:g}", "end", MUTED) + _line([(70, y(m)), (WIDTH - 100, y(m))], RULE) for m in marks]
    out += [_text(x(a), height - LINE, f"{a:,.0f}", "middle", MUTED) for a in across]
    for s, colour in zip(series, COLOURS, strict=False):
        points = [(x(a), y(v)) for a, v in zip(across, s.values, strict=True)]
        out.append(_line(points, colour, 2.5))
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points]
        for a, low, high in zip(across, s.low, s.high, strict=False):
            out.append(_line([(x(a), y(low)), (x(a), y(high))], colour, 1.5))
    ends = _apart([y(s.values[-1]) for s in series])
    out += [_text(WIDTH - 92, at + 4, f"{s.values[-1]:.3g}", "start") for s, at in zip(series, ends, strict=True)]
    return _page(height, title, unit, [(s.name, c) for s, c in zip(series, COLOURS, strict=False)], out)


def _apart(places: Sequence[float]) -> list[float]:
    """Places of labels, moved down where they would touch the one above."""
    out, last = list(places), -float("inf")
    for i in sorted(range(len(out)), key=lambda i: out[i]):
        out[i] = last = max(out[i], last + SIZE)
    return out


def _page(height: float, title: str, unit: str, legend: Sequence[tuple[str, str]], parts: Sequence[str]) -> str:
    keys, at, down = [], 12.0, 30.0
    for name, colour in legend:
        room = 30 + LETTER * len(name)
        if at + room > WIDTH:
            at, down = 12.0, down + LINE
        keys.append(_box(at, down, 11, 11, colour) + _text(at + 16, down + 10, name, "start"))
        at += room
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="{SIZE}">',
        f"<title>{escape(title)}</title>", _box(0, 0, WIDTH, height, "#ffffff"),
        f'<text x="12" y="19" font-size="14" font-weight="600" fill="{INK}">{escape(title)}</text>',
        _text(WIDTH - 12, 19, unit, "end", MUTED), *keys, *parts, "</svg>\n",
    ))  # fmt: skip


def _text(x: float, y: float, text: str, anchor: str, colour: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _grid(x: float, top: float, bottom: float, label: str) -> str:
    return _line([(x, top), (x, bottom)], RULE) + _text(x, bottom + SIZE + 2, label, "middle", MUTED)


class _scale:  # noqa: N801 - a function with a memory
    """A linear axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.start, self.slope = low, start, (end - start) / ((high - low) or 1.0)

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) * self.slope


class _log(_scale):  # noqa: N801
    """A logarithmic axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        super().__init__(math.log(low), math.log(high), start, end)

    def __call__(self, value: float) -> float:
        return super().__call__(math.log(value))


def _marks(low: float, high: float) -> list[float]:
    """One, two, five and their tens about low .. high."""
    decades = (10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1))
    return [m * d for d in decades for m in (1, 2, 5) if low / 2 < m * d < high * 2]


def _ticks(low: float, high: float) -> list[float]:
    """Round values that cover low .. high."""
    rough = ((high - low) or 1.0) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    return [round(k * step, 10) for k in range(math.floor(low / step), math.floor(high / step) + 1)]
