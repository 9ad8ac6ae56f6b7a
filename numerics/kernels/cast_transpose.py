"""Casts by rows and by transposed columns behind what makes their input, in one kernel. Bits: casts.py's.

`numerics.reference.cast_transpose`. Bound by device memory; for M x K elements in BF16, I the width of SwiGLU's output:

    quantize_weight          4 NK read (FP32), 2 NK written
    rmsnorm_quantize         2 MK read, MK + MK/32 written; with the norm itself 2 MK more, with a residual 4 MK more
    rmsnorm_quantize_columns 2 MK + 4 M read, MK + MK/32 written
    swiglu_quantize_both     4 MI read, 3 (MI + MI/32) written
    swiglu_backward_both     4 MI + MI/16 read, 8 MI + MI/16 written, and two casts by columns of what was written

Where columns turn, four rows of a column become a word of four codes, and words turn through shared memory. One kernel
that cast a gradient both ways from one read was tried and was slower than two (T = 32,768 x 1,024 on an H200,
2026-11-30: 127 us against 99): it issues more instructions than its bytes take.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hwmodels.formats import TILE
from numerics.kernels.casts import (
    COLUMN_WIDTH,
    _largest,
    any_rare,
    check_scales,
    codes,
    cut,
    e4m3_bits,
    e4m3_scale,
    finite_magnitude,
    matrix,
    quantize_columns,
    quantize_tiles,
    quantize_turned,
    quotient,
    scales,
    store_turned,
    tiles_of,
    turned,
)
from numerics.kernels.norm import FORWARD_ELEMENTS, warps_of
from numerics.kernels.swiglu import _activate, _gradients
from numerics.reference import cast_transpose as reference
from numerics.reference.cast_transpose import whole

Cast = tuple[Tensor, Tensor]

PAIR_TILES = 16
"""1x128 tiles of gate, and of up, that a program of 4 warps casts."""
WARPS = 8
"""Of a program that turns 128 x 128 elements: 64 a thread."""


# --- device functions -------------------------------------------------------------------------------------------------


@triton.jit
def _bits(x, scale, rare, power: tl.constexpr):
    return e4m3_bits(quotient(x, scale, rare, power))


@triton.jit
def _load_rows(x, row, column, rows, columns, stride):
    """Rows [32, W] in float32, zeros outside."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(x + row.to(tl.int64)[:, None] * stride + column[None, :], mask=mask, other=0.0).to(tl.float32)


# --- kernels ----------------------------------------------------------------------------------------------------------


@triton.jit
def _quantize_weight(w, q, s, q_t, s_t, rows, columns, tiles_per_column, tiles_per_row):
    """A 128 x 128 block of one of a stack of matrices [rows, columns]: its codes as they lie and turned, its scale."""
    one = tl.program_id(0) // (tiles_per_column * tiles_per_row)
    here = tl.program_id(0) - one * (tiles_per_column * tiles_per_row)
    down, across = here // tiles_per_row, here % tiles_per_row
    base = one.to(tl.int64) * rows * columns
    row, column = down * 128 + 4 * tl.arange(0, 32), across * 128 + tl.arange(0, 128)
    a = _load_rows(w + base, row, column, rows, columns, columns)
    b = _load_rows(w + base, row + 1, column, rows, columns, columns)
    c = _load_rows(w + base, row + 2, column, rows, columns, columns)
    d = _load_rows(w + base, row + 3, column, rows, columns, columns)
    most = _largest(tl.abs(a), tl.abs(b), tl.abs(c), tl.abs(d))
    amax = tl.max(tl.max(most, axis=1, keep_dims=True), axis=0, keep_dims=True)
    rare = any_rare(amax)
    if rare:
        most = _largest(finite_magnitude(a), finite_magnitude(b), finite_magnitude(c), finite_magnitude(d))
        amax = tl.max(tl.max(most, axis=1, keep_dims=True), axis=0, keep_dims=True)
    scale = e4m3_scale(amax, rare, False)
    tl.store(s + tl.program_id(0) + tl.zeros((1, 1), tl.int32), scale)
    turned_place = (one * tiles_per_row + across) * tiles_per_column + down
    tl.store(s_t + turned_place + tl.zeros((1, 1), tl.int32), scale)
    a, b = _bits(a, scale, rare, False), _bits(b, scale, rare, False)
    c, d = _bits(c, scale, rare, False), _bits(d, scale, rare, False)
    _store_bytes(a, q + base, row, column, rows, columns)
    _store_bytes(b, q + base, row + 1, column, rows, columns)
    _store_bytes(c, q + base, row + 2, column, rows, columns)
    _store_bytes(d, q + base, row + 3, column, rows, columns)
    words = tl.trans(a | (b << 8) | (c << 16) | (d << 24))
    word = down * 32 + tl.arange(0, 32)
    mask = (column < columns)[:, None] & (word < rows // 4)[None, :]
    place = one.to(tl.int64) * (rows // 4) * columns + column[:, None] * (rows // 4) + word[None, :]
    tl.store(q_t + place, words, mask=mask)


@triton.jit
def _store_bytes(code, q, row, column, rows, columns):
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(q + row[:, None] * columns + column[None, :], code.to(tl.uint8), mask=mask)


@triton.jit
def _rmsnorm_rows(
    x, residual, w, total, y, q, s, q_two, s_two, rstd, rows, columns, stride, residual_stride, eps, tiles_per_row,
    added: tl.constexpr, keep: tl.constexpr, plain: tl.constexpr, power: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A row a program, as numerics/kernels/norm.py: the norm rounded to x's type and cast (plain: q; power: q_two)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    mask = column < columns
    value = tl.load(x + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    if added:
        value += tl.load(residual + row * residual_stride + column, mask=mask, other=0.0).to(tl.float32)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + row * columns + column, rounded, mask=mask)
        value = rounded.to(tl.float32)
    weight = tl.load(w + column, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=0) / columns + eps)
    tl.store(rstd + row, scale)
    normed = (value * scale * weight).to(x.dtype.element_ty)
    if keep:
        tl.store(y + row * columns + column, normed, mask=mask)
    tiles = tl.reshape(normed.to(tl.float32), (block // 128, 128))
    if plain:
        _store_tiles(tiles, q, s, row, column, rows, columns, tiles_per_row, False, block)
    if power:
        _store_tiles(tiles, q_two, s_two, row, column, rows, columns, tiles_per_row, True, block)


@triton.jit
def _store_tiles(tiles, q, s, row, column, rows, columns, tiles_per_row, power: tl.constexpr, block: tl.constexpr):
    """One row's tiles [block / 128, 128]."""
    code, scale = quantize_tiles(tiles, power)
    tl.store(q + row * columns + column, tl.reshape(code, (block,)), mask=column < columns)
    tile = tl.arange(0, block // 128)[:, None]
    tl.store(s + tile.to(tl.int64) * rows + row, scale, mask=tile < tiles_per_row)


@triton.jit
def _normed_row(x, rstd, weight, row, column, rows, columns, stride):
    scale = tl.load(rstd + row, mask=row < rows, other=0.0)[:, None]
    value = _load_rows(x, row, column, rows, columns, stride)
    return (value * scale * weight).to(x.dtype.element_ty).to(tl.float32)


@triton.jit
def _rmsnorm_columns(
    x, w, rstd, q, s, rows, columns, stride, words_per_column, width: tl.constexpr, power: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(columns, width)
    tile = tl.program_id(0) // blocks
    row = tile * 128 + 4 * tl.arange(0, 32)
    column = (tl.program_id(0) - tile * blocks) * width + tl.arange(0, width)
    weight = tl.load(w + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    a = _normed_row(x, rstd, weight, row, column, rows, columns, stride)
    b = _normed_row(x, rstd, weight, row + 1, column, rows, columns, stride)
    c = _normed_row(x, rstd, weight, row + 2, column, rows, columns, stride)
    d = _normed_row(x, rstd, weight, row + 3, column, rows, columns, stride)
    words, scale = quantize_turned(a, b, c, d, power)
    store_turned(words, scale, q, s, tile, column, columns, words_per_column)


@triton.jit
def _swiglu_both(x, q, s, y, y_s, rows, half, stride, tiles_per_row, block: tl.constexpr):
    """1x128 tiles of gate and up as codes, and of their SwiGLU."""
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = (tile < rows * tiles_per_row)[:, None]
    row = (tile // tiles_per_row).to(tl.int64)[:, None]
    across = tile % tiles_per_row
    column = across[:, None] * 128 + tl.arange(0, 128)[None, :]
    gate = tl.load(x + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * stride + half + column, mask=inside, other=0.0).to(tl.float32)
    place, where = row * (2 * half) + column, across.to(tl.int64)[:, None] * rows + row
    code, scale = quantize_tiles(gate, False)
    tl.store(q + place, code, mask=inside)
    tl.store(s + where, scale, mask=inside)
    code, scale = quantize_tiles(up, False)
    tl.store(q + place + half, code, mask=inside)
    tl.store(s + where + tl.cast(tiles_per_row, tl.int64) * rows, scale, mask=inside)
    code, scale = quantize_tiles(_activate(gate, up), False)
    tl.store(y + row * half + column, code, mask=inside)
    tl.store(y_s + where, scale, mask=inside)


@triton.jit
def _swiglu_backward(
    dy, gate_up, scale, by_row, dots, q, s, dx, act, rows, half, stride, tiles_per_row,
    weighed: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """1x128 tiles of both gradients as row codes and as they are, and the activation again."""
    kind: tl.constexpr = dy.dtype.element_ty
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = (tile < rows * tiles_per_row)[:, None]
    row = (tile // tiles_per_row).to(tl.int64)[:, None]
    across = (tile % tiles_per_row).to(tl.int64)[:, None]
    column = across * 128 + tl.arange(0, 128)[None, :]
    place, where = row * (2 * half) + column, across * rows + row
    further = where + tl.cast(tiles_per_row, tl.int64) * rows
    upstream = tl.load(dy + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_up + place, mask=inside, other=0.0).to(tl.float32)
    gate = (gate * tl.load(scale + where, mask=inside, other=0.0)).to(kind).to(tl.float32)
    up = tl.load(gate_up + place + half, mask=inside, other=0.0).to(tl.float32)
    up = (up * tl.load(scale + further, mask=inside, other=0.0)).to(kind).to(tl.float32)
    activation = _activate(gate, up).to(kind)
    if weighed:
        value = activation.to(tl.float32)
        tl.store(dots + where, tl.sum(upstream * value, axis=1, keep_dims=True), mask=inside)
        factor = tl.load(by_row + row, mask=inside, other=0.0).to(kind).to(tl.float32)
        activation = (value * factor).to(kind)
        upstream = (upstream * factor).to(kind).to(tl.float32)
    tl.store(act + row * half + column, activation, mask=inside)
    dgate, dup = _gradients(upstream, gate, up)
    dgate, dup = dgate.to(kind), dup.to(kind)
    tl.store(dx + place, dgate, mask=inside)
    tl.store(dx + place + half, dup, mask=inside)
    code, tile_scale = quantize_tiles(dgate.to(tl.float32), False)
    tl.store(q + place, code, mask=inside)
    tl.store(s + where, tile_scale, mask=inside)
    code, tile_scale = quantize_tiles(dup.to(tl.float32), False)
    tl.store(q + place + half, code, mask=inside)
    tl.store(s + further, tile_scale, mask=inside)


# --- calls ------------------------------------------------------------------------------------------------------------


def quantize_weight(w: Tensor) -> tuple[Cast, Cast]:
    """w [.., N, K] -> E4M3 [.., N, K] in 128x128 blocks, FP32 scales; and both turned: [.., K, N]."""
    w = w.contiguous()
    n, k = w.shape[-2:]
    if n % 4:  # a word holds the codes of four rows
        return reference.quantize_weight(w)
    stack = w.shape[:-2]
    q = w.new_empty(w.shape, dtype=torch.float8_e4m3fn)
    q_t = w.new_empty(*stack, k, n, dtype=torch.float8_e4m3fn)
    s = w.new_empty(*stack, tiles_of(n), tiles_of(k), dtype=torch.float32)
    s_t = w.new_empty(*stack, tiles_of(k), tiles_of(n), dtype=torch.float32)
    if w.numel():
        words = q_t.view(torch.int32)
        _quantize_weight[(s.numel(),)](
            w, q.view(torch.uint8), s, words, s_t, n, k, tiles_of(n), tiles_of(k), num_warps=WARPS
        )  # fmt: skip
    return (q, s), (q_t, s_t)


def rmsnorm_quantize(
    x: Tensor, w: Tensor, eps: float = 1e-6, powers: tuple[bool, ...] = (False,), keep: bool = False
) -> tuple[tuple[Cast, ...], Tensor | None, Tensor]:
    """x [M, H], w [H] -> the norm, rounded to x's type, cast by rows once for each of `powers` (of two, or not); the
    norm itself where it is to be kept; 1/rms FP32 [M]."""
    return _normed(matrix(x), None, w, eps, powers, keep)[1:]


def add_rmsnorm_quantize(
    x: Tensor, residual: Tensor, w: Tensor, eps: float = 1e-6, powers: tuple[bool, ...] = (False,), keep: bool = False
) -> tuple[Tensor, tuple[Cast, ...], Tensor | None, Tensor]:
    """`rmsnorm_quantize` of the sum of x and residual [M, H], rounded to x's type, which comes first."""
    return _normed(matrix(x), matrix(residual), w, eps, powers, keep)


def _normed(
    x: Tensor, residual: Tensor | None, w: Tensor, eps: float, powers: tuple[bool, ...], keep: bool
) -> tuple[Tensor, tuple[Cast, ...], Tensor | None, Tensor]:
    m, h = x.shape
    tiles = tiles_of(h)
    casts = {power: (codes(x, m, h), scales(x, m, tiles)) for power in powers}
    rstd, y = x.new_empty(m, dtype=torch.float32), x.new_empty(m, h) if keep else None
    total, beside = (x, x) if residual is None else (x.new_empty(m, h), residual)
    if x.numel():
        block = max(TILE, triton.next_power_of_2(h))
        some = next(iter(casts.values()))
        places = (total, x if y is None else y, *casts.get(False, some), *casts.get(True, some), rstd)
        shape = (m, h, x.stride(0), beside.stride(0), eps, tiles)
        flags = (residual is not None, keep, False in casts, True in casts, block)
        warps = warps_of(block, FORWARD_ELEMENTS)
        _rmsnorm_rows[(m,)](x, beside, w.contiguous(), *places, *shape, *flags, num_warps=warps)
    return total, tuple(casts[power] for power in powers), y, rstd


def rmsnorm_quantize_columns(x: Tensor, w: Tensor, rstd: Tensor, power_of_two: bool = False) -> Cast:
    """x [M, H], w [H], rstd FP32 [M] of its norm -> the norm, rounded to x's type, as `quantize_columns` casts it."""
    x = matrix(x)
    m, h = x.shape
    words, s = turned(x, h, m)
    if x.numel():
        shape = (m, h, x.stride(0), words.stride(0), COLUMN_WIDTH, power_of_two)
        grid = (tiles_of(m) * triton.cdiv(h, COLUMN_WIDTH),)
        _rmsnorm_columns[grid](x, w.contiguous(), rstd, words, s, *shape, num_warps=WARPS)
    return cut(words, m), s


def swiglu_quantize_both(x: Tensor) -> tuple[Cast, Cast]:
    """x [M, 2I] -> what `quantize_rows(x)` and `swiglu_quantize(x)` give. I must be a multiple of 128."""
    x = matrix(x)
    m, half = x.shape[0], whole(x.shape[1] // 2)
    tiles = tiles_of(half)
    q, s = codes(x, m, 2 * half), scales(x, m, 2 * tiles)
    y, y_s = codes(x, m, half), scales(x, m, tiles)
    if x.numel():
        grid = (triton.cdiv(m * tiles, PAIR_TILES),)
        _swiglu_both[grid](x, q, s, y, y_s, m, half, x.stride(0), tiles, PAIR_TILES, num_warps=4)
    return (q, s), (y, y_s)


def swiglu_backward_both(
    dy: Tensor, q: Tensor, s: Tensor, by_row: Tensor | None = None
) -> tuple[Cast, Cast, Cast, Tensor | None]:
    """dy [M, I] and SwiGLU's input as row codes q [M, 2I], s -> dx by rows and by columns, the activation by columns.

    by_row FP32 [M]: what the activation is multiplied by before the next product, and dy after it; then also the dot
    product of each row of dy and the activation, FP32 [M].
    """
    check_scales(q, s, 1)
    dy, q = matrix(dy), matrix(q).contiguous()
    m, half = dy.shape[0], whole(dy.shape[1])
    s = s if s.stride(0) == 1 and s.stride(1) == m else s.t().contiguous().t()
    tiles = tiles_of(half)
    rows = codes(q, m, 2 * half), scales(q, m, 2 * tiles)
    dx, act = dy.new_empty(m, 2 * half), dy.new_empty(m, half)
    dots = None if by_row is None else dy.new_empty(tiles, m, dtype=torch.float32)
    if dy.numel():
        beside = (rows[1], rows[1]) if by_row is None or dots is None else (by_row, dots)
        shape = (m, half, dy.stride(0), tiles, by_row is not None, PAIR_TILES)
        grid = (triton.cdiv(m * tiles, PAIR_TILES),)
        _swiglu_backward[grid](dy, q, s, *beside, *rows, dx, act, *shape, num_warps=4)
    total = None if dots is None else dots[0] if tiles == 1 else dots.sum(0)
    return rows, quantize_columns(dx), quantize_columns(act), total
