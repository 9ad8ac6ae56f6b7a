"""Feasibility of a run: whether every rank fits in its device's memory, and whether the scenario's limits are kept."""

from collections.abc import Iterator, Sequence
from typing import Any

from hwmodels.units import format_quantity
from sim.result import MemoryCurve
from sim.scenario.values import Limits, Scenario


def judged(
    scenario: Scenario, step_s: float, curves: Sequence[MemoryCurve], host_copy_s: float = 0.0, host_bytes: float = 0.0
) -> dict[str, Any]:
    """Verdict on a run, as result.json has it: `feasible`, and `infeasible` with a line for each reason against it.

    curves: of every pipeline position; none with chunk times. host_copy_s: of averaged parameters, beside a step.
    host_bytes: that a rank keeps in its host's memory, at most.
    """
    lines = [*_memory(scenario, curves), *_host_memory(scenario, host_bytes), *_host(step_s, host_copy_s)]
    lines += _limits(scenario.limits, step_s, curves)
    return {"feasible": not lines, "infeasible": lines}


def _memory(scenario: Scenario, curves: Sequence[MemoryCurve]) -> Iterator[str]:
    """The rank with the highest peak, where it does not fit."""
    worst = max(curves, key=lambda curve: curve.peak_bytes, default=None)
    if worst is None or scenario.cluster is None or worst.peak_bytes <= worst.capacity_bytes:
        return
    largest = max(worst.parts, key=lambda name: int(worst.parts[name].max()))
    yield (
        f"does not fit in memory: {worst.whose} needs {format_quantity(worst.peak_bytes, 'data')}, "
        f"{scenario.cluster.node.device.name} has {format_quantity(worst.capacity_bytes, 'data')}; the largest part is "
        f"{largest} with {format_quantity(int(worst.parts[largest].max()), 'data')}"
    )


def _host_memory(scenario: Scenario, needed: float) -> Iterator[str]:
    """What a rank keeps on its host, where that is more than a GPU's share of the host's memory."""
    if scenario.cluster is None or needed <= scenario.cluster.node.device.host.capacity_bytes:
        return
    share = format_quantity(scenario.cluster.node.device.host.capacity_bytes, "data")
    what = "master weights, moments and gradients" if scenario.optimizer.offloaded else "averaged parameters"
    what = f"activations, {what}" if scenario.offload else what
    yield (
        f"does not fit in the host's memory: {what} of a rank need {format_quantity(needed, 'data')}, "
        f"its GPU's share of {scenario.cluster.node.name} is {share}"
    )


def _host(step_s: float, host_copy_s: float) -> Iterator[str]:
    """The copy to the host that goes on beside a step, where it is not through by its end."""
    if host_copy_s > step_s:
        copy, step = format_quantity(host_copy_s, "time"), format_quantity(step_s, "time")
        yield f"the copy of averaged parameters to the host takes {copy}, more than the step of {step} beside it"


def _limits(limits: Limits, step_s: float, curves: Sequence[MemoryCurve]) -> Iterator[str]:
    """The limits that are missed."""
    if limits.step_time_s is not None and step_s > limits.step_time_s:
        duration, limit = format_quantity(step_s, "time"), format_quantity(limits.step_time_s, "time")
        yield f"the step takes {duration}, more than limits.step_time {limit}"
    peak = max((curve.peak_bytes for curve in curves), default=0)
    if limits.memory_bytes is not None and peak > limits.memory_bytes:
        needs, limit = format_quantity(peak, "data"), format_quantity(limits.memory_bytes, "data")
        yield f"a rank needs {needs}, more than limits.memory {limit}"
