"""What result.json says of ranks that differ: whom the step waits for, and what was drawn for them."""

from collections.abc import Sequence
from typing import Any

from sim.analysis import critical, loads
from sim.analysis.metrics import Ledger
from sim.disturbances import faults
from sim.disturbances.durations import Durations
from sim.engine.lowering import Lowered
from sim.engine.timeline import Timeline
from sim.layout.machine import Machine
from sim.layout.plan import Plan
from sim.routing.loads import Loads

EVEN = "balanced loads, and no faults"
"""Ranks that `communication` is about where ranks differ."""


def summary(
    plan: Plan, machine: Machine, lowered: Lowered, timeline: Timeline, times: Durations, drawn: Loads | None,
    column: int, books: Sequence[Ledger],
) -> dict[str, Any]:  # fmt: skip
    """Keys of result.json. column: of the timeline, the ranks that are drawn."""
    figures: dict[str, Any] = {
        "waiting_for_peers_s": sum(b.inside["peers"] for b in books) / len(books),
        "critical_ranks": critical.named(plan.mesh, critical.critical_ranks(plan, lowered, timeline, times)),
        "shown_replica": int(timeline.columns.first[column]),
    }
    if plan.scenario.uneven:
        figures["communication_of"] = EVEN
    if missed := faults.missed(plan.scenario.faults, timeline.end):
        figures["faults_without_effect"] = missed
    if drawn:
        figures["routing"] = loads.routing_figures(plan, machine, drawn)
        rows = {"smallest": int(drawn.rows.min()), "largest": int(drawn.rows.max())}
        figures["expert_rows"] = rows | {"expected": machine.site.rows}
    return figures
