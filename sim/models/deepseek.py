"""The DeepSeek family (V2, V2-Lite, V3): multi-head latent attention, DeepSeekMoE, multi-token prediction.

Layers become parts (attention, dispatch, experts, combine, the rest), parts become kernels, for forward (F), input
gradient (B) and weight gradient (W). Order, names and fusions follow the published H800 profile
(deepseek-ai/profile-data train.json: 69 + 19 + 29 + 12 + 101 + 5 kernels a MoE layer), precision follows the recipe.
Recomputed in backward (DeepSeek-V3 report sec 3.2.3 and the profile): norms, q and kv up-projections, rope, SwiGLU.
"""

from hwmodels.formats import PLAIN_BF16, PLAIN_E4M3, PLAIN_FP32
from hwmodels.op import (
    AllToAll,
    Attention,
    Gemm,
    GroupedGemm,
    Memory,
    cast,
    cast_transpose,
    copy,
    dequantize,
    elementwise,
    norm,
    permute,
    rope,
    small,
    store,
    transpose_scales,
    transpose_weight,
    unpermute,
)  # fmt: skip
from sim.models.layer import COMMUNICATION, WEIGHT, Kernel, Part, Site, Unit
from sim.models.shape import ModelShape

FORWARD_META_BYTES = 72
"""Source and index metadata that travels with a row of the first dispatch (h800_dualpipe_trace: 7168+224+72)."""
CACHED_META_BYTES = 8
"""The same when the layout is cached, as in the backward pass (h800_dualpipe_trace)."""
COMBINE_META_BYTES = 40
"""Top-k weights and index that travel with a BF16 row (h800_dualpipe_trace: 14336+40)."""
ROUTING_KERNELS = {"F": 37, "B": 26}
"""Tiny kernels of the gate (scores, group limit, top-k, normalisation) in the profile, after and before its GEMM."""
BF16_WIDTH = 2


def units(shape: ModelShape) -> tuple[Unit, ...]:
    """The model in order: embedding, layers, head; a multi-token-prediction module is projection, layer, head."""
    layers = [Unit("dense" if i < shape.dense_layers else "moe", i) for i in range(shape.layers)]
    out = [Unit("embedding", -1), *layers, Unit("head", -1)]
    for depth in range(shape.mtp_depth):
        layer = shape.layers + depth
        out += [Unit("projection", layer), Unit("moe", layer), Unit("head", layer)]
    return tuple(out)


def parts(site: Site, unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit for direction F, B or W, in the order they depend on each other."""
    if unit.kind in ("embedding", "projection", "head"):
        kernels = _REST[unit.kind](site, direction)
        return (Part(f"{unit.kind}({direction})", unit.layer, tuple(kernels)),) if kernels else ()
    moe = unit.kind == "moe"
    attn = Part(f"attn({direction})", unit.layer, tuple(_ATTENTION[direction](site, moe)))
    mlp = Part(f"mlp({direction})", unit.layer, tuple((_EXPERTS if moe else _DENSE)[direction](site)))
    if direction == "W":
        return (mlp, attn)
    ordered = (attn, mlp) if direction == "F" else (mlp, attn)
    if not moe:
        return ordered
    before, after = ("dispatch", "combine") if direction == "F" else ("combine", "dispatch")
    first = Part(f"{before}({direction})", unit.layer, tuple(_exchange(site, before, direction)), True)
    last = Part(f"{after}({direction})", unit.layer, tuple(_exchange(site, after, direction)), True)
    return (attn, first, mlp, last) if direction == "F" else (first, mlp, last, attn)


# --- linear layers ----------------------------------------------------------------------------------------------------


def _linear(site: Site, name: str, n: int, k: int, source: str = "", rows: int = 0) -> list[Kernel]:
    """Quantise the input by row, lay its scales out for the GEMM, multiply. [tokens, k] -> [tokens, n]."""
    t = rows or site.tokens
    gemm = Kernel(name, Gemm(t, n, k, "fprop", site.recipe.linear))
    if not site.recipe.quantized:
        return [gemm]
    head = [Kernel(source, cast(t, k))] if source else []
    return [*head, Kernel("scaleT", transpose_scales(t, k)), gemm]


def _dgrad(site: Site, name: str, n: int, k: int, gradient: str = "") -> list[Kernel]:
    """Gradient of the input of a [tokens, k] -> [tokens, n] layer; `gradient`: name of the cast of dY, if any."""
    t = site.tokens
    gemm = Kernel(f"{name}_dgrad", Gemm(t, k, n, "dgrad", site.recipe.linear))
    if not site.recipe.quantized:
        return [gemm]
    weight = Kernel(f"{name}_WT", transpose_weight(n, k, site.recipe.weight))
    head = [Kernel(gradient, cast(t, n))] if gradient else []
    return [weight, *head, Kernel("scaleT", transpose_scales(t, n)), gemm]


def _wgrad(site: Site, name: str, n: int, k: int, rows: int = 0, lane: int = 0) -> Kernel:
    return Kernel(f"{name}_wgrad", Gemm(n, k, rows or site.tokens, "wgrad", site.recipe.linear), lane)


def _quantized(site: Site, *kernels: Kernel) -> list[Kernel]:
    """Kernels that exist only to feed FP8 products."""
    return list(kernels) if site.recipe.quantized else []


# --- attention --------------------------------------------------------------------------------------------------------


def _widths(shape: ModelShape) -> tuple[int, int, int, int]:
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
    if s.q_rank:
        out += _linear(site, f"q_b{tail}", q, s.q_rank, "cast_q_c")
    elif recompute:
        out += _linear(site, f"q_b{tail}", q, s.hidden, "cast_q_c")
    out += _linear(site, f"kv_b{tail}", kv, s.kv_rank, "cast_kv_c")
    nope, rotary = s.heads * s.qk_nope, s.heads * s.qk_rope
    return [
        *out,
        Kernel("rope_k", rope(t, s.qk_rope)), Kernel("copy_k_nope", copy(t, nope)),
        Kernel("bcast_k_rope", copy(t, rotary, reads=0)), Kernel("rope_q", rope(t, rotary)),
    ]  # fmt: skip


def _attention(site: Site, direction: str) -> Attention:
    s = site.shape
    return Attention(direction, site.sequences, s.heads, site.length, s.qk_nope + s.qk_rope, s.v_head)


def _attention_forward(site: Site, moe: bool) -> list[Kernel]:
    s, t = site.shape, site.tokens
    q, _, kv_a, o = _widths(s)
    # the first norm also adds the residual: two streams in, two out
    out = [Kernel("rmsnorm1", norm(t, s.hidden, 2, 2))]
    out += _linear(site, "q_a" if s.q_rank else "q_b", s.q_rank or q, s.hidden, "cast_x_for_q_a")
    out += _linear(site, "kv_a", kv_a, s.hidden, "cast_x_for_kv_a")
    out += [Kernel("arange", small("tiny")), Kernel("arange", small("tiny"))]
    out += [*_up_projections(site, recompute=False), Kernel("flash_fwd", _attention(site, "forward"))]
    out += _quantized(site, Kernel("save_attn_out_E5M6", store(t, o, site.recipe.attention_output)))
    out += _linear(site, "o_proj", s.hidden, o, "cast_attn_out")
    out += [Kernel("residual_scale", elementwise(t, s.hidden)), Kernel("rmsnorm2", norm(t, s.hidden, 2, 2))]
    if moe:
        out += [Kernel("gate", Gemm(t, s.experts, s.hidden, "fprop", "bf16"))]
        out += [Kernel("routing", small("routing_forward", t, 4.0 * s.experts, ROUTING_KERNELS["F"]))]
        out += _quantized(site, Kernel("cast_x_for_dispatch", cast(t, s.hidden)))
    else:
        out += _quantized(site, Kernel("cast_x_recompute", cast(t, s.hidden)))
    return out


def _norm_backward(name: str, rows: int, width: int, reads: int) -> list[Kernel]:
    return [
        Kernel(name, norm(rows, width, reads, 1, "backward")),
        Kernel("norm_finalize", small("tiny")),
        Kernel("norm_acc", small("tiny")),
    ]


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
    out += _dgrad(site, "q_b", q, s.q_rank or s.hidden, "cast_dq")
    out += [Kernel("sum_dk_rope", Memory("elementwise", t, BF16_WIDTH * rotary, BF16_WIDTH * s.qk_rope))]
    out += [Kernel("rope_k_bwd", rope(t, s.qk_rope)), Kernel("copy_dk_nope", copy(t, s.heads * s.qk_nope))]
    out += [Kernel("copy_dv", copy(t, s.heads * s.v_head)), *_dgrad(site, "kv_b", kv, s.kv_rank, "cast_dkv")]
    return out + _quantized(
        site,
        Kernel("castT_dkv", cast_transpose(t, kv)), Kernel("castT_kv_c", cast_transpose(t, s.kv_rank)),
        Kernel("castT_dq", cast_transpose(t, q)), Kernel("castT_q_c", cast_transpose(t, s.q_rank or s.hidden)),
    )  # fmt: skip


def _down_projections_backward(site: Site) -> list[Kernel]:
    """The two projections out of the first norm, and that norm."""
    s, t = site.shape, site.tokens
    _, _, kv_a, _ = _widths(s)
    out = [*_norm_backward("kv_a_norm_bwd", t, s.kv_rank, 2)]
    out += _norm_backward("q_a_norm_bwd", t, s.q_rank, 2) if s.q_rank else []
    tiny = ("fill", "copy", "fill", "copy", "grad_add")
    out += [Kernel(name, small("tiny")) for name in tiny]
    out += [Kernel("rmsnorm1_recompute", norm(t, s.hidden, 2, 2)), *_dgrad(site, "kv_a", kv_a, s.hidden, "cast_dkv_a")]
    out += _quantized(
        site, Kernel("castT_x_kv_a", cast_transpose(t, s.hidden)), Kernel("castT_dkv_a", cast_transpose(t, kv_a))
    )
    if s.q_rank:
        out += _dgrad(site, "q_a", s.q_rank, s.hidden, "cast_dq_a")
        out += _quantized(
            site, Kernel("castT_x_q_a", cast_transpose(t, s.hidden)), Kernel("castT_dq_a", cast_transpose(t, s.q_rank))
        )
    return [*out, Kernel("grad_add", elementwise(t, s.hidden, 2)), *_norm_backward("rmsnorm1_bwd", t, s.hidden, 3)]


def _attention_backward(site: Site, moe: bool) -> list[Kernel]:
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
    out += [*_norm_backward("rmsnorm2_bwd", t, s.hidden, 5), Kernel("residual_scale_bwd", elementwise(t, s.hidden))]
    restore = Kernel("dequant_attn_out_E5M6", dequantize(t, o, site.recipe.attention_output))
    out += [*_quantized(site, restore), *_dgrad(site, "o_proj", s.hidden, o, "cast_dO_proj")]
    out += _quantized(
        site, Kernel("castT_attn_out", cast_transpose(t, o)), Kernel("castT_dY_o", cast_transpose(t, s.hidden))
    )
    out += [*_up_projections(site, recompute=True), *_attention_core_backward(site)]
    return out + _down_projections_backward(site)


def _attention_weight(site: Site, moe: bool) -> list[Kernel]:
    s = site.shape
    q, kv, kv_a, o = _widths(s)
    out = [_wgrad(site, "o_proj", s.hidden, o), _wgrad(site, "kv_b", kv, s.kv_rank)]
    out += [_wgrad(site, "q_b", q, s.q_rank or s.hidden), _wgrad(site, "kv_a", kv_a, s.hidden)]
    return out + ([_wgrad(site, "q_a", s.q_rank, s.hidden)] if s.q_rank else [])


# --- feed-forward -----------------------------------------------------------------------------------------------------


def _swiglu(site: Site, name: str, rows: int, width: int) -> Kernel:
    """Gate times up, written in the next product's format: [rows, 2*width] -> [rows, width]."""
    return Kernel(name, Memory("swiglu", rows, 2 * BF16_WIDTH * width, site.recipe.activation.row_bytes(width)))


def _swiglu_backward(name: str, rows: int, width: int, extra: int = 0) -> Kernel:
    """Reads gate, up and dY, writes dGate and dUp, and `extra` more tensors of `width` columns."""
    return Kernel(name, Memory("swiglu_backward", rows, 3 * BF16_WIDTH * width, (2 + extra) * BF16_WIDTH * width))


def _shared_forward(site: Site, width: int) -> tuple[list[Kernel], list[Kernel]]:
    """Gate-up product, and then SwiGLU, down product and what is kept."""
    s, t = site.shape, site.tokens
    first = _linear(site, "shared_gateup", 2 * width, s.hidden)
    rest = [_swiglu(site, "swiglu_cast_shared", t, width), *_linear(site, "shared_down", s.hidden, width)]
    return first, rest


def _dense_forward(site: Site, width: int = 0) -> list[Kernel]:
    width = width or site.shape.dense_intermediate
    first, rest = _shared_forward(site, width)
    keep = Kernel("save_gateup_shared_fp8", store(site.tokens, 2 * width, site.recipe.gate_up))
    return [*first, *rest, *_quantized(site, keep)]


def _experts_forward(site: Site) -> list[Kernel]:
    s, w, lin = site.shape, site.shape.expert_intermediate, site.recipe.linear
    first, rest = _shared_forward(site, s.shared_experts * w)
    rows, received, local = site.rows, site.received, site.local_experts
    out = [*first, Kernel("count_experts", small("expert_count", received, 4.0 * s.experts_per_token))]
    out += [Kernel("build_mapping", small("expert_map", received, 4.0 * s.experts_per_token))]
    out += [Kernel("permute_x", permute(received, rows, s.hidden, PLAIN_E4M3 if site.recipe.quantized else PLAIN_BF16))]
    out += _quantized(site, Kernel("routed_W1T", transpose_weight(2 * w, s.hidden, site.recipe.weight, local)))
    out += _quantized(site, Kernel("permute_scales", transpose_scales(rows, s.hidden)))
    out += [Kernel("routed_gateup", GroupedGemm(local, rows, 2 * w, s.hidden, "fprop", lin))]
    out += [Kernel("scale_topk_w", small("tiny")), _swiglu(site, "swiglu_cast_routed", rows, w)]
    out += _quantized(site, Kernel("routed_W2T", transpose_weight(s.hidden, w, site.recipe.weight, local)))
    out += _quantized(site, Kernel("permute_scales2", transpose_scales(rows, w)))
    out += [Kernel("routed_down", GroupedGemm(local, rows, s.hidden, w, "fprop", lin))]
    out += [Kernel("unpermute_y", unpermute(received, rows, s.hidden)), *rest]
    return out + _quantized(
        site,
        Kernel("save_gateup_routed_fp8", store(rows, 2 * w, site.recipe.gate_up)),
        Kernel("save_gateup_shared_fp8", store(site.tokens, 2 * s.shared_experts * w, site.recipe.gate_up)),
    )


def _shared_backward(site: Site, width: int) -> tuple[list[Kernel], list[Kernel]]:
    """Down product's gradient and SwiGLU's, and then gate-up's."""
    s, t = site.shape, site.tokens
    keep = Kernel("dequant_saved_shared_gateup", dequantize(t, 2 * width, site.recipe.gate_up))
    first = [*_quantized(site, keep), *_dgrad(site, "shared_down", s.hidden, width)]
    first += _quantized(site, Kernel("castT_dY_shared", cast_transpose(t, s.hidden, PLAIN_E4M3)))
    first += [_swiglu(site, "swiglu_recompute_castT_shared", t, width)]
    first += [_swiglu_backward("swiglu_bwd_shared", t, width)]
    last = _quantized(site, Kernel("dequant_x_shared", dequantize(t, s.hidden)))
    last += _dgrad(site, "shared_gateup", 2 * width, s.hidden, "cast_dGateUp_shared")
    last += _quantized(
        site, Kernel("castT_dGateUp_shared", cast_transpose(t, 2 * width)),
        Kernel("castT_x_shared", cast_transpose(t, s.hidden)),
    )  # fmt: skip
    return first, last


def _dense_backward(site: Site) -> list[Kernel]:
    first, last = _shared_backward(site, site.shape.dense_intermediate)
    return [*first, Kernel("rmsnorm2_recompute", norm(site.tokens, site.shape.hidden, 2, 2)), *last]


def _experts_backward(site: Site) -> list[Kernel]:
    s, w, lin, rows = site.shape, site.shape.expert_intermediate, site.recipe.linear, site.rows
    first, last = _shared_backward(site, s.shared_experts * w)
    element = PLAIN_E4M3 if site.recipe.quantized else PLAIN_BF16
    saved = Kernel("dequant_saved_routed_gateup", dequantize(rows, 2 * w, site.recipe.gate_up))
    out = [*first, *_quantized(site, saved)]
    out += [Kernel("permute_dY", permute(site.received, rows, s.hidden, element))]
    out += _quantized(site, Kernel("permute_scales", transpose_scales(rows, s.hidden)))
    out += [Kernel("routed_down_dgrad", GroupedGemm(site.local_experts, rows, w, s.hidden, "dgrad", lin))]
    # forward output again for the weight gradient, and the gradient, in one kernel
    out += [_swiglu_backward("swiglu_fwd_bwd_routed", rows, w, extra=1)]
    out += [Kernel("swiglu_topk_weight_bwd", Memory("gate_weight_gradient", rows, 2 * BF16_WIDTH * w, 4.0))]
    out += _quantized(site, Kernel("castT_act_routed", cast_transpose(rows, w)))
    out += [Kernel("scale_topk_w", small("tiny")), Kernel("rmsnorm2_recompute", norm(site.tokens, s.hidden, 2, 2))]
    out += _quantized(
        site, Kernel("cast_x_recompute", cast(site.tokens, s.hidden)), Kernel("cast_dGateUp_routed", cast(rows, 2 * w)),
        Kernel("permute_scales2", transpose_scales(rows, 2 * w)),
    )  # fmt: skip
    out += [Kernel("routed_gateup_dgrad", GroupedGemm(site.local_experts, rows, s.hidden, 2 * w, "dgrad", lin))]
    out += [Kernel("unpermute_dX", unpermute(site.received, rows, s.hidden))]
    return out + _quantized(site, Kernel("castT_dGateUp_routed", cast_transpose(rows, 2 * w))) + last


def _dense_weight(site: Site) -> list[Kernel]:
    s = site.shape
    down = _wgrad(site, "shared_down", s.hidden, s.dense_intermediate)
    return [down, _wgrad(site, "shared_gateup", 2 * s.dense_intermediate, s.hidden)]


def _experts_weight(site: Site) -> list[Kernel]:
    """One GEMM a local expert, alternating between two streams; they follow each other on the SMs."""
    s, w = site.shape, site.shape.expert_intermediate
    each = max(1, site.rows // site.local_experts)
    out = [_wgrad(site, "shared_down", s.hidden, s.shared_experts * w)]
    for name, cast_name, n, k in (
        ("routed_down", "castT_dY_routed", s.hidden, w), ("routed_gateup", "castT_x_routed", 2 * w, s.hidden),
    ):  # fmt: skip
        out += _quantized(site, Kernel(cast_name, cast_transpose(site.rows, s.hidden, PLAIN_E4M3)))
        lanes = [WEIGHT * (expert % 2) for expert in range(site.local_experts)]
        turns = [_wgrad(site, name, n, k, each, lane) for lane in lanes]
        out += [kernel._replace(name=f"{kernel.name}_e{i}") for i, kernel in enumerate(turns)]
    return [*out, _wgrad(site, "shared_gateup", 2 * s.shared_experts * w, s.hidden)]


def _exchange(site: Site, what: str, direction: str) -> list[Kernel]:
    """Forward dispatch and backward combine carry the dispatch format, the other two the combine format."""
    narrow = (what, direction) in (("dispatch", "F"), ("combine", "B"))
    first = what == "dispatch" and direction == "F"
    layout = site.recipe.dispatch if narrow else site.recipe.combine
    meta = FORWARD_META_BYTES if first else CACHED_META_BYTES if narrow else COMBINE_META_BYTES
    op = AllToAll(
        "dispatch" if narrow else "combine", f"{what}({direction})", site.tokens,
        layout.row_bytes(site.shape.hidden) + meta, site.nodes, site.ranks, site.group, site.group_nodes,
    )  # fmt: skip
    out = []
    if first:
        layout_op = small("dispatch_layout", site.tokens, 4.0 * site.shape.experts)
        out = [Kernel("dispatch_layout", layout_op, COMMUNICATION)]
    elif narrow:
        cast_dy = Kernel("cast_dY_for_dispatch", cast(site.tokens, site.shape.hidden), COMMUNICATION)
        out = _quantized(site, cast_dy)
    return [*out, Kernel(f"{what}({direction})", op, COMMUNICATION)]


# --- the rest: embedding, head, projection of the multi-token-prediction module ---------------------------------------


def _embedding(site: Site, direction: str) -> list[Kernel]:
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        return [Kernel("embedding", copy(t, h))]
    # gradients scatter into an FP32 table: read dY and the rows, write the rows
    row = PLAIN_FP32.row_bytes(h)
    return [Kernel("embedding_bwd", Memory("elementwise", t, BF16_WIDTH * h + row, row))] if direction == "B" else []


def _head(site: Site, direction: str) -> list[Kernel]:
    """Final norm, logits in BF16, cross-entropy (logits read, their gradient written in place)."""
    t, h, v = site.tokens, site.shape.hidden, site.shape.vocabulary
    if direction == "F":
        loss = Memory("elementwise", t, 2.0 * BF16_WIDTH * v, BF16_WIDTH * v)
        return [Kernel("final_norm", norm(t, h)), Kernel("head", Gemm(t, v, h, "fprop", "bf16")), Kernel("loss", loss)]
    if direction == "B":
        dgrad = Kernel("head_dgrad", Gemm(t, h, v, "dgrad", "bf16"))
        return [dgrad, *_norm_backward("final_norm_bwd", t, h, 2)]
    return [Kernel("head_wgrad", Gemm(v, h, t, "wgrad", "bf16"))]


def _projection(site: Site, direction: str) -> list[Kernel]:
    """Norms of the hidden state and of the next token's embedding, concatenated and projected to `hidden`."""
    t, h = site.tokens, site.shape.hidden
    if direction == "F":
        head = [Kernel("embedding", copy(t, h)), Kernel("mtp_norms", norm(2 * t, h))]
        return [*head, *_linear(site, "mtp_projection", h, 2 * h, "cast_mtp")]
    if direction == "B":
        out = [*_dgrad(site, "mtp_projection", h, 2 * h, "cast_dmtp"), *_norm_backward("mtp_norms_bwd", 2 * t, h, 2)]
        casts = (Kernel("castT_mtp", cast_transpose(t, 2 * h)), Kernel("castT_dmtp", cast_transpose(t, h)))
        return [*out, *_quantized(site, *casts), *_embedding(site, "B")]
    return [_wgrad(site, "mtp_projection", h, 2 * h)]


_REST = {"embedding": _embedding, "head": _head, "projection": _projection}
_ATTENTION = {"F": _attention_forward, "B": _attention_backward, "W": _attention_weight}
_DENSE = {"F": _dense_forward, "B": _dense_backward, "W": _dense_weight}
_EXPERTS = {"F": _experts_forward, "B": _experts_backward, "W": _experts_weight}
