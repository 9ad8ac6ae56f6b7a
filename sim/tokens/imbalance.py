"""Expert loads of a scenario: who is popular, where experts are hosted, and what every rank receives."""

import numpy as np

from sim.plan import Machine, Plan
from sim.tokens import eplb, popularity
from sim.tokens.gate import gate_of
from sim.tokens.hosts import Hosts, in_order
from sim.tokens.loads import Loads, loads

REBALANCED = 10_000
"""Any whole number large enough to give an expert's expected share of tokens four digits (eplb counts in integers)."""


def loads_of(plan: Plan, machine: Machine) -> Loads | None:
    """Tokens received and padded rows [MoE layer, micro-batch, replica]; None when every rank is as expected."""
    scenario, shape = plan.scenario, machine.site.shape
    routing = scenario.routing
    if routing.kind == "balanced" and not routing.redundant_experts:
        return None
    layers = shape.layers - shape.dense_layers + shape.mtp_depth
    liked = popularity.popularity(routing, scenario.seed, layers, shape.experts)
    ranks, gpus = scenario.parallel.expert, machine.cluster.node.gpus
    hosts = [_hosts(row, routing.redundant_experts, shape.groups, ranks, gpus) for row in liked]
    return loads(gate_of(shape), liked, hosts, machine.site.tokens, scenario.seed, plan.micro_batches, plan.data)


def _hosts(liked: popularity.Popularity, redundant: int, groups: int, ranks: int, gpus: int) -> Hosts:
    """Experts in order, or with copies of the popular ones placed by EPLB."""
    if not redundant:
        return in_order(len(liked), ranks, gpus)
    return eplb.hosts(np.round(liked * REBALANCED).astype(np.int64), redundant, groups, ranks, gpus)
