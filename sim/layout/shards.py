"""What is sharded over data parallelism and when it moves: ZeRO's stages (arXiv:1910.02054) as stacks build them.

Gradients that are not sharded are reduced once a step, after the last backward of a stage; sharded ones after every
backward, for nobody keeps them whole. Parameters that are not sharded are gathered once a step, after the update or
beside the first forwards; sharded ones for every forward, and again for every backward where they were let go between.
Torch's fully_shard keeps shards of parameters between steps under ZeRO-2 too, with reshard_after_forward false
(docs.pytorch.org, torch.distributed.fsdp.fully_shard), and is overlapped by its nature; DDP overlaps its all-reduces.
Megatron Core overlaps what --overlap-grad-reduce and --overlap-param-gather ask for.
"""

from typing import NamedTuple

from sim.scenario.values import Scenario

NEVER, FIRST, EVERY, AGAIN = "never", "first", "every", "again"
"""In which passes parameters are gathered: none (after the update, or not at all), first forwards, every forward, and
every backward too."""


class Moves(NamedTuple):
    """zero: stage. each: gradients are reduced after every backward. gathers: parameters, one of the words above.
    beside: gradients are reduced beside backward, bucket by bucket. ahead: parameters are gathered beside the pass,
    one bucket ahead. units: in units of a layer, copied into and out of buffers. drains: gradients of a stage that are
    not reduced beside backward are when that is through, though the rank has others to do."""

    zero: int
    each: bool
    gathers: str
    beside: bool
    ahead: bool
    units: bool
    drains: bool


def moves(scenario: Scenario) -> Moves:
    """Of a scenario."""
    zero, overlap, stack = scenario.parallel.zero, scenario.overlap, scenario.stack
    units = stack.units and zero > 1
    beside = stack.plain_update if overlap.gradients is None else overlap.gradients
    ahead = units if overlap.parameters is None else overlap.parameters
    drains = stack.drains and overlap.gradients is None
    return Moves(zero, zero > 1, _gathers(scenario, units, ahead), beside, ahead, units, drains)


def _gathers(scenario: Scenario, units: bool, ahead: bool) -> str:
    zero = scenario.parallel.zero
    if zero == 3:
        return AGAIN if scenario.parallel.reshard else EVERY
    if units:
        return EVERY
    return FIRST if ahead and zero else NEVER
