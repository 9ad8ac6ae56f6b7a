"""Trainyard's simulator: `run(scenario) -> Result`, pure and picklable; the same scenario gives the same bytes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario import Scenario

SCHEMA_VERSION = 1
"""Of result.json."""


def run(scenario: "Scenario") -> "Result":
    """Simulate one training step.

    Raises hwmodels.refused.Refused when the schedule cannot run this shape, the device cannot do what is asked or
    something is too large to count or to hold. Any other exception is a bug.
    """
    from sim.study import study

    return study(scenario)
