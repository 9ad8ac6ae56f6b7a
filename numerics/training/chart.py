"""Curves of losses as SVG: an axis of tokens, one of nats, a line a run."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 380, 56, 20, 56, 44
INK, RULE = "#1f2a37", "#d5dbe2"


class Curve(NamedTuple):
    """A named line; curves of one name share a colour and a place in the legend."""

    name: str
    values: Sequence[float]
    colour: str


def drawn(title: str, unit: str, along: str, end: float, low: float, high: float, curves: Sequence[Curve]) -> str:
    """An SVG of curves whose points lie at the middle of equal parts of 0 to `end`; values are cut to low .. high."""
    across = lambda share: LEFT + (WIDTH - LEFT - RIGHT) * share
    up = lambda value: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (min(max(value, low), high) - low) / (high - low)
    out = [_text(LEFT - 40, 18, title, weight="bold"), _text(LEFT - 40, HEIGHT - 10, f"{unit} against {along}")]
    for i in range(6):
        value = low + (high - low) * i / 5
        out += [
            _rule(across(0), up(value), across(1), up(value)),
            _text(LEFT - 8, up(value) + 4, f"{value:.2g}", "end"),
        ]
        out.append(_text(across(i / 5), HEIGHT - BOTTOM + 18, f"{end * i / 5:g}", "middle"))
    for curve in curves:
        n = len(curve.values)
        points = " ".join(f"{across((i + 0.5) / n):.1f},{up(v):.1f}" for i, v in enumerate(curve.values))
        out.append(f'<polyline points="{points}" fill="none" stroke="{curve.colour}" stroke-width="1.6"/>')
    names = {curve.name: curve.colour for curve in curves}
    for i, (name, colour) in enumerate(names.items()):
        x = LEFT - 40 + 190 * i
        out += [f'<rect x="{x}" y="28" width="14" height="4" fill="{colour}"/>', _text(x + 20, 36, name)]
    body = "\n".join(out)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{RULE}"/>'
