"""Expert loads of a scenario: who is popular, where experts are hosted, and what every rank receives."""

import numpy as np

from sim.layout.machine import Machine
from sim.layout.mesh import Mesh
from sim.layout.plan import Plan
from sim.models.mixture import Mixture
from sim.routing import eplb, popularity
from sim.routing.balanced import padding
from sim.routing.gate import gate_of
from sim.routing.hosts import Hosts, in_order
from sim.routing.loads import Loads, loads
from sim.routing.popularity import Popularity
from sim.scenario.values import Scenario

REBALANCED = 10_000
"""Any whole number large enough to give an expert's expected share of tokens four digits (eplb counts in integers)."""


def loads_of(plan: Plan, machine: Machine) -> Loads | None:
    """Tokens received and padded rows [layer with experts, micro-batch, replica]; None if every rank is as expected."""
    scenario, mixture = plan.scenario, machine.mixture
    routing = scenario.routing
    if mixture is None or not machine.routed or (routing.kind == "balanced" and not routing.redundant_experts):
        return None
    popularity = popularity_of(scenario, mixture, len(machine.routed))
    where = hosts_of(popularity, scenario, mixture, machine.cluster.node.gpus)
    drawn = loads(
        gate_of(mixture), popularity, where, machine.site.own, scenario.seed, plan.micro_batches, plan.mesh.replicas,
        mixture.capacity,
    )  # fmt: skip
    return _of_replicas(drawn, plan.mesh, len(where[0].expert) // where[0].ranks)


def _of_replicas(drawn: Loads, mesh: Mesh, local: int) -> Loads:
    """Loads by replica of those drawn group by group. Ranks that share the columns of experts compute the rows of each
    other too: the mean of theirs, which are padded once where they have come together. local: experts of a rank."""
    received, rows = np.empty_like(drawn.received), np.empty_like(drawn.rows)
    members = mesh.groups("expert").ravel()
    received[..., members], rows[..., members] = drawn.received, drawn.rows
    sharing = mesh.groups("expert_tensor")
    if sharing.shape[1] > 1:
        more = padding(local, 1) - padding(local, sharing.shape[1])
        mean = np.maximum(rows[..., sharing].mean(axis=-1, keepdims=True) - more, 0)
        rows[..., sharing] = np.ceil(mean).astype(np.int32)
    return drawn._replace(received=received, rows=rows)


def popularity_of(scenario: Scenario, mixture: Mixture, layers: int) -> Popularity:
    """Popularity [layer with experts, expert], those of prediction modules last."""
    return popularity.popularity(scenario.routing, scenario.seed, layers, mixture.experts)


def hosts_of(popularity: Popularity, scenario: Scenario, mixture: Mixture, gpus: int) -> list[Hosts]:
    """Hosts of the experts of each layer, on nodes of so many GPUs."""
    redundant, ranks = scenario.routing.redundant_experts, scenario.parallel.expert
    return [_hosts(row, redundant, mixture.groups, ranks, gpus) for row in popularity]


def _hosts(popularity: Popularity, redundant: int, groups: int, ranks: int, gpus: int) -> Hosts:
    """Experts in order, or with copies of the popular ones placed by EPLB."""
    if not redundant:
        return in_order(len(popularity), ranks, gpus)
    return eplb.hosts(np.round(popularity * REBALANCED).astype(np.int64), redundant, groups, ranks, gpus)
