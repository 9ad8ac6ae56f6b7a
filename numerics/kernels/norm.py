"""RMSNorm forward and backward. `numerics.reference.norm`.

Bound by device memory. For x [M, H] in BF16: forward reads 2 MH and writes 2 MH + 4 M bytes; backward reads 4 MH + 4 M
and writes 2 MH, with 8 PH more for the weight gradient's P partial sums (P programs; 4 % at P = 132, M = 4,096), which
keep the sum's order fixed without atomics. The weight stays in L1 (forward) or in registers (backward). Each stream
fused in, a residual added before or a gradient added on the way back, is 2 MH more; the sum written is another 2 MH.
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
PARTIAL_ROWS, PARTIAL_COLUMNS = 128, 32
"""Partial sums that a program adds at a time: few rounds, as each waits for memory, and many programs."""


@triton.jit
def _forward(
    x, residual, w, total, y, rstd, columns, stride, residual_stride, eps, fused: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    value = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    if fused:
        value += tl.load(residual + row * residual_stride + column, mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + row * columns + column, rounded, mask=mask)
        value = rounded.to(tl.float32)
    weight = tl.load(w + column, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / columns + eps)
    tl.store(y + row * columns + column, (value * scale * weight).to(y.dtype.element_ty), mask=mask)
    tl.store(rstd + row, scale)


@triton.jit
def _upstream(dy, place, mask, stream, streams: tl.constexpr):
    """A row of dy, as it is where there is one stream; else the streams' sum in float32."""
    total = tl.load(dy + place, mask=mask, other=0.0)
    if streams > 1:
        total = total.to(tl.float32)
        for number in tl.static_range(1, streams):
            total += tl.load(dy + number * tl.cast(stream, tl.int64) + place, mask=mask, other=0.0).to(tl.float32)
    return total


@triton.jit
def _backward(
    dy, x, w, rstd, residual, dx, partial, rows, columns, stream, dy_stride, stride, residual_stride,
    streams: tl.constexpr, fused: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One program takes every P-th row and sums its share of dw in registers.

    The sums leave room for one program an SM, so it loads the next row while it reduces this one.
    """
    column = tl.arange(0, block)
    mask = column < columns
    weight = tl.load(w + column, mask=mask, other=0.0).to(tl.float32)
    total = tl.zeros((block,), tl.float32)
    first = tl.program_id(0).to(tl.int64)
    next_dy = _upstream(dy, first * dy_stride + column, mask, stream, streams)
    next_x = tl.load(x + first * stride + column, mask=mask, other=0.0)
    for number in range(tl.program_id(0), rows, tl.num_programs(0)):
        upstream, value = next_dy.to(tl.float32), next_x.to(tl.float32)
        row = tl.cast(number, tl.int64)
        following = row + tl.num_programs(0)
        more = mask & (following < rows)
        next_dy = _upstream(dy, following * dy_stride + column, more, stream, streams)
        next_x = tl.load(x + following * stride + column, mask=more, other=0.0)
        if fused:
            beside = tl.load(residual + row * residual_stride + column, mask=mask, other=0.0)
        scale = tl.load(rstd + row)
        normal = value * scale
        total += upstream * normal
        inner = upstream * weight
        mean = tl.sum(inner * normal, axis=0) / columns
        gradient = scale * (inner - normal * mean)
        if fused:
            gradient += beside.to(tl.float32)
        tl.store(dx + row * columns + column, gradient.to(dx.dtype.element_ty), mask=mask)
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
    y, rstd = x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=torch.float32)
    _launch_forward(x, x, w, y, y, rstd, eps, fused=False)
    return y, rstd


def add_rmsnorm(x: Tensor, residual: Tensor, w: Tensor, eps: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """x, residual [M, H], w [H] -> their sum and its norm y [M, H] in x's dtype, rstd float32 [M]."""
    x, residual = matrix(x), matrix(residual)
    total, y, rstd = x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty(x.shape[0], dtype=torch.float32)
    _launch_forward(x, residual, w, total, y, rstd, eps, fused=True)
    return total, y, rstd


def _launch_forward(
    x: Tensor, residual: Tensor, w: Tensor, total: Tensor, y: Tensor, rstd: Tensor, eps: float, fused: bool
) -> None:
    m, h = x.shape
    if x.numel():
        block = triton.next_power_of_2(h)
        shape = (h, x.stride(0), residual.stride(0), eps, fused, block)
        warps = warps_of(block, FORWARD_ELEMENTS)
        _forward[(m,)](x, residual, w.contiguous(), total, y, rstd, *shape, num_warps=warps)


def rmsnorm_backward(
    dy: Tensor, x: Tensor, w: Tensor, rstd: Tensor, residual: Tensor | None = None, programs: int | None = None
) -> tuple[Tensor, Tensor]:
    """dy [M, H] or [G, M, H], x [M, H], w [H], rstd [M], residual [M, H] -> dx [M, H] in x's dtype, dw float32 [H].

    The G streams of dy are summed before the norm, the residual's gradient is added after it. programs: how many share
    the rows (dw's last bits depend on it); None for as many as fill the device.
    """
    streams = dy.shape[0] if dy.dim() == 3 else 1
    dy, x = dy.contiguous() if dy.dim() == 3 else matrix(dy), matrix(x)
    beside = x if residual is None else matrix(residual)
    m, h = x.shape
    dx, dw = x.new_empty(m, h), x.new_zeros(h, dtype=torch.float32)
    if not x.numel():
        return dx, dw
    block = triton.next_power_of_2(h)
    warps = warps_of(block, BACKWARD_ELEMENTS)
    programs = min(m, programs or default_programs(x, warps))
    partial = x.new_empty(programs, h, dtype=torch.float32)
    shape = (m, h, dy.stride(0), dy.stride(-2), x.stride(0), beside.stride(0), streams, residual is not None, block)
    _backward[(programs,)](dy, x, w.contiguous(), rstd, beside, dx, partial, *shape, num_warps=warps)
    grid = (triton.cdiv(h, PARTIAL_COLUMNS),)
    _sum_partials[grid](partial, dw, programs, h, PARTIAL_ROWS, PARTIAL_COLUMNS, num_warps=4)
    return dx, dw


def warps_of(block: int, elements: int) -> int:
    """Warps that leave so many elements of a row to each thread."""
    return max(1, min(16, block // (elements * LANES)))


def default_programs(x: Tensor, warps: int) -> int:
    """Backward programs on x's device: 16 warps an SM, of at most 8 programs (one of rows as wide as V3's hidden)."""
    if not x.is_cuda:
        return NO_DEVICE_PROGRAMS
    sms = int(torch.cuda.get_device_properties(x.device).multi_processor_count)
    return sms * max(1, min(8, 16 // warps))
