"""How long the steps of one kind took where ranks differ, rank by rank."""

from typing import Any

from hwmodels.units import NS_PER_S
from sim.engine.timeline import Timeline
from sim.layout.plan import Plan
from sim.schedules.program import Step


def durations(plan: Plan, timeline: Timeline, position: int, step: Step) -> dict[str, Any]:
    """Seconds of the steps at a position that do as `step` does, of any micro-batch: each rank's mean over them, of
    these the mean, smallest and largest; and how many steps a rank has."""
    same, steps = _kind(step), timeline.positions[position]
    chosen = [_kind(each) == same for each in plan.program.steps[position]]
    means, weight = (steps.ends - steps.starts)[chosen].mean(axis=0) / NS_PER_S, timeline.columns.weight
    mean = float(means @ weight / weight.sum())
    return {"seconds": mean, "min": float(means.min()), "max": float(means.max()), "steps": sum(chosen)}


def _kind(step: Step) -> tuple[str, int, int]:
    return step.kind, step.stage, step.stage_b
