"""docs/VALIDATION.md: every answered figure, the largest misses, and what is not answered."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from sim.validation.row import Row, Unanswered
from sim.validation.table import error, figure, interval, sums, used

MISSES = 12
"""Rows of the list of largest misses."""
INTRODUCTION = """\
# Validation: predicted beside published

Written by `python -m sim validate --write`; do not edit. First published training runs by kind, then every published or
measured figure that the simulator answers, with its 90 % interval where there is one. *Input* says whether the
published figure was used to predict it: no means that nothing was fitted to it, partly that it is made of inputs.
Nothing depends on these errors: no test asks for a published figure to be met, closed forms aside. That predictions do
not move unnoticed is another question; `tests/golden/predictions.json` answers it.

The interval of a step holds both uncertain prices and what the model leaves out, as far as training runs of its class
were off ([how it is learned](RUNS.md#intervals)); those of parts of a step, of kernels and of exchanges hold prices
alone, so where a published figure lies outside one, something is missing or a spread is too small. *Inside* counts the
published figures that lie in their interval; nine of ten should.
"""
RUNS = """\
## Training runs

Steps simulated beside steps measured, medians over layouts, none of them an input; rows, families, misses and their
reasons are in [RUNS.md](RUNS.md). *Closed form*: the rival, a formula of an afternoon.

![Predicted over measured, run by run](runs.svg)
"""
FIGURES = """\
## Figures

![Predicted over published, row by row](validation.svg)
"""


def page(
    rows: Sequence[Row], unanswered: Sequence[Unanswered], readings: str = "", runs: str = "", beyond: str = ""
) -> str:
    """The whole document. readings: of the first group, which follow it. runs: the table of training runs by kind.
    beyond: published rows of other kinds (`sim.validation.beyond`)."""
    groups = [_group(name, list(members)) for name, members in groupby(rows, key=lambda row: row.group)]
    groups[1:1] = [readings] if readings else []
    head = [INTRODUCTION, *([RUNS, runs, ""] if runs else []), FIGURES]
    more = [beyond] if beyond else []
    return "\n".join([*head, _summary(rows, unanswered), _misses(rows), *groups, *more, _open(unanswered)])


def _summary(rows: Sequence[Row], unanswered: Sequence[Unanswered]) -> str:
    lines = [
        f"{len(rows)} figures are answered, {len(unanswered)} are not.\n",
        "| group | rows | not an input | median error of those | inside |", "|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    for s in sums(rows):
        typical = "" if s.error is None else f"{s.error:.1%}"
        inside = f"{s.inside} of {s.sure}" if s.sure else ""
        lines.append(f"| {s.group} | {s.rows} | {s.untouched} | {typical} | {inside} |")
    return "\n".join([*lines, ""])


def _misses(rows: Sequence[Row]) -> str:
    """The rows that are furthest off, by ratio."""
    worst = sorted(rows, key=lambda r: -max(r.predicted / r.published, r.published / r.predicted))[:MISSES]
    lines = ["## Largest misses\n", "| figure | simulated | published | error | note |", "|---|--:|--:|--:|---|"]
    lines += [
        f"| {r.quantity} | {figure(r.predicted, r.unit)} | {figure(r.published, r.unit)} | {error(r)} | {r.why} |"
        for r in worst
    ]
    return "\n".join([*lines, ""])


def _group(name: str, rows: Sequence[Row]) -> str:
    lines = [
        f"## {name}\n", "| id | figure | simulated | 90 % | published | error | input | source |",
        "|---|---|--:|--:|--:|--:|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {r.id} | {r.quantity} | {figure(r.predicted, r.unit)} | {interval(r)} | {figure(r.published, r.unit)} | "
        f"{error(r)} | {used(r)} | {r.source} |"
        for r in rows
    ]
    return "\n".join([*lines, ""])


def _open(unanswered: Sequence[Unanswered]) -> str:
    counts = Counter(row.reason for row in unanswered)
    lines = ["## Not answered\n", *(f"- {count} because {reason}" for reason, count in counts.most_common())]
    lines += ["", "| id | figure |", "|---|---|", *(f"| {row.id} | {row.quantity} |" for row in unanswered)]
    return "\n".join([*lines, ""])
