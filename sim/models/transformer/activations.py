"""What a rank keeps of a dense transformer's unit while its gradients are due, and its largest temporaries, in bytes.

Llama 3 trained without computing anything again (arXiv:2407.21783 sec 3.3.2: sequences of 8K without activation
checkpointing), so that is the recipe: inputs of norms, products and attention stay. Other choices have no kernels.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from sim.models.activations import Kept, Recompute, only_recipe
from sim.models.blocks.ends import head_kept
from sim.models.layer import Unit
from sim.models.transformer.shape import Site


def kept(site: Site, unit: Unit, recompute: Recompute) -> Kept:
    """From a unit's forward to its input gradient, in the formats that the recipe keeps.

    Of a layer: inputs of both norms; inputs of the qkv, gate-up and down products; q, k, v, attention's output (also
    the input of its product) and the log-sum-exp of each head; gate and up.
    """
    only_recipe(recompute, "transformer")
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    s, r, a = site.shape, site.recipe, site.shape.attention
    residuals = 2 * PLAIN_BF16.row_bytes(s.hidden)
    inputs = 2 * r.activation.row_bytes(s.hidden) + r.activation.row_bytes(s.intermediate)
    attention = PLAIN_BF16.row_bytes(a.qkv) + r.attention_output.row_bytes(a.q) + PLAIN_FP32.row_bytes(s.heads)
    return Kept(site.tokens * (residuals + inputs + attention + r.gate_up.row_bytes(2 * s.intermediate)))


def kept_for_weight(site: Site, unit: Unit, recompute: Recompute) -> Kept:
    """From a unit's input gradient to its weight gradient, when the two are split: both sides of each product."""
    only_recipe(recompute, "transformer")
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    s, row, a = site.shape, site.recipe.activation.row_bytes, site.shape.attention
    attention = row(s.hidden) + row(a.qkv) + row(a.q) + row(s.hidden)
    feed_forward = row(s.hidden) + row(2 * s.intermediate) + row(s.intermediate) + row(s.hidden)
    return Kept(site.tokens * (attention + feed_forward))


def workspace(site: Site, recompute: Recompute) -> float:
    """The larger of two backwards: attention's (gradients of q, k, v and of the output, dQ in FP32), and that of the
    feed-forward layer (gradients of its activation and of gate and up)."""
    only_recipe(recompute, "transformer")
    s, a = site.shape, site.shape.attention
    attention = PLAIN_BF16.row_bytes(a.qkv + a.q) + PLAIN_FP32.row_bytes(a.q)
    return site.tokens * max(attention, PLAIN_BF16.row_bytes(3 * s.intermediate))
