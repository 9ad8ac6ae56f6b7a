"""Device memory of each rank over the step.

Constant parts: weights (a copy of each stage held), gradients, optimizer states of the ZeRO-1 shard, landing zones of
the exchange, temporaries. Activations rise when a forward starts and fall when its backward ends; where input and
weight gradients are split, what the weight gradient needs stays until it ends.

Where expert loads differ, what a micro-batch keeps goes by the tokens that a rank received and the expert rows it had,
and landing zones are as large as the most tokens that came at once; then the curve of a position is that of the rank
with the highest peak. Activations change in the order of a rank's own program, so the peak of every rank is the largest
of one running sum, whatever its clock says.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.units import whole_bytes
from sim.engine.timeline import Timeline
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.models.activations import Kept, landing_bytes
from sim.models.weights import weight_bytes
from sim.result import MemoryCurve
from sim.schedules.program import Step

if TYPE_CHECKING:
    from sim.routing.loads import Loads

Bytes = npt.NDArray[np.int64]


def curves(
    plan: Plan, machine: Machine, loads: "Loads | None", timeline: Timeline, column: int
) -> tuple[MemoryCurve, ...]:
    """One curve a pipeline position: of the rank with the highest peak where loads differ, of `column` where not."""
    kept = [_kept(machine, loads, stage) for stage in range(len(machine.stages))]
    return tuple(_curve(plan, machine, loads, timeline, p, kept, column) for p in range(plan.program.positions))


def _curve(
    plan: Plan, machine: Machine, loads: "Loads | None", timeline: Timeline, position: int,
    kept: Sequence[tuple[Bytes, Bytes]], column: int,
) -> MemoryCurve:  # fmt: skip
    moves, steps = list(changes(plan.program.steps[position])), timeline.positions[position]
    if loads is None:  # a number each, without an array a change
        each = {stage: (int(kept[stage][0][0, 0]), int(kept[stage][1][0, 0])) for stage in {c.stage for c in moves}}
        rows: Any = [c.forward * each[c.stage][0] + c.weight * each[c.stage][1] for c in moves]
    else:
        rows = [_delta(c, *kept[c.stage]) for c in moves]
    deltas = np.array(rows, dtype=np.int64).reshape(len(moves), -1)
    landing = _landing(machine, loads, moves)
    worst = int((np.cumsum(deltas, axis=0).max(axis=0, initial=0) + landing).argmax())
    shown = column if loads is None else worst
    starts, ends = (times[:, shown].tolist() for times in (steps.starts, steps.ends))
    times = [(ends if c.at_end else starts)[c.step] for c in moves]
    flat = constant(plan, machine, position)
    if machine.mixture:
        flat["communication buffers"] = int(landing[worst])
    capacity = machine.cluster.node.device.hbm.capacity_bytes
    rank = None if loads is None else plan.mesh.rank(position, worst)
    return curve(position, times, deltas[:, worst].tolist(), timeline.end, flat, capacity, rank)


def _delta(change: "Change", backward: Bytes, weight: Bytes) -> Bytes:
    """Bytes by which a change moves the activations [rank]. backward, weight: bytes [micro-batch, rank]."""
    return np.asarray(change.forward * backward[change.micro_batch] + change.weight * weight[change.micro_batch])


def _kept(machine: Machine, loads: "Loads | None", stage: int) -> tuple[Bytes, Bytes]:
    """Bytes of each micro-batch of a stage, until backward and until a split weight gradient [micro-batch, rank]."""
    own, site = machine.lowering, machine.site
    alike = (np.full((1, 1), site.received), np.full((1, 1), site.rows))
    out = []
    for kept in (own.kept, own.kept_for_weight):
        total: Any = np.zeros((1, 1) if loads is None else loads.received.shape[1:])
        for unit in machine.stages[stage]:
            each: Kept = kept(site, unit)
            drawn = alike
            if unit.routed and loads is not None:
                index = machine.routed.index(unit)
                drawn = (loads.received[index], loads.rows[index])
            total = total + each.bytes(*drawn)
        whole_bytes(float(np.max(total, initial=0.0)))
        out.append(np.rint(total).astype(np.int64))
    return out[0], out[1]


def _landing(machine: Machine, loads: "Loads | None", moves: Sequence["Change"]) -> Bytes:
    """Bytes of the landing zones of each rank: as many tokens as ever come at once, of the stages and micro-batches
    that its position runs."""
    if loads is None:
        return np.array([whole_bytes(machine.site.received * landing_bytes(machine.site))])
    most = np.zeros(loads.received.shape[2], dtype=np.int64)
    for stage in {c.stage for c in moves}:
        layers = [machine.routed.index(unit) for unit in machine.stages[stage] if unit.routed]
        micro_batches = sorted({c.micro_batch for c in moves if c.stage == stage})
        come = loads.received[np.ix_(layers, micro_batches)]
        most = np.maximum(most, come.max(axis=(0, 1), initial=0))
    return np.asarray(np.rint(most * landing_bytes(machine.site)), dtype=np.int64)


def constant(plan: Plan, machine: Machine, position: int) -> dict[str, int]:
    """Bytes that a rank holds through the whole step, by part."""
    recipe, site, local = machine.recipe, machine.site, optimizer.experts_held(plan, machine)
    weights = gradients = states = 0.0
    shards = [optimizer.shards(plan, machine, stage) for stage in plan.holds[position]]
    moments = optimizer.moments_each(plan, shards)
    for stage, held in zip(plan.holds[position], shards, strict=True):
        weights += weight_bytes(optimizer.stage_parameters(plan, machine, stage), local, recipe)
        gradients += (held.dense + held.experts) * recipe.gradient.bits / 8
        states += held.updated * (recipe.master.bits + moments * recipe.moment.bits) / 8
    return {
        "weights": whole_bytes(weights),
        "gradients": whole_bytes(gradients),
        "optimizer states": whole_bytes(states),
        **({"communication buffers": whole_bytes(site.received * landing_bytes(site))} if machine.mixture else {}),
        "workspace": whole_bytes(machine.lowering.workspace(machine.site)),
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


def curve(
    position: int, times: Sequence[int], deltas: Sequence[int], end: int, flat: Mapping[str, int], capacity: int,
    rank: int | None = None,
) -> MemoryCurve:  # fmt: skip
    """Activations from their changes, on top of what is held through the whole step. rank: of the cluster."""
    level = np.concatenate([[0], np.cumsum(np.array(deltas, dtype=np.int64))])
    when = np.array([0, *times, end], dtype=np.int64)
    parts = {name: np.full(len(when), size, dtype=np.int64) for name, size in flat.items()}
    return MemoryCurve(position, when, {**parts, "activations": np.append(level, level[-1])}, capacity, rank)
