"""The three products of a linear layer, dense or by expert, in one precision.

FP8 (arXiv 2412.19437 sec 3.3.2): activations and their gradients in 1x128 tiles, weights in 128x128 blocks, whose
transpose serves the input gradient; the weight gradient contracts over tokens, so both its sides are cast in 128x1
tiles and it accumulates in FP32. Weights arrive as FP32 masters [N, K] and are cast by `weight`, once for all products
of a pass.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hwmodels.formats import TILE
from numerics import ops
from numerics.layers import unpromoted
from numerics.layers.emulated import UNPROMOTED, Emulated, rounded
from numerics.layers.kept import Cast, Codes, Kept, Plain, Turned
from numerics.layers.precision import Precision
from numerics.reference.by_group import spread
from numerics.reference.permute import Layout

Recipe = Precision | Emulated
"""What a linear layer multiplies in."""


def operand(x: Tensor, precision: Recipe, power_of_two: bool = False) -> Plain | Codes:
    """x [M, K] as a product reads it, and as it is cached for the backward pass."""
    if not precision.quantized:
        return Plain(x.to(precision.dtype))
    return Codes(*ops.quantize_rows(x, power_of_two), precision.dtype, power_of_two)


def both(dy: Tensor, precision: Recipe) -> tuple[Plain | Codes, Kept]:
    """A gradient dy [M, N] as the input gradient reads it, and as the weight gradient does.

    Each is one rounding of dy itself: its columns are not cast from its row codes.
    """
    if not precision.quantized:
        return operand(dy, precision), Plain(dy)
    return operand(dy, precision), Turned(*ops.quantize_columns(dy))


def turned(x: Kept, precision: Recipe) -> Kept:
    """x as weight gradients read it, so that several of one input share what runs again."""
    return Turned(*x.columns()) if precision.quantized else Plain(x.value())


class Weight(NamedTuple):
    """A weight [.., N, K] as the products of one pass read it: in the recipe's type, or in codes with their transpose.

    Made in the forward pass and held for the backward pass beside what autograd saves, as it depends on no activation.
    """

    plain: Tensor | None
    codes: Cast | None = None
    turned: Cast | None = None


def weight(w: Tensor, precision: Recipe) -> Weight:
    """From a master w FP32 [.., N, K]. The transpose of 128x128 blocks needs no new scales."""
    if not precision.quantized:
        return Weight(_weight(w, precision))
    return Weight(None, *ops.quantize_weight(w))


def fprop(x: Plain | Codes, w: Tensor | Weight, precision: Recipe) -> Tensor:
    """x [M, K] times w [N, K] -> [M, N]."""
    w = weight(w, precision) if isinstance(w, Tensor) else w
    if isinstance(x, Plain):
        assert w.plain is not None
        return _plain(x.x, w.plain, precision, "activations")
    assert w.codes is not None
    product: Tensor = ops.gemm(x.q, x.s, *w.codes, out_dtype=precision.dtype)
    return product


def dgrad(dy: Plain | Codes, w: Tensor | Weight, precision: Recipe) -> Tensor:
    """dy [M, N] times w [N, K] -> dx [M, K]."""
    w = weight(w, precision) if isinstance(w, Tensor) else w
    if isinstance(dy, Plain):
        assert w.plain is not None
        return _plain(dy.x, w.plain.t(), precision, "gradients")
    assert w.turned is not None
    product: Tensor = ops.gemm(dy.q, dy.s, *w.turned, out_dtype=precision.dtype)
    return product


def _plain(x: Tensor, w: Tensor, precision: Recipe, part: str) -> Tensor:
    """x [M, K] times w [N, K] of `_weight` -> [M, N]; part: what x is."""
    if precision is UNPROMOTED:
        return unpromoted.product(x, w)
    return rounded(x, precision, part) @ w.t()


def _weight(w: Tensor, precision: Recipe) -> Tensor:
    """Masters as a plain product reads them: rounded from FP32 where the recipe rounds, then in its type."""
    return rounded(w, precision, "weights").to(precision.dtype)


def wgrad(dy: Kept, x: Kept, precision: Recipe) -> Tensor:
    """dy [M, N], x [M, K] -> dw [N, K] in FP32."""
    if precision is UNPROMOTED:
        return unpromoted.outer(dy.value(), x.value())
    if not precision.quantized:
        return _outer(*_sides(dy, x, precision))
    return _wgrad(dy.columns(), x.columns())


def _sides(dy: Kept, x: Kept, precision: Recipe) -> tuple[Tensor, Tensor]:
    """Both sides of a plain weight gradient, rounded along the tokens where the recipe rounds."""
    return rounded(dy.value(), precision, "gradients", True), rounded(x.value(), precision, "activations", True)


def _outer(dy: Tensor, x: Tensor) -> Tensor:
    """dy^T x, summed and given in FP32; a GPU reads BF16 operands as they are."""
    if dy.is_cuda and dy.dtype == x.dtype == torch.bfloat16:
        return torch.mm(dy.t(), x, out_dtype=torch.float32)
    return dy.t().float() @ x.float()


def _wgrad(dy: Cast, x: Cast) -> Tensor:
    """One product; where its tiles would leave most of a GPU idle, several spans of tokens at once, then their sum."""
    (n, rows), k = dy[0].shape, x[0].shape[0]
    spans = spread(rows, -(-n // TILE) * -(-k // TILE)) if x[0].is_cuda and rows % TILE == 0 else 1
    if spans > 1:
        length = -(-rows // (spans * TILE)) * TILE
        starts = torch.arange(0, spans + 1, dtype=torch.int32, device=x[0].device) * length
        return ops.grouped_wgrad(*dy, *x, starts.clamp(max=rows)).sum(0)
    out = torch.zeros(n, k, dtype=torch.float32, device=x[0].device)
    return ops.wgrad_gemm(*dy, *x, out)


# --- by expert: rows [R, K] in the padded order of a Layout, weights [E, N, K] ----------------------------------------


def grouped_fprop(x: Plain | Codes, w: Tensor | Weight, layout: Layout, precision: Recipe) -> Tensor:
    """Each expert's rows of x [R, K] times its w[e] [N, K] -> [R, N]; padding rows are zeros."""
    w = weight(w, precision) if isinstance(w, Tensor) else w
    if isinstance(x, Plain):
        assert w.plain is not None
        return _each(x.x, w.plain, layout, precision, "activations")
    assert w.codes is not None
    product: Tensor = ops.grouped_gemm(x.q, x.s, *w.codes, layout.group_of_row_block, out_dtype=precision.dtype)
    return product


def grouped_dgrad(dy: Plain | Codes, w: Tensor | Weight, layout: Layout, precision: Recipe) -> Tensor:
    """Each expert's rows of dy [R, N] times its w[e] [N, K] -> [R, K]."""
    w = weight(w, precision) if isinstance(w, Tensor) else w
    if isinstance(dy, Plain):
        assert w.plain is not None
        return _each(dy.x, w.plain, layout, precision, "gradients", turned=True)
    assert w.turned is not None
    product: Tensor = ops.grouped_gemm(dy.q, dy.s, *w.turned, layout.group_of_row_block, out_dtype=precision.dtype)
    return product


def _each(
    x: Tensor, w: Tensor, layout: Layout, precision: Recipe, part: str, turned: bool = False
) -> Tensor:  # fmt: skip
    """Rows x times their expert's w[e], which `turned` says to take as it lies, not transposed."""
    if precision is UNPROMOTED:
        return unpromoted.grouped(x, w.transpose(1, 2) if turned else w, layout.group_of_row_block)
    return ops.grouped_product(rounded(x, precision, part), w, layout.group_of_row_block, turned=turned)


def grouped_wgrad(dy: Kept, x: Kept, layout: Layout, precision: Recipe) -> Tensor:
    """dy [R, N], x [R, K] -> dw [E, N, K] in FP32: a product an expert, all in one launch.

    Every expert's rows begin at a multiple of 128, so no 128x1 tile holds rows of two experts.
    """
    if precision is UNPROMOTED:
        return unpromoted.grouped_outer(dy.value(), x.value(), layout.padded_offsets)
    if not precision.quantized:
        return ops.grouped_outer(*_sides(dy, x, precision), layout.padded_offsets)
    return ops.grouped_wgrad(*dy.columns(), *x.columns(), layout.padded_offsets)
