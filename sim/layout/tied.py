"""Gradients of an embedding that several positions hold: they are summed among them before anything is updated.

A head that is tied to the input embedding works on a copy of its table where the first stage is on another position.
Megatron Core all-reduces the whole table's gradient over the positions with one, in the format gradients are kept in
and after they are reduced over data-parallel ranks (`_allreduce_word_embedding_grads` of
megatron/core/distributed/finalize_model_grads.py, NVIDIA/Megatron-LM @d98e8a6), also of modules beside the model. For
DeepSeek's stack only tied heads count: where the modules share the embedding, its report has them on one rank (sec
3.2.3), and how other schedules would sum is not published.
"""

import numpy as np

from hwmodels.op import Collective
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.models.family import weights
from sim.models.stacks.stack import DEEPSEEK


def sync_ns(plan: Plan, machine: Machine, position: int) -> int:
    """How long a position takes for it; 0 where it holds no table, or nobody else does."""
    together = sync(plan, machine)
    return machine.pricer.price(together).ns if together and position in holders(plan, machine) else 0


def sync(plan: Plan, machine: Machine) -> Collective | None:
    """The all-reduce of a replica's table; None where there is one copy."""
    positions, table = holders(plan, machine), max(_table(machine, stage) for stage in range(plan.program.stages))
    if len(positions) < 2:
        return None
    nodes = np.sort([plan.mesh.node(plan.mesh.of_position(position)) for position in positions], axis=0)
    most = int(1 + (np.diff(nodes, axis=0) > 0).sum(axis=0).max())
    return Collective("all_reduce", table * machine.recipe.gradient.bits / 8, len(positions), most)


def holders(plan: Plan, machine: Machine) -> tuple[int, ...]:
    """Positions with a table: that of the first stage, and those of stages with a second use of it elsewhere."""
    uses = (stage for stage in range(plan.program.stages) if _table(machine, stage))
    apart = {position for stage in uses for position in plan.holders(stage) if 0 not in plan.holds[position]}
    return (plan.holders(0)[0], *sorted(apart)) if apart else ()


def _table(machine: Machine, stage: int) -> int:
    """Parameters of the input embedding that a stage uses a second time."""
    units = [unit for unit in machine.stages[stage] if not unit.beside or machine.site.stack.name != DEEPSEEK.name]
    return max((weights(machine.site.shape, [unit]).table for unit in units), default=0)
