"""Scenarios: what a run is asked, read from YAML, checked as a whole, and frozen."""

from sim.scenario.files import from_mapping, load, schema
from sim.scenario.shelves import MODELS, SCENARIOS, models
from sim.scenario.values import (
    FOREVER,
    Batch,
    ChunkTimes,
    Cluster,
    Comm,
    Fault,
    Limits,
    Parallel,
    Routing,
    Scenario,
    Schedule,
)

__all__ = [
    "FOREVER", "MODELS", "SCENARIOS", "Batch", "ChunkTimes", "Cluster", "Comm", "Fault", "Limits", "Parallel",
    "Routing", "Scenario", "Schedule", "from_mapping", "load", "models", "schema",
]  # fmt: skip
