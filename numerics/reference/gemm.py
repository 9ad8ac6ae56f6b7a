"""FP8 matrix products with block scales, in plain torch: the specification of numerics/kernels/{gemm,wgrad,grouped}.py.

DeepSeek-V3 report (arXiv 2412.19437) sec 3.3: activations carry one scale a 1x128 tile, weights one a 128x128 block,
and the tensor core's partial sum is promoted to FP32, multiplied by both scales, every 128 elements of the contraction
(fig. 7b). Here a span of `promote` elements is summed in FP32 (products of two E4M3 are exact in FP32), multiplied by
its scales and added in FP32; what the tensor core does inside a span is numerics/reference/hopper.py's subject.

A sum that stays in the tensor core has one scale, so `promote` is also the width of the scales: 128 is the training
format, 256 and 512 take scales one a 256 or 512 elements, and 0 (never promote) one for the whole contraction.
`sms` bounds the persistent grid of the kernels; a reference has no grid and ignores it.
"""

import torch
from torch import Tensor

from hwmodels.formats import TILE

PROMOTIONS = (128, 256, 512, 0)
"""Legal values of `promote`: elements of the contraction between promotions to FP32; 0 is never."""


def gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor,
    out_dtype: torch.dtype = torch.bfloat16, promote: int = 128, sms: int | None = None,
) -> Tensor:  # fmt: skip
    """C[M,N] = A[M,K] B[N,K]^T for E4M3 operands: fprop (B = weight [N,K]) and dgrad (B = transposed weight).

    a_s [M, ceil(K/promote)], b_s [ceil(N/128), ceil(K/promote)], FP32; promote 0: one column. Raises ValueError on
    shapes that do not fit. Bias-free; ragged M, N and K allowed.
    """
    span = check(a, a_s, b, b_s, promote)
    column = torch.arange(b.shape[0], device=b.device) // TILE
    return _product(a, a_s, b, b_s[column], span).to(out_dtype)


def wgrad_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor, promote: int = 128, sms: int | None = None
) -> Tensor:
    """out[N,K] += A[N,M] B[K,M]^T, both E4M3 with one scale a 1x128 tile along M; out FP32, changed in place, returned.

    The weight gradient dW = dY^T X of a linear layer: A and B are the 128x1-tiled transposed casts of dY [M,N] and
    X [M,K] (sec 3.3.2, "Fine-Grained Quantization" of the backward pass). a_s [N, ceil(M/promote)], b_s [K, ...].
    """
    span = check(a, a_s, b, b_s, promote, rows_per_scale=1)
    if out.dtype != torch.float32 or out.shape != (a.shape[0], b.shape[0]):
        raise ValueError(f"out is FP32 [{a.shape[0]}, {b.shape[0]}]; got {out.dtype} {list(out.shape)}")
    return out.add_(_product(a, a_s, b, b_s, span))


def grouped_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, group_of_row_block: Tensor,
    out_dtype: torch.dtype = torch.bfloat16, promote: int = 128, sms: int | None = None,
) -> Tensor:  # fmt: skip
    """C[R,N]: each block of 128 rows of A[R,K] times the weight B[g] [N,K] of its group; contiguous expert layout.

    b [G,N,K], b_s [G, ceil(N/128), ceil(K/promote)]; group_of_row_block int32 [R/128], -1: no group, rows of zeros.
    R is a multiple of 128 (numerics.reference.permute.layout pads to it).
    """
    check_grouped(a, b, b_s, group_of_row_block)
    out = torch.zeros(a.shape[0], b.shape[1], dtype=out_dtype, device=a.device)
    for block, group in enumerate(group_of_row_block.tolist()):
        rows = slice(block * TILE, (block + 1) * TILE)
        if group >= 0:
            out[rows] = gemm(a[rows], a_s[rows], b[group], b_s[group], out_dtype, promote)
    return out


def masked_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, rows: Tensor,
    out_dtype: torch.dtype = torch.bfloat16, promote: int = 128, sms: int | None = None,
) -> Tensor:  # fmt: skip
    """C[G,Rmax,N]: the first rows[g] rows of A[g] [Rmax,K] times B[g] [N,K]^T; rows after them are zeros.

    a_s [G, Rmax, ceil(K/promote)], b_s [G, ceil(N/128), ceil(K/promote)], rows int32 [G] on the device (a decode step's
    expert loads are not known to the host).
    """
    check_masked(a, b, rows)
    out = torch.zeros(*a.shape[:2], b.shape[1], dtype=out_dtype, device=a.device)
    for g, n in enumerate(rows.tolist()):
        out[g, :n] = gemm(a[g, :n], a_s[g, :n], b[g], b_s[g], out_dtype, promote)
    return out


def _product(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, span: int) -> Tensor:
    """FP32 sum over spans of (A_span B_span^T) * a_s * b_s; a_s [M, spans], b_s [N, spans]."""
    out = torch.zeros(a.shape[0], b.shape[0], dtype=torch.float32, device=a.device)
    for i, start in enumerate(range(0, a.shape[1], span)):
        k = slice(start, start + span)
        out += (a[:, k].float() @ b[:, k].float().T) * (a_s[:, i, None] * b_s[None, :, i])
    return out


def check(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, promote: int, rows_per_scale: int = TILE) -> int:
    """The contraction's span for `promote`, for kernels too. ValueError where operands and scales do not fit."""
    if promote not in PROMOTIONS:
        raise ValueError(f"promote is one of {', '.join(map(str, PROMOTIONS))}; got {promote}")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"operands are [M, K] and [N, K]; got {list(a.shape)} and {list(b.shape)}")
    if a.dtype != torch.float8_e4m3fn or b.dtype != torch.float8_e4m3fn:
        raise ValueError(f"operands are float8_e4m3fn; got {a.dtype} and {b.dtype}")
    span = promote or max(a.shape[1], 1)
    spans = -(-a.shape[1] // span)
    for name, scale, rows in (("a_s", a_s, a.shape[0]), ("b_s", b_s, -(-b.shape[0] // rows_per_scale))):
        if scale.shape != (rows, spans) or scale.dtype != torch.float32:
            legal = f"{name} is float32 [{rows}, {spans}] with promote={promote} (one scale for each promoted sum)"
            raise ValueError(f"{legal}; got {scale.dtype} {list(scale.shape)}")
    return span


def check_grouped(a: Tensor, b: Tensor, b_s: Tensor, group_of_row_block: Tensor) -> None:
    """ValueError where the contiguous layout does not fit; the content of group_of_row_block is trusted."""
    if b.ndim != 3 or b_s.ndim != 3 or b_s.shape[0] != b.shape[0]:
        raise ValueError(f"b is [G, N, K] with b_s [G, ...]; got {list(b.shape)} and {list(b_s.shape)}")
    if a.shape[0] % TILE or group_of_row_block.shape != (a.shape[0] // TILE,):
        want = f"[{a.shape[0] / TILE:g}]"
        raise ValueError(f"group_of_row_block is int32 {want}, R a multiple of {TILE}; got R = {a.shape[0]} and "
                         f"{list(group_of_row_block.shape)}")  # fmt: skip


def check_masked(a: Tensor, b: Tensor, rows: Tensor) -> None:
    """ValueError where the masked layout does not fit."""
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0] or rows.shape != a.shape[:1]:
        shapes = f"{list(a.shape)}, {list(b.shape)}, {list(rows.shape)}"
        raise ValueError(f"a [G, Rmax, K], b [G, N, K], rows [G]; got {shapes}")
