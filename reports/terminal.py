"""The tables a run prints."""

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import IO, TYPE_CHECKING, NamedTuple

from reports import headline, phases, prices, ranks, stages
from reports.headline import percent, seconds
from sim.result import Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PLAIN_WIDTH = 80
"""Columns when the stream is not a terminal, or does not say how wide it is."""
WIDE = 100
"""The same of tables of many columns."""

UNEVEN = 0.01
"""Stages are listed when the slowest exceeds their mean by more than this fraction."""


def show(result: Result, stream: IO[str]) -> None:
    """Print the headline of `result`, its phases, price shares and uneven stages to `stream`.

    Colour and the terminal's width are used when `stream` is a terminal; else plain text of 80 columns.
    """
    text, console = _console(stream, PLAIN_WIDTH)
    name, changes = str(result.summary.get("scenario", "")), headline.changes(result)
    console.print(f"{name}, {changes}" if changes else name, style="bold", markup=False)
    if setting := headline.setting(result):
        console.print(setting, style="dim", markup=False)
    if line := headline.binds(result):
        console.print(line, markup=False)
    if warning := headline.warning(result):
        console.print(warning, style="bold", markup=False)
    for table in (_headline(result), _phases(result), _prices(result), _stages(result)):
        if table is not None:
            console.print(table)
    stream.write(text.getvalue())


def _console(stream: IO[str], width: int) -> "tuple[StringIO, Console]":
    """A text and a console that prints into it, as wide as the terminal, if it is one, or `width`."""
    from rich.console import Console

    terminal = bool(getattr(stream, "isatty", lambda: False)())
    text = StringIO()  # rich itself ends the process with exit code 1 when the reader of a pipe has gone
    wide = None if terminal else width
    return text, Console(file=text, force_terminal=terminal or None, width=wide, highlight=False, soft_wrap=False)


class Cells(NamedTuple):
    """A table: its head, rows of text, and the columns that are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int]


def tables(
    stream: IO[str], heads: Sequence[str], answer: str, parts: Sequence[Cells], notes: Sequence[str] = ()
) -> None:
    """Print lines of what it is about, the answer, tables, and remarks."""
    text, console = _console(stream, WIDE)
    for line in heads:
        console.print(line, style="dim", markup=False)
    console.print(answer, style="bold", markup=False)
    for part in parts:
        console.print(_table(part.head, part.rows, part.numbers))
    for line in notes:
        console.print(line, style="dim", markup=False)
    stream.write(text.getvalue())


def _headline(result: Result) -> "Table":
    rows = [(figure.name, figure.value, figure.note) for figure in headline.figures(result)]
    return _table(("", "", ""), rows, numbers=(1,), header=False)


def _phases(result: Result) -> "Table | None":
    """The mean over ranks, with the range over positions of the pipeline."""
    total = result.summary["step_time_s"]
    columns = phases.per_rank(result.summary)
    if not columns:
        mean = {k: v for k, v in result.summary.get("phases_s", {}).items() if isinstance(v, int | float)}
        columns = {name: [mean[name]] for name in phases.NAMES if name in mean}
    if not columns:
        return None
    rows = []
    for name, values in columns.items():
        mean_s = sum(values) / len(values)
        low, high = seconds(min(values)), seconds(max(values))
        span = f"{low} to {high}" if low != high else ""
        rows.append((name, seconds(mean_s), percent(mean_s / total), span))
    head = ("phase (mean of ranks)", "time", "of step", "lowest to highest position")
    return _table(head, rows, numbers=(1, 2, 3), note=ranks.mean(result) if ranks.differ(result) else "")


def _prices(result: Result) -> "Table | None":
    groups = prices.shares(result.summary)
    rows = [(f"{group} {kind}".strip(), percent(s)) for group, kinds in groups.items() for kind, s in kinds.items()]
    return _table(("price", "of time"), rows, numbers=(1,)) if rows else None


def _stages(result: Result) -> "Table | None":
    if not result.stages or stages.imbalance(result.stages) <= UNEVEN:
        return None
    rows = []
    for first, last in stages.alike(result.stages):
        name, held = (str(first.stage), first.contents)
        if last is not first:
            name, held = f"{first.stage} to {last.stage}", f"{first.contents} to {last.contents}"
        times = (first.forward_s, first.backward_input_s, first.weight_s, stages.load_s(first))
        rows.append((name, held, *map(seconds, times)))
    note = ranks.HEALTHY if ranks.differ(result) else ""
    return _table(("stage", "contents", "F", "B", "W", "sum"), rows, numbers=(2, 3, 4, 5), note=note)


def _table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int], header: bool = True, note: str = ""
) -> "Table":
    """A table without frames; columns in `numbers` are set to the right, a note goes below."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD if header else None, show_header=header, pad_edge=False, header_style="dim",
                  caption=note or None, caption_justify="left")  # fmt: skip
    for i, name in enumerate(head):
        table.add_column(name, justify="right" if i in numbers else "left", overflow="fold", no_wrap=i in numbers)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
