"""What follows the last backward: gradients reduced, their norm, the update of shards, parameters gathered.

Gradients of a stage are reduced over every rank that holds a copy of it: routed experts over the replicas of the expert
group, everything else over all data-parallel ranks, both times the copies the schedule keeps (two under DualPipe).
ZeRO shards master weights and moments over the same ranks, or over some of them: then what is reduced among those is
reduced between such groups too (hybrid sharding). Without ZeRO every rank updates all. What moves beside the steps
(`sim.layout.shards`) is in them, not here. The parameters' exponential moving average is kept in
host memory and copied while the next step runs (DeepSeek-V3 report sec 3.2.3). The update is AdamW's; under Muon that
of all but matrices (`sim.layout.muon`).

Where states are offloaded, the host holds master weights and moments: gradients of the shard go there, the CPU updates,
and parameters come back (ZeRO-Offload, arXiv:2101.06840, sec 4 and 5.1, where the CPU's copies overlap with its
updates). The three run side by side, tensor after tensor, so that the longest of them counts; the CPU is as fast as
its memory, a bound that CPUs miss. The average of parameters then has nothing to copy.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hwmodels.formats import BF16, PLAIN_FP32, Format
from hwmodels.op import Collective, HostCopy, HostUpdate, Memory
from sim.layout import duplicated, muon, tied
from sim.layout.machine import Machine
from sim.layout.mesh import Mesh
from sim.layout.plan import Plan
from sim.layout.shards import NEVER, moves, spread
from sim.layout.traffic import REPLICA, SHARD, Ring
from sim.models.family import weights
from sim.models.layer import Unit
from sim.models.lowering import Updates, updates
from sim.models.precision import Recipe
from sim.models.stacks.torch.optimizer import metric
from sim.models.weights import Parameters


class Shards(NamedTuple):
    """Parameters one rank holds and updates. dense, experts: held, or shared with others where parameters are sharded.
    dense_ranks, expert_ranks: that share what is sharded. matrices: of `dense`, those in the
    matrices of linear layers; all of experts' are."""

    dense: float
    experts: float
    dense_ranks: int
    expert_ranks: int
    matrices: float = 0.0

    @property
    def updated(self) -> float:
        """Parameters whose master weights and moments live on this rank."""
        return self.dense / self.dense_ranks + self.experts / self.expert_ranks

    @property
    def one_moment(self) -> float:
        """Of those, the ones with one moment under Muon."""
        return self.matrices / self.dense_ranks + self.experts / self.expert_ranks


class Tail(NamedTuple):
    """Durations in ns. reduce_ns: (stage, ns) of each stage held whose gradients are reduced after it."""

    reduce_ns: tuple[tuple[int, int], ...]
    norm_ns: int
    update_ns: int
    gather_ns: int
    average_ns: int


NO_TAIL = Tail((), 0, 0, 0, 0)


def stage_parameters(plan: Plan, machine: Machine, stage: int) -> Parameters:
    """What a holder of `stage` keeps of it. A second use of the input embedding (of a prediction module, of a tied
    head) is the first stage's where both share a rank (DeepSeek-V3 report sec 3.2.3), and a copy of its own elsewhere.
    """
    shape, units = machine.site.shape, machine.stages[stage]
    total = weights(shape, units)
    together = all(0 in plan.holds[position] for position in plan.holders(stage))
    if total.table and not together:
        total += Parameters(shared=-max(weights(shape, [unit]).table for unit in units))
    return total


def shards(plan: Plan, machine: Machine, stage: int) -> Shards:
    """What one holder of `stage` has of it. Tensors shared between units of one rank count once."""
    key = (stage, machine.stages[stage])
    if key not in plan.kept:
        plan.kept[key] = _shards(plan, machine, stage)
    own: Shards = plan.kept[key]
    return own


def _shards(plan: Plan, machine: Machine, stage: int) -> Shards:
    p = stage_parameters(plan, machine, stage)
    copies, _ = spread(plan.scenario, plan.program.weight_copies)
    dense = p.linear + p.other - p.shared
    held = p.experts * experts_held(plan, machine)
    dense_ranks, expert_ranks = (plan.mesh.groups(kind).shape[1] * copies for kind in SHARD)
    if not plan.scenario.parallel.zero:
        dense_ranks = expert_ranks = 1
    return Shards(dense, held, dense_ranks, expert_ranks, p.linear)


def experts_held(plan: Plan, machine: Machine) -> float:
    """The part of all routed experts that a rank holds, copies that redundancy adds included."""
    mixture, scenario = machine.mixture, plan.scenario
    if mixture is None:
        return 0.0
    return (mixture.experts + scenario.routing.redundant_experts) / mixture.experts / scenario.parallel.expert


def _bytes(form: Format, count: float) -> float:
    return count * form.bits / 8


def tail(plan: Plan, machine: Machine, position: int) -> Tail:
    """Durations for the rank at a pipeline position."""
    own = updates(machine.family, machine.site.stack)
    if own and machine.site.stack.plain_update and not plan.scenario.optimizer.offloaded:
        return _tail_of_kernels(plan, machine, position, own)
    price, recipe = machine.pricer.price, machine.recipe
    held = [(stage, shards(plan, machine, stage)) for stage in plan.holds[position]]
    reduce_ns, gather_ns = _after(plan, machine, position)
    updated = max(1, round(sum(h.updated for _, h in held)))
    gradient, master, moment = recipe.gradient.bits / 8, recipe.master.bits / 8, recipe.moment.row_bytes(1)
    norm = price(Memory("elementwise", updated, gradient, 0.0)).ns
    norm += price(_everyone(machine)).ns + _summed_ns(plan, machine, position)
    # gradient, master and moments in; master, moments and the parameter to gather out
    moments = moment * moments_each(plan, [h for _, h in held])
    adam = Memory("adam", updated, gradient + master + moments, master + moments + recipe.gather.bits / 8)
    back = price(HostCopy(_bytes(recipe.gather, updated))).ns
    if plan.scenario.optimizer.offloaded:
        there = price(HostCopy(_bytes(recipe.gradient, updated))).ns
        longest = max(there, price(HostUpdate(adam.bytes())).ns, back)
        return Tail(reduce_ns, 0 if machine.site.stack.plain_update else norm, longest, gather_ns, 0)
    update = price(adam).ns + (_muon_ns(plan, machine, held) if plan.scenario.optimizer.name == muon.NAME else 0)
    if own:  # parameters are cast anew, gradients begin at zero, and nothing is averaged on the host
        units = [unit for stage in plan.holds[position] for unit in machine.stages[stage]]
        part = sum(h.updated for _, h in held) / (sum(h.dense + h.experts for _, h in held) or 1)
        update += sum(price(kernel.op).ns for kernel in own.update(machine.site, units, part))
        update += price(Memory("fill", _zeros(plan, held), 0.0, gradient)).ns
    return Tail(reduce_ns, norm, update, gather_ns, 0 if own else back)


def _zeros(plan: Plan, held: Sequence[tuple[int, Shards]]) -> int:
    """Gradients that are set to zero before a step, all that a rank sums up (Megatron Core, `zero_grad_buffer`)."""
    sharded = plan.scenario.parallel.zero > 1
    return max(1, round(sum(h.updated if sharded else h.dense + h.experts for _, h in held)))


def _tail_of_kernels(plan: Plan, machine: Machine, position: int, own: Updates) -> Tail:
    """Of a stack that says which kernels update what a rank holds, and limit the norm of gradients: nothing is
    averaged."""
    price, gap = machine.pricer.price, machine.pricer.launch_gap_ns
    held = [shards(plan, machine, stage) for stage in plan.holds[position]]
    units = [unit for stage in plan.holds[position] for unit in machine.stages[stage]]
    part = sum(h.updated for h in held) / (sum(h.dense + h.experts for h in held) or 1)
    at, launched = 0, -_ahead_ns(machine, units)
    for kernel in own.update(machine.site, units, part):
        launched += machine.launch_ns("B", kernel)
        at = max(at + gap, launched) + price(kernel.op).ns
        launched = max(launched, at) if kernel.waits else launched
    at += machine.site.stack.metrics * _metric_ns(machine)
    reduce_ns, gather_ns = _after(plan, machine, position)
    norm = price(_everyone(machine)).ns if machine.site.stack.clips else 0
    return Tail(reduce_ns, norm + _summed_ns(plan, machine, position), at, gather_ns, 0)


def _metric_ns(machine: Machine) -> int:
    """A number of each rank gathered by all of them behind a step, for whose end the host has waited: a barrier, and a
    tensor for each rank, which the host launches one by one."""
    price, ranks = machine.pricer.price, machine.cluster.gpus
    each = (max(machine.launch_ns("B", kernel), price(kernel.op).ns) for kernel in metric(ranks))
    number = PLAIN_FP32.row_bytes(1)
    meets = [Collective(kind, size, ranks, machine.cluster.nodes)
             for kind, size in (("all_reduce", number), ("all_gather", ranks * number))]  # fmt: skip
    return sum(each) + sum(price(op).ns for op in meets)


def _everyone(machine: Machine) -> Collective:
    """The sum over all ranks of their gradients' squares."""
    return Collective("all_reduce", machine.recipe.gradient.bits / 8, machine.cluster.gpus, machine.cluster.nodes)


def _summed_ns(plan: Plan, machine: Machine, position: int) -> int:
    """Gradients that are summed over other groups than data-parallel ones: of what is held more than once."""
    return duplicated.sync_ns(plan, machine, position) + tied.sync_ns(plan, machine, position)


def _after(plan: Plan, machine: Machine, position: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """Of a position, in ns: reductions of each stage whose gradients are reduced once a step, and the gather of all
    parameters that the steps do not gather."""
    price, own, held = machine.pricer.price, moves(plan.scenario), plan.holds[position]
    behind = held if own.reduces == NEVER else ()
    reduce_ns = tuple((s, sum(price(ring).ns for ring in reduce_rings(plan, machine, s))) for s in behind)
    late = held if own.gathers == NEVER else ()
    return reduce_ns, sum(price(ring).ns for s in late for ring in gather_rings(plan, machine, s))


def _ahead_ns(machine: Machine, units: Sequence[Unit]) -> int:
    """How far the host is ahead of the GPU after the backward of some units."""
    kernels = [
        k for unit in units for direction in "BW" for part in machine.parts(unit, direction) for k in part.kernels
    ]
    host = sum(machine.launch_ns("B", kernel) for kernel in kernels)
    return max(0, sum(machine.unit_ns(unit, "BW") for unit in units) - host)


def host_bytes(plan: Plan, machine: Machine, position: int) -> float:
    """Bytes that a rank keeps in its host's memory: the average of its shard's parameters, in the format in which they
    come; offloaded, master weights, moments, and the gradients that its CPU reads (arXiv:2101.06840, sec 4)."""
    recipe, offloaded = machine.recipe, plan.scenario.optimizer.offloaded
    held = [shards(plan, machine, stage) for stage in plan.holds[position]]
    averaged = updates(machine.family, machine.site.stack) is None
    states = recipe.master.bits / 8 + moments_each(plan, held) * recipe.moment.row_bytes(1) + recipe.gradient.bits / 8
    return sum(h.updated for h in held) * (offloaded * states + averaged * recipe.gather.bits / 8)


def most_host_bytes(plan: Plan, machine: Machine) -> float:
    """Those of the rank that keeps most there."""
    return max(host_bytes(plan, machine, position) for position in range(plan.program.positions))


def moments_each(plan: Plan, held: Sequence[Shards]) -> float:
    """Moments of a parameter that a rank updates, on average: two, or one of those in matrices under Muon."""
    if plan.scenario.optimizer.name != muon.NAME:
        return 2
    return 2 - sum(h.one_moment for h in held) / sum(h.updated for h in held)


def _muon_ns(plan: Plan, machine: Machine, held: Sequence[tuple[int, Shards]]) -> int:
    """Matrices made whole and orthogonal: an all-gather of their momentum in BF16, and Newton-Schulz."""
    total = 0
    for stage, own in held:
        total += muon.update_ns(machine, stage, own.dense_ranks, own.expert_ranks)
        for ring, count in zip(gather_rings(plan, machine, stage), (own.matrices, own.experts), strict=False):
            total += machine.pricer.price(ring._replace(size=_bytes(BF16, count))).ns
    return total


def rings(plan: Plan, machine: Machine, stage: int) -> tuple[Ring, ...]:
    """Rings around the copies of one stage: of all but experts, then of experts; each followed by that of its shards,
    where these have copies."""
    key = ("rings", stage, machine.stages[stage])
    if key not in plan.kept:
        plan.kept[key] = tuple(ring for experts in (False, True) for ring in _around(plan, machine, stage, experts))
    own: tuple[Ring, ...] = plan.kept[key]
    return own


def _around(plan: Plan, machine: Machine, stage: int, experts: bool) -> Iterator[Ring]:
    held, holders, mesh = shards(plan, machine, stage), plan.holders(stage), plan.mesh
    size, shard, replica = held.experts if experts else held.dense, SHARD[experts], REPLICA[experts]
    over, apart = spread(plan.scenario, plan.program.weight_copies)
    ranks, copies = mesh.groups(shard).shape[1] * over, mesh.groups(replica).shape[1] * apart
    precise = 0.0 if experts else held.dense - held.matrices
    yield Ring(stage, experts, size, ranks, _nodes(mesh, shard, holders, over), precise=precise)
    if copies > 1:
        nodes = _nodes(mesh, replica, holders, apart)
        yield Ring(stage, experts, size / ranks, copies, nodes, between=True)


def _nodes(mesh: Mesh, kind: str, holders: Sequence[int], copies: int) -> int:
    """Nodes that a ring lies on: over all positions that hold a stage, or at one of them."""
    return mesh.nodes_of(kind, holders) if copies > 1 else max(mesh.nodes_of(kind, (p,)) for p in holders)


def reduce_rings(plan: Plan, machine: Machine, stage: int) -> tuple[Collective, ...]:
    """What reduces one stage's gradients, one after another, of `rings`: reduce-scatters and, between copies of shards,
    all-reduces; without ZeRO all-reduces alone."""
    return tuple(reducing(plan, machine, ring) for ring in rings(plan, machine, stage))


def gather_rings(plan: Plan, machine: Machine, stage: int) -> tuple[Collective, ...]:
    """All-gathers of one stage's updated parameters: the dense ring, then the experts' ring; none without ZeRO."""
    whole = [ring for ring in rings(plan, machine, stage) if not ring.between]
    return tuple(gathering(machine, ring) for ring in whole) if plan.scenario.parallel.zero else ()


def reducing(plan: Plan, machine: Machine, ring: Ring) -> Collective:
    """What reduces the gradients of parameters that go round a ring."""
    scattered = plan.scenario.parallel.zero and not ring.between
    return _collective(machine, ring, "reduce_scatter" if scattered else "all_reduce", machine.recipe.gradient)


def gathering(machine: Machine, ring: Ring) -> Collective:
    """What gathers parameters that go round a ring."""
    own = _collective(machine, ring, "all_gather", machine.recipe.gather)
    return own._replace(size=gathered_bytes(machine.recipe, ring))


def gathered_bytes(recipe: Recipe, ring: Ring) -> float:
    """Of all parameters that are gathered around a ring."""
    if recipe.gather == BF16:
        return _bytes(BF16, ring.parameters)
    return _bytes(recipe.gather, ring.parameters - ring.precise) + _bytes(BF16, ring.precise)


def _collective(machine: Machine, ring: Ring, kind: str, form: Format) -> Collective:
    slower = machine.hindrances.of_ring(kind, ring.stage, ring.experts).slower
    return Collective(kind, _bytes(form, ring.parameters), ring.ranks, ring.nodes, slower=slower)
