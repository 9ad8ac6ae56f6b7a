"""How long the steps of one kind took where ranks differ, rank by rank."""

from typing import Any

import numpy as np

from hwmodels.units import NS_PER_S
from sim.plan import Plan
from sim.program import Step
from sim.ranks.crowd import Crowd


def took(plan: Plan, everyone: Crowd, position: int, step: Step) -> dict[str, Any]:
    """Seconds of the steps at a position that do as `step` does, of any micro-batch: each rank's mean over them, of
    these the mean, smallest and largest; and how many steps a rank has."""
    same, rows = _kind(step), zip(plan.program.steps[position], everyone.crossings[position], strict=True)
    spent = [crossing.ends - crossing.starts for each, crossing in rows if _kind(each) == same]
    means, weight = np.mean(spent, axis=0) / NS_PER_S, everyone.replicas.weight
    mean = float(means @ weight / weight.sum())
    return {"seconds": mean, "min": float(means.min()), "max": float(means.max()), "steps": len(spent)}


def _kind(step: Step) -> tuple[str, int, int]:
    return step.kind, step.stage, step.stage_b
