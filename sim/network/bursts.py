"""The network traffic of one training step: what each pipeline position sends, and which spans of a trace carry it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hwmodels.op import AllToAll, Collective
from sim import optimizer
from sim.models.layer import Part
from sim.network.cabling import Cabling
from sim.network.flows import GRADIENTS, PARAMETERS, PIPELINE, Flows, between, exchange, rings
from sim.network.routes import Numbers
from sim.plan import Machine, Plan
from sim.trace import LANES

SENDS = {"F": ("send activations", 1), "B": ("send gradients", -1)}
"""Pass -> what its output is called on a trace, and how many stages further it goes."""


@dataclass(frozen=True)
class Burst:
    """Traffic of one step that the spans of one kind at one pipeline position carry.

    lane: index into LANES. shares: label of a span -> its bytes, relative to the others'. stage: of the spans, -1 for
    any. flows: bytes of the whole step, all replicas. target: position that messages go to. ring: of gradients and
    parameters, as `sim.plan.Hindrances` names it.
    """

    position: int
    lane: int
    shares: Mapping[str, float]
    stage: int
    flows: Flows
    target: int = -1
    ring: tuple[str, int, int] | None = None


def bursts(plan: Plan, machine: Machine, cabling: Cabling) -> tuple[Burst, ...]:
    """All traffic of a step but for the gradient norm's few bytes and what stays in nodes; in the order of KINDS."""
    positions = range(plan.program.ranks)
    found = (
        *(burst for p in positions for burst in _exchanges(plan, machine, cabling, p)),
        *(burst for p in positions for burst in _sends(plan, machine, cabling, p)),
        *_gradients(plan, machine, cabling),
    )
    return tuple(burst for burst in found if len(burst.flows))


def _ranks(plan: Plan, position: int) -> Numbers:
    """Global numbers of a position's replicas."""
    return np.arange(position * plan.data, (position + 1) * plan.data)


def wire_bytes(machine: Machine) -> list[tuple[Part, float]]:
    """The exchanges of a layer with experts, and the bytes that cross a rank's NICs in each; balanced routing."""
    return [
        (part, kernel.op.wire_bytes())
        for unit in machine.routed[:1]
        for direction in "FB"
        for part in machine.parts(unit, direction)
        for kernel in part.kernels
        if isinstance(kernel.op, AllToAll)
    ]


def _exchanges(plan: Plan, machine: Machine, cabling: Cabling, position: int) -> Iterator[Burst]:
    """Expert groups: a rank's bytes go to the other nodes of its group in equal parts."""
    expert, wire = plan.scenario.parallel.expert, wire_bytes(machine)
    nodes = -(-expert // cabling.gpus)
    layers = [sum(unit.routed for unit in stage) for stage in machine.stages]
    passes: Counter[str] = Counter()
    for step in plan.program.steps[position]:
        for letter, stage, _ in step.passes():
            passes[letter] += layers[stage]
    total = sum(size * passes[part.direction] for part, size in wire)
    if nodes < 2 or not total:
        return
    each = total * min(expert, cabling.gpus) / (nodes - 1)
    flows = exchange(cabling, _ranks(plan, position), expert, np.full((nodes, nodes), each))
    shares = {part.label: size for part, size in wire}
    yield Burst(position, LANES.index("communication"), shares, -1, flows)


def _sends(plan: Plan, machine: Machine, cabling: Cabling, position: int) -> Iterator[Burst]:
    """Outputs of a stage whose neighbour lives elsewhere, one burst for each stage, pass and place they go to."""
    counts: Counter[tuple[str, int, int]] = Counter()
    for step in plan.program.steps[position]:
        for letter, stage, micro_batch in step.passes():
            ahead = SENDS[letter][1] if letter in SENDS else 0
            target = plan.homes.get((stage + ahead, micro_batch), position)
            if ahead and target != position:
                counts[letter, stage, target] += 1
    size = machine.site.tokens * machine.recipe.boundary.row_bytes(machine.site.shape.hidden)
    ranks = _ranks(plan, position)
    for (letter, stage, target), count in counts.items():
        goes, moment = ranks + (target - position) * plan.data, 2 * list(SENDS).index(letter) + (target > position)
        flows = between(cabling, ranks, goes, size * count, PIPELINE, moment=moment)
        yield Burst(position, LANES.index("network"), {SENDS[letter][0]: 1.0}, stage, flows, target)


def _gradients(plan: Plan, machine: Machine, cabling: Cabling) -> Iterator[Burst]:
    """Rings of each stage, those of the experts a replica apart; the first that holds the stage stands for all."""
    recipe, expert = machine.recipe, plan.scenario.parallel.expert
    traffic = (
        ("reduce_scatter", "reduce-scatter", recipe.gradient, GRADIENTS),
        ("all_gather", "all-gather", recipe.gather, PARAMETERS),
    )
    for stage in range(plan.program.stages):
        holders = [p for p, held in enumerate(plan.holds) if stage in held]
        ranks = np.concatenate([_ranks(plan, p) for p in holders])
        replicas = np.arange(len(ranks)).reshape(-1, expert).T
        held = optimizer.shards(plan, machine, stage)
        for collective, label, form, kind in traffic:
            for which, (count, members) in enumerate(((held.dense, ranks[None]), (held.experts, ranks[replicas]))):
                size = Collective(collective, count * form.bits / 8, members.shape[1], 1).bytes()
                if size and members.shape[1] > 1:
                    flows = rings(cabling, members, size, kind, 2 * stage + which, which)
                    of = stage if kind == GRADIENTS else -1  # parameters of all stages go in one span
                    ring = (collective, stage, which)
                    yield Burst(holders[0], LANES.index("network"), {label: 1.0}, of, flows, ring=ring)
