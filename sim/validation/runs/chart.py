"""docs/runs.svg: predicted over measured of every run on a logarithmic axis, a band a family, as one drawing."""

from collections.abc import Sequence
from statistics import median

from sim.validation.chart import FAINT, INK, PAPER, Axis, text
from sim.validation.runs.outcome import Outcome
from sim.validation.runs.table import by_layout, share, typical
from sim.validation.runs.views import mixture

WIDTH, LABELS, ERRORS, TOP, BAND = 1080, 250, 190, 96, 54
"""Pixels: whole width, of names, of figures at the right; first band; height of a band."""
AXIS = Axis(LABELS + 12, WIDTH - ERRORS - 12, TOP, (0.33, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0))
FILL = {False: "#1f5fa8", True: "#c2571a"}
"""Whether a model has experts -> colour."""
LANES = 9
"""Dots beside each other before they cover one another."""


def chart(outcomes: Sequence[Outcome]) -> str:
    """An SVG document; ratios beyond the axis are drawn at its ends."""
    families = dict.fromkeys(each.run.family for each in outcomes if each.error is not None)
    bands = [[o for o in outcomes if o.run.family == name and o.error is not None] for name in families]
    height = TOP + BAND * len(bands) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>', _head(outcomes), AXIS.drawn(height - 16),
        *(_band(name, rows, TOP + BAND * n) for n, (name, rows) in enumerate(zip(families, bands, strict=True))),
        "</svg>", "",
    ]  # fmt: skip
    return "\n".join(parts)


def _head(outcomes: Sequence[Outcome]) -> str:
    """Title and legend."""
    ran = sum(each.error is not None for each in outcomes)
    parts = [text(16, 28, f"Step predicted over measured, {ran} published training runs", size=17, weight="bold")]
    for x, kind, word in ((16, False, "dense"), (90, True, "mixture of experts")):
        parts += [_dot(x + 5, 50, kind), text(x + 16, 54, word, colour=FAINT)]
    parts.append(
        text(240, 54, "bar: median by layout; shaded: within a tenth; left: faster than measured", colour=FAINT)
    )
    return "\n".join(parts)


def _band(name: str, rows: Sequence[Outcome], y: int) -> str:
    """A family: its dots, its median and its figures."""
    middle, errors = y + BAND // 2, by_layout(rows, lambda each: each.error)
    parts = [text(LABELS, middle - 2, name, anchor="end", weight="bold")]
    words = f"{len(rows)} runs, {len(errors)} layouts"
    parts.append(text(LABELS, middle + 13, words, anchor="end", colour=FAINT))
    for number, each in enumerate(sorted(rows, key=lambda each: each.error or 0.0)):
        lane = (number * 4) % LANES - LANES // 2
        parts.append(_dot(AXIS.at(1 + (each.error or 0.0)), middle + 4 * lane, mixture(each)))
    centre = AXIS.at(1 + median(errors))
    parts.append(
        f'<line x1="{centre}" x2="{centre}" y1="{y + 5}" y2="{y + BAND - 5}" stroke="{INK}" stroke-width="2.5"/>'
    )
    figures = f"{share(typical(errors), '')} off, signed {share(median(errors), '+')}"
    parts.append(text(WIDTH - 16, middle + 4, figures, colour=FAINT, anchor="end"))
    return "\n".join(parts)


def _dot(x: float, y: int, kind: bool) -> str:
    return f'<circle cx="{x}" cy="{y}" r="3.2" fill="{FILL[kind]}" fill-opacity="0.5"/>'
