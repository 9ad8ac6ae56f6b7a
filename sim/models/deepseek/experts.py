"""Feed-forward layers: dense ones, and mixtures of routed and shared experts."""

from hwmodels.formats import PLAIN_BF16, PLAIN_E4M3
from hwmodels.op import (
    GroupedGemm,
    Memory,
    cast,
    cast_transpose,
    dequantize,
    norm,
    permute,
    small,
    store,
    transpose_scales,
    transpose_weight,
    unpermute,
)  # fmt: skip
from sim.models.blocks.linear import BF16_WIDTH, dgrad, linear, quantized, wgrad
from sim.models.blocks.swiglu import swiglu, swiglu_backward
from sim.models.deepseek.shape import Site
from sim.models.layer import WEIGHT, Kernel


def _shared_forward(site: Site, width: int) -> tuple[list[Kernel], list[Kernel]]:
    """Gate-up product, and then SwiGLU, down product and what is kept."""
    s, t = site.shape, site.tokens
    first = linear(site, "shared_gateup", 2 * width, s.hidden)
    rest = [swiglu(site, "swiglu_cast_shared", t, width), *linear(site, "shared_down", s.hidden, width)]
    return first, rest


def dense_forward(site: Site) -> list[Kernel]:
    width = site.shape.dense_intermediate
    first, rest = _shared_forward(site, width)
    keep = Kernel("save_gateup_shared_fp8", store(site.tokens, 2 * width, site.recipe.gate_up))
    return [*first, *rest, *quantized(site, keep)]


def experts_forward(site: Site) -> list[Kernel]:
    s, w, lin = site.shape, site.shape.expert_intermediate, site.recipe.linear
    first, rest = _shared_forward(site, s.shared_experts * w)
    rows, received, local = site.rows, site.received, site.local_experts
    index_bytes = 4.0 * s.experts_per_token
    out = [*first, Kernel("count_experts", small("expert_count", received, index_bytes))]
    out += [Kernel("build_mapping", small("expert_map", received, index_bytes))]
    out += [Kernel("permute_x", permute(received, rows, s.hidden, PLAIN_E4M3 if site.recipe.quantized else PLAIN_BF16))]
    out += quantized(site, Kernel("routed_W1T", transpose_weight(2 * w, s.hidden, site.recipe.weight, local)))
    out += quantized(site, Kernel("permute_scales", transpose_scales(rows, s.hidden)))
    out += [Kernel("routed_gateup", GroupedGemm(local, rows, 2 * w, s.hidden, "fprop", lin))]
    out += [Kernel("scale_topk_w", small("tiny")), swiglu(site, "swiglu_cast_routed", rows, w)]
    out += quantized(site, Kernel("routed_W2T", transpose_weight(s.hidden, w, site.recipe.weight, local)))
    out += quantized(site, Kernel("permute_scales2", transpose_scales(rows, w)))
    out += [Kernel("routed_down", GroupedGemm(local, rows, s.hidden, w, "fprop", lin))]
    out += [Kernel("unpermute_y", unpermute(received, rows, s.hidden)), *rest]
    return out + quantized(
        site,
        Kernel("save_gateup_routed_fp8", store(rows, 2 * w, site.recipe.gate_up)),
        Kernel("save_gateup_shared_fp8", store(site.tokens, 2 * s.shared_experts * w, site.recipe.gate_up)),
    )


def _shared_backward(site: Site, width: int) -> tuple[list[Kernel], list[Kernel]]:
    """Down product's gradient and SwiGLU's, and then gate-up's."""
    s, t = site.shape, site.tokens
    keep = Kernel("dequant_saved_shared_gateup", dequantize(t, 2 * width, site.recipe.gate_up))
    first = [*quantized(site, keep), *dgrad(site, "shared_down", s.hidden, width)]
    first += quantized(site, Kernel("castT_dY_shared", cast_transpose(t, s.hidden, PLAIN_E4M3)))
    first += [swiglu(site, "swiglu_recompute_castT_shared", t, width)]
    first += [swiglu_backward("swiglu_bwd_shared", t, width)]
    last = quantized(site, Kernel("dequant_x_shared", dequantize(t, s.hidden)))
    last += dgrad(site, "shared_gateup", 2 * width, s.hidden, "cast_dGateUp_shared")
    last += quantized(
        site, Kernel("castT_dGateUp_shared", cast_transpose(t, 2 * width)),
        Kernel("castT_x_shared", cast_transpose(t, s.hidden)),
    )  # fmt: skip
    return first, last


def dense_backward(site: Site) -> list[Kernel]:
    first, last = _shared_backward(site, site.shape.dense_intermediate)
    return [*first, Kernel("rmsnorm2_recompute", norm(site.tokens, site.shape.hidden, 2, 2)), *last]


def experts_backward(site: Site) -> list[Kernel]:
    s, w, lin, rows = site.shape, site.shape.expert_intermediate, site.recipe.linear, site.rows
    first, last = _shared_backward(site, s.shared_experts * w)
    element = PLAIN_E4M3 if site.recipe.quantized else PLAIN_BF16
    saved = Kernel("dequant_saved_routed_gateup", dequantize(rows, 2 * w, site.recipe.gate_up))
    out = [*first, *quantized(site, saved)]
    out += [Kernel("permute_dY", permute(site.received, rows, s.hidden, element))]
    out += quantized(site, Kernel("permute_scales", transpose_scales(rows, s.hidden)))
    out += [Kernel("routed_down_dgrad", GroupedGemm(site.local_experts, rows, w, s.hidden, "dgrad", lin))]
    # forward output again for the weight gradient, and the gradient, in one kernel
    out += [swiglu_backward("swiglu_fwd_bwd_routed", rows, w, extra=1)]
    out += [Kernel("swiglu_topk_weight_bwd", Memory("gate_weight_gradient", rows, 2 * BF16_WIDTH * w, 4.0))]
    out += quantized(site, Kernel("castT_act_routed", cast_transpose(rows, w)))
    out += [Kernel("scale_topk_w", small("tiny")), Kernel("rmsnorm2_recompute", norm(site.tokens, s.hidden, 2, 2))]
    out += quantized(
        site, Kernel("cast_x_recompute", cast(site.tokens, s.hidden)), Kernel("cast_dGateUp_routed", cast(rows, 2 * w)),
        Kernel("permute_scales2", transpose_scales(rows, 2 * w)),
    )  # fmt: skip
    out += [Kernel("routed_gateup_dgrad", GroupedGemm(site.local_experts, rows, s.hidden, 2 * w, "dgrad", lin))]
    out += [Kernel("unpermute_dX", unpermute(site.received, rows, s.hidden))]
    return out + quantized(site, Kernel("castT_dGateUp_routed", cast_transpose(rows, 2 * w))) + last


def dense_weight(site: Site) -> list[Kernel]:
    s = site.shape
    down = wgrad(site, "shared_down", s.hidden, s.dense_intermediate)
    return [down, wgrad(site, "shared_gateup", 2 * s.dense_intermediate, s.hidden)]


def experts_weight(site: Site) -> list[Kernel]:
    """One GEMM a local expert, alternating between two streams; they follow each other on the SMs."""
    s, w = site.shape, site.shape.expert_intermediate
    each = max(1, site.rows // site.local_experts)
    out = [wgrad(site, "shared_down", s.hidden, s.shared_experts * w)]
    for name, cast_name, n, k in (
        ("routed_down", "castT_dY_routed", s.hidden, w), ("routed_gateup", "castT_x_routed", 2 * w, s.hidden),
    ):  # fmt: skip
        out += quantized(site, Kernel(cast_name, cast_transpose(site.rows, s.hidden, PLAIN_E4M3)))
        lanes = [WEIGHT * (expert % 2) for expert in range(site.local_experts)]
        turns = [wgrad(site, name, n, k, each, lane) for lane in lanes]
        out += [kernel._replace(name=f"{kernel.name}_e{i}") for i, kernel in enumerate(turns)]
    return [*out, wgrad(site, "shared_gateup", 2 * s.shared_experts * w, s.hidden)]
