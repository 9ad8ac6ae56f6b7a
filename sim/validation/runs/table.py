"""Outcomes as a table, family by family, the reasons of those refused, the worst, and a CSV file with a row a run."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from statistics import median
from typing import Any, NamedTuple

from sim.experiments.table import text as aligned
from sim.validation.runs.outcome import Answer, Outcome
from sim.validation.runs.rows import Run

WORST = 10
"""Rows that are shown as furthest off."""
PARTS = re.compile(r"\d[\d,.]*|'[^']*'|\[[^]]*\]")
"""What differs between refusals of a kind: numbers, quoted words, lists."""


class Sum(NamedTuple):
    """What the rows of a group come to. rows: given. asked: of them with a layout, a step and confidence. ran: of
    those. layouts: of those that ran, each once, however many releases ran it. error: median over layouts of the
    absolute relative error of the step. bias: of the relative error. inside: runs whose measured step lies in the 90 %
    interval. rival: as error, of the closed form. large: runs that need more memory than their GPUs have. defaults:
    median number of keys that a run's row does not say."""

    group: str
    rows: int
    asked: int
    ran: int
    layouts: int
    error: float | None
    bias: float | None
    inside: int
    rival: float | None
    large: int
    defaults: float | None


def total(group: str, rows: int, outcomes: Sequence[Outcome]) -> Sum:
    """Of rows that are asked."""
    ran = [each for each in outcomes if each.error is not None]
    errors = by_layout(ran, lambda each: each.error)
    rivals = by_layout(ran, lambda each: each.rival)
    return Sum(
        group, rows, len(outcomes), len(ran), len(errors), typical(errors), median(errors) if errors else None,
        sum(each.inside for each in ran), typical(rivals), sum(not each.answer.fits for each in ran),
        median(len(each.defaults) for each in ran) if ran else None,
    )  # fmt: skip


def by_layout(outcomes: Sequence[Outcome], error: Callable[[Outcome], float | None]) -> list[float]:
    """Of each layout the median of its runs' errors, signed; a row without a group is one by itself."""
    layouts: dict[str, list[float]] = {}
    for each in outcomes:
        if (off := error(each)) is not None:
            layouts.setdefault(each.run.group or each.run.id, []).append(off)
    return [median(errors) for errors in layouts.values()]


def typical(errors: Sequence[float]) -> float | None:
    """Median of what they are without signs."""
    return median(map(abs, errors)) if errors else None


def totals(rows: Sequence[Run], outcomes: Sequence[Outcome]) -> list[Sum]:
    """One a family in order of appearance, then all. rows: all of a file; outcomes: of those asked."""
    families = list(dict.fromkeys(run.family for run in rows))
    each = [
        total(name, sum(run.family == name for run in rows), [o for o in outcomes if o.run.family == name])
        for name in families
    ]
    return [*each, total("all", len(rows), outcomes)]


HEAD = (
    "rows of", "given", "asked", "ran", "refused", "layouts", "median error", "signed", "inside 90 %", "rival",
    "too large", "unsaid",
)  # fmt: skip


def cells(part: Sum) -> list[str]:
    """A line of the table; see HEAD."""
    inside = f"{part.inside} ({part.inside / part.ran:.0%})" if part.ran else ""
    return [
        part.group, str(part.rows), str(part.asked), str(part.ran), str(part.asked - part.ran), str(part.layouts),
        share(part.error, ""), share(part.bias, "+"), inside, share(part.rival, ""), str(part.large),
        "" if part.defaults is None else f"{part.defaults:g}",
    ]  # fmt: skip


def share(value: float | None, sign: str) -> str:
    """In per cent, or nothing."""
    return "" if value is None else f"{value:{sign}.1%}".replace("-0.0%", "+0.0%")


def reason(outcome: Outcome) -> str:
    """Why it was refused, without what differs from row to row."""
    return PARTS.sub("..", outcome.refused)


def reasons(outcomes: Iterable[Outcome]) -> list[tuple[int, str, str]]:
    """How many were refused, why, and one of them; the most frequent first."""
    refused = [each for each in outcomes if each.refused]
    count = Counter(reason(each) for each in refused)
    first = {reason(each): each for each in reversed(refused)}
    return [(number, first[why].refused if number == 1 else why, first[why].run.id)
            for why, number in count.most_common()]  # fmt: skip


def worst(outcomes: Iterable[Outcome], most: int = WORST) -> list[Outcome]:
    """Those furthest off, by the ratio of predicted and measured."""
    ran = [each for each in outcomes if each.error is not None]
    return sorted(ran, key=lambda each: -max(1 + (each.error or 0), 1 / (1 + (each.error or 0))))[:most]


def line(outcome: Outcome) -> list[str]:
    """A row that ran, in short."""
    run, error = outcome.run, outcome.error
    where = f"{run.gpus} x {run.gpu}"
    assert error is not None and outcome.predicted_s is not None
    return [run.id, run.family, run.model, where, run.precision, axes(run), f"{outcome.predicted_s:.4g}",
            f"{run.step_s:.4g}", f"{error:+.1%}"]  # fmt: skip


def axes(run: Run) -> str:
    """What a run is cut by, in short."""
    names, ranks = ("tp", "cp", "pp", "vpp", "ep"), (run.tensor, run.context, run.pipeline, run.chunks, run.expert)
    sizes = zip(names, ranks, strict=True)
    return " ".join(f"{name}{size}" for name, size in sizes if (size or 1) > 1) or "-"


SHORT = ("row", "family", "model", "GPUs", "precision", "layout", "simulated, s", "measured, s", "error")


def text(rows: Sequence[Run], outcomes: Sequence[Outcome]) -> str:
    """For a terminal: families, why rows were refused, the worst."""
    lines = [list(HEAD), *map(cells, totals(rows, outcomes))]
    if not any(each.rival is not None for each in outcomes):
        lines = [[cell for head, cell in zip(HEAD, line, strict=True) if head != "rival"] for line in lines]
    blocks = [aligned(lines)]
    if refused := reasons(outcomes):
        blocks.append("Refused:\n" + "\n".join(f"  {n} x {why} (such as {run})" for n, why, run in refused))
    if far := worst(outcomes):
        blocks.append("Furthest off:\n" + aligned([list(SHORT), *map(line, far)]))
    return "\n\n".join(blocks)


def unasked(run: Run) -> Outcome:
    """Of a row that says too little."""
    return Outcome(run, Answer(refused=f"not asked: the row {run.lacking}"))


def plain(rows: Sequence[Run], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """For JSON: a value a row, in the order of the rows. predicted, published: seconds of the step; reason: why nothing
    is predicted, or null."""
    known = {each.run.id: each for each in outcomes}
    return [_plain(known.get(run.id) or unasked(run)) for run in rows]


def _plain(each: Outcome) -> dict[str, Any]:
    run, answer = each.run, each.answer
    ran = each.error is not None
    return {
        "id": run.id, "family": run.family, "group": run.group, "model": run.model, "gpu": run.gpu, "gpus": run.gpus,
        "unit": "s", "predicted": answer.step_s, "published": run.step_s, "error": each.error,
        "interval_90": [answer.low_s, answer.high_s] if ran else None, "inside": each.inside if ran else None,
        "interval_90_own": list(each.own) if each.own else None, "interval_parts": answer.parts or None,
        "peak_memory_bytes": answer.peak_bytes, "fits": answer.fits if ran else None,
        "rival": answer.rival_s, "rival_error": each.rival, "defaults": list(each.defaults), "notes": list(each.notes),
        "reason": answer.refused or None,
    }  # fmt: skip


COLUMNS = (
    "id", "family", "model", "gpu", "gpus", "step_s", "predicted_s", "error", "low_90_s", "high_90_s", "inside_90",
    "peak_memory_bytes", "fits", "memory_published", "defaults", "notes", "refused",
)  # fmt: skip


def written(rows: Sequence[Run], outcomes: Sequence[Outcome]) -> str:
    """A CSV file with a row a run, in the order of the rows; those that are not asked say why under `refused`."""
    known = {each.run.id: each for each in outcomes}
    out = StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in rows:
        each = known.get(run.id) or unasked(run)
        ran = each.error is not None
        writer.writerow([
            run.id, run.family, run.model, run.gpu, run.gpus, run.step_s, each.predicted_s, each.error,
            each.answer.low_s, each.answer.high_s, each.inside if ran else "", each.answer.peak_bytes,
            each.answer.fits if ran else "", run.memory_published,
            "; ".join(each.defaults), "; ".join(each.notes), each.refused,
        ])  # fmt: skip
    return out.getvalue()
