"""Grouped-query attention of Megatron Core: one product for q, k and v, fused rope, cuDNN's fused attention."""

from hwmodels.op import Memory, copy, rope
from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.context import attention
from sim.models.stacks.cudnn import Shared, operations
from sim.models.stacks.megatron.attention_formats import quantised, seeded
from sim.models.stacks.megatron.casts import normed, transposed
from sim.models.stacks.megatron.linear import (
    bias_gradients,
    first,
    first_dgrad,
    first_wgrad,
    fused,
    last,
    last_dgrad,
    last_wgrad,
    norm_backward,
    plain_norm,
)  # fmt: skip
from sim.models.stacks.sharing import END, piece
from sim.models.stacks.stack import PLAIN_ROPE


def forward(site: Shared, heads: Heads) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, h = site.tokens, site.shape.hidden
    out = [*normed(site, "input_norm", site.own, h), *first(site, "qkv", heads.qkv, h)]
    if heads.shared != heads.queries:  # queries of a group lie apart
        out += [Kernel("query_copy", copy(t, heads.q))]
    if heads.normed:  # keys lie apart too, and a norm reads what lies together
        out += [
            *plain_norm("q_norm", t * heads.queries, heads.width),
            Kernel("key_copy", copy(t, heads.shared * heads.width)),
            *plain_norm("k_norm", t * heads.shared, heads.width),
        ]
    out += [*_turned(site, heads, ""), *quantised(site, "", (heads.q, *[(heads.qkv - heads.q) // 2] * 2))]
    out += seeded(attention(site, operations(site, heads, "forward")))
    return [*out, *last(site, "proj", h, heads.q), fused("residual", site.own, h, 2, 1)]


TURNED: dict[str, tuple[tuple[str, float, float], ...]] = {
    "": (("strided", 1, 1), ("concatenate", 2, 2), ("strided", 2, 2), ("strided", 2, 2), ("elementwise", 4, 2),
         ("join", 2, 2)),
    "_bwd": (("strided", 2, 2), ("strided", 2, 2), ("strided", 1, 1), ("concatenate", 2, 2), ("elementwise", 4, 2),
             ("fill", 0, 2), ("copy", 2, 2), ("fill", 0, 2), ("elementwise", 4, 2)),
}  # fmt: skip
"""Rope in single operations (megatron/core/models/common/embeddings/rope_utils.py, _apply_rotary_pos_emb_bshd), kinds
and bytes of an element in and out: half of it with its sign changed, joined to the other half, both times cosines and
sines, their sum, and joined to what does not turn; its gradient, and those of both slices, each in zeros of its own."""


def _turned(site: Shared, heads: Heads, tail: str) -> list[Kernel]:
    t, turned = site.tokens, heads.rotary
    pairs = (("q", heads.queries), ("k", heads.shared)) if turned else ()
    if site.stack.rope == PLAIN_ROPE:
        return [
            Kernel(f"rope_{name}{tail}", Memory(kind, t, read * count * turned, write * count * turned))
            for name, count in pairs for kind, read, write in TURNED[tail]
        ]  # fmt: skip
    return [Kernel(f"rope_{name}{tail}", rope(t, count * turned)) for name, count in pairs]


def backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, own, h = site.tokens, site.own, site.shape.hidden
    out = [*last_dgrad(site, "proj", h, heads.q), *quantised(site, "dout", (heads.q,))]
    out += attention(site, operations(site, heads, "backward"))
    out += _turned(site, heads, "_bwd")
    if heads.normed:
        out += norm_backward("q_norm_bwd", t * heads.queries, heads.width)
        out += norm_backward("k_norm_bwd", t * heads.shared, heads.width)
    out += [Kernel("join_dqkv", copy(t, heads.qkv)), *first_dgrad(site, "qkv", heads.qkv, h)]
    end = [*transposed(site, "input_norm", own, h), *norm_backward("input_norm_bwd", own, h)]
    return out + piece(site, END, [*end, fused("add_residual", own, h, 2, 1)])


def weight(site: Shared, heads: Heads) -> list[Kernel]:
    h = site.shape.hidden
    sums = bias_gradients(heads.output_bias, proj=(site.own, h))
    return [*sums, *last_wgrad(site, "proj", h, heads.q), *first_wgrad(site, "qkv", heads.qkv, h)]


def tensors(heads: Heads, hidden: int) -> list[int]:
    """Elements of each of its parameters."""
    norms = [heads.width] * 2 if heads.normed and heads.scaled else []
    biases = [heads.qkv] * heads.qkv_bias + [hidden] * heads.output_bias + [heads.queries] * heads.sinks
    return [heads.qkv * hidden, *norms, heads.q * hidden, *biases]
