# ruff: noqa: N803 - M, N, K and constants are capitals, as in every text on matrix products
"""FP8 weight gradient for Hopper: out[N,K] += A[N,M] B[K,M]^T, both operands scaled 1x128 along the contraction M.

Specification: numerics/reference/gemm.py. Bound: the tensor core; besides it, 8 N K bytes of FP32 gradient read and
written, which one tile's products do not hide from the next. A row scale and a column scale make promotion two
multiplications and an addition, not one fused multiply-add; otherwise the tile loop is numerics/kernels/gemm.py's.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.kernels import wgmma
from numerics.kernels.gemm import (
    Config,
    accumulate,
    available,
    fitting,
    operands,
    programs,
    swizzle,
    tile_constants,
)
from numerics.kernels.wgmma import Form
from numerics.reference import gemm as reference

VARIANTS = {
    "low": Config(64, 128, 6, 4, flatten=True),
    "descriptor": Config(128, 128, 4, 8),
    "twin": Config(64, 128, 3, 4, programs=2),
}
"""Forms that a bench compares; the first is the default: the fastest on an H200 that can be held to some of the SMs."""


def wgrad_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor,
    promote: int = 128, sms: int | None = None, config: Config | Form | None = None,
) -> Tensor:  # fmt: skip
    """out [N,K] as in numerics.reference.gemm.wgrad_gemm; config: a tile configuration other than the default."""
    reference.check(a, a_s, b, b_s, promote, rows_per_scale=1)
    (n, m), k = a.shape, b.shape[0]
    if out.dtype != torch.float32 or out.shape != (n, k) or out.stride(1) != 1:
        raise ValueError(f"out is FP32 [{n}, {k}], contiguous rows; got {out.dtype} {list(out.shape)}")
    if not out.numel() or not m:
        return out
    if config is None and wgmma.takes(a, b, out, promote):
        config = wgmma.WEIGHT_FORM
    if isinstance(config, Form):
        wgmma.weight(a, a_s, b, b_s, out, config, available(a, sms))
        return out
    config = fitting(config or VARIANTS["low"], a, b)
    left, right = operands(a, b, config)
    tiles = -(-n // config.block_m) * -(-k // config.block_n)
    _wgrad[(programs(a, tiles, sms, config),)](
        left, right, out, a_s, b_s, n, k, m, a.stride(0), b.stride(0), out.stride(0), *a_s.stride(), *b_s.stride(),
        GROUP_M=8, **tile_constants(config, m, promote), FLATTEN=config.flatten, num_warps=config.warps,
    )  # fmt: skip
    return out


@triton.jit
def _wgrad(
    a, b, c, a_s, b_s, M, N, K,
    stride_am, stride_bn, stride_cm, stride_asm, stride_ask, stride_bsn, stride_bsk,
    GROUP_M: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    DESCRIPTOR: tl.constexpr, EVEN_K: tl.constexpr, SPAN_BLOCKS: tl.constexpr, FLATTEN: tl.constexpr,
):  # fmt: skip
    """C [M,N] += A [M,K] B [N,K]^T: the names of a matrix product, not of the layer."""
    tiles_m = tl.cdiv(M, BLOCK_M)
    tiles_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_n, tl.num_programs(0), flatten=FLATTEN):
        tile_m, tile_n = swizzle(tile, tiles_m, tiles_n, GROUP_M)
        total = accumulate(
            a, b, a_s, b_s, tile_m * BLOCK_M, tile_n * BLOCK_N, tile_n * BLOCK_N, M, N, K,
            stride_am, stride_bn, stride_asm, stride_ask, stride_bsn, stride_bsk,
            BLOCK_M, BLOCK_N, STAGES, DESCRIPTOR, EVEN_K, SPAN_BLOCKS, True,
        )  # fmt: skip
        _add(c, total, tile_m * BLOCK_M, tile_n * BLOCK_N, M, N, stride_cm)


@triton.jit
def _add(c, tile, row, col, M, N, stride_cm):
    """C += tile at (row, col). One program owns a tile, so no atomics: the sum does not depend on timing."""
    rows = row + tl.arange(0, tile.shape[0])
    cols = col + tl.arange(0, tile.shape[1])
    mask = (rows[:, None] < M) & (cols[None, :] < N)
    pointers = c + rows.to(tl.int64)[:, None] * stride_cm + cols[None, :]
    tl.store(pointers, tl.load(pointers, mask=mask, other=0.0) + tile, mask=mask)
