"""What result.json says of documents: how long they are, what attention over them costs, how ranks differ by them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwmodels.units import NS_PER_S
from sim.disturbances.attention import Attending, share
from sim.layout.machine import Machine
from sim.layout.plan import Plan

TAIL = 95
"""Percentile by which spreads are told."""


def figures(plan: Plan, machine: Machine, lengths: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Of documents as sequences have them. lengths: their tokens, and how many there are of each."""
    batch = plan.scenario.batch
    sequences = plan.micro_batches * batch.micro_batch * plan.data
    tokens, pieces = np.array(lengths, dtype=float).T
    total = float(tokens @ pieces)
    return {
        "mean_length": total / float(pieces.sum()),
        "mean_length_by_token": float(tokens**2 @ pieces) / total,
        "per_sequence": float(pieces.sum()) / sequences,
        "padding": 1 - total / (sequences * batch.sequence_length),
        "attention_share": share(machine),
    }


def spread(attending: Attending, evened_ns: int, end_ns: int) -> dict[str, Any]:
    """Of documents that differ: how far their compute does, and what that costs. evened_ns: of the step where they take
    every rank and micro-batch alike; end_ns: of the step."""
    compute = attending.attention + attending.rest
    mean = float(attending.attention.mean())
    return {
        "attention_share": mean / (mean + attending.rest),
        "micro_batches_p95": _tail(compute),
        "micro_batches_max": float(compute.max() / compute.mean()),
        "ranks_p95": _tail(compute.sum(axis=0)),
        "ranks_max": float(compute.sum(axis=0).max() / compute.sum(axis=0).mean()),
        "even_step_time_s": evened_ns / NS_PER_S,
        "imbalance_s": (end_ns - evened_ns) / NS_PER_S,
    }


def _tail(values: Any) -> float:
    """The 95th percentile over the mean."""
    return float(np.percentile(values, TAIL) / values.mean())
