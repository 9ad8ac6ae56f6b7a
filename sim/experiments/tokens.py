"""What tokens do in a scenario, as plain values: who receives what, how far a token goes, and how a bias evens it out.

Loads are those of a run (sim.routing.imbalance). Layers are numbered as in the model, prediction modules after the
last.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from sim import assembly
from sim.layout.machine import Machine
from sim.layout.plan import Plan, lay_out
from sim.models.family import family
from sim.routing import bias
from sim.routing.gate import Gate, gate_of
from sim.routing.hosts import Hosts
from sim.routing.imbalance import hosts_of, loads_of, popularity_of
from sim.routing.loads import Loads
from sim.routing.popularity import Popularity, even
from sim.routing.traffic import traffic
from sim.scenario.values import Scenario

LAYER_TOKENS = 1 << 10
"""Tokens of a layer sent through the gate to see how far they go: over the 59 layers of V3 a standard error of 0.001
nodes and 0.003 ranks (routing.SAMPLES says what 8,192 give)."""
STEP_TOKENS = 8192
"""Tokens of a step of the bias update in a layer. Few, because all layers and steps take their time; the MaxVio that
chance leaves with so many is told beside (alike)."""


def survey(scenario: Scenario, steps: int = 0) -> dict[str, Any]:
    """Everything told of a scenario with a model; `bias` too when steps are asked for.

    Raises Refused with one line when there is no model, no layer with experts, or no bias in its gate.
    """
    shape = scenario.model
    if shape is None:
        raise Refused("a scenario with chunk_times has no tokens to route; give a model and a cluster")
    own = family(shape.family)
    mixture, routed = own.mixture(shape), [unit.layer for unit in own.units(shape) if unit.routed]
    if mixture is None or not routed:
        raise Refused(f"{shape.name} has no layer with experts")
    plan = lay_out(scenario)
    machine = assembly.machine(plan)
    gate, popularity = gate_of(mixture), popularity_of(scenario, mixture, len(routed))
    drawn, hosts = loads_of(plan, machine), hosts_of(popularity, scenario, mixture, machine.cluster.node.gpus)
    table = {
        "scenario": scenario.name, "overrides": list(scenario.overrides), "scenario_hash": scenario.scenario_hash,
        "routing": scenario.routing.kind,
        "expected": drawn is None, "tokens": machine.site.own, "ranks": plan.mesh.replicas,
        "group": scenario.parallel.expert, "micro_batches": plan.micro_batches,
        "step_tokens": machine.site.own * plan.mesh.replicas * plan.micro_batches,
        "reach": _reach(scenario, machine, gate, popularity, hosts),
        "layers": _layers(popularity, _even(plan, machine, gate, len(popularity)) if drawn is None else drawn, routed),
    }  # fmt: skip
    return table | ({"bias": _balanced(gate, popularity, steps, scenario.seed)} if steps else {})


def _even(plan: Plan, machine: Machine, gate: Gate, layers: int) -> Loads:
    """Loads when every rank is as expected, which is how a run takes them, and every expert chosen as often."""
    shape, experts = (layers, 1, plan.mesh.replicas), np.ones((layers, gate.experts), np.int64)
    received, rows = (np.full(shape, each, np.int32) for each in (machine.site.received, machine.site.rows))
    return Loads(received, rows, experts=experts)


def _layers(popularity: Popularity, drawn: Loads, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """For each layer: extremes over all ranks and micro-batches, every rank in the first one, and MaxVio: of experts'
    tokens as drawn in the step, and of their popularity."""
    violations, of_popularity = (bias.max_violation(loads).tolist() for loads in (drawn.experts, popularity))
    return [
        {
            "layer": number,
            "received": _range(received), "rows": _range(rows), "max_vio": violation, "max_vio_popularity": popular,
            "first_micro_batch": {"received": received[0].tolist(), "rows": rows[0].tolist()},
        }
        for number, violation, popular, received, rows in zip(
            numbers, violations, of_popularity, drawn.received, drawn.rows, strict=True
        )
    ]  # fmt: skip


def _range(values: npt.NDArray[np.int32]) -> dict[str, float]:
    return {"smallest": int(values.min()), "mean": float(values.mean()), "largest": int(values.max())}


def _reach(
    scenario: Scenario, machine: Machine, gate: Gate, popularity: Popularity, hosts: Sequence[Hosts]
) -> dict[str, Any]:
    """Distinct nodes and ranks of a token: by which exchanges are priced, and of tokens drawn through the gate."""
    site = machine.site
    tokens = min(site.tokens, -(-LAYER_TOKENS // site.group))  # of each rank's first micro-batch, its first ones
    layers = [
        traffic(gate, row, where, tokens, scenario.seed, layer, 0)
        for layer, (row, where) in enumerate(zip(popularity, hosts, strict=True))
    ]
    nodes, ranks = (
        float(np.mean(column)) for column in zip(*((f.nodes_reached, f.ranks_reached) for f in layers), strict=True)
    )
    count = tokens * site.group * len(layers)
    return {
        "priced": {"nodes": site.nodes_reached, "ranks": site.ranks_reached},
        "drawn": {"nodes": nodes, "ranks": ranks, "tokens": count},
    }


def _balanced(gate: Gate, popularity: Popularity, steps: int, seed: int) -> dict[str, Any]:
    """MaxVio [step] over layers, each step's before its update; alike: with experts that are all liked alike."""

    def run(popularities: Popularity, steps: int) -> npt.NDArray[np.float64]:
        balances = [bias.balance(gate, row, STEP_TOKENS, steps, seed, layer) for layer, row in enumerate(popularities)]
        return np.stack([f.max_violation for f in balances])

    violations, alike = run(popularity, steps), run(even(*popularity.shape), 1)
    return {
        "tokens": STEP_TOKENS, "speed": bias.SPEED, "alike": float(alike.mean()),
        "steps": [
            {"step": step, "mean": float(column.mean()), "largest": float(column.max())}
            for step, column in enumerate(violations.T)
        ],
    }  # fmt: skip
