"""Multi-head latent attention of Megatron Core: products down and up, norms fused with the latter; fused rope joins
parts of queries and keys (`apply_rope_fusion` of MLASelfAttention).

Ranks of a tensor group each have all of the products down, and put their own tokens through them; what these compress
tokens to is gathered before the products up (megatron/core/transformer/multi_latent_attention.py). Queries that are
not compressed are made of gathered tokens. These gathers, and backward their sums, are small, and exposed here.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import copy
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks.context import attention
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.cudnn import latent as attends
from sim.models.stacks.megatron.attention_formats import quantised, seeded
from sim.models.stacks.megatron.casts import normed, transposed
from sim.models.stacks.megatron.linear import (
    dgrad,
    fused,
    last,
    last_dgrad,
    last_wgrad,
    linear,
    norm_backward,
    plain_norm,
    product,
    wgrad,
)  # fmt: skip
from sim.models.stacks.sharing import gathered, summed


def forward(site: Shared, a: Latent) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, own, h, alone = site.tokens, site.own, site.shape.hidden, site.local
    out = plain_norm("input_norm", own, h)
    if a.q_rank:
        out += [*linear(alone, "q_down", a.q_rank, h), *normed(site, "q_norm", own, a.q_rank)]
        out += [*_gathered(site, "q", a.q_rank), *product(site, "q_up", a.q, a.q_rank)]
    else:
        out += [*gathered(site, "x_q", PLAIN_BF16.row_bytes(h)), *linear(site, "q", a.q, h)]
    out += [*linear(alone, "kv_down", a.down, h), Kernel("latent_copy", copy(own, a.kv_rank))]
    out += [*normed(site, "kv_norm", own, a.kv_rank), *_gathered(site, "kv", a.kv_rank)]
    out += [*gathered(site, "k_rope", PLAIN_BF16.row_bytes(a.rotary)), *product(site, "kv_up", a.kv, a.kv_rank)]
    out += [fused("rope_q", t, a.q, 1, 1, "rope"), fused("rope_kv", t, a.kv + a.heads * a.rotary, 1, 1, "rope")]
    out += [*quantised(site, "", (a.q, a.q, a.out)), *seeded(attention(site, [attends(site, a, "forward")]))]
    return [*out, *last(site, "proj", h, a.out), fused("residual", own, h, 2, 1)]


def _gathered(site: Shared, name: str, rank: int) -> list[Kernel]:
    """What tokens are compressed to, quantised."""
    return gathered(site, f"{name}_latent", site.recipe.activation.row_bytes(rank))


def backward(site: Shared, a: Latent) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, own, h, alone = site.tokens, site.own, site.shape.hidden, site.local
    out = [*last_dgrad(site, "proj", h, a.out), *quantised(site, "dout", (a.out,))]
    out += attention(site, [attends(site, a, "backward")])
    turned = a.kv + a.heads * a.rotary
    out += [fused("rope_q_bwd", t, a.q, 1, 1, "rope"), fused("rope_kv_bwd", t, turned, 1, 1, "rope")]
    out += [*dgrad(site, "kv_up", a.kv, a.kv_rank), *summed(site, "dkv_latent", a.kv_rank)]
    out += [*summed(site, "dk_rope", a.rotary), *transposed(site, "kv_norm", own, a.kv_rank)]
    out += [*norm_backward("kv_norm_bwd", own, a.kv_rank), Kernel("join_dkv", copy(own, a.down))]
    out += dgrad(alone, "kv_down", a.down, h)
    if a.q_rank:
        out += [*dgrad(site, "q_up", a.q, a.q_rank), *summed(site, "dq_latent", a.q_rank)]
        out += [*transposed(site, "q_norm", own, a.q_rank), *norm_backward("q_norm_bwd", own, a.q_rank)]
        out += dgrad(alone, "q_down", a.q_rank, h)
    else:
        out += [*dgrad(site, "q", a.q, h), *summed(site, "dx_q", h)]
    out += [fused("add_dx", own, h, 2, 1), *norm_backward("input_norm_bwd", own, h)]
    return [*out, fused("add_residual", own, h, 2, 1)]


def weight(site: Shared, a: Latent) -> list[Kernel]:
    """Inputs of products up are gathered again."""
    h, alone = site.shape.hidden, site.local
    out = [*last_wgrad(site, "proj", h, a.out), *_gathered(site, "kv_again", a.kv_rank)]
    out += [*wgrad(site, "kv_up", a.kv, a.kv_rank), *wgrad(alone, "kv_down", a.down, h)]
    if not a.q_rank:
        return [*out, *gathered(site, "x_q_again", PLAIN_BF16.row_bytes(h)), *wgrad(site, "q", a.q, h)]
    out += [*_gathered(site, "q_again", a.q_rank), *wgrad(site, "q_up", a.q, a.q_rank)]
    return [*out, *wgrad(alone, "q_down", a.q_rank, h)]
