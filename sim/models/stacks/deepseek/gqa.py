"""Grouped-query attention (arXiv:2305.13245): its norm, projections, rope, attention itself, and their gradients."""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import Attention, Memory, cast_transpose, dequantize, norm, rope, small, store
from sim.models.blocks.gqa import Heads
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.linear import (
    BF16_WIDTH,
    Shared,
    bias_gradients,
    dgrad,
    linear,
    norm_again,
    norm_backward,
    norm_output,
    quantized,
    wgrad,
)  # fmt: skip


def forward(site: Shared, heads: Heads) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the norm also adds the residual: two streams in, two out."""
    t, h = site.tokens, site.shape.hidden
    out = [Kernel("rmsnorm1", norm(t, h, 2, 2)), *linear(site, "qkv", heads.qkv, h, "cast_x_for_qkv")]
    if heads.normed:
        out += _normed(site, heads)
    out += _rope(site, heads, "")
    out += [Kernel("flash_fwd", op) for op in _attention(site, heads, "forward")]
    if not _core_again(site):
        out += quantized(site, Kernel("save_attn_out", store(t, heads.q, site.recipe.attention_output)))
    return out + linear(site, "o_proj", h, heads.q, "cast_attn_out")


def _core_again(site: Shared) -> bool:
    return site.recompute.again("core_attention", published=False)


def _norm_again(site: Shared) -> bool:
    return norm_again(site, published=False)


def _again(site: Shared, heads: Heads) -> list[Kernel]:
    """What backward computes again before its own kernels; without it attention's output is as it was kept."""
    t, out = site.tokens, []
    if _norm_again(site) and heads.normed:
        out += [*_normed(site, heads, "_recompute"), *_rope(site, heads, "_recompute")]
    if _core_again(site):
        return out + [Kernel("flash_fwd_recompute", op) for op in _attention(site, heads, "forward")]
    return out + quantized(site, Kernel("dequant_attn_out", dequantize(t, heads.q, site.recipe.attention_output)))


def _normed(site: Shared, heads: Heads, tail: str = "") -> list[Kernel]:
    """Norms of queries and keys."""
    rows = (("q", heads.queries), ("k", heads.shared))
    return [Kernel(f"{name}_norm{tail}", norm(site.tokens * count, heads.width)) for name, count in rows]


def backward(site: Shared, heads: Heads) -> list[Kernel]:
    """Input gradients. The recipe computes nothing again: FP8 operands of the weight gradients come from what was
    kept."""
    t, h = site.tokens, site.shape.hidden
    out = _again(site, heads)
    out += dgrad(site, "o_proj", h, heads.q, "cast_dO_proj")
    out += quantized(
        site, Kernel("castT_attn_out", cast_transpose(t, heads.q)), Kernel("castT_dY_o", cast_transpose(t, h))
    )
    out += [*_core_backward(site, heads), *_rope(site, heads, "_bwd")]
    if heads.normed:
        out += norm_backward("q_norm_bwd", t * heads.queries, heads.width, 2)
        out += norm_backward("k_norm_bwd", t * heads.shared, heads.width, 2)
    out += dgrad(site, "qkv", heads.qkv, h, "cast_dqkv")
    out += [Kernel("rmsnorm1_recompute", norm(t, h, 2, 2))] if _norm_again(site) else []
    out += quantized(
        site, Kernel("castT_dqkv", cast_transpose(t, heads.qkv)),
        Kernel("castT_x_qkv", cast_transpose(t, h, norm_output(site, published=False))),
    )  # fmt: skip
    out += bias_gradients(t, heads.output_bias, o_proj=h) + bias_gradients(t, heads.qkv_bias, qkv=heads.qkv)
    return out + norm_backward("rmsnorm1_bwd", t, h, 3)


def _rope(site: Shared, heads: Heads, tail: str) -> list[Kernel]:
    """Rotation of queries and keys, in as many elements of each head as turn."""
    t, turned = site.tokens, heads.rotary
    pairs = (("q", heads.queries), ("k", heads.shared))
    return [Kernel(f"rope_{name}{tail}", rope(t, count * turned)) for name, count in pairs if turned]


def _core_backward(site: Shared, heads: Heads) -> list[Kernel]:
    """The attention kernel's backward, and the two small ones around it (as in `sim.models.stacks.deepseek.mla`)."""
    t, row = site.tokens, BF16_WIDTH * heads.q
    return [
        # reads O and dO, writes their row sums, and zeroes the FP32 accumulator of dQ
        Kernel("flash_bwd_pre", Memory("attention_prepare", t, 2 * row, 2 * row)),
        *(Kernel("flash_bwd", op) for op in _attention(site, heads, "backward")),
        Kernel("flash_bwd_post", Memory("attention_finish", t, 2 * row, row)),
        *([Kernel("sinks_grad", small("tiny"))] if heads.sinks else []),
    ]


def weight(site: Shared, heads: Heads) -> list[Kernel]:
    h = site.shape.hidden
    return [wgrad(site, "o_proj", h, heads.q), wgrad(site, "qkv", heads.qkv, h)]


def _attention(site: Shared, heads: Heads, direction: str) -> list[Attention]:
    """Attention over whole sequences or a window of them; over chunks as over so many short sequences, and a second
    launch for a chunk that is not whole."""
    shared = heads.shared if heads.shared != heads.queries else 0
    window = heads.window if heads.window < site.length else 0
    whole, rest = divmod(site.length, heads.chunk) if heads.chunk and heads.chunk < site.length else (0, site.length)
    stretches = ((whole * site.sequences, heads.chunk), (site.sequences, rest))
    return [
        Attention(direction, count, heads.queries, tokens, heads.width, heads.width, kv_heads=shared, window=window)
        for count, tokens in stretches if count and tokens
    ]  # fmt: skip


def kept(site: Shared, heads: Heads) -> float:
    """Bytes of a token until the input gradient: inputs of the norm and of the qkv product, q, k, v (twice q and k
    where they are normalised), the output, and the log-sum-exp of each head, but for what is computed again."""
    r, h, out = site.recipe, site.shape.hidden, PLAIN_BF16.row_bytes(site.shape.hidden)
    if not _norm_again(site):
        out += r.activation.row_bytes(h) + (PLAIN_BF16.row_bytes(heads.q + heads.kv) if heads.normed else 0.0)
    if not _core_again(site):
        out += r.attention_output.row_bytes(heads.q) + PLAIN_FP32.row_bytes(heads.queries)
    return out + PLAIN_BF16.row_bytes(heads.qkv)


def kept_for_weight(site: Shared, heads: Heads) -> float:
    """Bytes of a token until a split weight gradient: both sides of both products."""
    row, h = site.recipe.activation.row_bytes, site.shape.hidden
    return row(h) + row(heads.qkv) + row(heads.q) + row(h)


def workspace(site: Shared, heads: Heads) -> float:
    """Bytes in attention's backward: gradients of q, k, v and of the output, dQ in FP32."""
    return site.tokens * (PLAIN_BF16.row_bytes(heads.qkv + heads.q) + PLAIN_FP32.row_bytes(heads.q))
