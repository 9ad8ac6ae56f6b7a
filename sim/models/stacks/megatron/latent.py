"""Multi-head latent attention of Megatron Core: products down and up, norms fused with the latter; fused rope joins
parts of queries and keys (`apply_rope_fusion` of MLASelfAttention)."""

from hwmodels.op import copy
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared, attend, attend_backward
from sim.models.stacks.cudnn import latent as attention
from sim.models.stacks.megatron.casts import normed, transposed
from sim.models.stacks.megatron.linear import dgrad, fused, linear, norm_backward, plain_norm, product, wgrad


def forward(site: Shared, a: Latent) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, h = site.tokens, site.shape.hidden
    out = plain_norm("input_norm", t, h)
    if a.q_rank:
        out += [*linear(site, "q_down", a.q_rank, h), *normed(site, "q_norm", t, a.q_rank)]
        out += product(site, "q_up", a.q, a.q_rank)
    else:
        out += linear(site, "q", a.q, h)
    out += [*linear(site, "kv_down", a.down, h), Kernel("latent_copy", copy(t, a.kv_rank))]
    out += [*normed(site, "kv_norm", t, a.kv_rank), *product(site, "kv_up", a.kv, a.kv_rank)]
    out += [fused("rope_q", t, a.q, 1, 1, "rope"), fused("rope_kv", t, a.kv + a.heads * a.rotary, 1, 1, "rope")]
    out += attend(attention(site, a, "forward"))
    return [*out, *linear(site, "proj", h, a.out), fused("residual", t, h, 2, 1)]


def backward(site: Shared, a: Latent) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, h = site.tokens, site.shape.hidden
    out = [*dgrad(site, "proj", h, a.out), *attend_backward(attention(site, a, "backward"))]
    turned = a.kv + a.heads * a.rotary
    out += [fused("rope_q_bwd", t, a.q, 1, 1, "rope"), fused("rope_kv_bwd", t, turned, 1, 1, "rope")]
    out += [*dgrad(site, "kv_up", a.kv, a.kv_rank), *transposed(site, "kv_norm", t, a.kv_rank)]
    out += [*norm_backward("kv_norm_bwd", t, a.kv_rank), Kernel("join_dkv", copy(t, a.down))]
    out += dgrad(site, "kv_down", a.down, h)
    if a.q_rank:
        out += [*dgrad(site, "q_up", a.q, a.q_rank), *transposed(site, "q_norm", t, a.q_rank)]
        out += [*norm_backward("q_norm_bwd", t, a.q_rank), *dgrad(site, "q_down", a.q_rank, h)]
    else:
        out += dgrad(site, "q", a.q, h)
    out += [fused("add_dx", t, h, 2, 1), *norm_backward("input_norm_bwd", t, h)]
    return [*out, fused("add_residual", t, h, 2, 1)]


def weight(site: Shared, a: Latent) -> list[Kernel]:
    h = site.shape.hidden
    query = (("q_up", a.q, a.q_rank), ("q_down", a.q_rank, h)) if a.q_rank else (("q", a.q, h),)
    pairs = (("proj", h, a.out), ("kv_up", a.kv, a.kv_rank), ("kv_down", a.down, h), *query)
    return [kernel for name, n, k in pairs for kernel in wgrad(site, name, n, k)]
