"""The network traffic of one training step: what each pipeline position sends, and which spans of a trace carry it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hwmodels.op import Collective
from sim.communication.fabric import layers
from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.flows import GRADIENTS, PARAMETERS, PIPELINE, Flows, between, rings
from sim.layout import optimizer
from sim.layout.buckets import GATHER, REDUCE, REST, Bucket, buckets, gathered_again, named_part
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.layout.shards import AGAIN, EVERY, NEVER, moves
from sim.layout.traffic import BACKWARD, FORWARD, SPANS, Ring, members
from sim.models.layer import EXPERT
from sim.result.trace import LANES

SENDS = {FORWARD: "send activations", BACKWARD: "send gradients"}
"""What an output is called on a trace."""


@dataclass(frozen=True)
class Burst:
    """Traffic of one step that the spans of one kind at one pipeline position carry.

    lane: index into LANES. shares: label of a span -> its bytes, relative to the others'. stage: of the spans, -1 for
    any. flows: bytes of the whole step, all replicas. target: position that messages go to. ring: of gradients and
    parameters, as `sim.layout.machine.Hindrances` names it. group: kind of that which sends it inside layers.
    """

    position: int
    lane: int
    shares: Mapping[str, float]
    stage: int
    flows: Flows
    target: int = -1
    ring: tuple[str, int, bool] | None = None
    group: str = ""

    @property
    def lasting(self) -> bool:
        """Whether spans of a label carry bytes as they last: slices of reductions, and pieces of a layer's part."""
        return self.group not in ("", EXPERT) or (self.ring is not None and self.lane == LANES.index("network"))


def bursts(plan: Plan, machine: Machine, cabling: Cabling) -> tuple[Burst, ...]:
    """All traffic of a step but for the gradient norm's few bytes and what stays in nodes."""
    positions = range(plan.program.positions)
    traffic = (
        *(burst for p in positions for burst in _inside(plan, machine, cabling, p)),
        *(burst for p in positions for burst in _sends(plan, machine, cabling, p)),
        *_gradients(plan, machine, cabling),
    )
    return tuple(burst for burst in traffic if len(burst.flows))


def _inside(plan: Plan, machine: Machine, cabling: Cabling, position: int) -> Iterator[Burst]:
    """What groups send inside layers. Where spans of a label carry several kinds of traffic, all of them carry each."""
    for (group, way), whole in layers.carried(plan, machine, position).items():
        flows = layers.flows(plan, cabling, position, group, way, whole.size)
        yield Burst(position, LANES.index("communication"), whole.shares, -1, flows, group=group)


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
            size = Collective("all_gather", optimizer.gathered_bytes(recipe, ring), ring.ranks, 1).bytes()
            yield from _around(plan, machine, cabling, ring, size, PARAMETERS, ("all_gather", "all_gather"))


def _around(
    plan: Plan, machine: Machine, cabling: Cabling, ring: Ring, size: float, kind: int, collective: tuple[str, str]
) -> Iterator[Burst]:  # fmt: skip
    """Traffic of a ring, `size` bytes each time. collective: its kind, and that which the spans are called by."""
    stage, holders = ring.stage, plan.holders(ring.stage)
    if not size or ring.ranks < 2:
        return
    parts = buckets(plan, machine, stage)
    inside, times = (False, 1) if ring.between and plan.program.weight_copies > 1 else _times(plan, ring, kind, parts)
    queue, moment = 2 * (stage + ring.between * plan.program.stages) + ring.experts, 2 * ring.between + ring.experts
    flows = rings(cabling, members(plan.mesh, holders, ring), size * times, kind, queue, moment)
    named = collective[0], stage, ring.experts
    if inside:
        whats = (GATHER, REST) if kind == PARAMETERS else (REDUCE,)
        shares = {f"{named_part(what, b)}({half})": b.size for b in parts for what in whats for half in "FBW"}
        yield Burst(holders[0], LANES.index("communication"), shares, stage, flows, ring=named)
    else:
        of = stage if kind == GRADIENTS else -1  # parameters of all stages go in one span
        yield Burst(holders[0], LANES.index("network"), {SPANS[collective[1]]: 1.0}, of, flows, ring=named)


def _times(plan: Plan, ring: Ring, kind: int, parts: Sequence[Bucket]) -> tuple[bool, float]:
    """Whether gradients or parameters of a stage, in buckets, move inside its passes, and how often a step."""
    own, position = moves(plan.scenario), plan.holders(ring.stage)[0]
    passes = sum(letter == "F" and of == ring.stage for row in plan.program.passes[position] for letter, of, _ in row)
    if kind == GRADIENTS:
        return own.reduces != NEVER, passes if own.reduces == EVERY else 1
    if own.gathers not in (EVERY, AGAIN):
        return own.gathers != NEVER, 1
    return True, passes * (1 + _gathered(ring, gathered_again(parts, own)) / _gathered(ring, parts))


def _gathered(ring: Ring, parts: Iterable[Bucket]) -> float:
    """Parameters of buckets that go round a ring."""
    return sum(own.parameters for bucket in parts for own, _ in bucket.gather if own.experts == ring.experts)
