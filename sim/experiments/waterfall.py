"""What makes the difference of two steps: bars of both waterfalls in whole nanoseconds, by what they are part of."""

from collections.abc import Mapping
from math import floor

import numpy as np

from hwmodels.units import NS_PER_S
from sim.result import Result
from sim.result.comparison import Cause

COMPUTE, HOST, EXCHANGE, BUBBLE, DATA = "compute", "host", "exchange", "bubble", "data-parallel"
GROUPS = {
    "ideal compute": COMPUTE, "product efficiency": COMPUTE, "memory-bound kernels": COMPUTE, "compute": COMPUTE,
    "launch gaps": HOST, "contention": EXCHANGE, "exposed communication": EXCHANGE, "waiting for peers": EXCHANGE,
    "waits inside steps": EXCHANGE, "pipeline fill": BUBBLE, "waiting for activations": BUBBLE,
    "waiting for gradients": BUBBLE, "waiting for own sends": BUBBLE, "pipeline drain": BUBBLE, "optimizer": DATA,
}  # fmt: skip
"""Bar of the waterfall -> what it is a part of."""
TAIL = "gradient reduction", "after the last step of all ranks, until all gradients are reduced"
DRAIN = "pipeline drain"


def causes(a: Result, b: Result) -> tuple[Cause, ...]:
    """Parts of both steps, those of either; of a run they add up to its step in whole ns."""
    rows = [parts(each) for each in (a, b)]
    meanings = {bar.name: bar.meaning for each in (a, b) for bar in each.waterfall} | dict([TAIL])
    names = sorted({name for row in rows for name in row}, key=_place)
    return tuple(
        Cause(GROUPS.get(name, DATA), name, meanings[name], *(row.get(name, 0) for row in rows)) for name in names
    )


def _place(name: str) -> int:
    order = list(GROUPS)
    return order.index(name) if name in order else order.index("optimizer")


def parts(result: Result) -> dict[str, int]:
    """Bars of the waterfall in whole ns, which add up to the step; what reduces gradients apart from the drain."""
    bars = {bar.name: bar.seconds * NS_PER_S for bar in result.waterfall}
    if DRAIN in bars:
        tail = min(_tail(result), bars[DRAIN])
        bars |= {DRAIN: bars[DRAIN] - tail, TAIL[0]: tail}
    return whole(bars, round(result.summary["step_time_s"] * NS_PER_S))


def _tail(result: Result) -> float:
    """ns from the end of everybody's last step to the update, mean over positions."""
    from sim.result.trace import PHASES

    steps, last = result.steps, PHASES.index("optimizer")
    work, update = steps.where(steps.phase != last), steps.where(steps.phase == last)
    if not len(update):
        return float(result.summary["step_time_s"] * NS_PER_S - work.end.max())
    return float(max(0.0, np.mean(update.start) - work.end.max()))


def whole(parts: Mapping[str, float], total: int) -> dict[str, int]:
    """Parts rounded to whole numbers that add up to `total`, each by less than one where they nearly do already."""
    down = {name: floor(value) for name, value in parts.items()}
    order = sorted(parts, key=lambda name: down[name] - parts[name])
    for place in range(total - sum(down.values())):
        down[order[place % len(order)]] += 1
    return down
