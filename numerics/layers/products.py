"""The three products of a linear layer, dense or by expert, in one precision.

FP8 (arXiv 2412.19437 sec 3.3.2): activations and their gradients in 1x128 tiles, weights in 128x128 blocks, whose
transpose serves the input gradient; the weight gradient contracts over tokens, so both its sides are cast in 128x1
tiles and it accumulates in FP32. Weights arrive as FP32 masters [N, K] and are cast here.
"""

from itertools import pairwise

import torch
from torch import Tensor

from hwmodels.formats import TILE
from numerics import ops
from numerics.layers.config import Precision
from numerics.layers.kept import Cast, Codes, Kept, Plain
from numerics.reference.permute import Layout


def operand(x: Tensor, precision: Precision, power_of_two: bool = False) -> Plain | Codes:
    """x [M, K] as a product reads it, and as it is cached for the backward pass."""
    if not precision.quantized:
        return Plain(x.to(precision.dtype))
    return Codes(*ops.quantize_rows(x, power_of_two), precision.dtype, power_of_two)


def fprop(x: Plain | Codes, w: Tensor, precision: Precision) -> Tensor:
    """x [M, K] times w [N, K] -> [M, N]."""
    if isinstance(x, Plain):
        return x.x @ w.to(precision.dtype).t()
    return ops.gemm(x.q, x.s, *ops.quantize_blocks(w), out_dtype=precision.dtype)


def dgrad(dy: Plain | Codes, w: Tensor, precision: Precision) -> Tensor:
    """dy [M, N] times w [N, K] -> dx [M, K]. The transpose of 128x128 blocks needs no new scales."""
    if isinstance(dy, Plain):
        return dy.x @ w.to(precision.dtype)
    q, s = ops.quantize_blocks(w)
    return ops.gemm(dy.q, dy.s, q.t().contiguous(), s.t().contiguous(), out_dtype=precision.dtype)


def wgrad(dy: Kept, x: Kept, precision: Precision) -> Tensor:
    """dy [M, N], x [M, K] -> dw [N, K] in FP32."""
    if not precision.quantized:
        return dy.value().t().float() @ x.value().float()
    return _wgrad(dy.columns(), x.columns())


def _wgrad(dy: Cast, x: Cast) -> Tensor:
    out = torch.zeros(dy[0].shape[0], x[0].shape[0], dtype=torch.float32, device=x[0].device)
    return ops.wgrad_gemm(*dy, *x, out)


# --- by expert: rows [R, K] in the padded order of a Layout, weights [E, N, K] ----------------------------------------


def grouped_fprop(x: Plain | Codes, w: Tensor, layout: Layout, precision: Precision) -> Tensor:
    """Each expert's rows of x [R, K] times its w[e] [N, K] -> [R, N]; padding rows are zeros."""
    if isinstance(x, Plain):
        return _each(x.x, w.to(precision.dtype).transpose(1, 2), layout)
    return ops.grouped_gemm(x.q, x.s, *_blocks(w), layout.group_of_row_block, out_dtype=precision.dtype)


def grouped_dgrad(dy: Plain | Codes, w: Tensor, layout: Layout, precision: Precision) -> Tensor:
    """Each expert's rows of dy [R, N] times its w[e] [N, K] -> [R, K]."""
    if isinstance(dy, Plain):
        return _each(dy.x, w.to(precision.dtype), layout)
    q, s = _blocks(w)
    turned = q.transpose(1, 2).contiguous(), s.transpose(1, 2).contiguous()
    return ops.grouped_gemm(dy.q, dy.s, *turned, layout.group_of_row_block, out_dtype=precision.dtype)


def grouped_wgrad(dy: Kept, x: Kept, layout: Layout, precision: Precision) -> Tensor:
    """dy [R, N], x [R, K] -> dw [E, N, K] in FP32: one product an expert, as DeepSeek-V3 runs them.

    Every expert's rows begin at a multiple of 128, so no 128x1 tile holds rows of two experts.
    """
    if not precision.quantized:
        a, b = dy.value().float(), x.value().float()
        return torch.stack([a[rows].t() @ b[rows] for rows in spans(layout)])
    a, b = dy.columns(), x.columns()
    return torch.stack([_wgrad(_cut(a, rows), _cut(b, rows)) for rows in spans(layout)])


def spans(layout: Layout) -> list[slice]:
    """The padded rows of each expert."""
    bounds = layout.padded_offsets.tolist()
    return [slice(lo, hi) for lo, hi in pairwise(bounds)]


def _cut(cast: Cast, rows: slice) -> Cast:
    q, s = cast
    tiles = slice(rows.start // TILE, rows.stop // TILE)
    return q[:, rows].contiguous(), s[:, tiles]


def _blocks(w: Tensor) -> Cast:
    """128x128 blocks of each expert's weight [E, N, K]."""
    casts = [ops.quantize_blocks(one) for one in w]
    q = torch.stack([q.view(torch.uint8) for q, _ in casts]).view(torch.float8_e4m3fn)
    return q, torch.stack([s for _, s in casts])


def _each(x: Tensor, w: Tensor, layout: Layout) -> Tensor:
    """Each expert's rows of x times its matrix w[e]."""
    out = x.new_zeros(x.shape[0], w.shape[2])
    for rows, one in zip(spans(layout), w, strict=True):
        out[rows] = x[rows] @ one
    return out
