"""Grouped-query attention under torch.compile: rope is a kernel for queries and one for keys."""

from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared, attend, attend_backward, operations
from sim.models.stacks.torch.compiled.fused import fused, norm, norm_backward
from sim.models.stacks.torch.compiled.linear import dgrad, linear, weights


def forward(site: Shared, heads: Heads) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the residual is added by the norm behind."""
    t, h = site.tokens, site.shape.hidden
    out = [norm("attn_norm", t, h), *linear(site, "q", heads.q, h)]
    out += [*linear(site, "k", heads.kv, h), *linear(site, "v", heads.kv, h), *_turned(site, heads, "")]
    for op in operations(site, heads, "forward"):
        out += attend(op)
    return [*out, fused("join_heads", t, heads.q, 1, 1), *linear(site, "o", h, heads.q)]


def backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Input gradients; what joins the heads again is in rope's kernels."""
    t, h = site.tokens, site.shape.hidden
    out = dgrad(site, "o", h, heads.q)
    for op in operations(site, heads, "backward"):
        out += attend_backward(op)
    out += _turned(site, heads, "_bwd") or [fused(f"join_d{x}", t, heads.q, 1, 1) for x in "kq"]
    out += [*dgrad(site, "v", heads.kv, h), *dgrad(site, "k", heads.kv, h), *dgrad(site, "q", heads.q, h)]
    return out + norm_backward("attn_norm_bwd", t, h, 3)


def _turned(site: Shared, heads: Heads, tail: str) -> list[Kernel]:
    """Norm and rope of queries and of keys, a kernel each; one for both where they have the same shape."""
    if not heads.rotary and not heads.normed:
        return []
    if heads.q == heads.kv:
        return [fused(f"rope{tail}", site.tokens, heads.q, 2, 2)]
    return [fused(f"rope_{name}{tail}", site.tokens, width, 1, 1) for name, width in (("q", heads.q), ("k", heads.kv))]


def weight(site: Shared, heads: Heads) -> list[Kernel]:
    h = site.shape.hidden
    return weights(site, (("o", h, heads.q), ("v", heads.kv, h), ("k", heads.kv, h), ("q", heads.q, h)))
