"""Grouped-query attention under torch.compile: rope is a kernel for queries and one for keys."""

from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared, operations
from sim.models.stacks.torch.compiled.fused import fused, norm
from sim.models.stacks.torch.compiled.linear import dgrad, scaled, weights
from sim.models.stacks.torch.compiled.sharing import entered, left, norm_gradients
from sim.models.stacks.torch.kernels import bias_gradients
from sim.models.stacks.torch.ring import attention
from sim.models.stacks.torch.written import complex_rope, repeats, turned


def forward(site: Shared, heads: Heads) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the residual is added by the norm behind."""
    t, h = site.tokens, site.shape.hidden
    products = (("q", heads.q, h), ("k", heads.kv, h), ("v", heads.kv, h))
    out = [norm("attn_norm", site.own, h), *entered(site, products, "x_attn"), *_turned(site, heads, "")]
    out += repeats(site, heads)
    out += attention(site, operations(site, heads, "forward"))
    return [*out, fused("join_heads", t, heads.q, 1, 1), *left(site, [("o", h, heads.q)], "attn")]


def backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Input gradients; what joins the heads again is in rope's kernels."""
    t, h = site.tokens, site.shape.hidden
    out = [*entered(site, [("o", h, heads.q)], "dy_attn", dgrad), *scaled(site, "o_dgrad", t, heads.q)]
    out += attention(site, operations(site, heads, "backward"))
    out += _turned(site, heads, "_bwd") or [fused(f"join_d{x}", t, heads.q, 1, 1) for x in "kq"]
    out += left(site, (("v", heads.kv, h), ("k", heads.kv, h), ("q", heads.q, h)), "dx_attn", dgrad)
    return out + norm_gradients(site, "attn_norm_bwd", 3)


def _turned(site: Shared, heads: Heads, tail: str) -> list[Kernel]:
    """Norm and rope of queries and of keys, a kernel each; one for both where they have the same shape."""
    if not heads.rotary and not heads.normed:
        return []
    if heads.rotary and complex_rope(site):
        pairs, way = (("q", heads.queries), ("k", heads.shared)), "B" if tail else "F"
        own = [
            k for name, each in pairs
            for k in turned(site, f"rope_{name}{tail}", site.tokens * each, heads.rotary, way)
        ]  # fmt: skip
        normed = (("q", heads.q), ("k", heads.kv)) if heads.normed else ()
        return [*(fused(f"{name}_norm{tail}", site.tokens, width, 1, 1) for name, width in normed), *own]
    if heads.q == heads.kv:
        return [fused(f"rope{tail}", site.tokens, heads.q, 2, 2)]
    return [fused(f"rope_{name}{tail}", site.tokens, width, 1, 1) for name, width in (("q", heads.q), ("k", heads.kv))]


def weight(site: Shared, heads: Heads) -> list[Kernel]:
    h = site.shape.hidden
    products = (("v", heads.kv, h), ("k", heads.kv, h), ("q", heads.q, h))
    sums = bias_gradients(site.tokens, heads.output_bias, o=h)
    sums += bias_gradients(site.tokens, heads.qkv_bias, **{name: n for name, n, _ in products})
    return weights(site, [("o", h, heads.q)], True) + weights(site, products) + sums
