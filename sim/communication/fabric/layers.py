"""What ranks that share layers send each other over NICs inside steps: exchanges of expert groups, collectives and
steps of rings of tensor, context and expert-tensor groups."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np

from hwmodels.op import AllToAll, Collective, Send
from sim.communication.crossing import group_of
from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.flows import CONTEXT, EXPERT, TENSOR, Flows, between, exchange, rings
from sim.layout.machine import Machine
from sim.layout.plan import Plan, relative
from sim.models.layer import EXPERT as EXPERTS
from sim.models.layer import Unit

KIND = {EXPERTS: EXPERT, "tensor": TENSOR, "context": CONTEXT, "expert_tensor": TENSOR}
"""Kind of a group -> kind of its traffic."""
ALL, RING, NEXT = range(3)
"""How it goes: from each rank to each other node, from node to node around a ring, or to the next rank."""


class Crossing(NamedTuple):
    """Something that a part of a layer sends over NICs. group: kind of that which it meets. way: how it goes. label:
    of the part; name: of the kernel. wire: bytes over a rank's NICs. size: over a node's, to the next one, on a ring.
    """

    group: str
    way: int
    label: str
    name: str
    wire: float
    size: float


@dataclass
class Carried:
    """What crosses of a way to go, in a step. size: bytes as `Crossing` says for its way. shares: by label of spans."""

    size: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)


def crossings(machine: Machine, unit: Unit, direction: str) -> Iterator[Crossing]:
    """All of a unit in a pass."""
    for part in machine.parts(unit, direction):
        for kernel in part.kernels:
            op = kernel.op
            if isinstance(op, AllToAll | Collective | Send) and (wire := op.wire_bytes()):
                yield Crossing(group_of(part, kernel), _way(op), part.label, kernel.name, wire, op.bytes())


def _way(op: AllToAll | Collective | Send) -> int:
    if isinstance(op, Send):
        return NEXT
    return ALL if isinstance(op, AllToAll) or op.kind == "all_to_all" else RING


def carried(plan: Plan, machine: Machine, position: int) -> Mapping[tuple[str, int], Carried]:
    """What crosses NICs inside the steps of a position, by group and way, over a step of training."""

    @cache
    def of(unit: Unit, direction: str) -> tuple[Crossing, ...]:
        return tuple(crossings(machine, unit, direction))

    passes = Counter((letter, stage) for done in plan.program.passes[position] for letter, stage, _ in done)
    out: dict[tuple[str, int], Carried] = defaultdict(Carried)
    for (letter, stage), count in passes.items():
        for unit in relative(machine.stages[stage])[0]:
            parts: dict[tuple[str, int, str], float] = defaultdict(float)
            for each in of(unit._replace(layer=min(unit.layer, 0)), letter):
                whole = out[each.group, each.way]
                whole.size += count * (each.size if each.way == RING else each.wire)
                whole.shares[each.name] = each.wire
                parts[each.group, each.way, each.label] += each.wire
            for (group, way, label), wire in parts.items():
                out[group, way].shares[label] = wire
    return out


def flows(plan: Plan, cabling: Cabling, position: int, group: str, way: int, size: float) -> Flows:
    """`size` bytes of a group's kind and way, of all replicas at a position."""
    ranks = plan.mesh.of_position(position)[plan.mesh.groups(group)]
    kind, apart = KIND[group], way + 3 * (group == "expert_tensor")
    if way == RING:
        return rings(cabling, ranks, size, kind, apart, apart)
    if way == NEXT:
        following = np.roll(ranks, -1, axis=1)
        return between(cabling, ranks.ravel(), following.ravel(), size, kind, apart, apart)
    nodes = plan.mesh.nodes_of(group)
    return exchange(cabling, ranks, size / (nodes - 1), apart, kind)
