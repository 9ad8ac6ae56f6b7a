"""The step of DeepSeek-V3 read in other ways: at pipeline position 0 beside the mean over ranks, and under choices that
nothing published decides. Nothing here is tuned: each choice is what some program does, taken whole."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sim.validation.reference import Reference
from sim.validation.row import Row

PHASES = (
    ("forward alone (1F)", ("forward",), ("IS-T4-1F",)),
    ("backward alone (1B)", ("backward",), ("IS-T4-1B",)),
    ("weight gradient alone (1W)", ("weight",), ("IS-T4-1W",)),
    ("1B + 1W", ("backward", "weight"), ("IS-T4-1B", "IS-T4-1W")),
    ("overlapped pairs (1F1B)", ("overlapped",), ("IS-T4-1F1B",)),
    ("bubble", ("bubble",), ("IS-T4-bubble",)),
    ("optimizer", ("optimizer",), ("IS-T4-opt",)),
)
"""What it is called, phases of a run that add to it, and published rows that do."""
JUDGED = tuple(name for name, *_ in PHASES if name not in ("backward alone (1B)", "weight gradient alone (1W)"))
"""Phases that do not depend on how a full backward is split."""
STEP = "IS-T4-step"
WAITED, AFTER, WAITS = "comm.messages=waited", "optimizer.reduce=after", "comm.waits=measured"
CHOICES = ((), (WAITED,), (AFTER,), (WAITED, AFTER), (WAITS,), (WAITED, AFTER, WAITS))
"""Overrides of the scenario that published figures are compared with."""
INTRODUCTION = """\
## The step read in other ways

The published phases are of no stated rank. Counted by type of chunk they fit pipeline position 0, not the mean over
ranks: at position 0 every phase that can be judged is short, over the mean the signs differ, which no one cause makes.
(Positions differ in what they do: position 0 has 23 forwards alone, the middle 17.) "1F, 1B, and 1W denote forward
time, input backward time, and weight backward time" (arXiv 2505.09343 sec 5.1.2); ours go by the type of chunk, so 1B
holds full backwards with their weight half as well: judge 1B + 1W, not either.
"""
OPEN = """\
What nothing published decides, none of it tuned and none the default. `comm.messages=waited`: between two steps a rank
waits for all it sends and receives, own sends included, as DualPipe's open code does (the DeepSeek-V3 report, sec
3.2.1, says that pipeline messages are hidden). `optimizer.reduce=after`: gradients are reduced when all ranks are
through, as a part of the optimizer. `comm.waits=measured`: before each exchange beside compute the mean wait for peers
of the published profile. Seconds; phases of position 0.
"""


class Reading(NamedTuple):
    """Seconds of a phase (see PHASES)."""

    name: str
    published: float
    first: float
    mean: float


def readings(rows: Sequence[Row], summary: Mapping[str, Any]) -> list[Reading]:
    """Each phase as published, at position 0 and in the mean over ranks."""
    published, per_rank, mean = _published(rows), summary["phases_per_rank"], summary["phases_s"]
    return [
        Reading(
            name, sum(published[row] for row in ids), sum(per_rank[phase][0] for phase in phases),
            sum(mean[phase] for phase in phases),
        )
        for name, phases, ids in PHASES
    ]  # fmt: skip


def _published(rows: Sequence[Row]) -> dict[str, float]:
    return {row.id: row.published for row in rows}


def section(rows: Sequence[Row], name: str) -> str:
    """Both tables, for `docs/VALIDATION.md`. name: of the scenario that these rows are compared with."""
    results = [Reference(name, choice).result.summary for choice in CHOICES]
    phases = readings(rows, results[0])
    lines = [INTRODUCTION, "| phase | published | position 0 | error | mean | error |", "|---|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {r.name} | {r.published:.4g} s | {r.first:.4g} s | {_error(r.first, r.published)} | {r.mean:.4g} s | "
        f"{_error(r.mean, r.published)} |"
        for r in phases
    ]
    heads = [r.name for r in phases if r.name in JUDGED]
    lines += ["", OPEN, f"| choice | step | error | {' | '.join(heads)} |", "|---|--:|--:|" + "--:|" * len(heads)]
    published = _published(rows)[STEP]
    for choice, summary in zip(CHOICES, results, strict=True):
        step, own = summary["step_time_s"], {r.name: f"{r.first:.4g}" for r in readings(rows, summary)}
        what = ", ".join(f"`{word}`" for word in choice) or "as it is"
        lines.append(f"| {what} | {step:.4g} | {_error(step, published)} | {_cells(own)} |")
    lines.append(f"| published | {published:.4g} |  | {_cells({r.name: f'{r.published:.4g}' for r in phases})} |")
    return "\n".join([*lines, ""])


def _cells(of: Mapping[str, str]) -> str:
    return " | ".join(of[name] for name in JUDGED)


def _error(simulated: float, published: float) -> str:
    return f"{simulated / published - 1:+.1%}"
