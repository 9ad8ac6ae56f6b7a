"""Groups whose ranks lie on several nodes: what they send inside layers shares NICs and links with other traffic."""

from collections.abc import Iterator, Mapping
from functools import cache

from hwmodels.op import Collective, Send
from sim.layout.machine import Known, Machine
from sim.layout.mesh import MEETING
from sim.layout.placement import alike
from sim.layout.plan import Plan
from sim.models.layer import Kernel, Part, PartsOf, Unit


def on_nodes(plan: Plan) -> Iterator[str]:
    """Kinds of groups that lie on several nodes."""
    yield from (kind for kind in MEETING if plan.mesh.nodes_of(kind) > 1)


def group_of(part: Part, kernel: Kernel) -> str:
    """Kind of the group that a kernel meets."""
    return kernel.meets or part.meets


def slowed(machine: Machine, factors: Mapping[str, float]) -> Machine:
    """The machine with collectives and ring steps of kinds of groups so many times slower over NICs. Exchanges are
    slowed by the links that the pricer knows. What is known stays known where nothing is slower, and where as much is
    again."""
    slower = {kind: factor for kind, factor in factors.items() if factor != 1 and kind in _sending(machine)}
    if not slower:
        return machine
    known = machine.known.slower.setdefault(tuple(sorted(slower.items())), Known())
    if known.parts is None:
        known.parts = _slower(machine.parts, slower)
    return machine.doing(known.parts, known)


def _sending(machine: Machine) -> set[str]:
    """Kinds of groups whose members send each other collectives or ring steps over NICs."""
    units = {alike((unit,))[0] for stage in machine.stages for unit in stage}
    every = (part for unit in units for direction in "FBW" for part in machine.parts(unit, direction))
    return {group_of(part, kernel) for part in every for kernel in part.kernels if _over_nics(kernel)}


def _over_nics(kernel: Kernel) -> bool:
    return isinstance(kernel.op, Collective | Send) and bool(kernel.op.wire_bytes())


def _slower(bare: PartsOf, factors: Mapping[str, float]) -> PartsOf:
    """Parts whose collectives and ring steps over NICs are so many times slower."""

    def slower(part: Part, kernel: Kernel) -> Kernel:
        factor = factors.get(group_of(part, kernel), 1.0)
        if factor == 1 or not isinstance(kernel.op, Collective | Send) or not _over_nics(kernel):
            return kernel
        return kernel._replace(op=kernel.op._replace(slower=factor))

    @cache
    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        return tuple(p._replace(kernels=tuple(slower(p, k) for k in p.kernels)) for p in bare(unit, direction))

    return parts
