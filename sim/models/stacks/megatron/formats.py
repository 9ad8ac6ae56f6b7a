"""Formats of Megatron Core: FP32 main gradients, master weights and moments; what a GPU reads both ways."""

from dataclasses import replace

from hwmodels.formats import PLAIN_FP32
from sim.models.layer import Unit
from sim.models.precision import RECIPES, Recipe
from sim.models.stacks.cudnn import Shared


def recipe(own: Recipe) -> Recipe:
    """Adam's moments in FP32, unless a scenario says otherwise (`--exp-avg-dtype`)."""
    return replace(own, moment=PLAIN_FP32)


def of_unit(site: Shared, unit: Unit) -> Shared:
    """The site with the recipe of a unit: products in BF16 in the first and last layers that the stack says (Megatron
    Core's `first_last_layers_bf16`; what predicts further tokens counts as an end), states as they are."""
    if not unit.precise:
        return site
    bf16, own = RECIPES["bf16"], site.recipe
    return site._replace(recipe=replace(bf16, gradient=own.gradient, master=own.master, moment=own.moment))
