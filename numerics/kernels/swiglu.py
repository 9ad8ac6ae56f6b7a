"""SwiGLU forward and backward, alone and fused with the cast that follows. `numerics.reference.swiglu`.

Bound by device memory. For x [M, 2I] in BF16:

    swiglu                    4 MI read, 2 MI written
    swiglu_quantize           4 MI read, MI + MI/32 written (the separate cast would add 2 MI written and 2 MI read)
    swiglu_quantize_columns   the same; the codes turn through shared memory
    swiglu_backward           6 MI read, 4 MI written
    swiglu_forward_backward   6 MI read, 6 MI written
    swiglu_backward_quantize  6 MI read, 2 MI + MI/16 written
    swiglu_backward_weighed   6 MI + 4 M read, 6 MI + MI/32 written
    gate_weight_gradient      4 MI read, 4 M written

The sigmoid uses the device's exponential, 2^(x log2 e), and its approximate quotient: a few ulp of float32. So a scale
may differ from the reference's by as much, and a code by one where a quotient lies on a rounding boundary.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.kernels.casts import (
    COLUMN_WIDTH,
    codes,
    cut,
    matrix,
    place_of,
    quantize_tiles,
    quantize_turned,
    row_tiles,
    scales,
    store_turned,
    tiles_of,
    turned,
)

ROW = 2048
"""Elements of a row that a program multiplies at a time: two 16-byte loads of each operand for each of 128 threads."""
TILES = 16
"""1x128 tiles a program of 4 warps: 16 elements of each operand, so two to three times two 16-byte loads, a thread."""


@triton.jit
def _pair(x, row, column, half, stride, mask):
    """Gate and up in float32."""
    gate = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(x + row * stride + half + column, mask=mask, other=0.0).to(tl.float32)
    return gate, up


@triton.jit
def _activate(gate, up):
    return gate * tl.sigmoid(gate) * up


@triton.jit
def _gradients(dy, gate, up):
    sigmoid = tl.sigmoid(gate)
    return dy * up * (sigmoid * (1 + gate * (1 - sigmoid))), dy * (gate * sigmoid)


@triton.jit
def _swiglu(
    x, y, s, rows, half, stride, tiles_per_row, block: tl.constexpr, cast: tl.constexpr, power_of_two: tl.constexpr
):  # fmt: skip
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = (tile < rows * tiles_per_row)[:, None]
    row, column, mask = row_tiles(tile, tiles_per_row, half)
    mask = mask & inside
    gate, up = _pair(x, row, column, half, stride, mask)
    value = _activate(gate, up)
    if cast:
        code, scale = quantize_tiles(value, power_of_two)
        tl.store(y + row * half + column, code, mask=mask)
        tl.store(place_of(s, tile[:, None], row, rows, tiles_per_row), scale, mask=inside)
    else:
        tl.store(y + row * half + column, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _row_of_four(x, row, column, rows, half, stride):
    mask = (row < rows)[:, None] & (column < half)[None, :]
    gate, up = _pair(x, row.to(tl.int64)[:, None], column[None, :], half, stride, mask)
    return _activate(gate, up)


@triton.jit
def _swiglu_columns(
    x, q, s, rows, half, stride, words_per_column, width: tl.constexpr, power_of_two: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(half, width)
    tile = tl.program_id(0) // blocks
    row = tile * 128 + 4 * tl.arange(0, 32)
    column = (tl.program_id(0) - tile * blocks) * width + tl.arange(0, width)
    a = _row_of_four(x, row, column, rows, half, stride)
    b = _row_of_four(x, row + 1, column, rows, half, stride)
    c = _row_of_four(x, row + 2, column, rows, half, stride)
    d = _row_of_four(x, row + 3, column, rows, half, stride)
    words, scale = quantize_turned(a, b, c, d, power_of_two)
    store_turned(words, scale, q, s, tile, column, half, words_per_column)


@triton.jit
def _backward(
    dy, x, dx, s, y, rows, half, dy_stride, stride, tiles_per_row,
    block: tl.constexpr, cast: tl.constexpr, power_of_two: tl.constexpr, again: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = (tile < rows * tiles_per_row)[:, None]
    row, column, mask = row_tiles(tile, tiles_per_row, half)
    mask = mask & inside
    upstream = tl.load(dy + row * dy_stride + column, mask=mask, other=0.0).to(tl.float32)
    gate, up = _pair(x, row, column, half, stride, mask)
    dgate, dup = _gradients(upstream, gate, up)
    if again:
        tl.store(y + row * half + column, _activate(gate, up).to(y.dtype.element_ty), mask=mask)
    place = dx + row * (2 * half) + column
    if cast:
        code, scale = quantize_tiles(dgate, power_of_two)
        where = place_of(s, tile[:, None], row, rows, tiles_per_row)
        tl.store(place, code, mask=mask)
        tl.store(where, scale, mask=inside)
        code, scale = quantize_tiles(dup, power_of_two)
        tl.store(place + half, code, mask=mask)
        tl.store(where + tiles_per_row * rows, scale, mask=inside)
    else:
        tl.store(place, dgate.to(dx.dtype.element_ty), mask=mask)
        tl.store(place + half, dup.to(dx.dtype.element_ty), mask=mask)


@triton.jit
def _backward_weighed(
    dy, x, by_row, dx, act, dots, rows, half, dy_stride, stride, tiles_per_row, block: tl.constexpr
):  # fmt: skip
    kind: tl.constexpr = dy.dtype.element_ty
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = (tile < rows * tiles_per_row)[:, None]
    row, column, mask = row_tiles(tile, tiles_per_row, half)
    mask = mask & inside
    upstream = tl.load(dy + row * dy_stride + column, mask=mask, other=0.0).to(tl.float32)
    gate, up = _pair(x, row, column, half, stride, mask)
    value = _activate(gate, up).to(kind).to(tl.float32)
    tl.store(place_of(dots, tile[:, None], row, rows, tiles_per_row),
             tl.sum(upstream * value, axis=1, keep_dims=True), mask=inside)  # fmt: skip
    factor = tl.load(by_row + row, mask=inside, other=0.0).to(kind).to(tl.float32)
    tl.store(act + row * half + column, (value * factor).to(kind), mask=mask)
    dgate, dup = _gradients((upstream * factor).to(kind).to(tl.float32), gate, up)
    place = dx + row * (2 * half) + column
    tl.store(place, dgate.to(kind), mask=mask)
    tl.store(place + half, dup.to(kind), mask=mask)


@triton.jit
def _dots(dy, y, out, width, dy_stride, stride, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    total = tl.zeros((block,), tl.float32)
    for first in range(0, width, block):
        column = first + tl.arange(0, block)
        mask = column < width
        upstream = tl.load(dy + row * dy_stride + column, mask=mask, other=0.0).to(tl.float32)
        total += upstream * tl.load(y + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row, tl.sum(total, axis=0))


def swiglu(x: Tensor) -> Tensor:
    """x [M, 2I] -> silu(x[:, :I]) * x[:, I:], [M, I] in x's dtype."""
    x, half = _operand(x)
    y = x.new_empty(x.shape[0], half)
    _launch(x, y, y, half, False, False)
    return y


def swiglu_quantize(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, 2I] -> e4m3 [M, I] in 1x128 tiles, scales [M, ceil(I/128)], from the product in float32, not its BF16."""
    x, half = _operand(x)
    q, s = codes(x, x.shape[0], half), scales(x, x.shape[0], tiles_of(half))
    _launch(x, q, s, half, True, power_of_two)
    return q, s


def swiglu_quantize_columns(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, 2I] -> e4m3 [I, M] in 128x1 tiles of the product, scales [I, ceil(M/128)]: the recomputed wgrad operand."""
    x, half = _operand(x)
    m = x.shape[0]
    words, s = turned(x, half, m)
    if x.numel():
        grid = (tiles_of(m) * triton.cdiv(half, COLUMN_WIDTH),)
        shape = (m, half, x.stride(0), words.stride(0))
        _swiglu_columns[grid](x, words, s, *shape, COLUMN_WIDTH, power_of_two, num_warps=8)
    return cut(words, m), s


def swiglu_backward(dy: Tensor, x: Tensor) -> Tensor:
    """dy [M, I], x [M, 2I] -> dx [M, 2I] in x's dtype."""
    x, half = _operand(x)
    dx = x.new_empty(x.shape)
    _launch_backward(matrix(dy), x, dx, dx, None, half, False, False)
    return dx


def swiglu_forward_backward(dy: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """dy [M, I], x [M, 2I] -> the activation [M, I] again, for the weight gradient, and dx [M, 2I]; in x's dtype."""
    x, half = _operand(x)
    y, dx = x.new_empty(x.shape[0], half), x.new_empty(x.shape)
    _launch_backward(matrix(dy), x, dx, dx, y, half, False, False)
    return y, dx


def swiglu_backward_weighed(dy: Tensor, x: Tensor, by_row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dy [M, I], x [M, 2I], by_row FP32 [M] (the gate's weight of each row, which multiplies the activation) -> dx
    [M, 2I], the weighed activation [M, I] again, and by_row's gradient, FP32 [M]; by_row is rounded to dy's type."""
    x, half = _operand(x)
    dy, m, tiles = matrix(dy), x.shape[0], tiles_of(half)
    dx, act, dots = x.new_empty(x.shape), x.new_empty(m, half), x.new_empty(tiles, m, dtype=torch.float32)
    if x.numel():
        shape = (m, half, dy.stride(0), x.stride(0), tiles, TILES)
        grid = (triton.cdiv(m * tiles, TILES),)
        _backward_weighed[grid](dy, x, by_row.contiguous(), dx, act, dots, *shape, num_warps=4)
    return dx, act, dots[0] if tiles == 1 else dots.sum(0)


def gate_weight_gradient(dy: Tensor, y: Tensor) -> Tensor:
    """dy, y [M, I] -> float32 [M]: each row's dot product."""
    dy, y = matrix(dy), matrix(y)
    out = dy.new_empty(dy.shape[0], dtype=torch.float32)
    if dy.shape[0]:
        _dots[(dy.shape[0],)](dy, y, out, dy.shape[1], dy.stride(0), y.stride(0), ROW, num_warps=4)
    return out


def swiglu_backward_quantize(dy: Tensor, x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """dy [M, I], x [M, 2I] -> dx as e4m3 [M, 2I] in 1x128 tiles, scales [M, 2I/128]. I must be a multiple of 128."""
    x, half = _operand(x)
    if half % 128:
        raise ValueError(f"a fused cast takes I in multiples of 128; got {half}")
    q, s = codes(x, x.shape[0], 2 * half), scales(x, x.shape[0], 2 * tiles_of(half))
    _launch_backward(matrix(dy), x, q, s, None, half, True, power_of_two)
    return q, s


def _operand(x: Tensor) -> tuple[Tensor, int]:
    if x.shape[1] % 2:
        raise ValueError(f"SwiGLU takes an even number of columns; got {list(x.shape)}")
    return matrix(x), x.shape[1] // 2


def _launch(x: Tensor, y: Tensor, s: Tensor, half: int, cast: bool, power_of_two: bool) -> None:
    m, tiles = x.shape[0], tiles_of(half)
    if x.numel():
        grid = (triton.cdiv(m * tiles, TILES),)
        _swiglu[grid](x, y, s, m, half, x.stride(0), tiles, TILES, cast, power_of_two, num_warps=4)


def _launch_backward(
    dy: Tensor, x: Tensor, dx: Tensor, s: Tensor, y: Tensor | None, half: int, cast: bool, power_of_two: bool
) -> None:
    m, tiles = x.shape[0], tiles_of(half)
    if x.numel():
        grid = (triton.cdiv(m * tiles, TILES),)
        shape = (m, half, dy.stride(0), x.stride(0), tiles)
        again = dx if y is None else y
        _backward[grid](dy, x, dx, s, again, *shape, TILES, cast, power_of_two, y is not None, num_warps=4)
