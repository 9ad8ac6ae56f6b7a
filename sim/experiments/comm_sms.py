"""How many SMs should communication hold? One scenario at many splits, exchanges timed by the warp-level kernel.

More SMs for communication make exchanges faster until the links bind; every one of them is taken from the GEMMs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from hwmodels.op import AllToAll
from hwmodels.price import Pricer
from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import metrics
from sim.communication import sharing
from sim.communication.exchange import kernel
from sim.communication.exchange.offload import Offload, beside
from sim.communication.exchange.ports import of_op
from sim.communication.exchange.price import KERNEL, Fidelity
from sim.communication.exchange.roles import COPY, Copy
from sim.engine import steps
from sim.engine.kit import Kit
from sim.engine.lowering import Lowered, lower
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.scenario.values import Scenario

SPLITS = tuple(range(4, 34, 2))
"""SMs for communication: 4 to 32 in whole channels."""


@dataclass(frozen=True)
class Exchange:
    """One exchange alone at a split. seconds: its barrier included. limited_by: the stage that is busy longest."""

    name: str
    seconds: float
    bound_s: float
    limited_by: str
    logical_bytes: float
    wire_bytes: float


@dataclass(frozen=True)
class Split:
    """A scenario with `sms` SMs for communication. pair_s: its commonest overlapped pair (the longest, of equals);
    pair_exposed_s: communication in it that hides behind nothing."""

    sms: int
    step_s: float
    pair_s: float
    pair_compute_s: float
    pair_exposed_s: float
    exchanges: tuple[Exchange, ...]


def splits(scenario: Scenario, warps: str, sms: Iterable[int] = SPLITS, copy: Copy = COPY) -> Iterator[Split]:
    """The scenario at each split, layers placed as its own one places them: where those stay, the run that has so many
    SMs. warps, copy: see Fidelity."""
    plan, fidelity = lay_out(scenario), Fidelity(KERNEL, warps, copy)
    own = assembly.unshared(plan)
    links = assembly.network(plan, own)
    for count in sms:
        machine = replace(own, pricer=replace(own.pricer, comm_sms=count, exchange=fidelity))
        yield _split(plan, sharing.shared(plan, assembly.hindered(plan, machine, links)), fidelity)


def slower(copy: Copy, factor: float) -> Copy:
    """Warps that need `factor` times as long for a row: how much the answer hangs on their fitted speed."""
    fixed = {name: getattr(copy, name) * factor for name in copy._fields if name != "rate"}
    return Copy(**fixed, rate=copy.rate / factor)


def rows(candidates: Iterable[Split]) -> list[dict[str, object]]:
    """Plain data, for reports and files."""
    return [asdict(split) for split in candidates]


def offloads(scenario: Scenario, names: Sequence[str] = ("dispatch(F)", "combine(F)")) -> list[Offload]:
    """The scenario's exchanges of these names without SMs, beside the kernel on as many as it gives them."""
    plan = lay_out(scenario)
    machine = assembly.machine(plan)
    ops, pricer = _ops(_commonest(lower(plan, machine))), machine.pricer
    links, warps = pricer.wires.alone, scenario.comm.warps
    return [beside(ops[name], links, pricer.comm_sms, warps) for name in names if name in ops]


def _split(plan: Plan, machine: Machine, fidelity: Fidelity) -> Split:
    pricer = machine.pricer
    lowered = lower(plan, machine)
    kit = _commonest(lowered)
    pair, step_s = metrics.alone(kit), steps.run(lowered.actors, lowered.kits).end / NS_PER_S
    return Split(
        pricer.comm_sms, step_s, kit.timing.total / NS_PER_S, pair["compute"] / NS_PER_S, pair["exposed"] / NS_PER_S,
        tuple(_exchanges(kit, pricer, fidelity)),
    )  # fmt: skip


def _commonest(lowered: Lowered) -> Kit:
    """The kit that most overlapped pairs use, or most steps where the schedule never overlaps."""
    kits = [k for row in lowered.kits for k in row]
    paired = [k for k in kits if "+" in k.fine.kind] or kits
    counts = Counter(k.number for k in paired)
    return max(paired, key=lambda k: (counts[k.number], k.timing.total))


def _exchanges(kit: Kit, pricer: Pricer, fidelity: Fidelity) -> Iterator[Exchange]:
    for name, op in sorted(_ops(kit).items()):
        links = pricer.wires.alone
        timing = kernel.run(of_op(op), links, pricer.comm_sms, fidelity.copy, fidelity.warps)
        total = timing.seconds + timing.barrier_s
        bound = float(timing.bound_s.max())
        yield Exchange(name, total, bound, timing.limited_by, op.logical_bytes(), op.wire_bytes())


def _ops(kit: Kit) -> dict[str, AllToAll]:
    """The exchanges of a step by name."""
    phases = kit.composition.phases if kit.composition else ()
    return {k.op.beside: k.op for phase in phases for k in phase.kernels if isinstance(k.op, AllToAll)}
