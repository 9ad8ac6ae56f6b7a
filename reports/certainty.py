"""How sure the step time is: its 90 % interval, and what it rests on, largest first."""

from html import escape
from typing import Any

from reports.headline import percent, seconds
from reports.palette import STEPS
from reports.section import Section, bar, folded
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
        f"In nine cases of ten the step takes {seconds(low)} to {seconds(high)}. {_parts(result.summary)}Each row: how "
        "uncertain a group of prices is, and how far that alone moves the step, cheaper and dearer. "
        f"{_scope(result.summary)}"
    )
    widest = max(map(_size, causes))
    rows = [
        [escape(c["cause"]), f"± {percent(c['spread'])}", _signed(c["cheaper_s"]),
         _signed(c["step_s"]), bar(_size(c) / widest, STEPS[0].colour)] for c in causes
    ]  # fmt: skip
    head = ("Rests on", "Spread", "Cheaper", "Dearer", "")
    body = folded(head, rows, SHOWN, (0, 4), "smaller ones")
    return Section("certainty", "How sure is the step time", lead, body)


def _parts(summary: dict[str, Any]) -> str:
    """Either part of the interval by itself, and what the second one was learned on."""
    if not (parts := summary.get("interval_parts")):
        return ""
    prices, left = (" to ".join(map(seconds, parts[name])) for name in ("prices", "left_out"))
    words = (
        f"With prices as uncertain as their sources say it would be {prices}; what the model leaves out makes it "
        f"{left}, as far as {parts['groups']} measured layouts were off ({escape(parts['class']['kind'])}, "
        f"MFU {percent(parts['mfu'])})"
    )
    beside = ". Those errors hold some of what prices are uncertain by, so the whole counts only a part of it"
    open_ = ", ".join(map(escape, parts["unsaid"]))
    return words + (f", and wider because the scenario does not say {open_}" if open_ else "") + beside + ". "


def _size(cause: dict[str, Any]) -> float:
    return max(abs(float(cause[way])) for way in ("step_s", "cheaper_s"))


def _signed(move: float) -> str:
    return f"{'−' if move < 0 else '+'} {seconds(abs(move))}"


def _scope(summary: dict[str, Any]) -> str:
    """What the interval holds, and what it does not."""
    if not summary.get("critical_ranks"):
        return (
            "Runs are even: uneven loads and slow nodes are in the second part alone, as far as measured runs had them."
        )
    first = summary["critical_ranks"][0]
    return (
        "Loads, faults and jitter are held as they were; prices count on the ranks the step waits for "
        f"(rank {first['rank']}: {seconds(first['seconds'])} of it), as much more as those are slower."
    )
