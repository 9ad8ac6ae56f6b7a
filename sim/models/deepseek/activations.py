"""What a rank keeps of a DeepSeek unit while its gradients are due, and its largest temporaries, in bytes.

What the recipe stores, by what it computes again (see `sim.models.deepseek`): norms' inputs, latents, attention's
output and the gate-up products. Other choices store more or less by block.
"""

from hwmodels.formats import PLAIN_BF16
from sim.models.activations import Kept, layer_input
from sim.models.deepseek.shape import Site
from sim.models.layer import Unit
from sim.models.stacks.deepseek import experts, mla, projection
from sim.models.stacks.deepseek.ends import head_kept
from sim.models.stacks.deepseek.feed_forward import network_again
from sim.models.stacks.deepseek.linear import norm_again


def kept(site: Site, unit: Unit) -> Kept:
    """From a unit's forward to its input gradient."""
    s, t = site.shape, site.tokens
    if unit.checkpoint:
        return layer_input(site, unit)
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    if unit.kind == "projection":
        return Kept(projection.kept(site))
    attention = Kept(t * mla.kept(site, s.latent))
    if unit.kind == "dense":
        norms = PLAIN_BF16.row_bytes(s.hidden)
        norms += 0.0 if norm_again(site) else site.recipe.activation.row_bytes(s.hidden)
        return attention + Kept(t * norms) + (Kept() if network_again(site) else _dense(site))
    return attention + experts.kept(site, s.mixed)


def _dense(site: Site) -> Kept:
    """What a dense network itself keeps, or has again while its backward runs."""
    r, dense = site.recipe, site.shape.dense
    act = 0.0 if experts.activation_again(site) else r.activation.row_bytes(dense.width)
    return Kept(site.tokens * (r.gate_up.row_bytes(dense.first) + act))


def regained(site: Site, unit: Unit) -> Kept:
    """What its backward computes again and holds until it is through, beside the workspace."""
    if unit.checkpoint:
        return kept(site, unit._replace(checkpoint="")) - layer_input(site, unit)
    if unit.kind == "moe" and experts.moe_again(site):
        return experts.inside(site, site.shape.mixed)
    return _dense(site) if unit.kind == "dense" and network_again(site) else Kept()


def kept_for_weight(site: Site, unit: Unit) -> Kept:
    """From a unit's input gradient to its weight gradient, when the two are split: both sides of each product."""
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
    return mla.workspace(site, site.shape.latent)
