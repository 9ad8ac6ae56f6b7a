"""Parameters of a stage in buckets: what is reduced and gathered at once where it moves beside compute.

A bucket is whole units, closed when it has enough; a unit with more is one bucket whose collectives are as many as its
tensors fill (the last of them is exposed with the others, so what is exposed comes out long by at most a unit). They
fill in backward order. Sizes unless a scenario says: Megatron Core's max(40,000,000, 1,000,000 x data-parallel ranks)
parameters (megatron/core/distributed/distributed_data_parallel_config.py, `bucket_size`); DDP's 25 MiB
(torch.nn.parallel.DistributedDataParallel, `bucket_cap_mb`; its first one of 1 MiB is left out); of fully_shard a layer
each, and one for all that is no layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hwmodels.formats import PLAIN_FP32
from hwmodels.op import Collective, small
from hwmodels.units import MEGA, MIB
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.plan import Plan, relative
from sim.layout.shards import AGAIN, EVERY, FIRST, LAST, NEVER, Moves, moves
from sim.layout.traffic import SHARD, Ring
from sim.models import family
from sim.models.layer import COMMUNICATION, Kernel, Unit
from sim.models.lowering import updates

MEGATRON, EACH = 40 * MEGA, 1 * MEGA
"""Parameters of a bucket at least, and for each data-parallel rank."""
DDP_BYTES = 25 * MIB


GATHER, REST, REDUCE = "gather", "gather rest", "reduce"
"""Names of parts that move buckets (see `named_part`)."""


class Bucket(NamedTuple):
    """Units of a stage whose parameters move together. units: their numbers in the stage, ascending. label, layer: of
    the first, which parts are named by (layers counted from the stage's first). size: parameters that a rank has of
    them when they are whole. gather, reduce: what moves them, each with the ring that it goes round."""

    units: tuple[int, ...]
    label: str
    layer: int
    size: float
    gather: tuple[tuple[Ring, Collective], ...]
    reduce: tuple[tuple[Ring, Collective], ...]


def named_part(what: str, bucket: Bucket) -> str:
    """Name of a part that does something with a bucket; beside its layer it tells buckets apart."""
    return what if bucket.layer >= 0 else f"{what} {bucket.label}"


class Reduction(NamedTuple):
    """Gradients of a stage that all who hold it reduce together, once a step. unit: number in the stage of the unit
    whose weight gradients are the last of them; -1: when all of the stage's are there."""

    stage: int
    around: tuple[tuple[Ring, Collective], ...]
    unit: int = -1


class _Weight(NamedTuple):
    """Parameters that a rank has of a unit, and of its routed experts. precise: of `dense`, those of no linear layer
    (see Ring)."""

    dense: float
    experts: float
    precise: float

    @property
    def both(self) -> float:
        return self.dense + self.experts


def reductions(plan: Plan, machine: Machine) -> tuple[Reduction, ...]:
    """All of a step that follow backwards, in the order in which stages and their units are numbered; one a stage where
    nothing is reduced beside backward, so that its number is the stage's; where gradients are reduced in it, those of
    copies of a stage alone."""
    own, stages = moves(plan.scenario), range(plan.program.stages)
    if own.reduces != NEVER:
        apart = [(s, _of_copies(plan, optimizer.rings(plan, machine, s))) for s in stages]
        return tuple(Reduction(stage, _around(plan, machine, rings)) for stage, rings in apart if rings)
    if not own.beside:
        return tuple(Reduction(s, _around(plan, machine, optimizer.rings(plan, machine, s))) for s in stages)
    return tuple(
        Reduction(stage, bucket.reduce, bucket.units[0] if bucket.units[0] else -1)
        for stage in stages for bucket in reversed(buckets(plan, machine, stage)) if bucket.reduce
    )  # fmt: skip


def _of_copies(plan: Plan, rings: Sequence[Ring]) -> list[Ring]:
    """Rings that go once a step though gradients are reduced in passes: between copies of a stage at two positions."""
    apart = plan.program.weight_copies > 1
    return [ring for ring in rings if apart and ring.between and ring.parameters]


def _around(
    plan: Plan, machine: Machine, rings: Iterable[Ring], pieces: int = 1
) -> tuple[tuple[Ring, Collective], ...]:
    return tuple(pair for ring in rings for pair in ((ring, optimizer.reducing(plan, machine, ring)),) * pieces)


def buckets(plan: Plan, machine: Machine, stage: int, whole: bool = False) -> tuple[Bucket, ...]:
    """Of a stage, by their first units. whole: all of them are one."""
    units, own = relative(machine.stages[stage])[0], moves(plan.scenario)
    each, rings = _weights(plan, machine, stage), optimizer.rings(plan, machine, stage)
    limit = _limit(plan, machine, own, rings[0].ranks)
    groups = _whole(units) if own.units and plan.scenario.overlap.buckets is None else _filled(each, limit)
    groups = [list(range(len(units)))] if whole else groups
    out = []
    for group in groups:
        size, first = _Weight(*(sum(column) for column in zip(*(each[i] for i in group), strict=True))), units[group[0]]
        pieces = 1 if own.units or whole else sum(_pieces(machine, units[i], each[i], limit) for i in group)
        once = _of_copies(plan, rings) if own.reduces != NEVER else []
        held = [ring for ring in rings if (size.experts if ring.experts else size.dense) and ring.ranks > 1]
        held = [ring for ring in held if ring not in once]
        shares = [(ring, _share(ring, size, pieces)) for ring in held]
        parts = [(_part(ring, size, rings, n), n) for ring, n in shares]
        reduce = tuple(pair for ring, n in parts for pair in _around(plan, machine, [ring], n))
        gathered = [((ring, optimizer.gathering(machine, ring)), n) for ring, n in parts if not ring.between]
        gather = tuple(pair for one, n in gathered for pair in (one,) * n)
        out.append(Bucket(tuple(group), first.label, first.layer, size.both, gather, reduce))
    return tuple(out)


def _share(ring: Ring, size: _Weight, pieces: int) -> int:
    """How many of the collectives of a bucket are of a ring's parameters."""
    part = (size.experts if ring.experts else size.dense) / size.both
    return max(1, round(pieces * part))


def _part(ring: Ring, size: _Weight, rings: Sequence[Ring], pieces: int) -> Ring:
    """A ring of the stage with one of the pieces of a bucket on it."""
    whole = next(r for r in rings if r.experts == ring.experts and not r.between)
    own = (size.experts if ring.experts else size.dense) / pieces
    precise = 0.0 if ring.experts else size.precise / pieces
    return ring._replace(parameters=own / whole.ranks if ring.between else own, precise=precise)


def _weights(plan: Plan, machine: Machine, stage: int) -> list[_Weight]:
    """Of each unit of a stage; what a stage has beside them all (a copy of a shared table) is its last unit's."""
    local, held = optimizer.experts_held(plan, machine), optimizer.shards(plan, machine, stage)
    own = [family.weights(machine.site.shape, [unit]) for unit in machine.stages[stage]]
    each = [_Weight(p.linear + p.other - p.shared, p.experts * local, p.other - p.shared) for p in own]
    rest = held.dense - sum(weight.dense for weight in each)
    each[-1] = each[-1]._replace(dense=each[-1].dense + rest, precise=each[-1].precise + rest)
    return each


def _limit(plan: Plan, machine: Machine, own: Moves, ranks: int) -> float:
    """Parameters of a bucket."""
    said, bits = plan.scenario.overlap.buckets, machine.recipe.gradient.bits
    if said is None and machine.site.stack.plain_update:
        said = DDP_BYTES
    return max(MEGATRON, EACH * ranks) if said is None else said * 8 / bits


def _whole(units: Sequence[Unit]) -> list[list[int]]:
    """A bucket a layer, and one of all else."""
    ends = [i for i, unit in enumerate(units) if not unit.block]
    return sorted(([ends] if ends else []) + [[i] for i, unit in enumerate(units) if unit.block])


def _filled(each: Sequence[_Weight], limit: float) -> list[list[int]]:
    """Buckets that units fill, from the last one on; what is left joins the last to be filled."""
    groups: list[list[int]] = [[]]
    for number in reversed(range(len(each))):
        if groups[-1] and sum(each[i].both for i in groups[-1]) >= limit:
            groups.append([])
        groups[-1].append(number)
    return [group[::-1] for group in reversed(groups)]


def _pieces(machine: Machine, unit: Unit, size: _Weight, limit: float) -> int:
    """Collectives that the tensors of a unit fill, from the last one on; by size alone where no stack says them."""
    lowered = updates(machine.family, machine.site.stack)
    if lowered is None:
        return max(1, int(size.both // limit))
    return max(1, sum(1 for _ in _closed(lowered.tensors(machine.site, unit)[::-1], limit)))


def _closed(sizes: Iterable[int], limit: float) -> Iterator[float]:
    """Parameters of each bucket that tensors fill."""
    full = 0.0
    for size in sizes:
        full += size
        if full >= limit:
            yield full
            full = 0.0


AT_ONCE = 2
"""Buckets whose parameters are whole at once: of the units at work and of the next ones; and whose gradients are: of
those being made and of those being reduced."""


def weights(plan: Plan, machine: Machine, stage: int) -> tuple[float, float]:
    """Whole weights at most, and those of a shard beside them: all, or a shard and what is gathered: all where it is
    kept from forward to backward, else what is no layer and the two largest buckets next to each other."""
    own, held = moves(plan.scenario), optimizer.shards(plan, machine, stage)
    whole = held.dense + held.experts
    if (own.gathers in (NEVER, FIRST) and not own.units) or held.updated == whole:
        return whole, 0.0
    if own.gathers in (EVERY, FIRST):
        return whole, held.updated
    return _at_once(buckets(plan, machine, stage), own), held.updated


def gradients(plan: Plan, machine: Machine, stage: int) -> tuple[float, float]:
    """Gradients at most: buckets that are there all the time beside them, and those that the first backward leaves: all
    of them, or a shard and those that are not reduced yet."""
    own, held = moves(plan.scenario), optimizer.shards(plan, machine, stage)
    rings = [ring for ring in optimizer.rings(plan, machine, stage) if ring.parameters]
    whole, alone = held.dense + held.experts, all(ring.ranks == 1 for ring in rings)
    if own.reduces == EVERY and not alone:
        return 0.0, held.updated + _at_once(buckets(plan, machine, stage), own)
    if own.reduces == LAST and own.units and not alone:  # summed up whole, but of one micro-batch
        beside = whole if plan.micro_batches > 1 else held.updated
        return 0.0, beside + _at_once(buckets(plan, machine, stage), own)
    return whole * (own.reduces == LAST and not alone), whole


def _at_once(parts: Sequence[Bucket], own: Moves) -> float:
    """Parameters of the two largest buckets that follow each other, and of what is no layer where layers are units."""
    ends = [b.size for b in parts if own.units and b.layer < 0]
    layers = [b.size for b in parts if not (own.units and b.layer < 0)]
    return sum(ends) + max((sum(layers[i : i + AT_ONCE]) for i in range(len(layers))), default=0.0)


ALIGNED, ON_DEMAND, BEFORE = "aligned", "on_demand", "before"
"""When parameters that are gathered beside forward are asked for: by all stages when the step begins, by each when its
first forward comes to them, or before the step (`overlap.gather`)."""


class Traffic(NamedTuple):
    """What a pass over a stage moves of its parameters and gradients. buckets: by their first units. forward, backward:
    whether parameters are gathered in it. reduce: whether gradients are reduced in its backward. moves: of the
    scenario. shared: kernels that end the pass, of something that all ranks of the stage tell each other. routed:
    number of the unit before whose experts theirs are gathered, with nothing ahead; -1: they come with the others.
    sums: whether gradients are added to those of other micro-batches before they are reduced."""

    buckets: tuple[Bucket, ...]
    forward: bool
    backward: bool
    reduce: bool
    moves: Moves
    shared: tuple[Kernel, ...] = ()
    routed: int = -1
    sums: bool = False


def traffic(plan: Plan, machine: Machine, stage: int, first: bool = False, last: bool = False) -> Traffic | None:
    """Of a stage; None where nothing moves. first, last: whether it is the first forward, or the last backward, of the
    stage in a step."""
    own = moves(plan.scenario)
    once = own.gathers == FIRST and first and (own.units or _asks(plan, machine, stage))
    forward = once or own.gathers in (EVERY, AGAIN)
    reduce = own.reduces == EVERY or (own.reduces == LAST and last)
    shared = _largest(plan, machine, stage)
    sums = own.sums and plan.micro_batches > 1
    if not (forward or reduce or sums) or all(ring.ranks == 1 for ring in optimizer.rings(plan, machine, stage)):
        return Traffic((), False, False, False, own, shared) if shared else None
    alike = tuple(_unnumbered(bucket) for bucket in gathered(plan, machine, stage))
    units = relative(machine.stages[stage])[0] if once and _demanded(plan, stage) else ()
    routed = next((number for number, unit in enumerate(units) if unit.routed), -1)
    return Traffic(alike, forward, own.gathers == AGAIN, reduce, own, shared, routed, sums)


def _asks(plan: Plan, machine: Machine, stage: int) -> bool:
    """Whether the first forward of a stage waits for parameters: those of no validation before the step, that were not
    asked for when it began, or are not there yet."""
    word = asked(plan)
    return word == ON_DEMAND or (word == ALIGNED and not _gathered_before(plan, machine, stage))


def asked(plan: Plan) -> str:
    """When parameters that are gathered beside forward are asked for. Unless said, as Megatron-LM and Megatron-Bridge
    do: aligned where a rank has several stages, else on demand (validate_args of megatron/training/arguments.py, and
    comm_overlap.py, _get_optimizer_overlap_cfgs, set align_param_gather false without an interleaved schedule)."""
    one = plan.scenario.stack.name == "megatron" and all(len(held) == 1 for held in plan.holds)
    return plan.scenario.overlap.gather or (ON_DEMAND if one else ALIGNED)


def gathered(plan: Plan, machine: Machine, stage: int) -> tuple[Bucket, ...]:
    """Buckets as parameters of a stage are gathered; those that its first forward asks for are one, but at stage 0."""
    return buckets(plan, machine, stage, _demanded(plan, stage))


def _demanded(plan: Plan, stage: int) -> bool:
    """Whether a stage's parameters are one bucket that it asks for: Megatron Core has several at the first stage alone
    (distributed_data_parallel.py: bucket_size None where the pipeline rank is not 0, or by disable_bucketing, which
    Megatron-LM and Megatron-Bridge set for each chunk behind a rank's first). Experts' are another, with its own
    collective, which the first of them asks for (_make_forward_pre_hook, finish_param_sync). Gradients keep their
    buckets: what is reduced last is the first stage's."""
    own = moves(plan.scenario)
    return (own.reduces, own.gathers, own.units, asked(plan)) == (NEVER, FIRST, False, ON_DEMAND) and stage > 0


def _largest(plan: Plan, machine: Machine, stage: int) -> tuple[Kernel, ...]:
    """Largest values of a pass under delayed scaling, joined, told all ranks of the stage, and made into scales: at the
    end of each chunk's forward and of its backward, before anything else (NVIDIA/TransformerEngine v2.3,
    pytorch/fp8.py, reduce_and_update_fp8_tensors; its group: NVIDIA/Megatron-LM, megatron/core/parallel_state.py,
    get_amax_reduction_group, tensor, context and data parallel ranks)."""
    ranks = machine.cluster.gpus // plan.scenario.parallel.pipeline
    if machine.recipe.name != "fp8_delayed" or ranks == 1:
        return ()
    values = VALUES * sum(unit.block for unit in machine.stages[stage])
    nodes = -(-ranks // machine.cluster.node.gpus)
    reduced = Collective("all_reduce", values * PLAIN_FP32.row_bytes(1), ranks, nodes, form="fp32")
    return (
        Kernel("join_amax", small("tiny")), Kernel("share_amax", reduced, COMMUNICATION, meets=SHARD[False]),
        Kernel("scales", small("tiny")),
    )  # fmt: skip


VALUES = 8
"""Of a layer in a direction: inputs and weights of four products forward, gradients of their outputs backward."""


def gathered_again(parts: Iterable[Bucket], own: Moves) -> list[Bucket]:
    """Those that a backward gathers where forward let them go: what is no layer is kept where layers are units."""
    return [bucket for bucket in parts if own.gathers == AGAIN and not (own.units and bucket.layer < 0)]


def _gathered_before(plan: Plan, machine: Machine, stage: int) -> bool:
    """Whether a stage has its parameters when its first activations come: all stages ask for them when the step begins
    (Megatron-LM, megatron/training/arguments.py, --no-align-param-gather: by default pipeline stages launch their
    all-gathers simultaneously), and wait for the forwards of those before them. Torch's units are asked for by forward
    itself, behind the activations that it waits for (FSDP2, _fsdp_state.py, _root_pre_forward)."""
    before = sum(machine.unit_ns(unit, "F") for units in machine.stages[:stage] for unit in units)
    ops = [op for bucket in buckets(plan, machine, stage) for _, op in bucket.gather]
    return bool(stage) and sum(machine.pricer.price(op).ns for op in ops) <= before


def _unnumbered(bucket: Bucket) -> Bucket:
    """Without the number of its stage: stages that are alike move the same."""
    gather, reduce = (tuple((r._replace(stage=0), op) for r, op in each) for each in (bucket.gather, bucket.reduce))
    return bucket._replace(gather=gather, reduce=reduce)
