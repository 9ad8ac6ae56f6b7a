"""Operations behind the census's differences, continued: experts, embedding, head and multi-token prediction.

As differences.py: exactly what the simulator alone and what the layers alone have, in one part of one unit.
"""

from hwmodels.formats import E4M3_BLOCKS, E4M3_ROWS, PLAIN_E4M3, TILE
from hwmodels.op import (
    Gemm,
    GroupedGemm,
    Memory,
    Op,
    cast,
    cast_transpose,
    copy,
    dequantize,
    elementwise,
    norm,
    small,
    transpose_weight,
)  # fmt: skip
from numerics.census.differences import NARROW, TINY, WIDE, Both, Here, accumulate, codes, of, tiles


def shared_width(here: Here) -> int:
    s = here.site.shape
    return s.dense_intermediate if here.unit == "dense" else s.shared_experts * s.expert_intermediate


def whole(width: int) -> bool:
    """Whether SwiGLU's input is cast in tiles of gate or of up alone, so that its kernels cast it too."""
    return not width % TILE


def activation(here: Here) -> Both:
    """Forward: SwiGLU's input and output cast in one kernel; apart where a last tile is not full."""
    t, width = here.site.tokens, shared_width(here)
    op = Memory("swiglu", t, 2 * NARROW * width, E4M3_ROWS.row_bytes(width))
    simulator, own = [op], [op._replace(write=codes(width))]
    if whole(width):
        simulator, own = [op, cast(t, 2 * width)], [op._replace(write=codes(width) + codes(2 * width))]
    if here.unit == "moe":
        rows, w = here.site.rows, here.site.shape.expert_intermediate
        op = Memory("swiglu", rows, 2 * NARROW * w, E4M3_ROWS.row_bytes(w))
        simulator += [op, cast(rows, 2 * w)]
        own += [op._replace(write=codes(w) + codes(2 * w))]
    return simulator, own


def back(rows: int, width: int) -> Memory:
    """SwiGLU's gradient by rows in codes and as it is, and the activation again."""
    return Memory("swiglu_backward", rows, NARROW * width + codes(2 * width), codes(2 * width) + 3 * NARROW * width)


def activation_again(here: Here) -> Both:
    t, width = here.site.tokens, shared_width(here)
    read = 2 * NARROW * width
    simulator: list[Op] = [Memory("swiglu", t, read, E4M3_ROWS.row_bytes(width))]
    if not whole(width):
        return simulator, [Memory("swiglu_transpose", t, read, (t * width + WIDE * width * tiles(t)) / t)]
    gradient = Memory("swiglu_backward", t, 3 * NARROW * width, 2 * NARROW * width)
    simulator += [dequantize(t, 2 * width), gradient, cast(t, 2 * width)]
    return simulator, [back(t, width), cast_transpose(t, width)]


def input_again(here: Here) -> Both:
    t, h = here.site.tokens, here.site.shape.hidden
    codes = [cast(t, h)] if here.unit == "moe" else []
    return [norm(t, h, 2, 2), dequantize(t, h), *codes], []


def gradient_codes(here: Here) -> Both:
    t, h = here.site.tokens, here.site.shape.hidden
    if here.unit == "dense":
        return [cast_transpose(t, h, PLAIN_E4M3)], [cast(t, h), cast_transpose(t, h)]
    return [cast_transpose(t, h, PLAIN_E4M3), cast(t, h)], [cast(t, h), cast_transpose(t, h), cast(t, h)]


def routed_gradients(here: Here) -> Both:
    s = here.site.shape
    local, rows = s.experts, here.site.rows
    simulator: list[Op] = []
    out: list[Op] = []
    for n, k in here.expert_gradients():
        simulator += [Gemm(n, k, rows // local, "wgrad", "fp8")] * local
        out += [GroupedGemm(local, rows, n, k, "wgrad", "fp8", result="fp32"), accumulate(local * n, local * n * k)]
    return simulator, out


def turned_weights(here: Here) -> Both:
    return [transpose_weight(n, k, E4M3_BLOCKS, here.site.shape.experts) for n, k in here.expert_gradients()], []


def recast(here: Here) -> Both:
    rows, h = here.site.rows, here.site.shape.hidden
    simulator, own = cast_transpose(rows, h, PLAIN_E4M3), cast_transpose(rows, h, E4M3_ROWS)
    return [simulator] * 2, [own] * 2


def routes(here: Here) -> Both:
    t, s, rows = here.site.tokens, here.site.shape, here.site.rows
    k = s.experts_per_token
    index = [small(kind, t, WIDE * k) for kind in ("expert_count", "expert_map")]
    simulator = [*index, small("dispatch_layout", t, WIDE * s.experts), TINY]
    # one operation counts and places; then weights by row: zeros, index to 64 bits, scatter; block table twice
    return simulator, [of("expert_map", t, WIDE * t * k, WIDE * (t * k + rows)), *[TINY] * 5]


def scales_travel(here: Here) -> Both:
    t, s, rows = here.site.tokens, here.site.shape, here.site.rows
    scales = WIDE * tiles(s.hidden)
    travel = of("permute_scales", rows, t * scales, rows * scales)
    return [], [travel] if here.part == "mlp(F)" else [travel] * 2


def again_in_order(here: Here) -> Both:
    t, h, rows = here.site.tokens, here.site.shape.hidden, here.site.rows
    return [], [of("permute", rows, t * h, rows * h)]


def weigh(here: Here) -> Both:
    rows, scales = here.site.rows, WIDE * tiles(here.site.shape.expert_intermediate)
    return [], [Memory("elementwise", rows, scales + WIDE, scales)]


def weigh_backward(here: Here) -> Both:
    s, t, rows = here.site.shape, here.site.tokens, here.site.rows
    w, k = s.expert_intermediate, s.experts_per_token
    simulator = [Memory("swiglu_backward", rows, 3 * NARROW * w, 3 * NARROW * w), TINY]
    simulator += [of("gate_weight_gradient", rows, rows * 2 * NARROW * w, rows * WIDE), dequantize(rows, 2 * w)]
    simulator += [cast(rows, 2 * w)]
    own: list[Op] = [back(rows, w)]
    own += [of("copy", t, WIDE * k * t, WIDE * k * t), of("copy", t, WIDE * k * t, 2 * WIDE * k * t)]
    own += [of("elementwise", 1, WIDE * rows * tiles(w), WIDE * rows)] * (tiles(w) > 1)
    return simulator, [*own, *[TINY] * 5]


def sum_of_paths(here: Here) -> Both:
    return [], [elementwise(here.site.tokens, here.site.shape.hidden, 2)]


# --- ends -------------------------------------------------------------------------------------------------------------


def look_up(here: Here) -> Both:
    t, h = here.site.tokens, here.site.shape.hidden
    copies = [Memory("copy", t, WIDE * h, WIDE * h), Memory("copy", t, WIDE * h, NARROW * h)]
    return [copy(t, h)], copies


def scatter(here: Here) -> Both:
    t, h, v = here.site.tokens, here.site.shape.hidden, here.site.shape.vocabulary
    simulator = Memory("elementwise", t, (NARROW + WIDE) * h, WIDE * h)
    whole = of("elementwise", v, t * WIDE * h + 2 * WIDE * t, WIDE * v * h)
    return [simulator], [Memory("copy", t, NARROW * h, WIDE * h), whole, accumulate(v, v * h)]


def side_by_side(here: Here) -> Both:
    t, h = here.site.tokens, here.site.shape.hidden
    if here.part == "projection(F)":
        return [norm(2 * t, h)], [*[norm(t, h)] * 2, copy(t, 2 * h)]
    own = [*[norm(t, h)] * 2, copy(t, 2 * h), *[copy(t, h)] * 2, *[norm(t, h, 2, 1, "backward")] * 2]
    return [norm(2 * t, h, 2, 1, "backward")], [*own, TINY, TINY, TINY]


def loss(here: Here) -> Both:
    t, v = here.site.tokens, here.site.shape.vocabulary
    simulator = Memory("elementwise", t, 2 * NARROW * v, NARROW * v)
    # beside the logits a 64-bit target is read and a loss written; then their mean
    return [simulator], [Memory("loss", t, NARROW * v + 2 * WIDE, NARROW * v + WIDE), TINY]


def head_weight(here: Here) -> Both:
    v, h = here.site.shape.vocabulary, here.site.shape.hidden
    return [], [Memory("copy", v, WIDE * h, NARROW * h)]


def head_gradient(here: Here) -> Both:
    t, h, v = here.site.tokens, here.site.shape.hidden, here.site.shape.vocabulary
    product = Gemm(v, h, t, "wgrad", "bf16")
    casts = [of("copy", v, NARROW * t * v, WIDE * t * v), Memory("copy", t, NARROW * h, WIDE * h)]
    scaled = of("elementwise", t, NARROW * t * v + WIDE, NARROW * t * v)
    return [product], [product._replace(precision="fp32"), *casts, scaled, norm(t, h), accumulate(v, v * h)]
