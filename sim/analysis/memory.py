"""Device memory of each rank over the step.

Constant parts: weights, gradients, optimizer states, landing zones of the exchange, temporaries. Under ZeRO states are
a shard's; so are gradients (stage 2) and weights (stage 3), beside what is whole for a while (`sim.layout.buckets`).
Activations rise when a forward starts and fall when its backward ends, and while that runs are more by what it computes
again; where input and weight gradients are split, what the weight gradient needs stays
until it ends.

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
from sim.layout import buckets, optimizer
from sim.layout.machine import Machine
from sim.layout.passes import Change, Changes, changes
from sim.layout.placement import alike
from sim.layout.plan import Plan
from sim.models.activations import Kept, landing_bytes
from sim.models.layer import Unit
from sim.models.recompute import INSIDE
from sim.models.weights import weight_bytes
from sim.result import MemoryCurve

if TYPE_CHECKING:
    from sim.routing.loads import Loads

Bytes = npt.NDArray[np.int64]


def curves(
    plan: Plan, machine: Machine, loads: "Loads | None", timeline: Timeline, column: int
) -> tuple[MemoryCurve, ...]:
    """One curve a pipeline position: of the rank with the highest peak where loads differ, of `column` where not."""
    held = _each_held(machine, loads)
    return tuple(_curve(plan, machine, loads, timeline, p, held, column) for p in range(plan.program.positions))


def peak_bytes(plan: Plan, machine: Machine) -> int:
    """The highest peak of all positions where loads are even, without a run: activations come and go in the order of
    steps, whatever the clock says."""
    held = _each_held(machine, None)
    peaks, again, each = [0], _again(held), _amounts(held)
    for position in range(plan.program.positions):
        most = int(_alike(plan.passes.moved(position, again), each).cumsum().max(initial=0))
        peaks.append(sum(constant(plan, machine, position).values()) + most)
    return max(peaks)


RELOADED = 2
"""Layers whose activations are back from the host at once: the one at work, and the next. On their way there are as
many, of a forward, when fewer micro-batches are held."""


class Held(NamedTuple):
    """Bytes of each micro-batch of a stage [micro-batch, rank]: until backward, until a split weight gradient, and of
    what its backward has computed again, at most while it runs."""

    backward: Bytes
    weight: Bytes
    again: Bytes

    @property
    def alike(self) -> tuple[int, int, int]:
        """Of any micro-batch and rank, where all are alike."""
        return int(self.backward[0, 0]), int(self.weight[0, 0]), int(self.again[0, 0])


def _curve(
    plan: Plan, machine: Machine, loads: "Loads | None", timeline: Timeline, position: int, held: Sequence[Held],
    column: int,
) -> MemoryCurve:  # fmt: skip
    again, steps = _again(held), timeline.positions[position]
    moves = plan.passes.moved(position, again)
    if loads is None:
        deltas, landing = _alike(moves, _amounts(held))[:, None], _landed(machine)
    else:
        drawn = [*changes(plan.program.steps[position], again)]
        deltas = np.array([_delta(c, held[c.stage]) for c in drawn], dtype=np.int64).reshape(len(drawn), -1)
        landing = _landing(machine, loads, drawn)
    worst = int((np.cumsum(deltas, axis=0).max(axis=0, initial=0) + landing).argmax())
    shown = column if loads is None else worst
    ends = steps.ends[:, shown].tolist()
    times = np.where(moves.at_end, steps.ends[moves.step, shown], steps.starts[moves.step, shown])
    flat = constant(plan, machine, position)
    if machine.mixture:
        flat["communication buffers"] = int(landing[worst])
    capacity = machine.cluster.node.device.hbm.capacity_bytes
    come = [(ends[step] if step >= 0 else 0, size) for step, size in _gradients(plan, machine, position)]
    rank = None if loads is None else plan.mesh.rank(position, worst)
    return curve(position, times, deltas[:, worst], timeline.end, flat, capacity, rank, come)


def _gradients(plan: Plan, machine: Machine, position: int) -> Iterator[tuple[int, int]]:
    """Step of a position and bytes of the gradients that it makes for the first time in a training step, where they are
    not kept from one to the next; -1 of what is kept: buckets beside them. They come as activations go, so that those
    that are whole until they are reduced count from the first backward's end on."""
    if not machine.site.stack.frees_gradients:
        return
    for stage in plan.holds[position]:
        steps = enumerate(plan.program.passes[position])
        first = next(i for i, passes in steps if any((letter, of) == ("W", stage) for letter, of, _ in passes))
        kept, made = buckets.gradients(plan, machine, stage)
        yield -1, whole_bytes(kept * machine.recipe.gradient.bits / 8)
        yield first, whole_bytes(made * machine.recipe.gradient.bits / 8)


def _again(held: Sequence[Held]) -> frozenset[int]:
    """Stages whose backward computes some of their activations again."""
    return frozenset(stage for stage, of in enumerate(held) if of.again.any())


def hosted_bytes(plan: Plan, machine: Machine) -> int:
    """Activations that wait on a rank's host at most, of any position."""
    away = [sum(unit.hosted for unit in stage) for stage in machine.stages]
    if not any(away):
        return 0
    moves, each = plan.passes.moves, np.array(away, dtype=np.int64)
    return max(int((of.amounts[0] * each[of.stage]).cumsum().max(initial=0)) for of in moves)


def _amounts(held: Sequence[Held]) -> Bytes:
    """What micro-batches hold where ranks are alike, as `Held` has it [3, stage]."""
    return np.array([of.alike for of in held], dtype=np.int64).T


def _alike(moves: Changes, each: Bytes) -> Bytes:
    """Bytes by which changes move the activations of ranks that are alike [change]. each: of `_amounts`."""
    return np.asarray((moves.amounts * each[:, moves.stage]).sum(axis=0))


def _delta(change: Change, held: Held) -> Bytes:
    """Bytes by which a change moves the activations [rank]."""
    parts = zip(change.amounts, held, strict=True)
    return np.asarray(sum(amount * part[change.micro_batch] for amount, part in parts if amount))


def _each_held(machine: Machine, loads: "Loads | None") -> list[Held]:
    """What the micro-batches of each stage hold: where ranks are alike, stages of the same kinds of units the same."""
    if loads is not None:
        return [_held(machine, loads, units) for units in machine.stages]
    stages = [alike(units) for units in machine.stages]
    known = {units: _held(machine, None, units) for units in set(stages)}
    return [known[units] for units in stages]


def _held(machine: Machine, loads: "Loads | None", units: Sequence[Unit]) -> Held:
    """What the micro-batches of some units hold."""
    backward, weight = (_bytes(machine, loads, what, units) for what in ("kept", "kept_for_weight"))
    again, away = np.zeros_like(backward), [unit.hosted for unit in units]
    backward = backward - sum(away)
    for group in _groups(units):
        if any(machine.holds("regained", unit) != Kept() for unit in group):
            again = np.maximum(again, _bytes(machine, loads, "regained", group))
    return Held(backward, weight, again + RELOADED * max(away, default=0))


def _groups(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Layers that are computed again together, and others one by one."""
    group: list[Unit] = []
    for unit in units:
        if group and unit.checkpoint != INSIDE:
            yield group
            group = []
        group.append(unit)
    yield group


def _bytes(machine: Machine, loads: "Loads | None", what: str, units: Sequence[Unit]) -> Bytes:
    """Bytes of some units together, `what` each holds at its load [micro-batch, rank]."""
    site = machine.site
    alike = (np.full((1, 1), site.received), np.full((1, 1), site.rows))
    total: Any = np.zeros((1, 1) if loads is None else loads.received.shape[1:])
    for unit in units:
        drawn = alike
        if unit.routed and loads is not None:
            index = machine.routed.index(unit)
            drawn = (loads.received[index], loads.rows[index])
        total = total + machine.holds(what, unit).bytes(*drawn)
    whole_bytes(float(np.max(total, initial=0.0)))
    return np.asarray(np.rint(total), dtype=np.int64)


def _landed(machine: Machine) -> Bytes:
    """Bytes of the landing zones of ranks that are alike [1]."""
    return np.array([whole_bytes(machine.site.received * landing_bytes(machine.site))])


def _landing(machine: Machine, loads: "Loads", moves: Sequence[Change]) -> Bytes:
    """Bytes of the landing zones of each rank: as many tokens as ever come at once, of the stages and micro-batches
    that its position runs."""
    most = np.zeros(loads.received.shape[2], dtype=np.int64)
    for stage in {c.stage for c in moves}:
        layers = [machine.routed.index(unit) for unit in machine.stages[stage] if unit.routed]
        micro_batches = sorted({c.micro_batch for c in moves if c.stage == stage})
        come = loads.received[np.ix_(layers, micro_batches)]
        most = np.maximum(most, come.max(axis=(0, 1), initial=0))
    return np.asarray(np.rint(most * landing_bytes(machine.site)), dtype=np.int64)


def constant(plan: Plan, machine: Machine, position: int) -> dict[str, int]:
    """Bytes that a rank holds through the whole step, by part."""
    recipe, site = machine.recipe, machine.site
    weights = gradients = states = 0.0
    shards = [optimizer.shards(plan, machine, stage) for stage in plan.holds[position]]
    moments = optimizer.moments_each(plan, shards)
    for stage, held in zip(plan.holds[position], shards, strict=True):
        weights += _weights(plan, machine, stage)
        gradients += sum(buckets.gradients(plan, machine, stage)) * recipe.gradient.bits / 8
        updated = 0.0 if plan.scenario.optimizer.offloaded else held.updated
        states += updated * (recipe.master.bits / 8 + moments * recipe.moment.row_bytes(1))
    return {
        "weights": whole_bytes(weights),
        "gradients": whole_bytes(gradients),
        "optimizer states": whole_bytes(states),
        **({"communication buffers": whole_bytes(site.received * landing_bytes(site))} if machine.mixture else {}),
        "workspace": whole_bytes(machine.workspace),
    }


def _weights(plan: Plan, machine: Machine, stage: int) -> float:
    """Bytes of a stage's weights: as products read them, and shards as they are gathered."""
    local, (some, shard) = optimizer.experts_held(plan, machine), buckets.weights(plan, machine, stage)
    parameters = optimizer.stage_parameters(plan, machine, stage)
    whole = weight_bytes(parameters, local, machine.recipe)
    shards = optimizer.shards(plan, machine, stage)
    return whole * some / (shards.dense + shards.experts) + shard * machine.recipe.gather.bits / 8


def curve(
    position: int, times: Sequence[int] | Bytes, deltas: Sequence[int] | Bytes, end: int, flat: Mapping[str, int],
    capacity: int, rank: int | None = None, gradients: Sequence[tuple[int, int]] = (),
) -> MemoryCurve:  # fmt: skip
    """Activations from their changes, on top of what is held through the whole step. rank: of the cluster. gradients:
    when they come, and bytes, where they are not held through the whole step."""
    level = np.concatenate([[0], np.cumsum(np.array(deltas, dtype=np.int64))])
    when = np.array([0, *times, end], dtype=np.int64)
    parts = {name: np.full(len(when), size, dtype=np.int64) for name, size in flat.items()}
    if gradients:
        parts["gradients"] = np.sum([(when >= time) * size for time, size in gradients], axis=0, dtype=np.int64)
    return MemoryCurve(position, when, {**parts, "activations": np.append(level, level[-1])}, capacity, rank)
