"""Expert loads of a scenario: who is popular, where experts are hosted, and what every rank receives."""

import numpy as np

from sim.models.shape import ModelShape
from sim.plan import Machine, Plan
from sim.scenario import Scenario
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
    liked = liked_in(scenario, shape)
    where = hosts_of(liked, scenario, shape, machine.cluster.node.gpus)
    return loads(gate_of(shape), liked, where, machine.site.tokens, scenario.seed, plan.micro_batches, plan.data)


def liked_in(scenario: Scenario, shape: ModelShape) -> popularity.Popularity:
    """Popularity [MoE layer, expert], the multi-token-prediction modules' layers last."""
    layers = shape.layers - shape.dense_layers + shape.mtp_depth
    return popularity.popularity(scenario.routing, scenario.seed, layers, shape.experts)


def hosts_of(liked: popularity.Popularity, scenario: Scenario, shape: ModelShape, gpus: int) -> list[Hosts]:
    """Where the experts of each layer are, on nodes of so many GPUs."""
    redundant, ranks = scenario.routing.redundant_experts, scenario.parallel.expert
    return [_hosts(row, redundant, shape.groups, ranks, gpus) for row in liked]


def _hosts(liked: popularity.Popularity, redundant: int, groups: int, ranks: int, gpus: int) -> Hosts:
    """Experts in order, or with copies of the popular ones placed by EPLB."""
    if not redundant:
        return in_order(len(liked), ranks, gpus)
    return eplb.hosts(np.round(liked * REBALANCED).astype(np.int64), redundant, groups, ranks, gpus)
