"""Published rows beyond training steps: served loads, steps of reinforcement learning, campaigns.

Their own pages answer them, written by commands of their own, which take minutes; this reads the tables off those
pages, so that docs/VALIDATION.md has the same, and refuses a page that lacks a published row.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from hwmodels.document import read
from hwmodels.refused import Refused
from hwmodels.units import PERCENT
from sim.campaign.rl.rows import FILE as STEPS
from sim.serving.rows import FILE as SERVED

NEAR = 10.0
"""Per cent."""
OFF = re.compile(r"^([+\N{MINUS SIGN}-]?)([\d.]+) ?%$")
"""A relative error as pages write it."""


class Source(NamedTuple):
    """A page with a table of published rows. title: of its part of docs/VALIDATION.md; page: in the checkout; under:
    the heading that the table follows; off: the column of errors; command: what writes it; rows: the file of what is
    published, whose `rows` have an `id`, in the table's first column."""

    title: str
    page: Path
    under: str
    off: str
    command: str
    rows: Path | None = None


SOURCES = (
    Source("Served loads", Path("docs", "SERVING.md"), "## Published rows beside ours", "off by",
           "python -m sim serving --write", SERVED),
    Source("Steps of reinforcement learning", Path("docs", "RL.md"), "## Published steps beside ours", "off by",
           "python -m sim rl --write", STEPS),
    Source("Campaigns", Path("docs", "CAMPAIGN.md"), "### Beside what is published", "off",
           "python -m sim study campaign"),
)  # fmt: skip


def section(root: Path) -> str:
    """All of them in Markdown, after how many rows of each come near; "" where a checkout has no such pages. Raises
    Refused for a page that is older than what is published."""
    there = [source for source in SOURCES if (root / source.page).is_file()]
    if not there:
        return ""
    tables = [table((root / source.page).read_text(encoding="utf-8"), source) for source in there]
    head = [
        "## Beyond training steps\n",
        "As their pages have them, which also say why rows are off; nothing is fitted to any.\n",
        "| published | rows | within 10 % | median error |", "|---|--:|--:|--:|",
    ]  # fmt: skip
    head += [_sum(source, lines) for source, lines in zip(there, tables, strict=True)]
    for source, lines in zip(there, tables, strict=True):
        head += [f"\n### {source.title}\n", *lines]
    return "\n".join([*head, ""])


def table(text: str, source: Source) -> list[str]:
    """The lines of the first table under a page's heading. Raises Refused where there is none, or not all rows."""
    _, _, after = text.partition(f"\n{source.under}\n")
    lines = after.split("\n")
    first = next((i for i, line in enumerate(lines) if line.startswith("|")), None)
    if first is None:
        raise Refused(f"{source.page}: no table under {source.under!r}; write it: {source.command}")
    inside = list(_run(lines[first:]))
    if missing := [name for name in _names(source) if name not in {_cells(line)[0] for line in inside}]:
        raise Refused(f"{source.page}: the published row {missing[0]} is not there; write it again: {source.command}")
    return inside


def _run(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def _names(source: Source) -> list[str]:
    return [str(row["id"]) for row in read(source.rows).content["rows"]] if source.rows else []


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def errors(lines: Sequence[str], column: str) -> list[float]:
    """Absolute relative errors of a table, in per cent; gains, which are off by points, have none."""
    at = _cells(lines[0]).index(column)
    matches = (OFF.match(_cells(line)[at]) for line in lines[2:])
    return [float(match[2]) for match in matches if match]


def _sum(source: Source, lines: Sequence[str]) -> str:
    off = errors(lines, source.off)
    near = sum(error < NEAR for error in off)
    page = f"[{source.title}]({source.page.name})"
    return f"| {page} | {len(lines) - 2} | {near} of {len(off)} | {median(off) * PERCENT:.1%} |"
