"""Rows as text for a terminal, as Markdown, and as plain values for JSON; and what they come to, group by group."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from sim.experiments.table import text as aligned
from sim.validation.row import Row

NAME = 40
"""Columns that names of figures get at least on a terminal."""
SIDES = (">", ">", "<", ">", "<", "<")
"""Numbers to the right, words to the left."""


class Sum(NamedTuple):
    """Summary of one group.

    rows: of the group.  untouched: rows whose figure was no input.  error: their median absolute relative error.
    sure: rows with an interval.  inside: rows whose published figure lies in it."""

    group: str
    rows: int
    untouched: int
    error: float | None
    sure: int
    inside: int


def sums(rows: Iterable[Row]) -> list[Sum]:
    """One a group, in order of appearance."""
    return [_sum(group, list(members)) for group, members in groupby(rows, key=lambda row: row.group)]


def _sum(group: str, rows: Sequence[Row]) -> Sum:
    free = [abs(row.error) for row in rows if row.input == "no"]
    known = [row.inside for row in rows if row.inside is not None]
    return Sum(group, len(rows), len(free), median(free) if free else None, len(known), sum(known))


def figure(value: float, unit: str) -> str:
    """Four digits and the unit."""
    return f"{value:,.4g} {unit}".strip()


def interval(row: Row) -> str:
    """Ends of the 90 % interval in four digits; empty where there is none."""
    return "" if row.low is None or row.high is None else f"{row.low:,.4g} to {row.high:,.4g}"


def used(row: Row) -> str:
    """Whether the published figure was an input, and why or what to know."""
    return f"{row.input}: {row.why}" if row.why else row.input


def error(row: Row) -> str:
    """In per cent; no sign on nothing."""
    return f"{row.error:+.1%}".replace("-0.0%", "+0.0%")


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a short Markdown table."""
    lines = ["| figure | simulated | published | error | source |", "|---|--:|--:|--:|---|"]
    lines += [
        f"| {r.quantity} | {figure(r.predicted, r.unit)} | {figure(r.published, r.unit)} | {error(r)} | {r.source} |"
        for r in rows
    ]
    return "\n".join(lines)


def overview(rows: Sequence[Row]) -> str:
    """A line a group: how many figures, how many of them were no input, how far those are off, which is furthest."""
    head = ["group", "figures", "not an input", "median error", "inside 90 %", "furthest off"]
    lines: list[list[str]] = [head]
    for part in sums(rows):
        free = [row for row in rows if row.group == part.group and row.input == "no"]
        worst = max(free, key=lambda row: abs(row.error), default=None)
        typical = "" if part.error is None else f"{part.error:.1%}"
        inside = f"{part.inside} of {part.sure}" if part.sure else ""
        furthest = f"{error(worst)}  {_cut(worst.quantity, NAME)}" if worst else ""
        lines.append([part.group, str(part.rows), str(part.untouched), typical, inside, furthest])
    return aligned(lines)


def text(rows: Iterable[Row], width: int) -> str:
    """The rows for a terminal of `width` columns, by group; names are cut to what is left."""
    blocks = [_block(group, list(members), width) for group, members in groupby(rows, key=lambda row: row.group)]
    return "\n\n".join(blocks)


def _block(group: str, rows: Sequence[Row], width: int) -> str:
    cells = [
        ("simulated", "published", "unit", "error", "input", "90 %"),
        *((f"{r.predicted:,.4g}", f"{r.published:,.4g}", r.unit, error(r), r.input, interval(r)) for r in rows),
    ]
    sizes = [max(map(len, column)) for column in zip(*cells, strict=True)]
    while len(sizes) > 4 and _room(width, sizes) < NAME:  # a narrow terminal goes without the interval, then the input
        sizes.pop()
    room = max(NAME, _room(width, sizes))
    names = [_cut(words, room).ljust(room) for words in (group, *(row.quantity for row in rows))]
    return "\n".join(_line(name, row, sizes) for name, row in zip(names, cells, strict=True))


def _room(width: int, sizes: Sequence[int]) -> int:
    """Columns left for names."""
    return width - sum(sizes) - 2 * len(sizes)


def _line(name: str, cells: Sequence[str], sizes: Sequence[int]) -> str:
    row = [f"{cell:{side}{size}}" for cell, side, size in zip(cells, SIDES, sizes, strict=False)]
    return "  ".join([name, *row]).rstrip()


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else f"{words[: room - 3].rstrip()}..."


def plain(row: Row) -> dict[str, Any]:
    """For JSON."""
    ends = None if row.low is None else [row.low, row.high]
    return {
        "id": row.id, "group": row.group, "quantity": row.quantity, "unit": row.unit, "predicted": row.predicted,
        "published": row.published, "error": row.error, "interval_90": ends, "input": row.input, "why": row.why,
        "source": row.source,
    }  # fmt: skip
