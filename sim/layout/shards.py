"""What is sharded over data parallelism and when it moves: ZeRO's stages (arXiv:1910.02054) as stacks build them.

Gradients that are not sharded are reduced once a step, after the last backward of a stage; sharded ones after every
backward, for nobody keeps them whole. Parameters that are not sharded are gathered once a step, after the update or
beside the first forwards; sharded ones for every forward, and again for every backward where they were let go between.
Torch's fully_shard keeps shards of parameters between steps under ZeRO-2 too, with reshard_after_forward false
(docs.pytorch.org, torch.distributed.fsdp.fully_shard), and is overlapped by its nature, pipelines apart; so is DDP,
whose gradients are copied into buckets and back (gradient_as_bucket_view false; DistributedDataParallel).
FullyShardedDataParallel, which came before fully_shard, has all of a unit's parameters in one tensor: they are gathered
into it, and its gradient is put together of theirs (`stack.flat`).
Told not to (`parallel.no_sync`), fully_shard reduces in a step's last backward alone: each one then adds its gradients,
unsharded, to a sum in the format that is reduced (torch/distributed/fsdp/_fully_shard/_fsdp_param_group.py,
post_backward: accumulate_unsharded_grad_if_needed; the first one's are copied, told as added, a bound).
Megatron Core overlaps what --overlap-grad-reduce and --overlap-param-gather ask for.
"""

from typing import NamedTuple

from sim.scenario.values import Scenario

NEVER, FIRST, LAST, EVERY, AGAIN = "never", "first", "last", "every", "again"
"""In which passes something moves: none (behind all of them, or not at all), the first forward of a stage in a step,
its last backward, every one; or every forward and every backward too."""


class Moves(NamedTuple):
    """zero: stage. reduces: gradients, in which backwards (never, last or every); gathers: parameters, in which passes
    (never, first, every or again). beside: gradients are reduced beside backward, bucket by bucket: in it, or on the
    network lane from when they are made. ahead: parameters are gathered beside the pass, one bucket ahead. units: a
    bucket is a layer. copied: buckets are copied into and out of buffers. drains: gradients of a stage that are not
    reduced beside backward are when that is through, though the rank has others to do. flat: a bucket is one tensor.
    sums: gradients of micro-batches are added up whole before they are reduced."""

    zero: int
    reduces: str
    gathers: str
    beside: bool
    ahead: bool
    units: bool
    copied: bool
    drains: bool
    flat: bool = False
    sums: bool = False


def moves(scenario: Scenario) -> Moves:
    """Of a scenario."""
    zero, overlap, stack = scenario.parallel.zero, scenario.overlap, scenario.stack
    units = stack.units and zero > 1
    flat = stack.flat and units
    beside = stack.units if overlap.gradients is None else overlap.gradients
    ahead = units if overlap.parameters is None else overlap.parameters
    if units and scenario.parallel.pipeline > 1:
        return _pipelined(scenario)
    drains = stack.drains and overlap.gradients is None
    inside = beside and stack.units  # DDP's backward ends when all are reduced
    sums = scenario.parallel.no_sync and units
    reduces = LAST if sums or (inside and zero < 2) else EVERY if zero > 1 else NEVER
    gathers, copied = _gathers(scenario, units, ahead), stack.units and not flat
    return Moves(zero, reduces, gathers, beside, ahead, units, copied, drains, flat, sums)


def _pipelined(scenario: Scenario) -> Moves:
    """Of torch's fully_shard in a pipeline: a stage's gradients stay whole and are reduced once, when its last backward
    is through, and what forward leaves whole is gathered by the first one alone (torch/distributed/pipelining/stage.py,
    backward_maybe_with_nosync: no sync and no reshard but behind the last). Parameters that forward lets go are
    gathered for each pass, a bound: those that a backward leaves serve the forward behind it there."""
    gathers = AGAIN if scenario.parallel.zero == 3 and scenario.parallel.reshard else FIRST
    flat = scenario.stack.flat
    return Moves(scenario.parallel.zero, NEVER, gathers, False, True, True, not flat, True, flat, not flat)


def spread(scenario: Scenario, copies: int) -> tuple[int, int]:
    """Of the copies of a stage that a schedule holds: over how many a shard's ranks go, and how many have shards of
    their own. Where gradients are sharded each pass asks for them at one position, so its ranks share a copy by
    themselves; sums of copies meet once a step, as where shards have replicas (set_requires_all_reduce of FSDP2)."""
    return (1, copies) if scenario.parallel.zero > 1 else (copies, 1)


def _gathers(scenario: Scenario, units: bool, ahead: bool) -> str:
    zero = scenario.parallel.zero
    if zero == 3:
        return AGAIN if scenario.parallel.reshard else EVERY
    if units:
        return EVERY
    return FIRST if ahead and zero else NEVER
