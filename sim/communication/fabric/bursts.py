"""The network traffic of one training step: what each pipeline position sends, and which spans of a trace carry it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hwmodels.op import AllToAll, Collective
from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.flows import GRADIENTS, PARAMETERS, PIPELINE, Flows, between, exchange, rings
from sim.layout import optimizer
from sim.layout.buckets import GATHER, REDUCE, REST, buckets, named_part
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.layout.shards import AGAIN, EVERY, NEVER, moves
from sim.layout.traffic import BACKWARD, FORWARD, SPANS, Ring, members
from sim.models.layer import Part, Unit
from sim.trace import LANES

SENDS = {FORWARD: "send activations", BACKWARD: "send gradients"}
"""What an output is called on a trace."""


@dataclass(frozen=True)
class Burst:
    """Traffic of one step that the spans of one kind at one pipeline position carry.

    lane: index into LANES. shares: label of a span -> its bytes, relative to the others'. stage: of the spans, -1 for
    any. flows: bytes of the whole step, all replicas. target: position that messages go to. ring: of gradients and
    parameters, as `sim.layout.machine.Hindrances` names it.
    """

    position: int
    lane: int
    shares: Mapping[str, float]
    stage: int
    flows: Flows
    target: int = -1
    ring: tuple[str, int, bool] | None = None


def bursts(plan: Plan, machine: Machine, cabling: Cabling) -> tuple[Burst, ...]:
    """All traffic of a step but for the gradient norm's few bytes and what stays in nodes; in the order of KINDS."""
    positions = range(plan.program.positions)
    traffic = (
        *(burst for p in positions for burst in _exchanges(plan, machine, cabling, p)),
        *(burst for p in positions for burst in _sends(plan, machine, cabling, p)),
        *_gradients(plan, machine, cabling),
    )
    return tuple(burst for burst in traffic if len(burst.flows))


def wire_bytes(machine: Machine) -> list[tuple[Unit, Part, float]]:
    """The exchanges of each sort of layer with experts, and the bytes that cross a rank's NICs in each; balanced
    routing."""
    return [
        (unit, part, kernel.op.wire_bytes())
        for unit in machine.routed_sorts
        for direction in "FB"
        for part in machine.parts(unit, direction)
        for kernel in part.kernels
        if isinstance(kernel.op, AllToAll)
    ]


def _exchanges(plan: Plan, machine: Machine, cabling: Cabling, position: int) -> Iterator[Burst]:
    """Expert groups: a rank's bytes go to the other nodes of its group in equal parts."""
    expert, wire = plan.scenario.parallel.expert, wire_bytes(machine)
    nodes = -(-expert // cabling.gpus)
    layers = [Counter(unit.checkpoint != "" for unit in stage if unit.routed) for stage in machine.stages]
    passes: Counter[tuple[str, bool]] = Counter()
    for step in plan.program.steps[position]:
        for letter, stage, _ in step.passes():
            passes.update({(letter, again): count for again, count in layers[stage].items()})
    total = sum(size * passes[part.direction, unit.checkpoint != ""] for unit, part, size in wire)
    if nodes < 2 or not total:
        return
    each = total * min(expert, cabling.gpus) / (nodes - 1)
    flows = exchange(cabling, plan.mesh.of_position(position), expert, np.full((nodes, nodes), each))
    shares = {part.label: size for _, part, size in wire}
    yield Burst(position, LANES.index("communication"), shares, -1, flows)


def _sends(plan: Plan, machine: Machine, cabling: Cabling, position: int) -> Iterator[Burst]:
    """Outputs of a stage whose neighbour lives elsewhere, one burst for each stage, pass and place they go to."""
    size = machine.site.own * machine.recipe.boundary.row_bytes(machine.site.shape.hidden)
    ranks = plan.mesh.of_position(position)
    for (output, stage, target), count in plan.messages.flows(position).items():
        carried = machine.streams[stage - (output != FORWARD)]
        moment = 2 * (output - FORWARD) + (target > position)
        flows = between(cabling, ranks, plan.mesh.of_position(target), carried * size * count, PIPELINE, moment=moment)
        yield Burst(position, LANES.index("network"), {SENDS[output]: 1.0}, stage, flows, target)


def _gradients(plan: Plan, machine: Machine, cabling: Cabling) -> Iterator[Burst]:
    """Rings of each stage; the first position that holds the stage stands for all. What is reduced after every backward
    or gathered in passes goes as often."""
    own, recipe = moves(plan.scenario), machine.recipe
    for stage in range(plan.program.stages):
        around = optimizer.rings(plan, machine, stage)
        whole = [ring for ring in around if not ring.between] if own.zero else []
        main = optimizer.reducing(plan, machine, around[0]).kind
        for ring in around:
            op = optimizer.reducing(plan, machine, ring)
            size = Collective(op.kind, ring.parameters * recipe.gradient.bits / 8, ring.ranks, 1).bytes()
            yield from _around(plan, machine, cabling, ring, size, GRADIENTS, (op.kind, main))
        for ring in whole:
            size = Collective("all_gather", ring.parameters * recipe.gather.bits / 8, ring.ranks, 1).bytes()
            yield from _around(plan, machine, cabling, ring, size, PARAMETERS, ("all_gather", "all_gather"))


def _around(
    plan: Plan, machine: Machine, cabling: Cabling, ring: Ring, size: float, kind: int, collective: tuple[str, str]
) -> Iterator[Burst]:  # fmt: skip
    """Traffic of a ring, `size` bytes each time. collective: its kind, and that which the spans are called by."""
    stage, holders = ring.stage, plan.holders(ring.stage)
    if not size or ring.ranks < 2:
        return
    inside, times = _times(plan, stage, kind)
    queue, moment = 2 * (stage + ring.between * plan.program.stages) + ring.experts, 2 * ring.between + ring.experts
    flows = rings(cabling, members(plan.mesh, holders, ring), size * times, kind, queue, moment)
    named = collective[0], stage, ring.experts
    if inside:
        whats, parts = (GATHER, REST) if kind == PARAMETERS else (REDUCE,), buckets(plan, machine, stage)
        shares = {f"{named_part(what, b)}({half})": b.size for b in parts for what in whats for half in "FBW"}
        yield Burst(holders[0], LANES.index("communication"), shares, stage, flows, ring=named)
    else:
        of = stage if kind == GRADIENTS else -1  # parameters of all stages go in one span
        yield Burst(holders[0], LANES.index("network"), {SPANS[collective[1]]: 1.0}, of, flows, ring=named)


def _times(plan: Plan, stage: int, kind: int) -> tuple[bool, int]:
    """Whether gradients or parameters of a stage move inside its passes, and how often a step."""
    own, position = moves(plan.scenario), plan.holders(stage)[0]
    passes = sum(letter == "F" and of == stage for row in plan.program.passes[position] for letter, of, _ in row)
    if kind == GRADIENTS:
        return own.reduces != NEVER, passes if own.reduces == EVERY else 1
    return own.gathers != NEVER, passes * {EVERY: 1, AGAIN: 2}[own.gathers] if own.gathers in (EVERY, AGAIN) else 1
