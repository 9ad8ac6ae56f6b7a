"""RMSNorm forward and backward. `numerics.reference.norm`.

Bound by device memory. For x [M, H] in BF16: forward reads 2 MH and writes 2 MH + 4 M bytes; backward reads 4 MH + 4 M
and writes 2 MH, with 8 PH more for the weight gradient's P partial sums (P programs; 4 % at P = 132, M = 4,096), which
keep the sum's order fixed without atomics. The weight stays in L1 (forward) or in registers (backward).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.kernels.casts import matrix

FORWARD_ELEMENTS, BACKWARD_ELEMENTS = 32, 16
"""Elements of a row that a thread holds: four or two 16-byte loads of BF16 an operand."""
LANES = 32
NO_DEVICE_PROGRAMS = 132
"""Backward programs off the GPU: the SMs of an H100 or H200 SXM (NVIDIA data sheets), one program each there."""
PARTIAL_ROWS, PARTIAL_COLUMNS = 32, 128


@triton.jit
def _forward(x, w, y, rstd, columns, stride, eps, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    value = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(w + column, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / columns + eps)
    tl.store(y + row * columns + column, (value * scale * weight).to(y.dtype.element_ty), mask=mask)
    tl.store(rstd + row, scale)


@triton.jit
def _backward(dy, x, w, rstd, dx, partial, rows, columns, dy_stride, stride, block: tl.constexpr):
    """One program takes every P-th row and sums its share of dw in registers.

    The sums leave room for one program an SM, so it loads the next row while it reduces this one.
    """
    column = tl.arange(0, block)
    mask = column < columns
    weight = tl.load(w + column, mask=mask, other=0.0).to(tl.float32)
    total = tl.zeros((block,), tl.float32)
    first = tl.program_id(0).to(tl.int64)
    next_dy = tl.load(dy + first * dy_stride + column, mask=mask, other=0.0)
    next_x = tl.load(x + first * stride + column, mask=mask, other=0.0)
    for number in range(tl.program_id(0), rows, tl.num_programs(0)):
        upstream, value = next_dy.to(tl.float32), next_x.to(tl.float32)
        row = tl.cast(number, tl.int64)
        following = row + tl.num_programs(0)
        more = mask & (following < rows)
        next_dy = tl.load(dy + following * dy_stride + column, mask=more, other=0.0)
        next_x = tl.load(x + following * stride + column, mask=more, other=0.0)
        scale = tl.load(rstd + row)
        normal = value * scale
        total += upstream * normal
        inner = upstream * weight
        mean = tl.sum(inner * normal, axis=0) / columns
        tl.store(dx + row * columns + column, (scale * (inner - normal * mean)).to(dx.dtype.element_ty), mask=mask)
    tl.store(partial + tl.program_id(0) * columns + column, total, mask=mask)


@triton.jit
def _sum_partials(partial, dw, programs, columns, rows_block: tl.constexpr, block: tl.constexpr):
    column = tl.program_id(0) * block + tl.arange(0, block)
    mask = column < columns
    total = tl.zeros((rows_block, block), tl.float32)
    for first in range(0, programs, rows_block):
        row = first + tl.arange(0, rows_block)
        place = partial + row[:, None] * columns + column[None, :]
        total += tl.load(place, mask=(row < programs)[:, None] & mask[None, :], other=0.0)
    tl.store(dw + column, tl.sum(total, axis=0), mask=mask)


def rmsnorm(x: Tensor, w: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor]:
    """x [M, H], w [H] -> y [M, H] in x's dtype, rstd float32 [M]."""
    x = matrix(x)
    m, h = x.shape
    y, rstd = x.new_empty(m, h), x.new_empty(m, dtype=torch.float32)
    if x.numel():
        block = triton.next_power_of_2(h)
        warps = warps_of(block, FORWARD_ELEMENTS)
        _forward[(m,)](x, w.contiguous(), y, rstd, h, x.stride(0), eps, block, num_warps=warps)
    return y, rstd


def rmsnorm_backward(
    dy: Tensor, x: Tensor, w: Tensor, rstd: Tensor, programs: int | None = None
) -> tuple[Tensor, Tensor]:
    """dy, x [M, H], w [H], rstd [M] -> dx [M, H] in x's dtype, dw float32 [H].

    programs: how many share the rows (dw's last bits depend on it); None for one an SM.
    """
    dy, x = matrix(dy), matrix(x)
    m, h = x.shape
    dx, dw = x.new_empty(m, h), x.new_zeros(h, dtype=torch.float32)
    if not x.numel():
        return dx, dw
    programs = min(m, programs or default_programs(x))
    partial = x.new_empty(programs, h, dtype=torch.float32)
    block = triton.next_power_of_2(h)
    shape = (m, h, dy.stride(0), x.stride(0))
    warps = warps_of(block, BACKWARD_ELEMENTS)
    _backward[(programs,)](dy, x, w.contiguous(), rstd, dx, partial, *shape, block, num_warps=warps)
    grid = (triton.cdiv(h, PARTIAL_COLUMNS),)
    _sum_partials[grid](partial, dw, programs, h, PARTIAL_ROWS, PARTIAL_COLUMNS, num_warps=4)
    return dx, dw


def warps_of(block: int, elements: int) -> int:
    """Warps that leave so many elements of a row to each thread."""
    return max(1, min(16, block // (elements * LANES)))


def default_programs(x: Tensor) -> int:
    """Backward programs: one an SM of x's device."""
    if not x.is_cuda:
        return NO_DEVICE_PROGRAMS
    return int(torch.cuda.get_device_properties(x.device).multi_processor_count)
