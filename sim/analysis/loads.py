"""What a run says of the loads it drew: a row for each rank in each layer with experts, and figures over them all."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.result import RankLoads
from sim.routing.bias import max_violation
from sim.routing.loads import Loads
from sim.scenario.histogram import Histogram

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
"""Percentiles of expert rows in result.json; the smallest and largest are in `expert_rows`."""
NOTICED = 0.05
"""Part of an expert's largest load by which what is drawn may differ from what was recorded without a word."""


def routing_figures(plan: Plan, machine: Machine, drawn: Loads) -> dict[str, Any]:
    """What result.json says. MaxVio is that of experts, copies of one together; what ranks get, which copies even out,
    is beside it. Percentiles are over ranks, layers and micro-batches. Nodes that a token reaches are expected values,
    ranks those of the tokens drawn."""
    layers, (nodes, ranks) = layers_of(machine, drawn), reach(machine, drawn)
    return {
        "kind": plan.scenario.routing.kind,
        "layers": layers.tolist(),
        "max_vio": _violations("experts, by the tokens drawn for each in the step", drawn.experts, layers)
        | _recorded(plan.scenario.routing.histogram, layers),
        "rank_imbalance": {
            name: _violations(of, values.sum(axis=1, dtype=np.int64), layers)
            for name, of, values in (
                ("received", "ranks, by the tokens that each receives in the step", drawn.received),
                ("rows", "ranks, by the padded rows of each rank's experts in the step", drawn.rows),
            )
        },
        "rows_percentiles": dict(zip(map(str, PERCENTILES), _percentiles(drawn.rows), strict=True)),
        "nodes_per_token_expected": nodes.tolist(),
        "ranks_per_token": ranks.tolist(),
    }


def _violations(of: str, loads: npt.ArrayLike, layers: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The largest of loads [layers, holders] over the mean, less 1: of each layer, their mean, and the worst."""
    violations = max_violation(loads)
    return {
        "of": of,
        "by_layer": violations.tolist(),
        "mean": float(violations.mean()),
        "worst": float(violations.max()),
        "worst_layer": int(layers[violations.argmax()]),
    }


def _recorded(rows: Histogram | None, layers: npt.NDArray[np.int64]) -> dict[str, Any]:
    """MaxVio of the histogram, where there is one: of each layer by its row, the last again for those past it."""
    if not rows:
        return {}
    shares = np.asarray(rows, dtype=np.float64)[np.minimum(np.arange(len(layers)), len(rows) - 1)]
    return {"recorded": _violations("experts, by the tokens recorded", shares, layers)}


def unlike(summary: dict[str, Any]) -> str:
    """A line on layers whose largest load as drawn differs by more than NOTICED from the recorded one; "" if none.
    summary: as `routing_figures` gives it."""
    violations = summary["max_vio"]
    if "recorded" not in violations:
        return ""
    drawn, recorded = (1 + np.array(each["by_layer"]) for each in (violations, violations["recorded"]))
    off = np.abs(drawn / recorded - 1)
    if off.max() <= NOTICED:
        return ""
    worst = int(off.argmax())
    return (
        f"routing.histogram: as drawn, the busiest expert's load differs from the recorded one by more than"
        f" {NOTICED:.0%} in {(off > NOTICED).sum()} of {len(off)} layers (layer {summary['layers'][worst]}: MaxVio"
        f" {drawn[worst] - 1:.3g}, recorded {recorded[worst] - 1:.3g}); few tokens do that by chance"
    )


def _percentiles(rows: npt.NDArray[np.int32]) -> list[int]:
    """Whole tiles, as each is the value of some rank."""
    return [int(value) for value in np.percentile(rows, PERCENTILES, method="inverted_cdf")]


def layers_of(machine: Machine, drawn: Loads) -> npt.NDArray[np.int64]:
    """Numbers of the layers with experts, as in the model, prediction modules after the last."""
    return np.array([unit.layer for unit in machine.routed[: len(drawn.rows)]], dtype=np.int64)


def reach(machine: Machine, drawn: Loads) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distinct nodes, expected, and distinct ranks, as drawn, that a token reaches in each layer [layers]."""
    site = machine.site
    return site.nodes_reached * drawn.reached.mean(axis=1), drawn.received.mean(axis=(1, 2)) / site.tokens


class _Part(NamedTuple):
    """Ranks of one pipeline position in one layer: its number in the loads, and the micro-batches that come there."""

    number: int
    position: int
    micro_batches: list[int]


def rank_loads(plan: Plan, machine: Machine, drawn: Loads) -> RankLoads:
    """A row for each layer and rank that has it. Where a schedule runs a stage in two places (DualPipe), each has its
    own micro-batches."""
    parts = sorted(_parts(plan, machine))
    replica = np.arange(plan.mesh.replicas)
    layers, (nodes, ranks) = layers_of(machine, drawn), reach(machine, drawn)
    index, position, count = (
        np.repeat(column, plan.mesh.replicas)
        for column in zip(*((part.number, part.position, len(part.micro_batches)) for part in parts), strict=True)
    )
    return RankLoads(
        layer=layers[index], rank=position * plan.mesh.replicas + np.tile(replica, len(parts)), position=position,
        micro_batches=count, received=_spread(drawn.received, parts), rows=_spread(drawn.rows, parts),
        nodes_reached=nodes[index], ranks_reached=ranks[index], group=machine.site.group,
        gpus_per_node=machine.cluster.node.gpus, expected_rows=machine.site.rows,
    )  # fmt: skip


def _parts(plan: Plan, machine: Machine) -> Iterator[_Part]:
    for position, stages in enumerate(plan.holds):
        for stage in stages:
            mine = [m for m in range(plan.micro_batches) if plan.homes[stage, m] == position]
            for unit in machine.stages[stage]:
                if unit.routed:
                    yield _Part(machine.routed.index(unit), position, mine)


def _spread(values: npt.NDArray[np.int32], parts: list[_Part]) -> npt.NDArray[np.float64]:
    """Mean, smallest and largest over micro-batches [rows, 3] of values [layer, micro-batch, replica]."""
    blocks = (values[part.number, part.micro_batches] for part in parts)
    return np.concatenate([np.stack([b.mean(axis=0), b.min(axis=0), b.max(axis=0)], axis=1) for b in blocks])
