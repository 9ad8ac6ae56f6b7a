"""Memory over the step: the curve of one position at a time, and the peak of each by part."""

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S, format_quantity
from reports.columns import pack
from reports.palette import PARTS
from reports.section import Section, legend, plot
from sim.result import MemoryCurve, Result

POINTS = 3_000
"""Most points of a drawn curve; a screen has fewer pixels across."""

LEAD = (
    "What fills a device at one position of the pipeline while the step runs, and at each position's own peak. "
    "The dashed line is the device's capacity. Choose a position here or click its bar."
)
WORST = "Ranks differ: each curve is of the rank with the highest peak at its position in the pipeline."


def section(result: Result) -> Section | None:
    """The curves of `result.memory`, or None when there are none."""
    if not result.memory:
        return None
    names = list(dict.fromkeys(name for curve in result.memory for name in curve.parts))
    colours = {name: PARTS[i % len(PARTS)] for i, name in enumerate(names)}
    worst = max(result.memory, key=lambda curve: curve.peak_bytes)
    options = "".join(
        f'<option value="{i}"{" selected" if curve is worst else ""}>{_whose(curve)}, peak '
        f"{format_quantity(curve.peak_bytes, 'data')}</option>"
        for i, curve in enumerate(result.memory)
    )
    body = (
        f'<div class="row">{legend(colours.items())}'
        f'<label class="choice">Curve of <select id="memory-rank">{options}</select></label></div>'
        f'<div class="two wide-left">{plot("memory", "memory at one position over the step")}'
        f"{plot('peaks', 'peak memory at every position by part')}</div>"
    )
    data = {"parts": [[name, colours[name]] for name in names], "curves": [_curve(c, names) for c in result.memory]}
    lead = LEAD if worst.rank is None else f"{LEAD} {WORST}"
    return Section("memory", "Memory", lead, body, data)


def _whose(curve: MemoryCurve) -> str:
    if curve.rank is None:
        return f"position {curve.position}"
    return f"position {curve.position}, rank {curve.rank}"


def thin(total: npt.NDArray[Any], points: int) -> npt.NDArray[np.int64]:
    """Indices of at most `points` samples that keep the first, the last and the highest of every stretch."""
    count = len(total)
    if count <= points:
        return np.arange(count)
    edges = np.linspace(0, count, points - 1).astype(np.int64)
    highest = [a + int(total[a:b].argmax()) for a, b in pairwise(edges.tolist()) if b > a]
    return np.array(sorted({0, *highest, count - 1}))


def at_peak(curve: MemoryCurve) -> dict[str, int]:
    """Bytes of every part when the sum is highest (the first time it is)."""
    moment = int(total_bytes(curve).argmax())
    return {name: int(values[moment]) for name, values in curve.parts.items()}


def total_bytes(curve: MemoryCurve) -> npt.NDArray[np.int64]:
    """The sum of the parts at every time of the curve."""
    return np.sum(np.stack(list(curve.parts.values())), axis=0)  # type: ignore[no-any-return]


def _curve(curve: MemoryCurve, names: list[str]) -> dict[str, Any]:
    keep = thin(total_bytes(curve), POINTS)
    peak = at_peak(curve)
    # the script finds a part's column by its place: names may hold anything
    columns = {str(i): curve.parts[n][keep].astype(np.float64) for i, n in enumerate(names) if n in curve.parts}
    return {
        "position": curve.position,
        "capacity": curve.capacity_bytes,
        "peak": [peak.get(name, 0) for name in names],
        "table": pack({"time": curve.times[keep] / NS_PER_S} | columns),
    }
