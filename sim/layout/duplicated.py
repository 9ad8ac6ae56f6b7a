"""Gradients of parameters that all ranks of a tensor group hold whole: they are summed over the group once a step.

Under sequence parallelism each rank has used them for its own tokens alone: norms, the gate, and products that are not
divided, such as those that compress queries, keys and values. Megatron Core marks them `sequence_parallel` and
all-reduces them at once, in the format gradients are kept in, behind the reductions over data-parallel ranks
(`_allreduce_non_tensor_model_parallel_grads` of megatron/core/distributed/finalize_model_grads.py,
NVIDIA/Megatron-LM @d98e8a6; duplicated products: megatron/core/extensions/transformer_engine.py, TELinear). Torch sums
each of them in the backward that makes it, a few thousand numbers, which is left out.
"""

from hwmodels.op import Collective
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.models.family import weights
from sim.models.shape import ModelShape


def sync_ns(plan: Plan, machine: Machine, position: int) -> int:
    """How long a position takes for it; 0 where each rank has used them for all tokens."""
    groups = machine.site.groups
    if groups.tensor == 1 or not groups.sequence or machine.site.stack.plain_update:
        return 0
    size = parameters(plan, machine, position) * machine.recipe.gradient.bits / 8
    return machine.pricer.price(Collective("all_reduce", size, groups.tensor, groups.tensor_nodes)).ns if size else 0


def parameters(plan: Plan, machine: Machine, position: int) -> float:
    """Parameters of a position that all ranks of a tensor group of t have, routed experts apart. All others are divided
    by t, so of a whole W = t (w - d) + d, where a rank has w."""
    ranks = machine.site.groups.tensor
    part, whole = (_held(plan, machine, shape, position) for shape in (machine.site.shape, machine.whole))
    return (ranks * part - whole) / (ranks - 1)


def _held(plan: Plan, machine: Machine, shape: ModelShape, position: int) -> int:
    """Of the units of a position, routed experts apart."""
    total = weights(shape, [unit for stage in plan.holds[position] for unit in machine.stages[stage]])
    return total.linear + total.other - total.shared
