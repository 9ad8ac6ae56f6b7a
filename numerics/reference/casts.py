"""Quantisation with shared scales: 1x128 rows, 128x1 columns, 128x128 weight blocks, and E5M6 storage.

Source: DeepSeek-V3 report (arXiv 2412.19437) sec 3.3.2: activations in 1x128 tiles and weights in 128x128 blocks,
scales online from the tile's maximum magnitude; sec 3.3.3: the attention output in E5M6 with power-of-two scales, 1x128
tiles turned into 128x1 in the backward pass.

What holds for every function here, and what a kernel must reproduce bit for bit (all arithmetic in float32):
    scale       amax / 448 with amax the largest finite magnitude of the tile, correctly rounded (Triton: `div_rn`);
                at least 2^-126, so that no scale is subnormal; 1 where the tile holds only zeros and non-finite numbers
    power of 2  the smallest power of two not below that scale
    code        E4M3 of x / scale (correctly rounded division, clamped to +-448, to nearest even); -0 keeps its sign
    value       q * scale
    non-finite  inf saturates to +-448 and NaN stays NaN (either sign); neither moves the tile's scale
    ragged      a last tile of fewer than 128 (or 128x128) elements is a tile of its own
Inputs are float32, bfloat16 or float16 matrices.
"""

import torch
from torch import Tensor

from hwmodels.formats import E4M3, E5M6, TILE, Format
from numerics.reference.formats import decode, encode

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""2^-126, the smallest normal float32 and so the smallest scale."""
E4M3_MAX = E4M3.max_finite


def quantize_rows(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, K] in 1x128 tiles -> q e4m3 [M, K], s float32 [M, ceil(K/128)]."""
    s = _scales(_finite(x), 1, TILE, power_of_two)
    return _e4m3(x, _spread(s, x.shape, 1, TILE)), s


def quantize_columns(x: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """x [M, K] in 128x1 tiles, transposed -> q e4m3 [K, M] (contiguous), s float32 [K, ceil(M/128)]."""
    return quantize_rows(x.t().contiguous(), power_of_two)


def requantize_columns(q: Tensor, s: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """Row-quantised q e4m3 [M, K], s [M, ceil(K/128)] -> its 128x1 tiles, transposed: q [K, M], s [K, ceil(M/128)].

    The product q * s is rounded once to float32 before the second quantisation (exact for power-of-two scales).
    """
    return quantize_columns(dequantize_rows(q, s, torch.float32), power_of_two)


def quantize_blocks(w: Tensor, power_of_two: bool = False) -> tuple[Tensor, Tensor]:
    """w [N, K] in 128x128 blocks -> q e4m3 [N, K], s float32 [ceil(N/128), ceil(K/128)]."""
    s = _scales(_finite(w), TILE, TILE, power_of_two)
    return _e4m3(w, _spread(s, w.shape, TILE, TILE)), s


def dequantize_rows(q: Tensor, s: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """q e4m3 [M, K] with s [M, ceil(K/128)] -> [M, K]: float32 product, then one rounding to dtype."""
    return (q.float() * _spread(s, q.shape, 1, TILE)).to(dtype)


def dequantize_blocks(q: Tensor, s: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """q e4m3 [N, K] with s [ceil(N/128), ceil(K/128)] -> [N, K]: float32 product, then one rounding to dtype."""
    return (q.float() * _spread(s, q.shape, TILE, TILE)).to(dtype)


def transpose_codes(q: Tensor) -> Tensor:
    """q e4m3 [N, K] -> [K, N] contiguous: a weight's codes for its input gradient (its blocks' scales turn apart)."""
    return q.view(torch.uint8).t().contiguous().view(q.dtype)


def store_e5m6(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [M, K] -> packed uint8 [M, ceil(12 K / 8)], s float32 [M, ceil(K/128)], powers of two.

    Scales put the tile's maximum at or below 65024. Two codes a, b lie in three bytes, lowest bits first:
    a[7:0], b[3:0] a[11:8], b[11:4]. An odd K leaves the upper half of the last byte zero. Inf saturates; NaN stays.
    """
    s = _scales(_finite(x), 1, TILE, power_of_two=True, fmt=E5M6)
    return pack_12(encode(x.float() / _spread(s, x.shape, 1, TILE), E5M6)), s


def load_e5m6(packed: Tensor, s: Tensor, k: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The inverse of `store_e5m6` -> [M, k]; exact in bfloat16 unless code times scale is subnormal there."""
    values = decode(unpack_12(packed, k), E5M6)
    return (values * _spread(s, values.shape, 1, TILE)).to(dtype)


def pack_12(codes: Tensor) -> Tensor:
    """12-bit codes int32 [M, K] -> uint8 [M, ceil(12 K / 8)], two codes in three bytes, lowest bits first."""
    m, k = codes.shape
    first, second = torch.nn.functional.pad(codes, (0, k % 2)).view(m, -1, 2).unbind(-1)
    triple = torch.stack([first & 0xFF, first >> 8 | (second & 0xF) << 4, second >> 4], dim=-1)
    return triple.to(torch.uint8).view(m, -1)[:, : (12 * k + 7) // 8].contiguous()


def unpack_12(packed: Tensor, k: int) -> Tensor:
    """uint8 [M, ceil(12 k / 8)] -> 12-bit codes int32 [M, k]."""
    if packed.shape[1] != (12 * k + 7) // 8:
        raise ValueError(f"{k} E5M6 elements take {(12 * k + 7) // 8} bytes a row; got {packed.shape[1]}")
    m = packed.shape[0]
    a, b, c = torch.nn.functional.pad(packed.int(), (0, k % 2)).view(m, -1, 3).unbind(-1)
    return torch.stack([a | (b & 0xF) << 8, b >> 4 | c << 4], dim=-1).view(m, -1)[:, :k].contiguous()


def _finite(x: Tensor) -> Tensor:
    """float32 magnitudes of a matrix, with 0 for inf and NaN."""
    if x.dim() != 2 or x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"quantisation takes a float32, bfloat16 or float16 matrix; got {x.dtype} {list(x.shape)}")
    x = x.float().abs()
    return torch.where(torch.isfinite(x), x, 0.0)


def _scales(magnitudes: Tensor, rows: int, columns: int, power_of_two: bool, fmt: Format = E4M3) -> Tensor:
    """float32 [ceil(M/rows), ceil(K/columns)]: what the tile's maximum is divided by to give fmt's largest value."""
    m, k = magnitudes.shape
    padded = torch.nn.functional.pad(magnitudes, (0, -k % columns, 0, -m % rows))
    tiles = padded.view(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    amax = tiles.amax(dim=(1, 3)) if magnitudes.numel() else tiles.new_zeros(tiles.shape[0], tiles.shape[2])
    top = torch.full_like(amax, fmt.max_finite)  # a tensor: by a number, torch multiplies by its reciprocal on a GPU
    s = torch.where(amax > 0, (amax / top).clamp(min=SMALLEST_SCALE), 1.0)
    return ceil_power_of_two(s) if power_of_two else s


def ceil_power_of_two(s: Tensor) -> Tensor:
    """The smallest power of two not below each normal positive float32: a carry out of the fraction bits."""
    return ((s.view(torch.int32) + 0x007FFFFF) & 0x7F800000).view(torch.float32)


def _spread(s: Tensor, shape: torch.Size, rows: int, columns: int) -> Tensor:
    """Scales repeated to the elements they cover, cut to `shape`. Raises ValueError when there are too few or many."""
    m, k = shape
    if s.shape != (-(-m // rows), -(-k // columns)):
        expected = [-(-m // rows), -(-k // columns)]
        raise ValueError(f"a {m}x{k} matrix in {rows}x{columns} tiles has {expected} scales; got {list(s.shape)}")
    return s.repeat_interleave(rows, 0)[:m].repeat_interleave(columns, 1)[:, :k]


def _e4m3(x: Tensor, s: Tensor) -> Tensor:
    """Clamped first: casts of numbers above 448 differ between versions of torch."""
    return (x.float() / s).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
