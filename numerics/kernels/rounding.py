# ruff: noqa: N803 - constants are capitals
"""A recipe's rounding of an operand, in one pass. `numerics.reference.rounding`. Bound by memory."""

import triton
import triton.language as tl
from torch import Tensor

from numerics.reference.rounding import FORMATS, SMALLEST, TILES

LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
SMALLEST_SCALE = tl.constexpr(SMALLEST)


def rounded(x: Tensor, rows: int, columns: int, fmt: str = "e4m3") -> Tensor:
    """x [M, K] in x's type, as in numerics.reference.rounding.rounded."""
    if (rows, columns) not in TILES or fmt not in FORMATS:
        raise ValueError(f"tiles are {TILES}, formats {tuple(FORMATS)}; got {(rows, columns)}, {fmt!r}")
    x = x if x.stride(1) == 1 else x.contiguous()
    m, k = x.shape
    out = x.new_empty(m, k)
    if x.numel():
        largest = out if rows else x.abs().max().float()
        grid = (triton.cdiv(k, 128), triton.cdiv(m, 128))
        _round[grid](
            x, out, largest, m, k, x.stride(0), LARGEST[fmt], rows, columns, E5M2=fmt == "e5m2", num_warps=8
        )  # fmt: skip
    return out


@triton.jit
def _round(
    x, out, largest, M, K, stride, top, ROWS: tl.constexpr, COLUMNS: tl.constexpr, E5M2: tl.constexpr
):  # fmt: skip
    row = (tl.program_id(1) * 128 + tl.arange(0, 128))[:, None]
    column = (tl.program_id(0) * 128 + tl.arange(0, 128))[None, :]
    inside = (row < M) & (column < K)
    value = tl.load(x + row.to(tl.int64) * stride + column, mask=inside, other=0.0).to(tl.float32)
    size = tl.abs(value)
    if ROWS == 0:
        most = tl.load(largest) + tl.zeros((1, 1), tl.float32)
    elif ROWS == 1:
        most = tl.max(size, axis=1, keep_dims=True)
    elif COLUMNS == 1:
        most = tl.max(size, axis=0, keep_dims=True)
    else:
        most = tl.max(tl.max(size, axis=1, keep_dims=True), axis=0, keep_dims=True)
    scale = tl.maximum(tl.div_rn(most, top + tl.zeros_like(most)), SMALLEST_SCALE)
    ratio = tl.div_rn(value, scale + tl.zeros_like(value))
    ratio = tl.minimum(tl.maximum(ratio, -top), top)
    code = ratio.to(tl.float8e5) if E5M2 else ratio.to(tl.float8e4nv)
    tl.store(out + row.to(tl.int64) * K + column, (code.to(tl.float32) * scale).to(out.dtype.element_ty), mask=inside)
