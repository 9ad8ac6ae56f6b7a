"""Formats of plain torch: gradients in the format of parameters, which have no other copies."""

from dataclasses import replace

from hwmodels.formats import BF16
from sim.models.precision import NOTHING, Recipe


def recipe(own: Recipe) -> Recipe:
    """Parameters, gradients and moments in BF16: what the optimizer updates is what products read."""
    return replace(own, master=NOTHING, gradient=BF16)
