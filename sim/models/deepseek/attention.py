"""Multi-head latent attention: its norms, projections, rope, the gate that follows it, and their gradients."""

from hwmodels.op import (
    Attention,
    Gemm,
    Memory,
    cast,
    cast_transpose,
    copy,
    dequantize,
    elementwise,
    norm,
    rope,
    small,
    store,
)  # fmt: skip
from sim.models.blocks.linear import BF16_WIDTH, dgrad, linear, norm_backward, quantized, wgrad
from sim.models.deepseek.shape import DeepSeekShape, Site
from sim.models.layer import Kernel

ROUTING_KERNELS = {"F": 37, "B": 26}
"""Tiny kernels of the gate (scores, group limit, top-k, normalisation) in the profile, after and before its GEMM."""


def _widths(shape: DeepSeekShape) -> tuple[int, int, int, int]:
    """Columns of queries, of keys and values after up-projection, of the compressed kv, and of the output."""
    q = shape.heads * (shape.qk_nope + shape.qk_rope)
    kv = shape.heads * (shape.qk_nope + shape.v_head)
    return q, kv, shape.kv_rank + shape.qk_rope, shape.heads * shape.v_head


def _up_projections(site: Site, recompute: bool) -> list[Kernel]:
    """From the compressed q and kv to what attention reads; run again in backward when `recompute`."""
    s, t, tail = site.shape, site.tokens, "_recompute" if recompute else ""
    q, kv, _, _ = _widths(s)
    out = [Kernel(f"q_a_norm{tail}", norm(t, s.q_rank))] if s.q_rank else []
    out += [Kernel("copy_kv_c", copy(t, s.kv_rank)), Kernel(f"kv_a_norm{tail}", norm(t, s.kv_rank))]
    out += [] if recompute else [Kernel("copy_k_rope", copy(t, s.qk_rope))]
    if s.q_rank or recompute:
        out += linear(site, f"q_b{tail}", q, s.q_rank or s.hidden, "cast_q_c")
    out += linear(site, f"kv_b{tail}", kv, s.kv_rank, "cast_kv_c")
    nope, rotary = s.heads * s.qk_nope, s.heads * s.qk_rope
    return [
        *out,
        Kernel("rope_k", rope(t, s.qk_rope)), Kernel("copy_k_nope", copy(t, nope)),
        Kernel("bcast_k_rope", copy(t, rotary, reads=0)), Kernel("rope_q", rope(t, rotary)),
    ]  # fmt: skip


def _attention(site: Site, direction: str) -> Attention:
    s = site.shape
    return Attention(direction, site.sequences, s.heads, site.length, s.qk_nope + s.qk_rope, s.v_head)


def attention_forward(site: Site, moe: bool) -> list[Kernel]:
    s, t = site.shape, site.tokens
    q, _, kv_a, o = _widths(s)
    # the first norm also adds the residual: two streams in, two out
    out = [Kernel("rmsnorm1", norm(t, s.hidden, 2, 2))]
    out += linear(site, "q_a" if s.q_rank else "q_b", s.q_rank or q, s.hidden, "cast_x_for_q_a")
    out += linear(site, "kv_a", kv_a, s.hidden, "cast_x_for_kv_a")
    out += [Kernel("arange", small("tiny")), Kernel("arange", small("tiny"))]
    out += [*_up_projections(site, recompute=False), Kernel("flash_fwd", _attention(site, "forward"))]
    out += quantized(site, Kernel("save_attn_out_E5M6", store(t, o, site.recipe.attention_output)))
    out += linear(site, "o_proj", s.hidden, o, "cast_attn_out")
    out += [Kernel("residual_scale", elementwise(t, s.hidden)), Kernel("rmsnorm2", norm(t, s.hidden, 2, 2))]
    if moe:
        out += [Kernel("gate", Gemm(t, s.experts, s.hidden, "fprop", "bf16"))]
        out += [Kernel("routing", small("routing_forward", t, 4.0 * s.experts, ROUTING_KERNELS["F"]))]
        out += quantized(site, Kernel("cast_x_for_dispatch", cast(t, s.hidden)))
    else:
        out += quantized(site, Kernel("cast_x_recompute", cast(t, s.hidden)))
    return out


def _attention_core_backward(site: Site) -> list[Kernel]:
    """Attention itself and the rope and up-projections behind it."""
    s, t = site.shape, site.tokens
    q, kv, _, o = _widths(s)
    rotary = s.heads * s.qk_rope
    row = BF16_WIDTH * o
    out = [
        # reads O and dO, writes their row sums, and zeroes the FP32 accumulator of dQ
        Kernel("flash_bwd_pre", Memory("attention_prepare", t, 2 * row, 2 * BF16_WIDTH * q)),
        Kernel("flash_bwd", _attention(site, "backward")),
        Kernel("flash_bwd_post", Memory("attention_finish", t, 2 * BF16_WIDTH * q, BF16_WIDTH * q)),
        Kernel("rope_q_bwd", rope(t, rotary)),
    ]
    out += dgrad(site, "q_b", q, s.q_rank or s.hidden, "cast_dq")
    out += [Kernel("sum_dk_rope", Memory("elementwise", t, BF16_WIDTH * rotary, BF16_WIDTH * s.qk_rope))]
    out += [Kernel("rope_k_bwd", rope(t, s.qk_rope)), Kernel("copy_dk_nope", copy(t, s.heads * s.qk_nope))]
    out += [Kernel("copy_dv", copy(t, s.heads * s.v_head)), *dgrad(site, "kv_b", kv, s.kv_rank, "cast_dkv")]
    return out + quantized(
        site,
        Kernel("castT_dkv", cast_transpose(t, kv)), Kernel("castT_kv_c", cast_transpose(t, s.kv_rank)),
        Kernel("castT_dq", cast_transpose(t, q)), Kernel("castT_q_c", cast_transpose(t, s.q_rank or s.hidden)),
    )  # fmt: skip


def _down_projections_backward(site: Site) -> list[Kernel]:
    """The two projections out of the first norm, and that norm."""
    s, t = site.shape, site.tokens
    _, _, kv_a, _ = _widths(s)
    out = [*norm_backward("kv_a_norm_bwd", t, s.kv_rank, 2)]
    out += norm_backward("q_a_norm_bwd", t, s.q_rank, 2) if s.q_rank else []
    tiny = ("fill", "copy", "fill", "copy", "grad_add")
    out += [Kernel(name, small("tiny")) for name in tiny]
    out += [Kernel("rmsnorm1_recompute", norm(t, s.hidden, 2, 2)), *dgrad(site, "kv_a", kv_a, s.hidden, "cast_dkv_a")]
    out += quantized(
        site, Kernel("castT_x_kv_a", cast_transpose(t, s.hidden)), Kernel("castT_dkv_a", cast_transpose(t, kv_a))
    )
    if s.q_rank:
        out += dgrad(site, "q_a", s.q_rank, s.hidden, "cast_dq_a")
        out += quantized(
            site, Kernel("castT_x_q_a", cast_transpose(t, s.hidden)), Kernel("castT_dq_a", cast_transpose(t, s.q_rank))
        )
    return [*out, Kernel("grad_add", elementwise(t, s.hidden, 2)), *norm_backward("rmsnorm1_bwd", t, s.hidden, 3)]


def attention_backward(site: Site, moe: bool) -> list[Kernel]:
    s, t = site.shape, site.tokens
    o = _widths(s)[3]
    out: list[Kernel] = []
    if moe:
        out += [
            Kernel("routing_bwd", small("routing_backward", t, 4.0 * s.experts, ROUTING_KERNELS["B"])),
            Kernel("gate_dgrad", Gemm(t, s.hidden, s.experts, "dgrad", "bf16")),
            Kernel("gate_wgrad", Gemm(s.experts, s.hidden, t, "wgrad", "bf16")),
            Kernel("grad_add", elementwise(t, s.hidden, 2)),
        ]
    # dY of the shared and routed paths and of the residual meet here
    out += [*norm_backward("rmsnorm2_bwd", t, s.hidden, 5), Kernel("residual_scale_bwd", elementwise(t, s.hidden))]
    restore = Kernel("dequant_attn_out_E5M6", dequantize(t, o, site.recipe.attention_output))
    out += [*quantized(site, restore), *dgrad(site, "o_proj", s.hidden, o, "cast_dO_proj")]
    out += quantized(
        site, Kernel("castT_attn_out", cast_transpose(t, o)), Kernel("castT_dY_o", cast_transpose(t, s.hidden))
    )
    out += [*_up_projections(site, recompute=True), *_attention_core_backward(site)]
    return out + _down_projections_backward(site)


def attention_weight(site: Site, moe: bool) -> list[Kernel]:
    s = site.shape
    q, kv, kv_a, o = _widths(s)
    out = [wgrad(site, "o_proj", s.hidden, o), wgrad(site, "kv_b", kv, s.kv_rank)]
    out += [wgrad(site, "q_b", q, s.q_rank or s.hidden), wgrad(site, "kv_a", kv_a, s.hidden)]
    return out + ([wgrad(site, "q_a", s.q_rank, s.hidden)] if s.q_rank else [])
