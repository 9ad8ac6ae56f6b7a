"""Multi-head latent attention of Megatron Core: products down and up, norms fused with the latter; fused rope joins
parts of queries and keys (`apply_rope_fusion` of MLASelfAttention), or single operations turn and join them.

Ranks of a tensor group each have all of the products down, and put their own tokens through them; what these compress
tokens to is gathered before the products up (megatron/core/transformer/multi_latent_attention.py). Queries that are
not compressed are made of gathered tokens. These gathers, and backward their sums, are small, and exposed here.
"""

from hwmodels.formats import PLAIN_BF16
from hwmodels.op import Memory, copy, small
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
from sim.models.stacks.stack import PLAIN_ROPE


def forward(site: Shared, a: Latent) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    own, h, alone = site.own, site.shape.hidden, site.local
    out = plain_norm("input_norm", own, h)
    if a.q_rank:
        out += [*linear(alone, "q_down", a.q_rank, h), *normed(site, "q_norm", own, a.q_rank)]
        out += [*_gathered(site, "q", a.q_rank), *product(site, "q_up", a.q, a.q_rank)]
    else:
        out += [*gathered(site, "x_q", PLAIN_BF16.row_bytes(h)), *linear(site, "q", a.q, h)]
    out += [*linear(alone, "kv_down", a.down, h), Kernel("latent_copy", copy(own, a.kv_rank))]
    out += [*normed(site, "kv_norm", own, a.kv_rank), *_gathered(site, "kv", a.kv_rank)]
    out += [*gathered(site, "k_rope", PLAIN_BF16.row_bytes(a.rotary)), *product(site, "kv_up", a.kv, a.kv_rank)]
    out += [
        *_turned(site, a),
        *quantised(site, "", (a.q, a.q, a.out)),
        *seeded(attention(site, [attends(site, a, "forward")])),
    ]
    return [*out, *last(site, "proj", h, a.out), fused("residual", own, h, 2, 1)]


Operations = tuple[tuple[str, float, float], ...]
PARTS: Operations = (("concatenate", 2, 2),)
"""Elements that turn lie in pairs, and are put in two halves."""
TURNED: Operations = (
    ("strided", 1, 1), ("concatenate", 2, 2), ("strided", 2, 2), ("strided", 2, 2), ("elementwise", 4, 2),
    ("join", 2, 2),
)  # fmt: skip
BACK: Operations = (
    ("strided", 2, 2), ("strided", 2, 2), ("strided", 1, 1), ("concatenate", 2, 2), ("elementwise", 4, 2),
    ("fill", 0, 2), ("strided", 1, 1), ("fill", 0, 2), ("strided", 1, 1), ("elementwise", 4, 2),
    ("fill", 0, 2), ("copy", 2, 2), ("fill", 0, 2), ("elementwise", 4, 2),
)  # fmt: skip
"""Rope in single operations (rope_utils.py @7094270c6 of May 2025, _apply_rotary_pos_emb_bshd with
multi_latent_attention), kinds and bytes of an element in and out: as in `attention`, behind pairs in halves; backward
the gradients of every other element too, each in zeros of its own, and their sum."""
ANGLES = ("cos", "cos_scaled", "cos_bf16", "sin", "sin_scaled", "sin_bf16")


def _turned(site: Shared, a: Latent) -> list[Kernel]:
    """Queries and keys whose last elements are turned, and values, each in one tensor."""
    t, shared = site.tokens, a.heads * a.rotary
    if site.stack.rope != PLAIN_ROPE:
        return [fused("rope_q", t, a.q, 1, 1, "rope"), fused("rope_kv", t, a.kv + shared, 1, 1, "rope")]
    queries = _over(site, "rope_q", (*PARTS, *TURNED), shared)
    keys = _over(site, "rope_k", (*PARTS, *TURNED), a.rotary)
    angles = [Kernel(f"rope_{name}_{each}", small("tiny")) for name in "qk" for each in ANGLES]
    joined = [
        Kernel("rope_q_join", Memory("concatenate", t, 2.0 * a.q, 2.0 * a.q)),
        Kernel("rope_k_join", Memory("concatenate", t, 2.0 * (a.q - shared + a.rotary), 2.0 * a.q)),
    ]
    return [*angles, *queries, *keys, *joined, Kernel("rope_v_copy", copy(t, a.out))]


def _turned_back(site: Shared, a: Latent) -> list[Kernel]:
    """Gradients of both products up, each in one tensor; those of a key's turned elements are sums over heads."""
    t, shared = site.tokens, a.heads * a.rotary
    if site.stack.rope != PLAIN_ROPE:
        return [fused("rope_q_bwd", t, a.q, 1, 1, "rope"), fused("rope_kv_bwd", t, a.kv + shared, 1, 1, "rope")]
    summed_up = Kernel("rope_k_sums_bwd", Memory("reduce", t, 2.0 * shared, 2.0 * a.rotary))
    back = [*_over(site, "rope_q_bwd", BACK, shared), summed_up, *_over(site, "rope_k_bwd", BACK, a.rotary)]
    joined = [Kernel(f"rope_{name}_join_bwd", copy(t, width)) for name, width in (("q", a.q), ("kv", a.kv))]
    return [*back, *joined]


def _over(site: Shared, name: str, operations: Operations, width: int) -> list[Kernel]:
    return [Kernel(name, Memory(kind, site.tokens, read * width, write * width)) for kind, read, write in operations]


def _gathered(site: Shared, name: str, rank: int) -> list[Kernel]:
    """What tokens are compressed to, quantised."""
    return gathered(site, f"{name}_latent", site.recipe.activation.row_bytes(rank))


def backward(site: Shared, a: Latent) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    own, h, alone = site.own, site.shape.hidden, site.local
    out = [*last_dgrad(site, "proj", h, a.out), *quantised(site, "dout", (a.out,))]
    out += attention(site, [attends(site, a, "backward")])
    out += [*_turned_back(site, a), *dgrad(site, "kv_up", a.kv, a.kv_rank), *summed(site, "dkv_latent", a.kv_rank)]
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
