"""What a rank keeps of a DeepSeek unit while its gradients are due, and its largest temporaries, in bytes.

What the recipe stores, by what it computes again (see `sim.models.deepseek`): norms' inputs, latents, attention's
output and the gate-up products; no other choice has kernels.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from sim.models.activations import Kept, Recompute, only_recipe
from sim.models.blocks.ends import head_kept
from sim.models.deepseek.shape import Site
from sim.models.layer import Unit


def kept(site: Site, unit: Unit, recompute: Recompute) -> Kept:
    """From a unit's forward to its input gradient."""
    only_recipe(recompute, "deepseek")
    s, t, r = site.shape, site.tokens, site.recipe
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    if unit.kind == "projection":
        return Kept(2 * t * PLAIN_BF16.row_bytes(s.hidden))
    latent = (s.q_rank or 0) + s.kv_rank + s.qk_rope
    residuals = 2 * PLAIN_BF16.row_bytes(s.hidden) + PLAIN_BF16.row_bytes(latent)
    out = r.attention_output.row_bytes(s.heads * s.v_head) + PLAIN_FP32.row_bytes(s.heads)  # and log-sum-exp
    width = s.shared_experts * s.expert_intermediate if unit.kind == "moe" else s.dense_intermediate
    fixed = t * (residuals + out) + t * r.gate_up.row_bytes(2 * width)
    if unit.kind == "dense":
        return Kept(fixed)
    return Kept(fixed, r.dispatch.row_bytes(s.hidden), r.gate_up.row_bytes(2 * s.expert_intermediate))


def kept_for_weight(site: Site, unit: Unit, recompute: Recompute) -> Kept:
    """From a unit's input gradient to its weight gradient, when the two are split: both sides of each product."""
    only_recipe(recompute, "deepseek")
    s, t, r = site.shape, site.tokens, site.recipe
    row = r.activation.row_bytes
    if unit.kind == "embedding":
        return Kept()
    if unit.kind == "head":
        return Kept(head_kept(site))
    if unit.kind == "projection":
        return Kept(t * row(3 * s.hidden))
    q, kv = s.heads * (s.qk_nope + s.qk_rope), s.heads * (s.qk_nope + s.v_head)
    inputs = 2 * s.hidden + s.q_rank + s.kv_rank + s.heads * s.v_head
    outputs = s.q_rank + s.kv_rank + s.qk_rope + q + kv + s.hidden
    ffn = s.shared_experts * s.expert_intermediate if unit.kind == "moe" else s.dense_intermediate
    fixed = t * (row(inputs + outputs) + row(2 * s.hidden + 3 * ffn))
    if unit.kind == "dense":
        return Kept(fixed)
    return Kept(fixed, 2 * r.dispatch.row_bytes(s.hidden), row(3 * s.expert_intermediate))


def workspace(site: Site, recompute: Recompute) -> float:
    """Attention's backward: q, k, v, o, their gradients, dQ in FP32."""
    only_recipe(recompute, "deepseek")
    s, t = site.shape, site.tokens
    q, v = s.heads * (s.qk_nope + s.qk_rope), s.heads * s.v_head
    return t * (PLAIN_BF16.row_bytes(2 * (2 * q) + 4 * v) + PLAIN_FP32.row_bytes(q))
