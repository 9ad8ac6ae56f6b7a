"""The machine of a plan, assembled forward: prices, placement, traffic, hindrances of the fabric, shares of NICs.

Each stage is a function of the values before it. Prices, placements and kits that do not change from one scenario to
the next are kept, so a sweep pays for them once.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from hwmodels.collectives import wires
from hwmodels.nccl.library import Library
from hwmodels.price import Pricer
from sim.communication import crossing, sharing
from sim.communication.exchange.price import Fidelity
from sim.engine.alone import alone
from sim.layout import placement
from sim.layout.buckets import traffic
from sim.layout.clock import paced
from sim.layout.machine import Chains, Costs, Holds, Machine
from sim.layout.mesh import Mesh
from sim.layout.placement import Stage, marked
from sim.layout.plan import Plan, mesh_of, relative
from sim.models.family import family
from sim.models.layer import COMPUTE, Groups, Launches, Part, Site, Unit
from sim.models.lowering import lowering
from sim.models.lowering import recipe as of_stack
from sim.models.mixture import Mixture
from sim.models.offload import around, hosted
from sim.models.shape import ModelShape
from sim.models.transformer_engine import EVERY
from sim.routing import balanced
from sim.scenario.stages import Spread
from sim.scenario.values import ALWAYS, NCCL, Scenario
from sim.step import template
from sim.step.overlap import compose

if TYPE_CHECKING:
    from sim.communication.fabric.network import Network

KEPT = 8
"""Sets of prices that are kept, a few MB each: pipelines of any depth and schedule share one."""
SHARED = 1 << 12
"""Prices that pricers share, half a KB each."""
TOTALS, DIGEST_BYTES = 1 << 9, 16
"""Sets of what units come to, some 20 KB each: a search comes back to the same prices at another depth."""


def machine(plan: Plan) -> Machine:
    """The machine of a plan, with all that its traffic shares. Raises Refused."""
    return assembled(plan)[0]


def assembled(plan: Plan) -> "tuple[Machine, Network | None]":
    """The machine of a plan; and its network, where the scenario says how flows are routed. Raises Refused."""
    alone = unshared(plan)
    links = network(plan, alone)
    return crossed(plan, sharing.shared(plan, hindered(plan, alone, links))), links


def unshared(plan: Plan) -> Machine:
    """Prices and placement: exchanges have NICs and switches to themselves, as in a benchmark. Raises Refused."""
    return staged(plan, prices(plan.scenario, held_always(plan)))


def staged(plan: Plan, machine: Machine) -> Machine:
    """The same from the prices of its scenario. Raises Refused."""
    stages = tuple(marked(stage, plan.scenario.recompute) for stage in placed(plan, machine))
    if part := plan.scenario.offload:
        stages = tuple(hosted(stage, part, lambda unit: _kept_bytes(machine, unit)) for stage in stages)
    machine = machine.keeping(stages=stages, units=tuple(unit for stage in stages for unit in stage))
    machine = paced(plan, machine)
    held = held_by_nccl(plan, machine)
    return machine.holding(held) if held else machine


def _kept_bytes(machine: Machine, unit: Unit) -> float:
    return machine.lowering.kept(machine.site, unit).at(machine.site)


def held_by_nccl(plan: Plan, machine: Machine) -> int:
    """SMs that NCCL takes from compute beside which it gathers and reduces in passes: the most of any collective. None
    where exchanges hold some by themselves, or closed forms, which know no SMs, time all of that."""
    pricer = machine.pricer
    if pricer.nccl is None or pricer.comm_sms:
        return 0
    passes = [traffic(plan, machine, stage, True, True) for stage in range(plan.program.stages)]
    moved = {op for each in passes if each for bucket in each.buckets for _, op in (*bucket.gather, *bucket.reduce)}
    return max((pricer.nccl.take(op, pricer.wires).sms for op in moved), default=0)


def held_always(plan: Plan) -> bool:
    """Whether communication holds its SMs all the time: as the scenario says, else where the schedule overlaps by
    itself, since DeepSeek's profile of such a pair has products on the SMs left also while no exchange runs. Pairs that
    a scenario asks for are Megatron's, whose kernels hold SMs while they run."""
    hold = plan.scenario.comm.hold
    return hold == ALWAYS if hold else plan.overlapped and not plan.paired


def prices(scenario: Scenario, always: bool) -> Machine:
    """A machine without stages: what the model does on a rank of the scenario, and what everything costs.

    always: communication holds its SMs all the time.
    """
    cluster, batch = scenario.cluster, scenario.batch
    assert cluster is not None
    node, fabric = cluster.node, cluster.fabric
    cards = cluster.gpus if scenario.stack.library else 0  # no other tables go by how many there are
    mesh = mesh_of(scenario, scenario.parallel.pipeline)
    decide = (
        node, node.figures, node.device.figures, fabric, fabric.figures if fabric else None,
        scenario.model, scenario.precision, scenario.states, scenario.recompute, scenario.stack, scenario.pricing,
        scenario.comm, scenario.parallel.expert, mesh.nodes_of("expert"), _groups(scenario, mesh),
        batch.micro_batch, batch.sequence_length, scenario.routing.redundant_experts, scenario.tables,
        scenario.optimizer.unseen, always, _documents(scenario), scenario.overlap.tensor, cards,
    )  # fmt: skip
    return _prices(_Priced(repr(decide), scenario, always)).keeping(cluster=cluster)


@dataclass(frozen=True)
class _Priced:
    """A scenario by its prices. key: all of it that decides them. always: communication holds its SMs all the time."""

    key: str
    scenario: Scenario = field(compare=False)
    always: bool = field(compare=False)

    @property
    def digest(self) -> bytes:
        """Of the key."""
        return hashlib.blake2b(self.key.encode(), digest_size=DIGEST_BYTES).digest()


@lru_cache(maxsize=KEPT)
def _prices(key: _Priced) -> Machine:
    scenario = key.scenario
    cluster, shape, batch = scenario.cluster, scenario.model, scenario.batch
    assert cluster is not None and shape is not None
    own, node, comm = family(shape.family), cluster.node, scenario.comm
    recipe = scenario.states.of(of_stack(EVERY[scenario.precision], scenario.stack, node.device.architecture))
    stack, mixture = scenario.stack, own.mixture(shape)
    units = placement.precise(own.units(shape), stack.bf16_first, stack.bf16_last, stack.bf16_prediction)
    if scenario.recompute.everywhere:  # placement goes by what layers cost
        units = marked(units, scenario.recompute)
    group, mesh = scenario.parallel.expert, mesh_of(scenario, scenario.parallel.pipeline)
    site = Site(
        shape.part(scenario.parallel.tensor, scenario.parallel.expert_tensor), recipe, batch.micro_batch,
        batch.sequence_length, 0, 0, 0.0, 0.0, 0, group, mesh.nodes_of("expert"), scenario.recompute, scenario.stack,
        _documents(scenario), _groups(scenario, mesh), scenario.optimizer.unseen,
    )  # fmt: skip
    exchanging = group > 1 and any(unit.routed for unit in units)  # a rank by itself has nobody to send to
    held = comm.sms if exchanging else 0
    links, waits = wires(node, cluster.fabric), comm.waits == "measured"
    nccl = Library(node.device.architecture) if comm.collectives == NCCL else None
    fidelity = Fidelity(comm.exchange, comm.warps, nccl=nccl)
    pricer = Pricer(node.device, links, held, scenario.pricing, fidelity, key.always, waits,
                    node.launch if scenario.stack.launches else None, scenario.stack.library, nccl,
                    scenario.stack.attention, scenario.tables, cluster.gpus)  # fmt: skip
    object.__setattr__(pricer, "shared", _shared(_all_but_links(scenario, held, key.always)))
    if mixture:
        site = _loaded(site, mixture, scenario.routing.redundant_experts)
    lowered = lowering(own, scenario.stack)

    @cache
    def parts(unit: Unit, direction: str) -> tuple[Part, ...]:
        own = lowered.parts(site, unit._replace(hosted=0), direction)
        made = around(own, unit, direction) if unit.hosted else own
        return tuple([part._replace(kernels=Launches(part.kernels)) for part in made])

    machine = Machine(cluster, recipe, pricer, shape, site, parts, (), units)
    machine.known.costs, machine.known.chains, machine.known.holds = _totals(key.digest)
    return machine


def _loaded(site: Site[ModelShape], mixture: Mixture, redundant: int) -> Site[ModelShape]:
    """The site of a rank with its experts, and the tokens that come to them."""
    per_node = -(-site.group // site.group_nodes)
    sharing = site.groups.expert_tensor
    load = balanced.balanced(mixture, site.own, site.group, per_node, sharing)
    if site.stack.padded:
        load = load._replace(rows=balanced.filled(mixture, site.own, site.group, sharing))
    return site._replace(**load._asdict(), local_experts=(mixture.experts + redundant) // site.group)


@lru_cache(maxsize=TOTALS)
def _totals(digest: bytes) -> tuple[Costs, Chains, Holds]:
    """What units come to at prices with that digest, which is small and outlives them."""
    return {}, {}, {}


class _Few(dict[Any, Any]):
    """A mapping of some keys: where it is full it begins anew."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= SHARED:
            self.clear()
        super().__setitem__(key, value)


@lru_cache(maxsize=2 * KEPT)
def _shared(key: str) -> _Few:
    """Prices that pricers which differ at most in links share. key: all else that decides them."""
    return _Few()


def _all_but_links(scenario: Scenario, held: int, always: bool) -> str:
    """What decides the prices of operations that use no links. held: SMs of communication."""
    cluster, stack = scenario.cluster, scenario.stack
    assert cluster is not None
    node = cluster.node
    return repr((
        node, node.figures, node.device.figures, held, scenario.pricing, always, scenario.comm, stack.launches,
        stack.library, stack.attention, scenario.tables, cluster.gpus,
    ))  # fmt: skip


def _groups(scenario: Scenario, mesh: Mesh) -> Groups:
    """Who shares a layer."""
    given, nodes = scenario.parallel, mesh.nodes_of
    return Groups(
        given.tensor, given.sequence, given.context, given.context_kind, given.expert_tensor,
        nodes("tensor"), nodes("context"), nodes("expert_tensor"), bool(scenario.overlap.tensor and given.sequence),
    )  # fmt: skip


def _documents(scenario: Scenario) -> tuple[int, int] | None:
    """Number and tokens of equal documents of a micro-batch for which attention costs as much as for packed ones on
    average; None where a sequence is one."""
    if scenario.batch.lengths is None or not scenario.batch.packed:
        return None
    from sim.disturbances.documents import equal

    return equal(scenario.batch)


def placed(plan: Plan, machine: Machine) -> tuple[Stage, ...]:
    """Units of each stage, by what they cost where exchanges have their NICs to themselves."""
    units, rule = machine.units, plan.scenario.placement
    if isinstance(rule, Spread):
        pipeline, stages = plan.program.positions, plan.program.stages
        rule = rule.counts(machine.whole.layers, pipeline, stages // pipeline)
    key, pairs = (plan.program.stages, rule, plan.mirrored, plan.overlapped, plan.holds), machine.known.pairs

    def pair_ns(forward: Stage, backward: Stage) -> int:
        ahead, behind = (relative(marked(stage, plan.scenario.recompute))[0] for stage in (forward, backward))
        if (ahead, behind) not in pairs:
            composition = compose("F+BW", ahead, behind, machine.parts)
            pairs[ahead, behind] = alone(template.price("F+BW", (0, 1), composition, machine.pricer)).total
        return pairs[ahead, behind]

    if key not in machine.known.stages:
        costs = [] if rule == "even" else [machine.unit_ns(unit) for unit in units]
        machine.known.stages[key] = placement.place(
            units, costs, plan.program.stages, rule, plan.mirrored,
            pair_ns if plan.overlapped else None, lambda unit: machine.unit_ns(unit, lanes=(COMPUTE,)), plan.holds,
        )  # fmt: skip
    return machine.known.stages[key]


def network(plan: Plan, machine: Machine) -> "Network | None":
    """The traffic of a step on the fabric, where the scenario says how its flows are routed. Raises Refused."""
    cluster = machine.cluster
    if cluster.routing is None:
        return None
    from sim.communication.fabric.network import network as routed

    return routed(plan, machine, cluster.placement, cluster.routing)


def hindered(plan: Plan, machine: Machine, network: "Network | None") -> Machine:
    """The machine with traffic as slow as links between switches make it."""
    if network is None:
        return machine
    hindrances = network.hindrances(max(sharing.compute_seconds(plan, machine)))
    links = wires(machine.cluster.node, machine.cluster.fabric, hindrances.exchanges, hindrances.beside_messages)
    return machine.over(links, hindrances=hindrances)


def crossed(plan: Plan, machine: Machine) -> Machine:
    """The machine with what groups that lie on several nodes send inside layers as slow as links between switches, and
    NICs that messages pass too, make it."""
    left, hindrances = 1 / machine.pricer.wires.left, machine.hindrances.groups
    return crossing.slowed(machine, {kind: max(left, hindrances.get(kind, 1.0)) for kind in crossing.on_nodes(plan)})
