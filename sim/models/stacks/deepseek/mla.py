"""Multi-head latent attention (arXiv:2405.04434 sec 2.1): its norms, projections, rope, and their gradients.

Order, names and what is computed again in backward (norms, up-projections, rope) are those of DeepSeek's published
H800 profile; what another choice keeps instead is in BF16 where attention reads it, else as an input of a product.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_FP32
from hwmodels.op import (
    Attention,
    Memory,
    cast_transpose,
    copy,
    dequantize,
    elementwise,
    norm,
    rope,
    small,
    store,
)  # fmt: skip
from sim.models.blocks.mla import Latent
from sim.models.layer import Kernel
from sim.models.stacks.deepseek.linear import (
    BF16_WIDTH,
    Shared,
    dgrad,
    linear,
    norm_again,
    norm_backward,
    norm_output,
    quantized,
    wgrad,
)  # fmt: skip


def _core_again(site: Shared) -> bool:
    return site.recompute.again("core_attention", published=False)


def _up_again(site: Shared) -> bool:
    return site.recompute.again("mla_up_projection", published=True)


def _latents(site: Shared, a: Latent, tail: str = "") -> list[Kernel]:
    """Norms of the compressed q and kv."""
    t = site.tokens
    out = [Kernel(f"q_a_norm{tail}", norm(t, a.q_rank))] if a.q_rank else []
    return [*out, Kernel("copy_kv_c", copy(t, a.kv_rank)), Kernel(f"kv_a_norm{tail}", norm(t, a.kv_rank))]


def _up_projections(site: Shared, a: Latent, tail: str = "", normed: bool = True) -> list[Kernel]:
    """From the latents to what attention reads. normed: these come from their norms in BF16, and not as kept inputs of
    products."""
    h, t = site.shape.hidden, site.tokens
    out = linear(site, f"q_b{tail}", a.q, a.q_rank or h, "cast_q_c" * normed) if a.q_rank or tail else []
    out += linear(site, f"kv_b{tail}", a.kv, a.kv_rank, "cast_kv_c" * normed)
    nope, rotary = a.heads * a.nope, a.heads * a.rotary
    return [
        *out,
        Kernel("rope_k", rope(t, a.rotary)), Kernel("copy_k_nope", copy(t, nope)),
        Kernel("bcast_k_rope", copy(t, rotary, reads=0)), Kernel("rope_q", rope(t, rotary)),
    ]  # fmt: skip


def _attention(site: Shared, a: Latent, direction: str) -> Attention:
    return Attention(direction, site.sequences, a.heads, site.length, a.nope + a.rotary, a.v)


def forward(site: Shared, a: Latent) -> list[Kernel]:
    """[tokens, hidden] -> [tokens, hidden]; the norm also adds the residual: two streams in, two out."""
    h, t = site.shape.hidden, site.tokens
    out = [Kernel("rmsnorm1", norm(t, h, 2, 2))]
    out += linear(site, "q_a" if a.q_rank else "q_b", a.q_rank or a.q, h, "cast_x_for_q_a")
    out += linear(site, "kv_a", a.down, h, "cast_x_for_kv_a")
    out += [Kernel("arange", small("tiny")), Kernel("arange", small("tiny"))]
    out += [*_latents(site, a), Kernel("copy_k_rope", copy(t, a.rotary)), *_up_projections(site, a)]
    out += [Kernel("flash_fwd", _attention(site, a, "forward"))]
    if not _core_again(site):
        out += quantized(site, Kernel("save_attn_out_E5M6", store(t, a.out, site.recipe.attention_output)))
    return out + linear(site, "o_proj", h, a.out, "cast_attn_out")


def _core_backward(site: Shared, a: Latent) -> list[Kernel]:
    """Attention itself and the rope and up-projections behind it."""
    h, t = site.shape.hidden, site.tokens
    rotary, source = a.heads * a.rotary, norm_output(site)
    row = BF16_WIDTH * a.out
    out = [
        # reads O and dO, writes their row sums, and zeroes the FP32 accumulator of dQ
        Kernel("flash_bwd_pre", Memory("attention_prepare", t, 2 * row, 2 * BF16_WIDTH * a.q)),
        Kernel("flash_bwd", _attention(site, a, "backward")),
        Kernel("flash_bwd_post", Memory("attention_finish", t, 2 * BF16_WIDTH * a.q, BF16_WIDTH * a.q)),
        Kernel("rope_q_bwd", rope(t, rotary)),
    ]
    out += dgrad(site, "q_b", a.q, a.q_rank or h, "cast_dq")
    out += [Kernel("sum_dk_rope", Memory("elementwise", t, BF16_WIDTH * rotary, BF16_WIDTH * a.rotary))]
    out += [Kernel("rope_k_bwd", rope(t, a.rotary)), Kernel("copy_dk_nope", copy(t, a.heads * a.nope))]
    out += [Kernel("copy_dv", copy(t, a.out)), *dgrad(site, "kv_b", a.kv, a.kv_rank, "cast_dkv")]
    return out + quantized(
        site,
        Kernel("castT_dkv", cast_transpose(t, a.kv)), Kernel("castT_kv_c", cast_transpose(t, a.kv_rank, source)),
        Kernel("castT_dq", cast_transpose(t, a.q)), Kernel("castT_q_c", cast_transpose(t, a.q_rank or h, source)),
    )  # fmt: skip


def _down_projections_backward(site: Shared, a: Latent) -> list[Kernel]:
    """The two projections out of the first norm, and that norm."""
    h, t, source = site.shape.hidden, site.tokens, norm_output(site)
    out = [*norm_backward("kv_a_norm_bwd", t, a.kv_rank, 2)]
    out += norm_backward("q_a_norm_bwd", t, a.q_rank, 2) if a.q_rank else []
    tiny = ("fill", "copy", "fill", "copy", "grad_add")
    out += [Kernel(name, small("tiny")) for name in tiny]
    out += [Kernel("rmsnorm1_recompute", norm(t, h, 2, 2))] if norm_again(site) else []
    out += dgrad(site, "kv_a", a.down, h, "cast_dkv_a")
    out += quantized(
        site, Kernel("castT_x_kv_a", cast_transpose(t, h, source)), Kernel("castT_dkv_a", cast_transpose(t, a.down))
    )
    if a.q_rank:
        out += dgrad(site, "q_a", a.q_rank, h, "cast_dq_a")
        out += quantized(
            site, Kernel("castT_x_q_a", cast_transpose(t, h, source)), Kernel("castT_dq_a", cast_transpose(t, a.q_rank))
        )
    return [*out, Kernel("grad_add", elementwise(t, h, 2)), *norm_backward("rmsnorm1_bwd", t, h, 3)]


def backward(site: Shared, a: Latent) -> list[Kernel]:
    """Input gradients, from the output's to the residual's."""
    h, t, again = site.shape.hidden, site.tokens, _again(site, a)
    if _core_again(site):
        out, again = [*again, Kernel("flash_fwd_recompute", _attention(site, a, "forward"))], []
    else:
        restore = Kernel("dequant_attn_out_E5M6", dequantize(t, a.out, site.recipe.attention_output))
        out = quantized(site, restore)
    out += dgrad(site, "o_proj", h, a.out, "cast_dO_proj")
    out += quantized(
        site, Kernel("castT_attn_out", cast_transpose(t, a.out)), Kernel("castT_dY_o", cast_transpose(t, h))
    )
    return [*out, *again, *_core_backward(site, a), *_down_projections_backward(site, a)]


def _again(site: Shared, a: Latent) -> list[Kernel]:
    """What backward computes again before attention's."""
    normed = norm_again(site)
    norms = _latents(site, a, "_recompute") if normed else []
    return norms + (_up_projections(site, a, "_recompute", normed) if _up_again(site) else [])


def weight(site: Shared, a: Latent) -> list[Kernel]:
    h = site.shape.hidden
    out = [wgrad(site, "o_proj", h, a.out), wgrad(site, "kv_b", a.kv, a.kv_rank)]
    out += [wgrad(site, "q_b", a.q, a.q_rank or h), wgrad(site, "kv_a", a.down, h)]
    return out + ([wgrad(site, "q_a", a.q_rank, h)] if a.q_rank else [])


def kept(site: Shared, a: Latent) -> float:
    """Bytes of a token until the input gradient: the norm's input, latents, the output, and the log-sum-exp; outputs of
    norms, and q, k and v, where they are not computed again."""
    out = PLAIN_BF16.row_bytes(site.shape.hidden) + PLAIN_BF16.row_bytes(a.q_rank + a.down)
    if not _core_again(site):
        out += site.recipe.attention_output.row_bytes(a.out) + PLAIN_FP32.row_bytes(a.heads)
    if not norm_again(site):
        out += site.recipe.activation.row_bytes(site.shape.hidden + a.q_rank + a.kv_rank)
    return out + (0.0 if _up_again(site) else _qkv(a))


def _qkv(a: Latent) -> float:
    """Bytes of a token's q, k and v."""
    return PLAIN_BF16.row_bytes(2 * a.q + a.out)


def kept_for_weight(site: Shared, a: Latent) -> float:
    """Bytes of a token until a split weight gradient: both sides of each product."""
    inputs = 2 * site.shape.hidden + a.q_rank + a.kv_rank + a.out
    outputs = a.q_rank + a.down + a.q + a.kv + site.shape.hidden
    return site.recipe.activation.row_bytes(inputs + outputs)


def workspace(site: Shared, a: Latent) -> float:
    """Bytes in attention's backward: q, k, v (where they were not kept), o, their gradients, dQ in FP32."""
    kept = 0.0 if _up_again(site) else _qkv(a)
    return site.tokens * (PLAIN_BF16.row_bytes(2 * (2 * a.q) + 4 * a.out) + PLAIN_FP32.row_bytes(a.q) - kept)
