"""What a rank keeps of a DeepSeek unit while its gradients are due, and its largest temporaries, in bytes.

What the recipe stores, by what it computes again (see `sim.models.deepseek`): norms' inputs, latents, attention's
output and the gate-up products; no other choice has kernels.
"""

from hwmodels.formats import PLAIN_BF16
from sim.models.activations import Kept, only_recipe
from sim.models.deepseek.shape import Site
from sim.models.layer import Unit
from sim.models.stacks.deepseek import experts, mla, projection
from sim.models.stacks.deepseek.ends import head_kept


def kept(site: Site, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient."""
    only_recipe(site)
    s, t = site.shape, site.tokens
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    if unit.kind == "projection":
        return Kept(projection.kept(site))
    attention = Kept(t * mla.kept(site, s.latent))
    if unit.kind == "dense":
        gate_up = site.recipe.gate_up.row_bytes(s.dense.first)
        return attention + Kept(t * (PLAIN_BF16.row_bytes(s.hidden) + gate_up))
    return attention + experts.kept(site, s.mixed)


def kept_for_weight(site: Site, unit: Unit) -> Kept:
    """From a unit's input gradient to its weight gradient, when the two are split: both sides of each product."""
    only_recipe(site)
    s, t = site.shape, site.tokens
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    if unit.kind == "projection":
        return Kept(projection.kept_for_weight(site))
    attention = Kept(t * mla.kept_for_weight(site, s.latent))
    if unit.kind == "dense":
        sides = 2 * s.hidden + s.dense.first + s.dense.width
        return attention + Kept(t * site.recipe.activation.row_bytes(sides))
    return attention + experts.kept_for_weight(site, s.mixed)


def workspace(site: Site) -> float:
    """That of attention's backward."""
    only_recipe(site)
    return mla.workspace(site, site.shape.latent)
