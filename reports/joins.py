"""A profiler trace beside a simulated step: both timelines on one axis and where they part; and in a terminal."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import IO

import numpy as np

from hwmodels.units import NS_PER_S
from reports import terminal, timeline
from reports.columns import pack
from reports.headline import percent, seconds
from reports.page import whole
from reports.palette import OPS, STEPS, op_kind
from reports.section import Section, controls, folded, legend, plot
from sim.result.joins import Bars, Joined
from sim.result.trace import LANES

SHOWN = 30
"""Rows that are printed; the others are summed."""


TITLE = "A trace beside a simulated step"
KINDS = (*OPS, STEPS[-1])
"""Of kernels, then idle."""
LONGEST_NAME = 90
HEAD = ("kernel", "sides", "trace", "", "simulated", "", "part by")


def show(title: str, trace: str, rows: Sequence[Joined], stream: IO[str]) -> None:
    """Print where they part, the largest difference first."""
    cells = [_cells(row) for row in rows[:SHOWN]]
    rest = sum(row.measured_s - row.simulated_s for row in rows[SHOWN:])
    notes = [f"and {len(rows) - SHOWN} more, together {_signed(rest)}"] if len(rows) > SHOWN else []
    about = (f"trace: {trace}", f"simulated: {title} (its first position's step)")
    terminal.tables(stream, about, verdict(rows), [terminal.Cells(HEAD, cells, (2, 3, 4, 5, 6))], notes)


def verdict(rows: Sequence[Joined]) -> str:
    """The answer in a line: times of what both have, and of what one of them alone has."""
    both = [row for row in rows if row.simulated and row.measured]
    ours, theirs = sum(row.simulated_s for row in both), sum(row.measured_s for row in both)
    alone = [
        sum(row.measured_s for row in rows if not row.simulated),
        sum(row.simulated_s for row in rows if not row.measured),
    ]
    if not both:
        return "No kernel of the trace has the kind and shape of a simulated one."
    more = f"{percent(abs(ours / theirs - 1))} {'more' if ours > theirs else 'less'}"
    return (
        f"Kernels that both have take {seconds(theirs)} in the trace and {seconds(ours)} simulated "
        f"({more}); {seconds(alone[0])} are in the trace alone, {seconds(alone[1])} simulated alone."
    )


def _cells(row: Joined) -> tuple[str, ...]:
    both = [(row.measured, row.measured_s), (row.simulated, row.simulated_s)]
    sides = [cell for count, time in both for cell in ((f"{count} x", seconds(time)) if count else ("-", ""))]
    return row.kind, row.shape, *sides, _signed(row.measured_s - row.simulated_s)


def _signed(time: float) -> str:
    return f"{'−' if time < 0 else '+'}{seconds(abs(time))}"


# --- the page ---------------------------------------------------------------------------------------------------------


def render(title: str, trace: str, rows: Sequence[Joined], measured: Bars, simulated: Bars) -> str:
    """The page, as HTML text."""
    parts = [part for part in (_timelines(measured, simulated), _table(rows)) if part]
    header = (
        f'<p class="brand">Trainyard</p><h1>{TITLE}</h1>'
        f'<p class="sub run"><b>Trace</b> {escape(trace)}</p><p class="sub run"><b>Simulated</b> {escape(title)}</p>'
        f'<p class="verdict">{escape(verdict(rows))}</p>'
    )
    return whole(TITLE, header, parts)


def _timelines(measured: Bars, simulated: Bars) -> Section | None:
    """The trace's streams above the lanes of the run, on one axis."""
    if not measured.row or not simulated.row:
        return None
    whole_ns = max(*measured.end, *simulated.end)
    theirs, ours = len(measured.rows), len(simulated.rows)
    cells = [*_tiled(measured, 0, whole_ns), *_tiled(simulated, theirs + 1, whole_ns)]
    labels = {name: i for i, name in enumerate(dict.fromkeys(name for *_, name in cells))}
    columns = {
        "position": np.array([row for row, *_ in cells]), "kind": np.array([kind for _, kind, *_ in cells]),
        "start": np.array([start for _, _, start, *_ in cells]) / NS_PER_S,
        "end": np.array([end for *_, end, _ in cells]) / NS_PER_S,
        "label": np.array([labels[name] for *_, name in cells]),
    }  # fmt: skip
    columns |= {name: np.full(len(cells), -1) for name in UNSAID}
    idle = [f"busy {percent(share)}" for share in (*_busy(measured, whole_ns), *_busy(simulated, whole_ns))]
    data = {
        "table": pack(columns), "kinds": [kind._asdict() for kind in KINDS], "idle": len(OPS),
        "bars": timeline.BARS_IN_VIEW, "prices": [], "mixes": [], "ranks": [], "labels": list(labels),
        "margin": [*idle[:theirs], "", *idle[theirs:]],
        "names": [*(f"trace, {row}" for row in measured.rows), "", *(f"simulated, {row}" for row in simulated.rows)],
    }  # fmt: skip
    keys = legend((KINDS[kind].name, KINDS[kind].colour) for kind in sorted({kind for _, kind, *_ in cells}))
    body = f'<div class="row">{keys}{controls("timeline", "step")}</div>'
    body += plot("timeline", "kernels of the trace above those of the simulated step")
    ends = seconds(max(measured.end) / NS_PER_S), seconds(max(simulated.end) / NS_PER_S)
    lead = (
        f"Kernels from the first one on: the trace's end after {ends[0]}, the simulated ones after {ends[1]} "
        f"({_count(theirs, 'stream')}, {_count(ours, 'lane')} of the first position). {timeline.LEAD}"
    )
    return Section("timeline", "Timelines", lead, body, data)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


UNSAID = ("stage", "micro_batch", "stage_b", "micro_batch_b", "price", "mix")
"""Columns of a timeline that kernels do not have."""


def _tiled(bars: Bars, first: int, whole_ns: int) -> Iterator[tuple[int, int, int, int, str]]:
    """Row, kind, start, end and name of kernels and of the idle times between, which fill each row."""
    for row, name in enumerate(bars.rows):
        at = 0
        lane = LANES.index(name) if name in LANES else 0
        for own, kernel, start, end in zip(bars.row, bars.names, bars.start, bars.end, strict=True):
            if own != row or end <= at:
                continue
            if start > at:
                yield first + row, len(OPS), at, start, ""
            yield first + row, op_kind(kernel, lane, 0), max(start, at), end, kernel[:LONGEST_NAME]
            at = end
        if at < whole_ns:
            yield first + row, len(OPS), at, whole_ns, ""


def _busy(bars: Bars, whole_ns: int) -> list[float]:
    """Part of the longer one that each row is busy."""
    busy = [0] * len(bars.rows)
    for row, start, end in zip(bars.row, bars.start, bars.end, strict=True):
        busy[row] += end - start
    return [each / whole_ns for each in busy]


def _table(rows: Sequence[Joined]) -> Section:
    cells = [[escape(cell) for cell in _cells(row)] for row in rows]
    body = folded(HEAD, cells, SHOWN, (0, 1), "that part less")
    lead = (
        "Kernels by kind and sides (streaming ones by bytes), the largest difference first; what one side lacks stands "
        "there too. Kernels are taken by themselves: what waits, slows or overlaps is in the timelines alone."
    )
    return Section("parts", "Where they part", lead, body)
