"""Formats of Megatron Core: FP32 main gradients, master weights and moments; what a GPU reads both ways."""

from dataclasses import replace

from hwmodels.formats import PLAIN_FP32
from sim.models.layer import Unit
from sim.models.precision import RECIPES, Recipe
from sim.models.stacks.cudnn import Shared


def recipe(own: Recipe) -> Recipe:
    """Adam's moments in FP32, unless a scenario says otherwise (`--exp-avg-dtype`)."""
    return replace(own, moment=PLAIN_FP32)


PRECISE = 0.15
"""Part of the layers that an NVFP4 recipe leaves in BF16, at the end of the model (arXiv:2509.25149 sec 4: about 15 %
of linear layers, most of them at its end)."""


def of_unit(site: Shared, unit: Unit) -> Shared:
    """The site with the recipe of a unit: products in BF16 at the end of a model in NVFP4, states as they are."""
    first = site.shape.layers - max(1, round(PRECISE * site.shape.layers))
    if site.recipe.name != "nvfp4" or unit.layer < first:
        return site
    bf16, own = RECIPES["bf16"], site.recipe
    return site._replace(recipe=replace(bf16, gradient=own.gradient, master=own.master, moment=own.moment))
