"""What answers of whole campaigns and of reinforcement learning share: the frame of their page, and of a terminal."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import IO, Any

from reports.headline import Figure
from reports.page import heading, whole
from reports.section import Section, details
from sim.result import title

Figures = Mapping[str, Any]
Rows = Sequence[tuple[str, str, str]]
"""What it is, its value, and a remark."""


def page(summary: Figures, line: str, figures: Sequence[Figure], parts: Sequence[Section], file: Section) -> str:
    """A page that needs no script, as HTML text. summary: as in result.json. line: what it was asked of. file: the
    last part."""
    name, changes = str(summary["scenario"]), title.changes(summary["overrides"])
    alarm = "".join(f'<p class="alarm" role="alert">{escape(reason)}</p>' for reason in summary["infeasible"])
    also = f'<span class="with">, with {escape(" ".join(changes))}</span>' if changes else ""
    header = heading(f"{escape(name)}{also}", line, figures, alarm)
    return whole(title.of(summary), header, [*parts, file])


def file(scenario: Figures, called: str) -> Section:
    """The document as it was changed."""
    text = json.dumps(scenario, indent=2, ensure_ascii=False, default=str)
    return Section("scenario", called, "", details("Show its file as it was changed", f"<pre>{escape(text)}</pre>"))


def show(summary: Figures, line: str, rows: Rows, stream: IO[str]) -> None:
    """Print what was asked, and rows in columns."""
    print(title.of(summary), line, sep="\n", file=stream)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for what, value, note in rows:
        print(f"{what.ljust(widths[0])}  {value.rjust(widths[1])}  {note}".rstrip(), file=stream)
