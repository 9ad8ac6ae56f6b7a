"""Groups whose ranks lie on several nodes: what they send inside layers shares NICs and links with other traffic."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from hwmodels.op import Collective, Send
from sim.layout.machine import Machine
from sim.layout.mesh import MEETING
from sim.layout.plan import Plan
from sim.models.layer import Kernel, Part, Unit


def on_nodes(plan: Plan) -> Iterator[str]:
    """Kinds of groups that lie on several nodes."""
    yield from (kind for kind in MEETING if plan.mesh.nodes_of(kind) > 1)


def group_of(part: Part, kernel: Kernel) -> str:
    """Kind of the group that a kernel meets."""
    return kernel.meets or part.meets


def slowed(machine: Machine, factors: Mapping[str, float]) -> Machine:
    """The machine with collectives and ring steps of kinds of groups so many times slower over NICs. Exchanges are
    slowed by the links that the pricer knows."""
    if all(factor == 1 for factor in factors.values()):
        return machine
    bare = machine.parts

    def slower(part: Part, kernel: Kernel) -> Kernel:
        factor = factors.get(group_of(part, kernel), 1.0)
        if factor == 1 or not isinstance(kernel.op, Collective | Send) or not kernel.op.wire_bytes():
            return kernel
        return kernel._replace(op=kernel.op._replace(slower=factor))

    @cache
    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        return tuple(p._replace(kernels=tuple(slower(p, k) for k in p.kernels)) for p in bare(unit, direction))

    return replace(machine, parts=parts)
