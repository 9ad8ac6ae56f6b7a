"""The phase table: how the ranks at every position of the pipeline spend the step."""

from collections.abc import Mapping, Sequence
from typing import Any

from reports import ranks
from reports.headline import percent, seconds
from reports.palette import IDLE, STEPS
from reports.section import Section, bar, table
from sim.result import Result
from sim.result.trace import PHASES

NAMES = ("forward", "backward", "weight", "overlapped", "optimizer", "bubble")
LEAD = (
    "What ranks do with the step, by their position in the pipeline. <i>weight</i> counts stand-alone weight-gradient "
    "steps, <i>backward</i> those for input gradients and full backwards; time in overlapped pairs is counted apart; "
    "<i>bubble</i> is idle."
)


def section(result: Result) -> Section | None:
    """The table of all positions, or None when the run does not say."""
    columns = per_rank(result.summary)
    if not columns:
        return None
    total = result.summary["step_time_s"]
    positions = len(next(iter(columns.values())))
    rows = [[f"position {p}", *(_cell(name, columns[name][p], total) for name in columns)] for p in range(positions)]
    mean = ["<b>mean</b>", *(_cell(name, sum(column) / positions, total) for name, column in columns.items())]
    body = f'<div class="phases">{table(("", *columns), [mean, *rows])}</div>'
    return Section("phases", "Phases by position", f"{LEAD} {ranks.mean(result)}".strip(), body)


def per_rank(summary: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """Seconds of each phase as a list over positions, in a fixed order; empty when the summary has none."""
    phases = summary.get("phases_per_rank") or summary.get("phases_s", {}).get("phases_per_rank") or {}
    known = [name for name in NAMES if name in phases]
    return {name: phases[name] for name in [*known, *(n for n in phases if n not in known)]}


def colour(name: str) -> str:
    """The timeline's colour of a phase of the summary."""
    return STEPS[PHASES.index(name) if name in PHASES else IDLE].colour


def _cell(name: str, value: float, total: float) -> str:
    tint = "#9aa5b1" if name == "bubble" else colour(name)
    return f'{bar(value / total, tint)}<span title="{percent(value / total)} of the step">{seconds(value)}</span>'
