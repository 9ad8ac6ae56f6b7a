"""Trainyard's simulator: `run(scenario) -> Result`, pure and picklable; the same scenario gives the same bytes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.result import Result
    from sim.scenario import Scenario

SCHEMA_VERSION = 1
"""Of result.json."""


def run(scenario: "Scenario", interval: bool = True) -> "Result":
    """Simulate one training step. interval: with 90 % intervals and the tornado, about half of the time of a run.

    Raises ValueError with one line when the schedule cannot run this shape, the device cannot do what is asked or
    something is too large to count or to hold, and
    sim.engine.events.DeadlockError when ranks wait for each other in a circle.
    """
    from sim.simulation import run as simulate

    try:
        return simulate(scenario, interval)
    except (OverflowError, MemoryError) as error:
        raise ValueError(beyond(error)) from None


def beyond(error: Exception) -> str:
    """One line on figures that no whole number of nanoseconds or bytes, or no memory, can hold."""
    if isinstance(error, MemoryError):
        return "needs more memory than there is: fewer or shorter sequences, layers, experts or ranks need less"
    return (
        "a time or a size is too large to count (times are whole nanoseconds, up to 292 years): look for a bandwidth"
        " that is too small, or a time, a number of tokens or a dimension of the model that is too large"
    )
