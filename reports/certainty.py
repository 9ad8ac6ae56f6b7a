"""How sure the step time is: its 90 % interval, and what it rests on, largest first."""

from html import escape

from reports.headline import percent, seconds
from reports.palette import STEPS
from reports.section import Section, bar, details, table
from sim.result import Result

SHOWN = 8
"""Causes in the open table; the rest are folded away."""


def section(result: Result) -> Section | None:
    """The tornado of `summary["tornado"]`, or None when the run has no prices."""
    causes = result.summary.get("tornado")
    if not causes:
        return None
    low, high = result.summary["intervals_90"]["step_time_s"]
    lead = (
        f"With prices as uncertain as their sources say, the step takes {seconds(low)} to {seconds(high)} in nine "
        "cases of ten. Each row: how uncertain a group of prices is, and how far that alone moves the step. What the "
        "model leaves out (uneven experts, slow nodes) is not in the interval."
    )
    widest = max(abs(c["step_s"]) for c in causes)
    rows = [
        [escape(c["cause"]), f"± {percent(c['spread'])}", f"± {seconds(abs(c['step_s']))}",
         bar(abs(c["step_s"]) / widest, STEPS[0].colour)] for c in causes
    ]  # fmt: skip
    head = ("Rests on", "Spread", "Step", "")
    body = table(head, rows[:SHOWN], (0, 3))
    if rows[SHOWN:]:
        body += details(f"{len(rows) - SHOWN} smaller ones", table(head, rows[SHOWN:], (0, 3)))
    return Section("certainty", "How sure is the step time", lead, body)
