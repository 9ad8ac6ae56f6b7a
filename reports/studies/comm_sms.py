"""The sweep of comm.sms as a page: a chart and tables of the splits that `python -m sim exchange` printed.

`python -m reports.studies.comm_sms SPLITS.json FOLDER` writes FOLDER/comm_sms.svg and FOLDER/comm_sms_tables.md.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hwmodels.units import MICRO, MILLI, PERCENT

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 760, 380, 64, 34, 24, 52
COLOURS = ("#3d4a8a", "#e69f00", "#009e73", "#d55e00", "#7a8694")
INK, FAINT = "#1f2a37", "#d5dbe2"

Splits = Sequence[dict[str, Any]]
Scale = Callable[[float], float]
ROLES = {"follow": "roles that follow their load", "fixed": "fixed roles"}
OTHER = {"follow": "fixed", "fixed": "follow"}
"""The kind of roles that is not the scenario's."""


def chart(figures: dict[str, Any]) -> str:
    """Step time over SMs for communication, a line for each speed of warps and one for the other kind of roles; the
    best split of each is marked. SVG."""
    own, other = figures["splits"][figures["warps"]], OTHER[figures["warps"]]
    paces = _paces(figures, figures["warps"])
    lines = [(_pace(name), paces[name]) for name in sorted(paces, key=float)]
    lines.append((ROLES[other], figures["splits"][other]))
    sms = [s["sms"] for s in own]
    low = min(s["step_s"] for _, splits in lines for s in splits)
    high = own[-1]["step_s"] * 1.08
    x = _scale(min(sms), max(sms), LEFT, WIDTH - RIGHT)
    y = _scale(high, low * 0.985, TOP, HEIGHT - BOTTOM)
    body = [*_axes(sms, low, high, x, y)]
    for place, (colour, (name, splits)) in enumerate(zip(COLOURS, lines, strict=False)):
        body += _line(splits, 3 if splits is own else 1.6, colour, high, x, y)
        body += _legend(place, name, colour)
    return _svg(body)


def _paces(figures: dict[str, Any], kind: str) -> dict[str, Splits]:
    """Time of a warp for a row, over the fitted one -> the splits of one kind of roles."""
    return {"1": figures["splits"][kind], **figures["paces"][kind]}


def _pace(name: str) -> str:
    return "warps as fitted" if name == "1" else f"warps need {float(name):g} x the time"


def _scale(first: float, last: float, start: float, stop: float) -> Scale:
    return lambda value: start + (value - first) / (last - first) * (stop - start)


def _svg(body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *body, "</svg>\n"])


def _axes(sms: Sequence[int], low: float, high: float, x: Scale, y: Scale) -> list[str]:
    out = []
    for tick in range(int(low), int(high) + 1):
        if low * 0.985 <= tick <= high:
            out.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="{FAINT}"/>')
            out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick} s</text>')
    for count in sms[::2]:
        out.append(f'<text x="{x(count):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{count}</text>')
    out.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 10}" text-anchor="middle">SMs for communication</text>')
    out.append(f'<text x="{LEFT}" y="20" font-weight="600">Step time</text>')
    return out


def _line(splits: Splits, width: float, colour: str, high: float, x: Scale, y: Scale) -> list[str]:
    shown = [s for s in splits if s["step_s"] <= high]
    path = "L".join(f"{x(s['sms']):.1f} {y(s['step_s']):.1f}" for s in shown)
    top = min(splits, key=lambda s: (s["step_s"], s["sms"]))
    return [
        f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>',
        f'<circle cx="{x(top["sms"]):.1f}" cy="{y(top["step_s"]):.1f}" r="5" fill="{colour}"/>',
    ]


def _legend(place: int, text: str, colour: str) -> list[str]:
    left, y = LEFT + 250, TOP + 12 + 18 * place
    return [
        f'<path d="M{left} {y - 4}h22" stroke="{colour}" stroke-width="3"/>',
        f'<text x="{left + 30}" y="{y}">{text}</text>',
    ]


# --- tables -----------------------------------------------------------------------------------------------------------


def splits_table(splits: Splits) -> str:
    """Each split: its exchanges alone, the pair, the step, and the step against the best one."""
    best = min(s["step_s"] for s in splits)
    head = "SMs|dispatch(F) us|bound by|combine(F) us|bound by|pair ms|exposed ms|step s|over best"
    lines = [f"| {head.replace('|', ' | ')} |", "|--:|--:|---|--:|---|--:|--:|--:|--:|"]
    for s in splits:
        there, back = ({e["name"]: e for e in s["exchanges"]}[name] for name in ("dispatch(F)", "combine(F)"))
        cells = [
            f"{s['sms']}", f"{there['seconds'] / MICRO:,.0f}", there["limited_by"], f"{back['seconds'] / MICRO:,.0f}",
            back["limited_by"], f"{s['pair_s'] / MILLI:.1f}", f"{s['pair_exposed_s'] / MILLI:.2f}",
            f"{s['step_s']:.2f}", f"{(s['step_s'] / best - 1) / PERCENT:+.1f} %",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def paces_table(figures: dict[str, Any]) -> str:
    """The best split for each kind of roles, the scenario's first, and each speed of warps."""
    lines = ["| warps | time a row | best SMs | step s | step at 20 SMs |", "|---|--:|--:|--:|--:|"]
    own = figures["warps"]
    every = {kind: _paces(figures, kind) for kind in (own, OTHER[own])}
    for kind, name in [(kind, name) for kind, paces in every.items() for name in sorted(paces, key=float)]:
        splits = every[kind][name]
        best = min(splits, key=lambda s: (s["step_s"], s["sms"]))
        twenty = next(s["step_s"] for s in splits if s["sms"] == 20)
        cells = (ROLES[kind], f"{float(name):g} x", str(best["sms"]), f"{best['step_s']:.2f}", f"{twenty:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def published_table(rows: Splits) -> str:
    """Single exchanges beside published figures."""
    lines = ["| exchange | direction | model | published | error | on the wire GB/s | source |"]
    lines.append("|---|---|--:|--:|--:|--:|---|")
    for r in rows:
        cells = (
            r["name"], r["direction"], f"{r['found']:.1f} {r['unit']}", f"{r['published']:g} {r['unit']}",
            f"{r['error'] / PERCENT:+.1f} %", f"{r['wire']:.1f}", r["source"],
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def profile_table(rows: Splits) -> str:
    """The profile's four exchanges: alone by two models, beside compute as measured."""
    lines = ["| exchange | bytes over links us | kernel alone us | measured beside compute us | stretch |"]
    lines.append("|---|--:|--:|--:|--:|")
    for r in rows:
        measured = f"{r['measured']:,.0f} ({r['low']:,.0f} to {r['high']:,.0f})"
        lines.append(f"| {r['name']} | {r['closed']:,.0f} | {r['alone']:,.0f} | {measured} | {r['stretch']:.2f} |")
    return "\n".join(lines)


def tables(figures: dict[str, Any]) -> str:
    """All tables, in the order of the page: the scenario's kind of roles, then the other."""
    own = figures["warps"]
    parts = (
        splits_table(figures["splits"][own]), paces_table(figures), splits_table(figures["splits"][OTHER[own]]),
        published_table(figures["published"]), profile_table(figures["profile"]),
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        print("usage: python -m reports.studies.comm_sms SPLITS.json FOLDER", file=sys.stderr)
        return 2
    figures, folder = json.loads(Path(arguments[0]).read_text(encoding="utf-8")), Path(arguments[1])
    (folder / "comm_sms.svg").write_text(chart(figures), encoding="utf-8")
    (folder / "comm_sms_tables.md").write_text(tables(figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
