"""From ideal compute to the step: what each cause adds."""

from html import escape
from itertools import accumulate

from reports.headline import percent, seconds
from reports.section import Section, plot, table
from sim.result import Bar, Result

LEAD = "What each cause adds, from {} to the step as it is. Each bar starts where the last ended."
FIRST, LESS, MORE, SUM = "#4a90c8", "#009e73", "#d98032", "#1f2a37"


def section(result: Result) -> Section | None:
    """The bars of `result.waterfall` with a closing one for the step, or None when there are none."""
    bars = result.waterfall
    if not bars:
        return None
    total = float(result.summary["step_time_s"])
    rows = [
        [f'<i class="dot" style="background:{_colour(i, bar)}"></i>{escape(bar.name)}', seconds_signed(bar.seconds),
         percent(bar.seconds / total), escape(bar.meaning)]
        for i, bar in enumerate(bars)
    ]  # fmt: skip
    rows.append(["<b>step</b>", f"<b>{seconds(total)}</b>", percent(1.0), "the sum of the bars"])
    side = table(("Part", "Time", "Share", "Meaning"), rows, text_columns=(0, 3))
    return Section("waterfall", "Where the step goes", LEAD.format(escape(bars[0].name)),
                   f'<div class="two">{plot("waterfall", "waterfall from ideal compute to the step")}{side}</div>',
                   {"bars": steps(bars, total)})  # fmt: skip


def steps(bars: tuple[Bar, ...], total: float) -> list[dict[str, str | float]]:
    """Every bar with where it starts (seconds), and the step of `total` seconds as a bar from zero."""
    ends = list(accumulate(bar.seconds for bar in bars))
    drawn: list[dict[str, str | float]] = [
        {"name": bar.name, "base": end - bar.seconds, "length": bar.seconds, "meaning": bar.meaning,
         "colour": _colour(i, bar)}
        for i, (bar, end) in enumerate(zip(bars, ends, strict=True))
    ]  # fmt: skip
    return [*drawn, {"name": "step", "base": 0.0, "length": total, "meaning": "The whole step.", "colour": SUM}]


def seconds_signed(value: float) -> str:
    """A time that may be taken off."""
    return seconds(value) if value >= 0 else f"−{seconds(-value)}"


def _colour(index: int, bar: Bar) -> str:
    return FIRST if index == 0 else MORE if bar.seconds >= 0 else LESS
