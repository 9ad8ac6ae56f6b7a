"""Multi-head latent attention in eager torch: products down and up, rope of a part of each head, joined again.

Queries and keys are joined from parts with and without position, the rotary key copied to all heads; backward joins
the gradients of what forward split. Ranks of a tensor group each put all tokens through the products down
(torchtitan, models/deepseek_v3/infra/parallelize.py: NoParallel).
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.cudnn import latent as attends
from sim.models.stacks.torch.kernels import (
    VIEWS,
    concatenated,
    dgrad,
    elementwise,
    linear,
    rms_norm,
    rms_norm_backward,
    rope,
    rope_backward,
    transposed,
    wgrad,
)  # fmt: skip
from sim.models.stacks.torch.ring import attention
from sim.models.stacks.torch.sharing import gathered, reduced, summed


def forward(site: Shared, a: Latent) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, h = site.tokens, site.shape.hidden
    out = [rms_norm("attn_norm", site.own, h), *gathered(site, "x_attn", h), *_queries(site, a)]
    out += linear(site, "kv_a", a.down, h)
    out += [transposed("copy_latent", t, a.kv_rank), rms_norm("kv_norm", t, a.kv_rank)]
    out += linear(site, "kv_b", a.kv, a.kv_rank)
    out += [*rope("rope_q", t * a.heads, a.rotary), *rope("rope_k", t, a.rotary)]
    out += [concatenated("join_q", t, a.q), concatenated("join_k", t, a.q)]
    out += [*attention(site, [attends(site, a, "forward")]), transposed("join_heads", t, a.out, 1 + 2 * VIEWS["F"])]
    return [*out, *linear(site, "o", h, a.out), *summed(site, "attn", h), elementwise("residual", site.own, h, 2)]


def _queries(site: Shared, a: Latent) -> list[Kernel]:
    h = site.shape.hidden
    if not a.q_rank:
        return linear(site, "q", a.q, h)
    return [
        *linear(site, "q_a", a.q_rank, h), rms_norm("q_norm", site.tokens, a.q_rank),
        *linear(site, "q_b", a.q, a.q_rank),
    ]  # fmt: skip


def backward(site: Shared, a: Latent) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, h = site.tokens, site.shape.hidden
    rotary, shared = PLAIN_BF16.row_bytes(a.heads * a.rotary), PLAIN_BF16.row_bytes(a.rotary)
    out = [*gathered(site, "dy_attn", h), *dgrad(site, "o", h, a.out), transposed("copy_do", t, a.out)]
    out += attention(site, [attends(site, a, "backward")])
    out += [Kernel("sum_dk_rope", Memory("reduce", t, rotary, shared), host=1 + VIEWS["B"])]
    out += reduced(site, "dk_rope", a.rotary)
    out += [*rope_backward("rope_k_bwd", t, a.rotary), *rope_backward("rope_q_bwd", t * a.heads, a.rotary)]
    out += [concatenated("join_dkv", t, a.kv), transposed("join_heads_dkv", t, a.kv)]
    out += [*dgrad(site, "kv_b", a.kv, a.kv_rank), *reduced(site, "dkv_latent", a.kv_rank)]
    out += rms_norm_backward("kv_norm_bwd", t, a.kv_rank)
    out += [concatenated("join_dkv_a", t, a.down), *dgrad(site, "kv_a", a.down, h)]
    out += [concatenated("join_dq", t, a.q), transposed("join_heads_dq", t, a.q), *_queries_backward(site, a)]
    out += [elementwise("add_dx", t, h, 2), *rms_norm_backward("attn_norm_bwd", site.own, h)]
    return [*out, elementwise("add_residual", site.own, h, 2)]


def _queries_backward(site: Shared, a: Latent) -> list[Kernel]:
    h = site.shape.hidden
    if not a.q_rank:  # a rank's heads make a part of it; of what follows latents each rank has the whole
        return [*dgrad(site, "q", a.q, h), *summed(site, "dx_attn", h)]
    norm = [*reduced(site, "dq_latent", a.q_rank), *rms_norm_backward("q_norm_bwd", site.tokens, a.q_rank)]
    return [*dgrad(site, "q_b", a.q, a.q_rank), *norm, *dgrad(site, "q_a", a.q_rank, h)]


def weight(site: Shared, a: Latent) -> list[Kernel]:
    h = site.shape.hidden
    query = (("q_b", a.q, a.q_rank), ("q_a", a.q_rank, h)) if a.q_rank else (("q", a.q, h),)
    pairs = (("o", h, a.out), ("kv_b", a.kv, a.kv_rank), ("kv_a", a.down, h), *query)
    return [kernel for name, n, k in pairs for kernel in wgrad(site, name, n, k)]
