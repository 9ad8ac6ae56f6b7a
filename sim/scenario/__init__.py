"""Scenarios: what a run is asked, read from YAML, checked as a whole, and frozen."""

from sim.scenario.files import from_mapping, load, schema
from sim.scenario.shelves import MODELS, SCENARIOS, models
from sim.scenario.values import FOREVER, Cluster, Fault, Routing, Scenario

__all__ = [
    "FOREVER", "MODELS", "SCENARIOS", "Cluster", "Fault", "Routing", "Scenario", "from_mapping", "load", "models",
    "schema",
]  # fmt: skip
