"""The pipeline's timeline: every step at every position, and the idle time between."""

from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S, PERCENT
from reports import ranks
from reports.columns import pack
from reports.headline import percent
from reports.palette import IDLE, STEPS
from reports.section import Section, controls, legend, plot
from sim.result import Result
from sim.result.trace import Column, Trace

BARS_IN_VIEW = 3_000
"""Up to this many bars are drawn one by one; more are drawn as a heat map (measured: 3,000 take 0.3 s to redraw)."""

LEAD = (
    "Drag to zoom, double-click for the whole step, or use the arrow keys, + and - "
    "when the figure has the focus. Far away a pixel shows what fills most of it; nearer, every bar can be asked."
)

Columns = dict[str, npt.NDArray[Any]]


def section(result: Result) -> Section | None:
    """The timeline of `result.steps`, or None when there are none."""
    steps = result.steps
    if not len(steps):
        return None
    mix, mixes = price_mix(steps, result.spans)
    rows = with_idle(steps, mix)
    shown = sorted(set(rows["kind"].tolist()))
    keys = legend((STEPS[kind].name, STEPS[kind].colour) for kind in shown)
    body = f'<div class="row">{keys}{controls("timeline", "step")}</div>'
    body += plot("timeline", "timeline of all positions of the pipeline")
    data = {
        "table": pack(rows),
        "kinds": [kind._asdict() for kind in STEPS],
        "idle": IDLE,
        "bars": BARS_IN_VIEW,
        "prices": [[price, result.price_sources.get(price, "")] for price in steps.prices],
        "mixes": mixes,
        "margin": (margin := [f"idle {percent(share)}" for share in idle_shares(rows)]),
        "ranks": ranks.drawn(result, len(margin)),
    }
    lead = f"{ranks.row(result)} {ranks.waited(result)}{LEAD}"
    return Section("timeline", "Timeline of the pipeline", lead, body, data)


def with_idle(steps: Trace, mix: Column) -> Columns:
    """Steps and the gaps before, between and after them, sorted by position and start; start and end in seconds.

    A gap has the kind IDLE, and -1 in every column that says what ran. The last gap of a position ends with the step.
    mix: of prices, a value a step.
    """
    order = np.lexsort((steps.start, steps.position))
    position, start, end = steps.position[order], steps.start[order], steps.end[order]
    fresh = np.flatnonzero(np.diff(position, prepend=position[0] - 1))
    before = np.concatenate(([0], end[:-1]))
    before[fresh] = 0
    last = np.concatenate((fresh[1:], [len(position)])) - 1
    gaps = (np.concatenate((position, position[last])), np.concatenate((before, end[last])),
            np.concatenate((start, np.full(len(last), end.max()))))  # fmt: skip
    some = gaps[2] > gaps[1]
    gap_position, gap_start, gap_end = (column[some] for column in gaps)
    rows: Columns = {
        "start": np.concatenate((start, gap_start)) / NS_PER_S,
        "end": np.concatenate((end, gap_end)) / NS_PER_S,
        "position": np.concatenate((position, gap_position)),
        "kind": np.concatenate((steps.phase[order], np.full(len(gap_position), IDLE))),
    }
    columns = {name: getattr(steps, name) for name in ("stage", "micro_batch", "stage_b", "micro_batch_b", "price")}
    for name, column in (columns | {"mix": mix}).items():
        rows[name] = np.concatenate((column[order], np.full(len(gap_position), -1)))
    sort = np.lexsort((rows["start"], rows["position"]))
    return {name: column[sort] for name, column in rows.items()}


def price_mix(steps: Trace, spans: Trace) -> tuple[Column, list[str]]:
    """For every step which text says how the spans inside it were priced (-1: none were), and the texts.

    A text counts span time by the rungs of its prices: "61 % interpolated, 39 % measured".
    """
    kinds = sorted(set(spans.rungs))
    kind_of = np.array([kinds.index(rung) for rung in spans.rungs], dtype=np.int64)
    step = _owners(steps, spans)
    keep = (step >= 0) & (spans.price >= 0)
    if not keep.any():
        return np.full(len(steps), -1), []
    cell = step[keep] * len(kinds) + kind_of[spans.price[keep]]
    time = np.bincount(cell, (spans.end - spans.start)[keep], len(steps) * len(kinds)).reshape(-1, len(kinds))
    total = time.sum(axis=1, keepdims=True)
    parts = np.rint(time / np.maximum(total, 1) / PERCENT).astype(np.int64)
    rows, which = np.unique(parts, axis=0, return_inverse=True)
    ranked = (sorted(zip(row, kinds, strict=True), reverse=True) for row in rows.tolist())
    texts = [", ".join(f"{part} % {kind}" for part, kind in row if part) for row in ranked]
    return np.where(total[:, 0] > 0, which.ravel(), -1), texts


def _owners(steps: Trace, spans: Trace) -> Column:
    """The step of its position that each span starts in, or -1."""
    reach = int(max(steps.end.max(), spans.end.max(initial=0))) + 1
    order = np.lexsort((steps.start, steps.position))
    keys = steps.position[order] * reach + steps.start[order]
    last = order[np.maximum(np.searchsorted(keys, spans.position * reach + spans.start, side="right") - 1, 0)]
    own = steps.position[last] == spans.position
    return np.where(own & (steps.start[last] <= spans.start) & (spans.start < steps.end[last]), last, -1)


def idle_shares(rows: Columns) -> list[float]:
    """Part of the step that each position idles."""
    lengths, idle = rows["end"] - rows["start"], rows["kind"] == IDLE
    positions = int(rows["position"].max()) + 1
    total = float(rows["end"].max())
    return [float(t) / total for t in np.bincount(rows["position"][idle], lengths[idle], positions)]
