"""What binds a run: the resource that most of its step goes to, by how much, and what would bind next.

From the run's own waterfall, whose bars are laid to what they wait for; what is hidden beside compute binds nothing
yet, and says from how many times as long on it would fill the steps. Where the step hangs on what, by moving it, is
`sim.experiments.sensitivity`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hwmodels.units import PERCENT
from sim.result import Bar

COMMUNICATION, COMPUTE, TENSOR_CORES = "communication", "compute", "tensor cores"
FAR = "products far below peak"
"""Of tensor cores: they wait for memory, or are too small to fill the device."""
NEAR_PEAK = 1 / 3
"""Part of the peak from which on products and attention are laid to tensor cores. A judgement."""
RESOURCES = {
    "ideal compute": TENSOR_CORES, "product efficiency": TENSOR_CORES, "compute": COMPUTE,
    "memory-bound kernels": "memory bandwidth", "launch gaps": "launches of kernels", "contention": COMMUNICATION,
    "exposed communication": COMMUNICATION, "waiting for peers": "slower ranks", "waits inside steps": COMMUNICATION,
    "pipeline fill": "the pipeline", "waiting for activations": "the pipeline", "waiting for gradients": "the pipeline",
    "waiting for own sends": "the pipeline", "pipeline drain": "the pipeline", "optimizer": "the update of weights",
}  # fmt: skip
"""Bar of the waterfall -> what sets how long it is."""
IN_COMPUTE = ("ideal compute", "product efficiency", "memory-bound kernels", "launch gaps", "contention")
"""Bars that communication can hide behind."""


def binds(bars: Sequence[Bar], summary: Mapping[str, Any]) -> dict[str, Any]:
    """What result.json says. bars: of the waterfall, which add up to the step. summary: figures of the run."""
    spent: dict[str, float] = {}
    for bar in bars:
        spent[RESOURCES[bar.name]] = spent.get(RESOURCES[bar.name], 0.0) + bar.seconds
    ideal = sum(bar.seconds for bar in bars if bar.name == "ideal compute")
    if ideal < NEAR_PEAK * spent.get(TENSOR_CORES, 0.0):
        spent[FAR] = spent.pop(TENSOR_CORES)
    first, *others = sorted(spent, key=lambda name: -spent[name])
    step = float(summary["step_time_s"])
    rows = [{"resource": name, "seconds": spent[name], "share": spent[name] / step} for name in (first, *others[:1])]
    after = rows[1] if others and spent[others[0]] > 0 else None
    plain = {**rows[0], "next": after, "hidden_times": _hidden_times(bars, summary)}
    return {**plain, "line": _line(plain, _link(summary))}


MOST = 0.5
"""Communication of which a smaller part is hidden is not said to be."""


def _hidden_times(bars: Sequence[Bar], summary: Mapping[str, Any]) -> float | None:
    """How many times as long communication would be as long as the compute that it hides behind; None where most
    of it is exposed, or all is hidden, or it already is."""
    hidden = summary["overlap_fraction"]
    exposed, compute = summary["exposed_communication_s"], sum(bar.seconds for bar in bars if bar.name in IN_COMPUTE)
    if not hidden or not MOST <= hidden < 1 or not exposed:
        return None
    times = float(compute / (exposed / (1 - hidden)))
    return times if times > 1 else None


def _link(summary: Mapping[str, Any]) -> str:
    """What limits the longest exchange, in brackets, or nothing."""
    rows = summary.get("communication") or ()
    longest = max(rows, key=lambda row: row.get("beside_s") or row["alone_s"], default=None)
    return f" ({longest['limited_by']})" if longest else ""


def _line(plain: Mapping[str, Any], link: str) -> str:
    first, after, times = plain["resource"], plain["next"], plain["hidden_times"]
    words = f"bound by {_named(first, link)}: {plain['share'] / PERCENT:.0f} % of the step"
    if after:
        words += f"; next {_named(after['resource'], link)}, {after['share'] / PERCENT:.0f} %"
    if times and COMMUNICATION not in (first, after and after["resource"]):
        words += f"; communication{link} is hidden, and would fill the steps at {times:.2g} times as long"
    return words


def _named(resource: str, link: str) -> str:
    return f"{resource}{link}" if resource == COMMUNICATION else resource
