"""A profiler trace beside a simulated step, as a terminal shows it."""

from collections.abc import Sequence
from typing import IO, Protocol

from reports import terminal
from reports.headline import percent, seconds

SHOWN = 30
"""Rows that are printed; the others are summed."""


class Joined(Protocol):
    """A kind and shape with launches and seconds of both; `sim.validation.traced.Joined` is one."""

    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> str: ...
    @property
    def simulated(self) -> int: ...
    @property
    def simulated_s(self) -> float: ...
    @property
    def measured(self) -> int: ...
    @property
    def measured_s(self) -> float: ...


def show(title: str, trace: str, rows: Sequence[Joined], stream: IO[str]) -> None:
    """Print where they part, the largest difference first."""
    cells = [_cells(row) for row in rows[:SHOWN]]
    head = ("kernel", "sides", "trace", "", "simulated", "", "part by")
    rest = sum(row.measured_s - row.simulated_s for row in rows[SHOWN:])
    notes = [f"and {len(rows) - SHOWN} more, together {_signed(rest)}"] if len(rows) > SHOWN else []
    about = (f"trace: {trace}", f"simulated: {title} (its first position's step)")
    terminal.tables(stream, about, verdict(rows), [terminal.Cells(head, cells, (2, 3, 4, 5, 6))], notes)


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
    return (
        f"Kernels that both have take {seconds(theirs)} in the trace and {seconds(ours)} simulated "
        f"({percent(ours / theirs - 1)}); {seconds(alone[0])} are in the trace alone, {seconds(alone[1])} simulated "
        "alone."
    )


def _cells(row: Joined) -> tuple[str, ...]:
    both = [(row.measured, row.measured_s), (row.simulated, row.simulated_s)]
    sides = [cell for count, time in both for cell in ((f"{count} x", seconds(time)) if count else ("-", ""))]
    return row.kind, row.shape, *sides, _signed(row.measured_s - row.simulated_s)


def _signed(time: float) -> str:
    return f"{'−' if time < 0 else '+'}{seconds(abs(time))}"
