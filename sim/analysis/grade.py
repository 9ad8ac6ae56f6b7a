"""How well known the prices of a run are: the rung that most of its time rests on, and a line where that is a bound."""

from collections.abc import Mapping
from typing import Any

from hwmodels import sibling
from hwmodels.price import SPREAD
from hwmodels.units import PERCENT
from sim.layout.machine import Machine
from sim.scenario.values import Scenario

UNMEASURED = ("roofline", "assumed")
"""Rungs on which no kernel was measured."""
MOST = 0.5
"""Of the time, from which on a run is mostly of those."""


def graded(machine: Machine, scenario: Scenario, shares: Mapping[str, float]) -> dict[str, Any]:
    """What result.json says of the prices. shares: rung -> its part of the time."""
    grade = max(shares, key=lambda rung: shares[rung], default=None)
    return {"price_grade": grade, "price_warning": _warning(machine, scenario, shares)}


def _warning(machine: Machine, scenario: Scenario, shares: Mapping[str, float]) -> str | None:
    """A line on a run that is mostly a bound; None where it is not."""
    bound = sum(shares.get(rung, 0.0) for rung in UNMEASURED)
    if bound < MOST:
        return None
    name = machine.pricer.device.name
    known = "few kernels at such sizes were" if machine.pricer.shelf else "no kernel was"
    why = "as pricing: roofline asks" if scenario.pricing == "roofline" else f"{known} measured on {name} or a sibling"
    form = scenario.precision
    slower = 1 + max(SPREAD["roofline"], sibling.BOUNDS.get(machine.pricer.device.architecture, {}).get(form, 0.0))
    times = "twice" if slower == 2 else f"{slower:.2g} times"
    what = (
        f"peaks and bandwidth alone, which no kernel reaches ({form.upper()} products take about {times} as long, and"
    )
    return f"mostly roofline ({bound / PERCENT:.0f} % of the time), {why}: {what} the 90 % interval counts that)"
