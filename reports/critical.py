"""The ranks that the step waits for, where ranks differ, as a table."""

from typing import Any

from hwmodels.units import PERCENT
from reports.headline import percent, seconds
from reports.palette import INK
from reports.section import Section, bar, table
from sim.result import Result

LITTLE = 0.5 * PERCENT
"""Part of the rest from which it is told; less would print as nothing."""

LEAD = (
    "The critical path goes back from the last step to end, through whatever each start waited for. These ranks make "
    "it longest: their time on the path, how much of it goes beyond what an even step without faults takes there, and "
    "their part of all that the path is longer by."
)
HEAD = ("rank", "position", "replica", "node", "on the path", "beyond an even step", "part", "in the timeline")


def section(result: Result) -> Section | None:
    """The table of `critical_ranks`, or None where all ranks are alike or none is late."""
    ranks = result.summary.get("critical_ranks")
    if not ranks:
        return None
    shown = result.summary.get("shown_replica")
    rest = 1 - sum(each["part"] for each in ranks)
    others = f" Other ranks have {percent(rest)}." if rest > LITTLE else ""
    rows = (_cells(each, each["replica"] == shown) for each in ranks)
    return Section("critical", "Whom the step waits for", LEAD + others, table(HEAD, rows, (len(HEAD) - 1,)))


def _cells(entry: dict[str, Any], drawn: bool) -> tuple[str, ...]:
    where = (f"{entry[key]:,}" for key in ("rank", "pipeline_position", "replica", "node"))
    times = (seconds(entry[key]) for key in ("seconds", "beyond_s"))
    return (*where, *times, bar(entry["part"], INK) + percent(entry["part"]), "drawn" if drawn else "–")
