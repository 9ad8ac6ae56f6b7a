"""Gradients of an embedding that several positions hold: they are summed among them before anything is updated.

A head that is tied to the input embedding works on a copy of its table where the first stage is on another position.
Megatron Core all-reduces the whole table's gradient over the positions with one, in the format gradients are kept in
and after they are reduced over data-parallel ranks (`_allreduce_word_embedding_grads` of
megatron/core/distributed/finalize_model_grads.py, NVIDIA/Megatron-LM @d98e8a6), also of modules beside the model. For
DeepSeek's stack only tied heads count: where the modules share the embedding, its report has them on one rank (sec
3.2.3), and how other schedules would sum is not published.
"""

from collections.abc import Sequence

import numpy as np

from hwmodels.op import Collective
from sim.layout.machine import Machine
from sim.layout.placement import alike
from sim.layout.plan import Plan
from sim.models.family import weights
from sim.models.layer import Unit
from sim.models.stacks.stack import DEEPSEEK


def sync_ns(plan: Plan, machine: Machine, position: int) -> int:
    """How long a position takes for it; 0 where it holds no table, or nobody else does."""
    together = sync(plan, machine)
    return machine.pricer.price(together).ns if together and position in holders(plan, machine) else 0


def sync(plan: Plan, machine: Machine) -> Collective | None:
    """The all-reduce of a replica's table; None where there is one copy."""
    positions, table = holders(plan, machine), max(_tables(plan, machine))
    if len(positions) < 2:
        return None
    nodes = np.sort([plan.mesh.node(plan.mesh.of_position(position)) for position in positions], axis=0)
    most = int(1 + (np.diff(nodes, axis=0) > 0).sum(axis=0).max())
    return Collective("all_reduce", table * machine.recipe.gradient.bits / 8, len(positions), most)


def holders(plan: Plan, machine: Machine) -> tuple[int, ...]:
    """Positions with a table: that of the first stage, and those of stages with a second use of it elsewhere."""
    uses = (stage for stage, table in enumerate(_tables(plan, machine)) if table)
    apart = {position for stage in uses for position in plan.holders(stage) if 0 not in plan.holds[position]}
    return (plan.holders(0)[0], *sorted(apart)) if apart else ()


def _tables(plan: Plan, machine: Machine) -> Sequence[int]:
    """Parameters of the input embedding that each stage uses a second time."""
    key = ("tables", machine.stages)
    if key not in plan.kept:
        plan.kept[key] = [max((_table(machine, unit) for unit in set(alike(units))), default=0)
                          for units in machine.stages]  # fmt: skip
    own: Sequence[int] = plan.kept[key]
    return own


def _table(machine: Machine, unit: Unit) -> int:
    apart = unit.beside and machine.site.stack.name == DEEPSEEK.name
    return 0 if apart else weights(machine.site.shape, [unit]).table
