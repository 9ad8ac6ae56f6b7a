"""Formats of plain torch: gradients in the format of parameters, which have no other copies."""

from dataclasses import replace

from hwmodels.formats import BF16, PLAIN_BF16
from sim.models.precision import NOTHING, Recipe


def recipe(own: Recipe) -> Recipe:
    """Parameters, gradients and moments in BF16: what the optimizer updates is what products read, or cast anew."""
    return replace(own, weight=PLAIN_BF16, activation=PLAIN_BF16, master=NOTHING, gradient=BF16)
