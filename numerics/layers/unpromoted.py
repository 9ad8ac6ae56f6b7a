"""FP8 whose sums stay in the tensor core from the first element to the last: what DeepSeek-V3's promotion is against.

A sum that is never promoted has one scale, so an activation or gradient has one a row, a weight one for 128 rows.
On Hopper the sum then has 13 fraction bits throughout (numerics.reference.hopper); a CPU's references sum in FP32.
"""

import torch
from torch import Tensor

from hwmodels.formats import E4M3, TILE
from numerics import ops
from numerics.layers.kept import Cast
from numerics.reference.casts import SMALLEST_SCALE


def product(x: Tensor, w: Tensor) -> Tensor:
    """x [M, K] times w [N, K] -> [M, N] in x's type."""
    out: Tensor = ops.gemm(*_cast(x), *_cast(w, TILE), out_dtype=x.dtype, promote=0)
    return out


def grouped(x: Tensor, w: Tensor, group_of_row_block: Tensor) -> Tensor:
    """x [R, K] times the weight of each row's group, w [G, N, K] -> [R, N]."""
    out: Tensor = ops.grouped_gemm(*_cast(x), *_cast(w, TILE), group_of_row_block, out_dtype=x.dtype, promote=0)
    return out


def outer(dy: Tensor, x: Tensor) -> Tensor:
    """dy [M, N], x [M, K] -> dy^T x, FP32 [N, K]."""
    out = torch.zeros(dy.shape[1], x.shape[1], device=x.device)
    return ops.wgrad_gemm(*_cast(dy.t()), *_cast(x.t()), out, promote=0)


def grouped_outer(dy: Tensor, x: Tensor, offsets: Tensor) -> Tensor:
    """The same of each group's rows -> FP32 [G, N, K]."""
    out: Tensor = ops.grouped_wgrad(*_cast(dy.t()), *_cast(x.t()), offsets, promote=0)
    return out


def _cast(x: Tensor, rows: int = 1) -> Cast:
    """x [.., M, K] in tiles of `rows` whole rows -> E4M3 [.., M, K], FP32 scales [.., ceil(M / rows), 1]."""
    most = x.float().abs().amax(-1)
    most = torch.nn.functional.pad(most, (0, -x.shape[-2] % rows)).unflatten(-1, (-1, rows)).amax(-1)
    s = (most / E4M3.max_finite).clamp(min=SMALLEST_SCALE)
    each = s.repeat_interleave(rows, -1)[..., : x.shape[-2], None]
    return (x.float() / each).clamp(-E4M3.max_finite, E4M3.max_finite).to(torch.float8_e4m3fn).contiguous(), s[
        ..., None
    ]
