"""Device memory of each rank over the step.

Constant parts: weights (a copy of each stage held), gradients, optimizer states of the ZeRO-1 shard, landing zones of
the exchange, temporaries. Activations rise when a forward starts and fall when its backward ends; where input and
weight gradients are split, what the weight gradient needs stays until it ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sim import optimizer
from sim.models.activations import landing_bytes
from sim.models.weights import weight_bytes
from sim.plan import Machine, Plan, slots
from sim.program import Step
from sim.result import MemoryCurve
from sim.trace import Trace


def curves(plan: Plan, machine: Machine, steps: Trace) -> tuple[MemoryCurve, ...]:
    """One curve a pipeline position."""
    capacity = machine.cluster.node.device.hbm.capacity_bytes
    kept = [_kept(machine, stage) for stage in range(len(machine.stages))]
    return tuple(_curve(plan, machine, steps, p, kept, capacity) for p in range(plan.program.ranks))


def _kept(machine: Machine, stage: int) -> tuple[int, int]:
    """Bytes of one micro-batch of a stage: from forward to backward, and from split backward to weight gradient."""
    units = machine.stages[stage]
    site, recompute, own = machine.site, machine.recompute, machine.family
    forward = sum(own.kept(site, u, recompute).at(site) for u in units)
    weight = sum(own.kept_for_weight(site, u, recompute).at(site) for u in units)
    return round(forward), round(weight)


def constant(plan: Plan, machine: Machine, position: int) -> dict[str, int]:
    """Bytes that a rank holds through the whole step, by part."""
    recipe, mixture, site = machine.recipe, machine.mixture, machine.site
    local = slots(plan.scenario, mixture) / mixture.experts / plan.scenario.parallel.expert if mixture else 0.0
    weights = gradients = states = 0.0
    for stage in plan.holds[position]:
        held = optimizer.shards(plan, machine, stage)
        weights += weight_bytes(optimizer.stage_parameters(plan, machine, stage), local, recipe)
        gradients += (held.dense + held.experts) * recipe.gradient.bits / 8
        states += held.updated * (recipe.master.bits + 2 * recipe.moment.bits) / 8
    return {
        "weights": round(weights),
        "gradients": round(gradients),
        "optimizer states": round(states),
        **({"communication buffers": round(site.received * landing_bytes(site))} if mixture else {}),
        "workspace": round(machine.family.workspace(site, machine.recompute)),
    }


class Change(NamedTuple):
    """Activations of one micro-batch of a stage come or go. at_end: of the step, else at its start. forward, weight:
    how often what waits for backward, and what waits for a split weight gradient, is added."""

    step: int
    at_end: bool
    stage: int
    micro_batch: int
    forward: int
    weight: int


def changes(steps: Sequence[Step]) -> Iterator[Change]:
    """What the steps of one rank do to its activations, in the order of time."""
    for i, step in enumerate(steps):
        for letter, stage, micro_batch in step.passes():
            if letter == "F":
                yield Change(i, False, stage, micro_batch, 1, 0)
            elif letter == "B":
                yield Change(i, True, stage, micro_batch, -1, 0 if step.kind.endswith("W") else 1)
            elif step.kind == "W":
                yield Change(i, True, stage, micro_batch, 0, -1)


def _curve(
    plan: Plan, machine: Machine, steps: Trace, position: int, kept: list[tuple[int, int]], capacity: int
) -> MemoryCurve:
    own = steps.of_rank(position)
    found = list(changes(plan.program.steps[position]))
    times = [(own.end if c.at_end else own.start)[c.step] for c in found]
    deltas = [c.forward * kept[c.stage][0] + c.weight * kept[c.stage][1] for c in found]
    return curve(position, times, deltas, int(steps.end.max()), constant(plan, machine, position), capacity)


def curve(
    position: int, times: Sequence[int], deltas: Sequence[int], end: int, flat: Mapping[str, int], capacity: int,
    rank: int | None = None,
) -> MemoryCurve:  # fmt: skip
    """Activations from their changes, on top of what is held through the whole step. rank: of the cluster."""
    level = np.concatenate([[0], np.cumsum(np.array(deltas, dtype=np.int64))])
    when = np.array([0, *times, end], dtype=np.int64)
    parts = {name: np.full(len(when), size, dtype=np.int64) for name, size in flat.items()}
    return MemoryCurve(position, when, {**parts, "activations": np.append(level, level[-1])}, capacity, rank)


def verdict(curves: tuple[MemoryCurve, ...], machine: Machine) -> tuple[bool, str]:
    """Whether every rank fits, and one line if one does not."""
    worst = max(curves, key=lambda c: c.peak_bytes)
    if worst.peak_bytes <= worst.capacity_bytes:
        return True, ""
    from hwmodels.units import format_quantity

    largest = max(worst.parts, key=lambda name: int(worst.parts[name].max()))
    return False, (
        f"does not fit in memory: {worst.whose} needs {format_quantity(worst.peak_bytes, 'data')}, "
        f"{machine.cluster.node.device.name} has {format_quantity(worst.capacity_bytes, 'data')}; the largest part is "
        f"{largest} with {format_quantity(int(worst.parts[largest].max()), 'data')}"
    )
