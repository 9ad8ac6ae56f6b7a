"""Attention in eager torch: separate q, k and v products, rope in elementwise kernels, cuDNN's fused attention.

`scaled_dot_product_attention(is_causal=True, enable_gqa=True)` takes cuDNN on Hopper; its backward is three kernels,
and two more that sum gradients of shared keys and values over their queries' heads.
"""

from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared, operations
from sim.models.stacks.torch.kernels import (
    VIEWS,
    bias_gradients,
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
from sim.models.stacks.torch.sharing import gathered, summed
from sim.models.stacks.torch.unpadded import padded, padded_backward, unpadded, unpadded_backward
from sim.models.stacks.torch.written import complex_rope, repeats, turned

HEADS = 6
"""Views that make heads of the columns of q, k and v: a shape and a transpose each."""


def forward(site: Shared, heads: Heads) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden], with the norm before it and the residual behind."""
    t, h = site.tokens, site.shape.hidden
    out = [rms_norm("attn_norm", site.own, h), *gathered(site, "x_attn", h), *linear(site, "q", heads.q, h)]
    out += [*linear(site, "k", heads.kv, h), *linear(site, "v", heads.kv, h)]
    if heads.normed:
        out += [rms_norm("q_norm", t * heads.queries, heads.width), rms_norm("k_norm", t * heads.shared, heads.width)]
    out += [*_turned(site, heads, "F"), *repeats(site, heads)]
    out += [*unpadded(site, heads), *attention(site, operations(site, heads, "forward")), *padded(site, heads)]
    out += [transposed("join_heads", t, heads.q, 1 + HEADS * VIEWS["F"]), *linear(site, "o", h, heads.q)]
    return [*out, *summed(site, "attn", h), elementwise("residual", site.own, h, 2)]


def backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Input gradients; those of weights are `weight`."""
    t, own, h = site.tokens, site.own, site.shape.hidden
    out = [*gathered(site, "dy_attn", h), *dgrad(site, "o", h, heads.q)]
    out += [*unpadded_backward(site, heads), *attention(site, operations(site, heads, "backward"))]
    out += padded_backward(site, heads)
    out += _turned(site, heads, "B")
    if heads.normed:
        out += rms_norm_backward("q_norm_bwd", t * heads.queries, heads.width)
        out += rms_norm_backward("k_norm_bwd", t * heads.shared, heads.width)
    out += [*dgrad(site, "v", heads.kv, h), transposed("join_dk", t, heads.kv)]
    out += [*dgrad(site, "k", heads.kv, h), elementwise("add_dx", t, h, 2), transposed("join_dq", t, heads.q)]
    out += [*dgrad(site, "q", heads.q, h), elementwise("add_dx", t, h, 2), *summed(site, "dx_attn", h)]
    return [*out, *rms_norm_backward("attn_norm_bwd", own, h), elementwise("add_residual", own, h, 2)]


def _turned(site: Shared, heads: Heads, direction: str) -> list[Kernel]:
    """Queries and keys forward (F), their gradients backward (B), last first."""
    t, turns = site.tokens, [("rope_q", heads.queries), ("rope_k", heads.shared)]
    if direction == "B":
        turns = [(f"{name}_bwd", each) for name, each in reversed(turns)]
    if not heads.rotary:
        return []
    if complex_rope(site):
        return [k for name, each in turns for k in turned(site, name, t * each, heads.rotary, direction)]
    plain = rope if direction == "F" else rope_backward
    return [k for name, each in turns for k in plain(name, t * each, heads.rotary)]


def weight(site: Shared, heads: Heads) -> list[Kernel]:
    h = site.shape.hidden
    pairs = (("o", h, heads.q), ("v", heads.kv, h), ("k", heads.kv, h), ("q", heads.q, h))
    sums = bias_gradients(site.tokens, heads.output_bias, o=h)
    sums += bias_gradients(site.tokens, heads.qkv_bias, **{name: n for name, n, _ in pairs[1:]})
    return [*(kernel for name, n, k in pairs for kernel in wgrad(site, name, n, k)), *sums]


def tensors(heads: Heads, hidden: int) -> list[int]:
    """Elements of each of its parameters."""
    norms = [heads.width] * 2 if heads.normed and heads.scaled else []
    biases = [heads.q, heads.kv, heads.kv] * heads.qkv_bias + [hidden] * heads.output_bias
    sinks = [heads.queries] * heads.sinks
    return [heads.q * hidden, heads.kv * hidden, heads.kv * hidden, *norms, heads.q * hidden, *biases, *sinks]
