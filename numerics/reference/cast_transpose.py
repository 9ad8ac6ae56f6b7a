"""Casts by rows and by transposed columns behind what makes their input: compositions of the other operations.

Source: DeepSeek-V3 report (arXiv 2412.19437) sec 3.3.2: the same gradient is read in 1x128 tiles by the input gradient
and in 128x1 tiles by the weight gradient. Every number is rounded where the separate operations round it.
"""

import torch
from torch import Tensor

from hwmodels.formats import TILE
from numerics.reference.casts import dequantize_rows, quantize_blocks, quantize_columns, quantize_rows
from numerics.reference.norm import rmsnorm
from numerics.reference.swiglu import (
    gate_weight_gradient,
    swiglu,
    swiglu_backward,
    swiglu_quantize,
)

Cast = tuple[Tensor, Tensor]


def quantize_weight(w: Tensor) -> tuple[Cast, Cast]:
    """w [.., N, K] -> E4M3 [.., N, K] in 128x128 blocks, FP32 scales; and both turned: [.., K, N]."""
    casts = [quantize_blocks(one) for one in w.reshape(-1, *w.shape[-2:])]
    q = torch.stack([q.view(torch.uint8) for q, _ in casts]).view(w.shape)
    s = torch.stack([s for _, s in casts])
    s = s.view(*w.shape[:-2], *s.shape[-2:])
    codes, turned = (x.contiguous().view(torch.float8_e4m3fn) for x in (q, q.transpose(-1, -2)))
    return (codes, s), (turned, s.transpose(-1, -2).contiguous())


def rmsnorm_quantize(
    x: Tensor, w: Tensor, eps: float = 1e-6, powers: tuple[bool, ...] = (False,), keep: bool = False
) -> tuple[tuple[Cast, ...], Tensor | None, Tensor]:
    """x [M, H], w [H] -> the norm, rounded to x's type, cast by rows once for each of `powers` (of two, or not); the
    norm itself where it is to be kept; 1/rms FP32 [M]."""
    y, rstd = rmsnorm(x, w, eps)
    return tuple(quantize_rows(y, power) for power in powers), y if keep else None, rstd


def add_rmsnorm_quantize(
    x: Tensor, residual: Tensor, w: Tensor, eps: float = 1e-6, powers: tuple[bool, ...] = (False,), keep: bool = False
) -> tuple[Tensor, tuple[Cast, ...], Tensor | None, Tensor]:
    """`rmsnorm_quantize` of the sum of x and residual [M, H], rounded to x's type, which comes first."""
    total = (x.float() + residual.float()).to(x.dtype)
    return total, *rmsnorm_quantize(total, w, eps, powers, keep)


def rmsnorm_quantize_columns(x: Tensor, w: Tensor, rstd: Tensor, power_of_two: bool = False) -> Cast:
    """x [M, H], w [H], rstd FP32 [M] of its norm -> the norm, rounded to x's type, as `quantize_columns` casts it."""
    return quantize_columns((x.float() * rstd[:, None] * w.float()).to(x.dtype), power_of_two)


def swiglu_quantize_both(x: Tensor) -> tuple[Cast, Cast]:
    """x [M, 2I] -> what `quantize_rows(x)` and `swiglu_quantize(x)` give. I must be a multiple of 128."""
    whole(x.shape[1] // 2)
    return quantize_rows(x), swiglu_quantize(x)


def swiglu_backward_both(
    dy: Tensor, q: Tensor, s: Tensor, by_row: Tensor | None = None
) -> tuple[Cast, Cast, Cast, Tensor | None]:
    """dy [M, I] and SwiGLU's input as row codes q [M, 2I], s -> dx by rows and by columns, the activation by columns.

    by_row FP32 [M]: what the activation is multiplied by before the next product, and dy after it; then also the dot
    product of each row of dy and the activation, FP32 [M]. I must be a multiple of 128.
    """
    whole(dy.shape[1])
    x, dots = dequantize_rows(q, s, dy.dtype), None
    act = swiglu(x)
    if by_row is not None:
        factor = by_row[:, None].to(dy.dtype)
        dots, act, dy = gate_weight_gradient(dy, act), act * factor, dy * factor
    dx = swiglu_backward(dy, x)
    return quantize_rows(dx), quantize_columns(dx), quantize_columns(act), dots


def whole(half: int) -> int:
    """Raises ValueError unless a tile lies in one half."""
    if half % TILE:
        raise ValueError(f"a fused cast takes I in multiples of {TILE}; got {half}")
    return half
