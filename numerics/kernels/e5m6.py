"""E5M6 storage of the attention output: 12 bits an element, power-of-two 1x128 scales. `numerics.reference.casts`.

Bound by device memory. Store: 2 MK bytes read (BF16), 1.5 MK + MK/32 written; load: the reverse. Eight elements are
three 32-bit words. E5M6 is the upper 12 bits of a half-precision float, so a code decodes as one.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.kernels import e5m6_pack
from numerics.kernels.casts import finite_magnitude, matrix, power_of_two_scale, reciprocal_of, row_tiles, tiles_of

E5M6_MAX_CODE = tl.constexpr(0x7BF)
E5M6_NAN = tl.constexpr(0x7E0)
"""Codes of the largest finite number, 65024 = (1 + 63/64) 2^15, and of the quiet NaN (hwmodels.formats)."""
STORE_TILES = 32
GROUP = 8
"""Elements in three words."""


@triton.jit
def encode_e5m6(x):
    """int32 codes of float32 x: nearest even, subnormals kept, saturating; NaN positive and quiet."""
    bits = x.to(tl.int32, bitcast=True)
    magnitude = tl.abs(x)
    body = magnitude.to(tl.int32, bitcast=True)
    # 17 of 23 fraction bits go; the exponent bias drops from 127 to 15.
    normal = ((body + 0xFFFF + ((body >> 17) & 1)) >> 17) - (112 << 6)
    # Below 2^-14 the quantum is 2^-20, which is the last bit of numbers in [8, 16).
    subnormal = (magnitude + 8.0).to(tl.int32, bitcast=True) - 0x41000000
    code = tl.minimum(tl.where(magnitude < 2.0**-14, subnormal, normal), E5M6_MAX_CODE)
    return tl.where(x != x, E5M6_NAN, code | ((bits >> 20) & 0x800))


@triton.jit
def _store(x, packed, s, rows, columns, stride, words, tiles_per_row, block: tl.constexpr):
    """words: 32-bit words a packed row."""
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = tile < rows * tiles_per_row
    row, column, mask = row_tiles(tile, tiles_per_row, columns)
    value = tl.load(x + row * stride + column, mask=mask & inside[:, None], other=0.0).to(tl.float32)
    scale = power_of_two_scale(tl.max(finite_magnitude(value), axis=1), 15, 0x7E0000)
    tl.store(s + tile, scale, mask=inside)
    code = encode_e5m6(value * reciprocal_of(scale, True)[:, None])
    even, odd = tl.split(tl.reshape(code, (block, 64, 2)))
    _store_pairs(even | (odd << 12), packed, rows, words, tiles_per_row, block)


@triton.jit
def _store_pairs(pair, packed, rows, words, tiles_per_row, block: tl.constexpr):
    """Write pairs [T, 64] of codes, 24 bits each."""
    first, second = tl.split(tl.reshape(pair, (block, 16, 2, 2)))
    a, c = tl.split(first)
    b, d = tl.split(second)
    # Words of a group, then one unused: those that count move together in shared memory, four to a store of 16 bytes.
    low, high = a | (b << 24), ((c >> 16) & 0xFF) | (d << 8)
    middle = ((b >> 8) & 0xFFFF) | (c << 16)
    loose = tl.reshape(tl.join(tl.join(low, high), tl.join(middle, d)), (block * 64,))
    vector = tl.arange(0, block * 16)
    word = 4 * vector[:, None] + tl.arange(0, 4)[None, :]
    word = tl.minimum(word, block * 48 - 1)
    tight = tl.gather(loose, tl.reshape(word // 3 * 4 + word % 3, (block * 64,)), 0)
    tile = tl.program_id(0) * block + vector // 12
    line = tile // tiles_per_row
    first = (tile - line * tiles_per_row) * 48 + vector % 12 * 4
    within = first[:, None] + tl.arange(0, 4)[None, :]
    kept = ((vector < block * 12) & (tile < rows * tiles_per_row))[:, None] & (within < words)
    tl.store(packed + (line.to(tl.int64) * words)[:, None] + within, tl.reshape(tight, (block * 16, 4)), mask=kept)


@triton.jit
def _load(packed, s, out, rows, columns, words, tiles_per_row, block: tl.constexpr):
    tile = tl.program_id(0) * block + tl.arange(0, block)
    inside = tile < rows * tiles_per_row
    row, column, mask = row_tiles(tile, tiles_per_row, columns)
    line = tile // tiles_per_row
    group = (tile - line * tiles_per_row)[:, None] * 16 + tl.arange(0, 16)[None, :]
    place = packed + row * words + group * 3
    kept = inside[:, None] & (group * 3 < words)
    low = tl.load(place, mask=kept, other=0)
    middle = tl.load(place + 1, mask=kept, other=0)
    high = tl.load(place + 2, mask=kept, other=0)
    a, b = low & 0xFFFFFF, ((low >> 24) & 0xFF) | ((middle & 0xFFFF) << 8)
    c, d = ((middle >> 16) & 0xFFFF) | ((high & 0xFF) << 16), (high >> 8) & 0xFFFFFF
    pairs = tl.join(tl.join(a, c), tl.join(b, d))
    code = tl.reshape(tl.join(pairs & 0xFFF, pairs >> 12), (block, 128))
    value = (code << 4).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    scale = tl.load(s + tile, mask=inside, other=1.0)
    value = (value * scale[:, None]).to(out.dtype.element_ty)
    tl.store(out + row * columns + column, value, mask=mask & inside[:, None])


def store_e5m6(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [M, K] -> packed uint8 [M, ceil(12 K / 8)], s float32 [M, ceil(K/128)]. One more copy unless 8 divides K."""
    x = matrix(x)
    m, k = x.shape
    words, tiles = words_of(k), tiles_of(k)
    packed = x.new_empty(m, words, dtype=torch.int32)
    s = x.new_empty(m, tiles, dtype=torch.float32)
    if x.numel():
        if e5m6_pack.takes(x):
            e5m6_pack.store(x, packed, s)
        else:
            grid = (triton.cdiv(m * tiles, STORE_TILES),)
            _store[grid](x, packed, s, m, k, x.stride(0), words, tiles, STORE_TILES, num_warps=4)
    return packed.view(torch.uint8)[:, : (12 * k + 7) // 8].contiguous(), s


def load_e5m6(packed: Tensor, s: Tensor, k: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The inverse of `store_e5m6` -> [M, k] in dtype. One more copy unless 8 divides k."""
    m, bytes_a_row = packed.shape
    if bytes_a_row != (12 * k + 7) // 8:
        raise ValueError(f"{k} E5M6 elements take {(12 * k + 7) // 8} bytes a row; got {bytes_a_row}")
    words, tiles = words_of(k), tiles_of(k)
    whole = torch.nn.functional.pad(packed, (0, 4 * words - bytes_a_row)) if bytes_a_row < 4 * words else packed
    out = s.new_empty(m, k, dtype=dtype)
    if out.numel():
        grid = (triton.cdiv(m * tiles, STORE_TILES),)
        source = whole.contiguous().view(torch.int32)
        _load[grid](source, s.contiguous(), out, m, k, words, tiles, STORE_TILES, num_warps=4)
    return out


def words_of(k: int) -> int:
    """32-bit words a packed row of k elements, in whole groups of eight."""
    return -(-k // GROUP) * 3
