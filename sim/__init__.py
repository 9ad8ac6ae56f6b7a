"""Trainyard's simulator: `run(scenario) -> Result`, pure and picklable; the same scenario gives the same bytes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario import Scenario

SCHEMA_VERSION = 1
"""Of result.json."""


def run(scenario: "Scenario") -> "Result":
    """Simulate one training step.

    Raises ValueError with one line when the schedule cannot run this shape or the device cannot do what is asked, and
    sim.engine.DeadlockError when ranks wait for each other in a circle.
    """
    from sim.study import study

    return study(scenario)
