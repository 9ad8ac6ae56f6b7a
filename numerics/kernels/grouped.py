# ruff: noqa: N803 - M, N, K and constants are capitals, as in every text on matrix products
"""FP8 GEMMs of the routed experts for Hopper: many weights, one kernel; contiguous (training) and masked (decode).

Specification: numerics/reference/gemm.py. Bound: the tensor core once an expert has a few hundred rows; with few rows
the experts' weights, G N K bytes of HBM. One persistent grid walks the tiles of all groups, so an expert with few rows
costs its tiles and no launch, and unequal experts even out; a tile without a group runs no K step and stores zeros.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hwmodels.formats import TILE
from numerics.kernels import wgmma
from numerics.kernels.gemm import (
    VARIANTS,
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

FEW_ROWS = Config(64, 128, 5, 4)
"""For at most 64 rows a group: wgmma's least M (PTX ISA, wgmma.mma_async), deeper pipeline, as weights are streamed."""


def choose(rows: int) -> Config:
    """The configuration for up to `rows` rows a group."""
    return FEW_ROWS if rows <= TILE // 2 else VARIANTS["descriptor"]


def grouped_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, group_of_row_block: Tensor,
    out_dtype: torch.dtype = torch.bfloat16, promote: int = 128, sms: int | None = None,
    config: Config | Form | None = None,
) -> Tensor:  # fmt: skip
    """C [R,N] as in numerics.reference.gemm.grouped_gemm; config: a tile configuration other than `choose`'s."""
    reference.check_grouped(a, b, b_s, group_of_row_block)
    reference.check(a, a_s, b[0], b_s[0], promote)
    out = torch.empty(a.shape[0], b.shape[1], dtype=out_dtype, device=a.device)
    if config is None and _suits(a, b, out, promote):
        config = wgmma.GROUPED_FORM
    if isinstance(config, Form):
        wgmma.grouped(a, a_s, b, b_s, group_of_row_block.int(), out, config, available(a, sms))
        return out
    config = config or choose(TILE)
    row_blocks = a.shape[0] // config.block_m
    _launch(a, a_s, b, b_s, group_of_row_block, out, row_blocks, promote, sms, config, group_rows=0)
    return out


def masked_gemm(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, rows: Tensor,
    out_dtype: torch.dtype = torch.bfloat16, promote: int = 128, sms: int | None = None,
    config: Config | Form | None = None,
) -> Tensor:  # fmt: skip
    """C [G,Rmax,N] as in numerics.reference.gemm.masked_gemm; the host never reads `rows`."""
    reference.check_masked(a, b, rows)
    groups, group_rows = a.shape[:2]
    a, a_s = a.flatten(0, 1), a_s.flatten(0, 1)
    reference.check(a, a_s, b[0], b_s[0], promote)
    out = torch.empty(a.shape[0], b.shape[1], dtype=out_dtype, device=a.device)
    if config is None and group_rows % 64 == 0 and _suits(a, b, out, promote):
        config = wgmma.masked_form(group_rows)
    if isinstance(config, Form):
        wgmma.masked(a, a_s, b, b_s, rows.int(), out, config, available(a, sms))
        return out.view(groups, group_rows, -1)
    config = config or choose(group_rows)
    row_blocks = groups * -(-group_rows // config.block_m)
    _launch(a, a_s, b, b_s, rows, out, row_blocks, promote, sms, config, group_rows=group_rows)
    return out.view(groups, group_rows, -1)


def _suits(a: Tensor, b: Tensor, out: Tensor, promote: int) -> bool:
    """Whether Hopper's form can do it."""
    whole = out.numel() and a.shape[1] and out.dtype == torch.bfloat16
    return bool(whole) and wgmma.takes(a, b.flatten(0, 1), out, promote)


def _launch(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, table: Tensor, out: Tensor,
    row_blocks: int, promote: int, sms: int | None, config: Config, group_rows: int,
) -> None:  # fmt: skip
    """Both layouts: `table` is the group of each 128 rows, or with group_rows > 0 the number of rows of each group."""
    if TILE % config.block_m:
        raise ValueError(f"block_m divides {TILE}, a row block's height; got {config.block_m}")
    n, k = b.shape[1:]
    if not out.numel() or not k:
        out.zero_()
        return
    stacked = b.flatten(0, 1)
    config = fitting(config, a, stacked)
    left, right = operands(a, stacked, config)
    tiles = row_blocks * -(-n // config.block_n)
    _grouped[(programs(a, tiles, sms, config),)](
        left, right, out, a_s, b_s, table.int(), row_blocks, group_rows, a.shape[0], n, k,
        a.stride(0), stacked.stride(0), out.stride(0), *a_s.stride(), *b_s.stride(),
        GROUP_M=8, **tile_constants(config, k, promote), MASKED=group_rows > 0, num_warps=config.warps,
    )  # fmt: skip


@triton.jit
def _grouped(
    a, b, c, a_s, b_s, table, row_blocks, group_rows, R, N, K,
    stride_am, stride_bn, stride_cm, stride_asm, stride_ask, stride_bsg, stride_bsn, stride_bsk,
    GROUP_M: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
    DESCRIPTOR: tl.constexpr, EVEN_K: tl.constexpr, SPAN_BLOCKS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    tiles_n = tl.cdiv(N, BLOCK_N)
    for tile in tl.range(tl.program_id(0), row_blocks * tiles_n, tl.num_programs(0)):
        row_block, tile_n = swizzle(tile, row_blocks, tiles_n, GROUP_M)
        if MASKED:
            blocks_a_group = tl.cdiv(group_rows, BLOCK_M)
            group = row_block // blocks_a_group
            first = row_block % blocks_a_group * BLOCK_M
            row = group * group_rows + first
            filled = tl.load(table + group) - first
            end = group_rows - first
        else:
            row = row_block * BLOCK_M
            group = tl.load(table + row // 128)
            filled = tl.where(group >= 0, BLOCK_M, 0)
            group = tl.maximum(group, 0)
            end = BLOCK_M
        # No K step where no row is filled: the sum stays zero.
        depth = tl.where(filled > 0, K, 0)
        total = accumulate(
            a, b, a_s, b_s + group * stride_bsg, row, tile_n * BLOCK_N, group * N + tile_n * BLOCK_N, R, N, depth,
            stride_am, stride_bn, stride_asm, stride_ask, stride_bsn, stride_bsk,
            BLOCK_M, BLOCK_N, STAGES, DESCRIPTOR, EVEN_K, SPAN_BLOCKS, False,
        )  # fmt: skip
        _store_filled(c, total, row, tile_n * BLOCK_N, filled, end, N, stride_cm, MASKED)


@triton.jit
def _store_filled(c, tile, row, col, filled, end, N, stride_cm, MASKED: tl.constexpr):
    """Write the first `end` rows of `tile` at (row, col), as zeros from row `filled` on."""
    rows = tl.arange(0, tile.shape[0])
    cols = col + tl.arange(0, tile.shape[1])
    if MASKED:
        tile = tl.where(rows[:, None] < filled, tile, 0.0)
    mask = (rows[:, None] < end) & (cols[None, :] < N)
    pointers = c + (row + rows).to(tl.int64)[:, None] * stride_cm + cols[None, :]
    tl.store(pointers, tile.to(c.dtype.element_ty), mask=mask)
