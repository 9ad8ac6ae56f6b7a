"""Casts to and from FP8: rows, transposed columns, weight blocks. Bit for bit `numerics.reference.casts`.

Every kernel here is bound by device memory: it reads its input once and writes its output once, and the arithmetic
(about a dozen instructions an element) fits under that. Bytes are given for M x K elements read in BF16.

    quantize_rows       2 MK read, MK + MK/32 written
    quantize_columns    2 MK read, MK + MK/32 written; the codes turn through shared memory
    requantize_columns  MK + MK/32 read, the same written
    quantize_blocks     2 (4 for float32 weights) NK read, NK + NK/4096 written
    dequantize_*        MK + MK/32 (NK/4096) read, 2 MK written
    transpose_codes     MK read, MK written

Loads are 16 bytes a thread where the row length and stride are multiples of 16 elements; other shapes are right but
slow. 25 KB an SM must be in flight on an H200 to cover about 700 ns of latency at 4.8 TB/s (Little's law); the block
shapes below keep 32 to 64 bytes a thread in flight at 50 % occupancy or more.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hwmodels.formats import TILE
from numerics.kernels import columns
from numerics.kernels.gemm import available

E4M3_MAX = tl.constexpr(448.0)
"""Largest finite E4M3 (OCP FP8 specification): 1.75 * 2^8."""
E4M3_RECIPROCAL = tl.constexpr(0.002232142835855484)
"""1 / 448 rounded to float32."""
SMALLEST_SCALE = tl.constexpr(2.0**-126)
"""Smallest normal float32: no scale is subnormal (numerics.reference.casts)."""
TINY = tl.constexpr(2.0**-80)
"""Tiles whose maximum is below this would have subnormal remainders in the fast division; they are lifted first."""
LIFT = tl.constexpr(2.0**64)

ROW_TILES = 32
"""1x128 tiles a program of 4 warps: 32 elements, four 16-byte loads, a thread. A cast of rows takes them one below the
other, so that their scales, which lie side by side, are written at once (29.0 us; along a row 32.0, H200)."""
COLUMN_WIDTH = 64
"""Columns a program of 8 warps turns: 128 rows of 128 bytes in, 64 rows of 128 bytes out."""
PAD = 0
"""Words by which columns of a multiple of 1,024 codes lie further apart than they are long."""
TRANSPOSE_WIDTH = 128
"""Columns a program of 8 warps turns of codes alone: 128 rows of 128 bytes in and out."""


@triton.jit
def finite_magnitude(x):
    """|x|, with 0 for inf and NaN."""
    magnitude = tl.abs(x)
    return tl.where(magnitude < float("inf"), magnitude, 0.0)


@triton.jit
def any_rare(amax):
    """Whether a tile of this program needs the careful path: inf inside, or a maximum below TINY but above zero."""
    rare = (amax == float("inf")) | ((amax > 0) & (amax < TINY))
    return tl.max(rare.to(tl.int32), axis=None) > 0


@triton.jit
def power_of_two_scale(amax, top_exponent: tl.constexpr, top_fraction: tl.constexpr):
    """The smallest power of two not below amax / top, at least 2^-126; 1 for amax = 0. In integers, exactly.

    top = (1 + top_fraction / 2^23) 2^top_exponent. A larger fraction than top's carries into the exponent.
    """
    bits = amax.to(tl.int32, bitcast=True)
    scale = ((bits + (0x7FFFFF - top_fraction)) & 0x7F800000) - (top_exponent << 23)
    return tl.where(amax > 0, tl.maximum(scale, 1 << 23).to(tl.float32, bitcast=True), 1.0)


@triton.jit
def e4m3_scale(amax, rare, power_of_two: tl.constexpr):
    """float32 scale of tiles whose largest finite magnitude is amax: amax / 448, correctly rounded."""
    if power_of_two:
        return power_of_two_scale(amax, 8, 0x600000)
    else:
        if rare:
            s = tl.maximum(tl.div_rn(amax, tl.full(amax.shape, E4M3_MAX, tl.float32)), SMALLEST_SCALE)
        else:  # as in quotient
            reciprocal = tl.full(amax.shape, E4M3_RECIPROCAL, tl.float32)
            q = amax * reciprocal
            s = tl.fma(tl.fma(q, tl.full(amax.shape, -E4M3_MAX, tl.float32), amax), reciprocal, q)
        return tl.where(amax > 0, s, 1.0)


@triton.jit
def reciprocal_of(s, power_of_two: tl.constexpr):
    """1 / s, correctly rounded; for a power of two by its exponent."""
    if power_of_two:
        return ((254 << 23) - s.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    else:
        return tl.div_rn(tl.full(s.shape, 1.0, tl.float32), s)


@triton.jit
def divisor_of(s, rare, power_of_two: tl.constexpr):
    """Per tile: what numbers are multiplied by first (1 but for tiny tiles), the scale times that, its reciprocal."""
    if power_of_two:
        return s, s, reciprocal_of(s, True)
    else:
        lift = tl.where((s < TINY) & rare, LIFT, 1.0)
        return lift, s * lift, reciprocal_of(s * lift, False)


@triton.jit
def _divide(x, divisor, reciprocal):
    r = tl.broadcast_to(reciprocal, x.shape)
    q = x * r
    return tl.fma(tl.fma(q, tl.broadcast_to(divisor, x.shape), x * -1.0), r * -1.0, q)


@triton.jit
def _divide_rare(x, lift, divisor, reciprocal):
    return tl.where(tl.abs(x) == float("inf"), x, _divide(x * lift, divisor, reciprocal))


@triton.jit
def quotient(x, s, rare, power_of_two: tl.constexpr):
    """x / s in float32, correctly rounded; s broadcasts against x. Inf stays inf and NaN stays NaN.

    A division an element would bind before memory does. Instead Markstein's correction (IBM J. Res. Dev. 34(1), 1990,
    theorem 8): with r the rounded reciprocal, q = x r is off by an ulp or two, and q - (q s - x) r rounds to x / s;
    in this order a zero keeps its sign. `rare` tiles are lifted away from subnormal remainders, and inf is put back
    over inf - inf. By a power of two, x r is exact already. The branches of a program meet here, before the conversion
    to E4M3 (which saturates): codes that cross a branch would cost a register each.
    """
    lift, divisor, reciprocal = divisor_of(s, rare, power_of_two)
    if power_of_two:
        return x * reciprocal
    else:
        if rare:  # noqa: SIM108  (Triton has no conditional expression on tensors)
            q = _divide_rare(x, lift, divisor, reciprocal)
        else:
            q = _divide(x, divisor, reciprocal)
        return q


@triton.jit
def quantize_tiles(x, power_of_two: tl.constexpr):
    """x float32 [T, 128], a tile a row -> E4M3 codes [T, 128], scales [T, 1]."""
    amax = tl.max(tl.abs(x), axis=1, keep_dims=True)
    rare = any_rare(amax)
    if rare:
        amax = tl.max(finite_magnitude(x), axis=1, keep_dims=True)
    s = e4m3_scale(amax, rare, power_of_two)
    return quotient(x, s, rare, power_of_two).to(tl.float8e4nv), s


@triton.jit
def quantize_turned(a, b, c, d, power_of_two: tl.constexpr):
    """Rows 4i, 4i + 1, 4i + 2, 4i + 3 of a 128-row tile, float32 [32, W] each -> words int32 [W, 32], scales [1, W].

    A word holds the codes of four rows of one column, so that codes turn through shared memory four bytes at a time.
    """
    amax = tl.max(_largest(tl.abs(a), tl.abs(b), tl.abs(c), tl.abs(d)), axis=0, keep_dims=True)
    rare = any_rare(amax)
    if rare:
        finite = _largest(finite_magnitude(a), finite_magnitude(b), finite_magnitude(c), finite_magnitude(d))
        amax = tl.max(finite, axis=0, keep_dims=True)
    s = e4m3_scale(amax, rare, power_of_two)
    lift, divisor, reciprocal = divisor_of(s, rare, power_of_two)
    if power_of_two:
        a, b, c, d = a * reciprocal, b * reciprocal, c * reciprocal, d * reciprocal
    else:
        if rare:
            a = _divide_rare(a, lift, divisor, reciprocal)
            b = _divide_rare(b, lift, divisor, reciprocal)
            c = _divide_rare(c, lift, divisor, reciprocal)
            d = _divide_rare(d, lift, divisor, reciprocal)
        else:
            a = _divide(a, divisor, reciprocal)
            b = _divide(b, divisor, reciprocal)
            c = _divide(c, divisor, reciprocal)
            d = _divide(d, divisor, reciprocal)
    low, high = e4m3_bits(a) | (e4m3_bits(b) << 8), e4m3_bits(c) | (e4m3_bits(d) << 8)
    return tl.trans(low | (high << 16)), s


@triton.jit
def _largest(a, b, c, d):
    return tl.maximum(tl.maximum(a, b), tl.maximum(c, d))


@triton.jit
def e4m3_bits(x):
    """int32 with the E4M3 code in its low byte."""
    return x.to(tl.float8e4nv).to(tl.uint8, bitcast=True).to(tl.int32)


@triton.jit
def row_tiles(tile, tiles_per_row, columns):
    """Rows [T, 1], columns [T, 128] and the mask of 1x128 tiles with the given running numbers [T]."""
    row = tile // tiles_per_row
    column = (tile - row * tiles_per_row)[:, None] * 128 + tl.arange(0, 128)[None, :]
    return row.to(tl.int64)[:, None], column, column < columns


@triton.jit
def place_of(s, tile, row, rows, tiles_per_row):
    """Where the scale of a tile lies: those of all rows side by side, as the products copy them (kernels/wgmma.py)."""
    return s + (tile % tiles_per_row).to(tl.int64) * rows + row


@triton.jit
def _quantize_rows(
    x, q, s, rows, columns, stride, tiles_per_row, block: tl.constexpr, power_of_two: tl.constexpr
):  # fmt: skip
    down = tl.program_id(0) // tiles_per_row
    tile = tl.program_id(0) - down * tiles_per_row
    row = down * block + tl.arange(0, block)[:, None]
    column = tile * 128 + tl.arange(0, 128)[None, :]
    inside = row < rows
    mask = inside & (column < columns)
    place = row.to(tl.int64)
    value = tl.load(x + place * stride + column, mask=mask, other=0.0).to(tl.float32)
    code, scale = quantize_tiles(value, power_of_two)
    tl.store(q + place * columns + column, code, mask=mask)
    tl.store(s + tile.to(tl.int64) * rows + row, scale, mask=inside)


@triton.jit
def _load_row_of_four(x, x_s, row, column, rows, columns, stride, scale_stride, scale_column, coded: tl.constexpr):
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    value = tl.load(x + row.to(tl.int64)[:, None] * stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
    if coded:
        value = value * tl.load(x_s + row * scale_stride + scale_column, mask=row < rows, other=1.0)[:, None]
    return value


@triton.jit
def _store_words(words, q, tile, column, columns, words_per_column):
    word = tile * 32 + tl.arange(0, 32)
    mask = (column < columns)[:, None] & (word < words_per_column)[None, :]
    tl.store(q + column.to(tl.int64)[:, None] * words_per_column + word[None, :], words, mask=mask)


@triton.jit
def store_turned(words, s, q, q_s, tile, column, columns, words_per_column):
    """Write the words [W, 32] and scales [1, W] of one tile of 128 rows and W columns."""
    _store_words(words, q, tile, column, columns, words_per_column)
    tl.store(q_s + (tile * columns + column)[None, :], s, mask=(column < columns)[None, :])


@triton.jit
def _quantize_columns(
    x, x_s, q, s, rows, columns, stride, scale_stride, scale_step, words_per_column,
    width: tl.constexpr, coded: tl.constexpr, power_of_two: tl.constexpr,
):  # fmt: skip
    """coded: x is E4M3 with 1x128 scales x_s; otherwise x is plain and x_s unused."""
    blocks = tl.cdiv(columns, width)
    tile = tl.program_id(0) // blocks
    first = (tl.program_id(0) - tile * blocks) * width
    row, column, block = tile * 128 + 4 * tl.arange(0, 32), first + tl.arange(0, width), first // 128 * scale_step
    a = _load_row_of_four(x, x_s, row, column, rows, columns, stride, scale_stride, block, coded)
    b = _load_row_of_four(x, x_s, row + 1, column, rows, columns, stride, scale_stride, block, coded)
    c = _load_row_of_four(x, x_s, row + 2, column, rows, columns, stride, scale_stride, block, coded)
    d = _load_row_of_four(x, x_s, row + 3, column, rows, columns, stride, scale_stride, block, coded)
    words, scale = quantize_turned(a, b, c, d, power_of_two)
    store_turned(words, scale, q, s, tile, column, columns, words_per_column)


@triton.jit
def _bytes_of_row(x, row, column, rows, columns, stride):
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(x + row.to(tl.int64)[:, None] * stride + column[None, :], mask=mask, other=0).to(tl.int32)


@triton.jit
def _transpose_codes(x, out, rows, columns, stride, words_per_column, width: tl.constexpr):
    """128 rows by `width` columns of bytes, four rows a word, so that words turn through shared memory."""
    blocks = tl.cdiv(columns, width)
    tile = tl.program_id(0) // blocks
    column = (tl.program_id(0) - tile * blocks) * width + tl.arange(0, width)
    row = tile * 128 + 4 * tl.arange(0, 32)
    low = _bytes_of_row(x, row, column, rows, columns, stride)
    low |= _bytes_of_row(x, row + 1, column, rows, columns, stride) << 8
    high = _bytes_of_row(x, row + 2, column, rows, columns, stride)
    high |= _bytes_of_row(x, row + 3, column, rows, columns, stride) << 8
    _store_words(tl.trans(low | (high << 16)), out, tile, column, columns, words_per_column)


@triton.jit
def _load_strip(w, strip: tl.constexpr, rows, columns, stride):
    """32 rows of this program's block, as float32, with their places and mask."""
    row = tl.program_id(1) * 128 + strip * 32 + tl.arange(0, 32)
    column = tl.program_id(0) * 128 + tl.arange(0, 128)
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    place = row.to(tl.int64)[:, None]
    value = tl.load(w + place * stride + column[None, :], mask=mask, other=0.0).to(tl.float32)
    return value, place * columns + column[None, :], mask


@triton.jit
def _quantize_blocks(w, q, s, rows, columns, stride, power_of_two: tl.constexpr):
    """Reads each block twice, the second time from L1: holding it in registers would leave one program an SM."""
    largest = tl.zeros((32, 128), tl.float32)
    for strip in tl.static_range(4):
        value, _, _ = _load_strip(w, strip, rows, columns, stride)
        largest = tl.maximum(largest, tl.abs(value))
    amax = tl.max(tl.max(largest, axis=1, keep_dims=True), axis=0, keep_dims=True)
    rare = any_rare(amax)
    if rare:
        largest = tl.zeros((32, 128), tl.float32)
        for strip in tl.static_range(4):
            value, _, _ = _load_strip(w, strip, rows, columns, stride)
            largest = tl.maximum(largest, finite_magnitude(value))
        amax = tl.max(tl.max(largest, axis=1, keep_dims=True), axis=0, keep_dims=True)
    scale = e4m3_scale(amax, rare, power_of_two)
    for strip in tl.static_range(4):
        value, place, mask = _load_strip(w, strip, rows, columns, stride)
        tl.store(q + place, quotient(value, scale, rare, power_of_two).to(tl.float8e4nv), mask=mask)
    here = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    tl.store(s + here + tl.zeros((1, 1), tl.int32), scale)


@triton.jit
def _dequantize(
    q, s, out, rows, columns, stride, scale_stride, scale_step, tiles_per_row,
    block: tl.constexpr, rows_per_scale: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) * block + tl.arange(0, block)
    row, column, mask = row_tiles(tile, tiles_per_row, columns)
    inside = tile < rows * tiles_per_row
    mask = mask & inside[:, None]
    value = tl.load(q + row * stride + column, mask=mask, other=0.0).to(tl.float32)
    line = tile // tiles_per_row
    where = line // rows_per_scale * scale_stride + (tile - line * tiles_per_row) * scale_step
    scale = tl.load(s + where, mask=inside, other=1.0)
    tl.store(out + row * columns + column, (value * scale[:, None]).to(out.dtype.element_ty), mask=mask)


def quantize_rows(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, K] in 1x128 tiles -> q e4m3 [M, K], s float32 [M, ceil(K/128)]."""
    x = matrix(x)
    m, k = x.shape
    tiles = tiles_of(k)
    q, s = codes(x, m, k), scales(x, m, tiles)
    if x.numel():
        grid = (triton.cdiv(m, ROW_TILES) * tiles,)
        _quantize_rows[grid](x, q, s, m, k, x.stride(0), tiles, ROW_TILES, power_of_two, num_warps=4)
    return q, s


def quantize_columns(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, K] in 128x1 tiles, transposed -> q e4m3 [K, M] (contiguous), s float32 [K, ceil(M/128)]."""
    return _columns(matrix(x), None, power_of_two)


def requantize_columns(q: Tensor, s: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """Row-quantised q e4m3 [M, K], s [M, ceil(K/128)] -> its 128x1 tiles, transposed: q [K, M], s [K, ceil(M/128)]."""
    check_scales(q, s, 1)
    return _columns(matrix(q), s, power_of_two)


def quantize_blocks(w: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """w [N, K] in 128x128 blocks -> q e4m3 [N, K], s float32 [ceil(N/128), ceil(K/128)]."""
    w = matrix(w)
    n, k = w.shape
    q, s = codes(w, n, k), w.new_empty(tiles_of(n), tiles_of(k), dtype=torch.float32)
    if w.numel():
        _quantize_blocks[tiles_of(k), tiles_of(n)](w, q, s, n, k, w.stride(0), power_of_two, num_warps=8)
    return q, s


def dequantize_rows(q: Tensor, s: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """q e4m3 [M, K] with s [M, ceil(K/128)] -> [M, K] in dtype."""
    return _plain(q, s, dtype, 1)


def dequantize_blocks(q: Tensor, s: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """q e4m3 [N, K] with s [ceil(N/128), ceil(K/128)] -> [N, K] in dtype."""
    return _plain(q, s, dtype, TILE)


def transpose_codes(q: Tensor) -> Tensor:
    """q e4m3 [N, K] -> [K, N] contiguous: a weight's codes for its input gradient (its blocks' scales turn apart)."""
    q = matrix(q)
    n, k = q.shape
    words = q.new_empty(k, -(-n // 4), dtype=torch.int32)
    if q.numel():
        grid = (tiles_of(n) * triton.cdiv(k, TRANSPOSE_WIDTH),)
        shape = (n, k, q.stride(0), words.shape[1])
        _transpose_codes[grid](q.view(torch.uint8), words, *shape, TRANSPOSE_WIDTH, num_warps=8)
    return cut(words, n)


def _columns(x: Tensor, x_s: Tensor | None, power_of_two: bool) -> tuple[Tensor, Tensor]:
    m, k = x.shape
    words, s = turned(x, k, m)
    if x.numel() and columns.takes(x):
        q = words.view(torch.float8_e4m3fn)
        columns.turn(x, x_s, q, s, power_of_two, available(x, None))
        return q, s
    if x.numel():
        old, strides = (s, (0, 0)) if x_s is None else (x_s, x_s.stride())
        shape = (m, k, x.stride(0), *strides, words.stride(0))
        grid = (tiles_of(m) * triton.cdiv(k, COLUMN_WIDTH),)
        _quantize_columns[grid](x, old, words, s, *shape, COLUMN_WIDTH, x_s is not None, power_of_two, num_warps=8)
    return cut(words, m), s


def turned(x: Tensor, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """Uninitialised words int32 [columns, ceil(rows/4)] of four codes, and scales [columns, ceil(rows/128)]."""
    count = -(-rows // 4)
    words = x.new_empty(columns, count + (PAD if rows % (8 * TILE) == 0 else 0), dtype=torch.int32)[:, :count]
    return words, scales(x, columns, tiles_of(rows))


def scales(x: Tensor, rows: int, tiles: int) -> Tensor:
    """Uninitialised float32 [rows, tiles] in which the rows' scales of a tile column lie side by side."""
    return x.new_empty(tiles, rows, dtype=torch.float32).t()


def cut(words: Tensor, rows: int) -> Tensor:
    """The words as E4M3 [columns, rows]: a view when 4 divides rows, else a copy."""
    bytes_ = words.view(torch.uint8)[:, :rows]
    return (bytes_.contiguous() if rows % 4 else bytes_).view(torch.float8_e4m3fn)


def _plain(q: Tensor, s: Tensor, dtype: torch.dtype, rows_per_scale: int) -> Tensor:
    check_scales(q, s, rows_per_scale)
    q = matrix(q)
    m, k = q.shape
    out = q.new_empty(m, k, dtype=dtype)
    if q.numel():
        tiles = tiles_of(k)
        grid = (triton.cdiv(m * tiles, ROW_TILES),)
        _dequantize[grid](q, s, out, m, k, q.stride(0), *s.stride(), tiles, ROW_TILES, rows_per_scale, num_warps=4)
    return out


def tiles_of(length: int) -> int:
    """Tiles of 128 that cover `length` elements."""
    return -(-length // TILE)


def matrix(x: Tensor) -> Tensor:
    """x, copied only if its rows are not contiguous. Raises ValueError unless it is a matrix."""
    if x.dim() != 2:
        raise ValueError(f"a matrix is needed; got shape {list(x.shape)}")
    return x if x.stride(1) == 1 else x.contiguous()


def codes(x: Tensor, rows: int, columns: int) -> Tensor:
    """An uninitialised E4M3 matrix beside x."""
    return x.new_empty(rows, columns, dtype=torch.float8_e4m3fn)


def check_scales(q: Tensor, s: Tensor, rows_per_scale: int) -> None:
    """Raises ValueError when s does not cover q in tiles of rows_per_scale x 128."""
    expected = (-(-q.shape[0] // rows_per_scale), tiles_of(q.shape[1]))
    if tuple(s.shape) != expected:
        tiles = f"{rows_per_scale}x128 tiles"
        raise ValueError(f"{list(q.shape)} codes in {tiles} have {list(expected)} scales; got {list(s.shape)}")
