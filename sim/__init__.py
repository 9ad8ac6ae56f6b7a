"""Trainyard's simulator: `run(scenario) -> Result`, pure and picklable; the same scenario gives the same bytes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario.values import Scenario


def run(scenario: "Scenario", interval: bool = True) -> "Result":
    """Simulate one training step. interval: with 90 % intervals and the tornado, about half of the time of a run.

    Raises hwmodels.refused.Refused when the schedule cannot run this shape, the device cannot do what is asked or
    something is too large to count or to hold. Any other exception is a bug.
    """
    from sim.simulation import run as simulate

    return simulate(scenario, interval)
