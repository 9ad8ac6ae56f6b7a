"""Device memory of each rank over the step.

Constant parts: weights (a copy of each stage held), gradients, optimizer states of the ZeRO-1 shard, landing zones of
the exchange, temporaries. Activations rise when a forward starts and fall when its backward ends; where input and
weight gradients are split, what the weight gradient needs stays until it ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hwmodels.units import whole_bytes
from sim import footprint, optimizer
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
    forward = sum(footprint.kept_for_backward(machine.site, u) for u in units)
    weight = sum(footprint.kept_for_weight(machine.site, u) for u in units)
    return whole_bytes(forward), whole_bytes(weight)


def constant(plan: Plan, machine: Machine, position: int) -> dict[str, int]:
    """Bytes that a rank holds through the whole step, by part."""
    recipe = machine.recipe
    local = slots(plan.scenario) / machine.site.shape.experts / plan.scenario.parallel.expert
    weights = gradients = states = 0.0
    for stage in plan.holds[position]:
        held = optimizer.shards(plan, machine, stage)
        weights += footprint.weight_bytes(optimizer.stage_parameters(plan, machine, stage), local, recipe)
        gradients += (held.dense + held.experts) * recipe.gradient.bits / 8
        states += held.updated * (recipe.master.bits + 2 * recipe.moment.bits) / 8
    return {
        "weights": whole_bytes(weights),
        "gradients": whole_bytes(gradients),
        "optimizer states": whole_bytes(states),
        "communication buffers": whole_bytes(footprint.exchange_buffer_bytes(machine.site)),
        "workspace": whole_bytes(footprint.workspace_bytes(machine.site)),
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
