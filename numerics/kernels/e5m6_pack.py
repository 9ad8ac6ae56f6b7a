# ruff: noqa: N803 - constants are capitals
"""E5M6 storage on Hopper, in Gluon: eight numbers a thread, 16 bytes in, and 16 bytes out of three threads of four.

The form that numerics/kernels/e5m6.py takes of BF16 on a card where rows are whole tiles without gaps; its Triton
kernel is the twin that the interpreter runs, with equal bits. Bound: device memory.

Eight threads share a tile. A number times the reciprocal of its tile's scale, a power of two, is rounded to multiples
of 2^-20, the quantum of E5M6's subnormal numbers, by adding 12 and taking it away again; FP16 then has it exactly,
normal numbers with one bit too many. A program that met an infinity or NaN writes its tiles once more, with care.
"""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from hwmodels.formats import TILE

PAIRS, WARPS = 2, 8
"""Pairs of eights of a tile a thread, all on their way at once, and warps of a program."""


def takes(x: Tensor) -> bool:
    """Whether this card and matrix suit: Hopper, BF16, rows of whole tiles one behind the other."""
    here = x.is_meta or (x.is_cuda and torch.cuda.get_device_capability(x.device) == (9, 0))
    return here and x.dtype == torch.bfloat16 and x.is_contiguous() and not (x.shape[1] % TILE or x.data_ptr() % 16)


def store(x: Tensor, packed: Tensor, s: Tensor) -> None:
    """packed int32 [M, 12 K / 32] and s [M, K/128] of x [M, K]."""
    eights = x.numel() // 8
    grid = (-(-eights // (64 * WARPS * PAIRS)),)
    _store_eights[grid](x.view(torch.int32), packed, s, eights, PAIRS=PAIRS, WARPS=WARPS, num_warps=WARPS)


@gluon.constexpr_function
def _pairs(pairs, warps):
    """A number a thread and pair, those of a warp side by side."""
    more = [1 << i for i in range((pairs - 1).bit_length())]
    warp = [[32 << i] for i in range((warps - 1).bit_length())]
    registers = [[32 * warps * i] for i in more]
    return gl.DistributedLinearLayout(registers, [[1], [2], [4], [8], [16]], warp, [], [32 * warps * pairs])


@gluon.jit
def _store_eights(x, packed, s, eights, PAIRS: gl.constexpr, WARPS: gl.constexpr):
    """A thread has eights 8 apart: eight threads a tile, whose first and second eights are 128 bytes each."""
    pair = gl.arange(0, 32 * WARPS * PAIRS, _pairs(PAIRS, WARPS))
    near = pair // 8 * 16 + pair % 8
    first = gl.program_id(0).to(gl.int64) * (64 * WARPS * PAIRS)
    inside = (near < eights - first).to(gl.int32)
    a, b, c, d = _read(x + first * 4 + near * 4, inside)
    e, f, g, h = _read(x + first * 4 + near * 4 + 32, inside)
    top = _among_eight(_larger(_larger(_larger(a, b), _larger(c, d)), _larger(_larger(e, f), _larger(g, h))))
    _cast(a, b, c, d, e, f, g, h, top, packed, s, first, near, inside, False)
    if gl.max(top, 0) >= 0x7F80:
        a, b, c, d = _read(x + first * 4 + near * 4, inside)
        e, f, g, h = _read(x + first * 4 + near * 4 + 32, inside)
        top = _larger(_larger(_finite(a), _finite(b)), _larger(_finite(c), _finite(d)))
        top = _larger(top, _larger(_larger(_finite(e), _finite(f)), _larger(_finite(g), _finite(h))))
        _cast(a, b, c, d, e, f, g, h, _among_eight(top), packed, s, first, near, inside, True)


@gluon.jit
def _cast(a, b, c, d, e, f, g, h, top, packed, s, first, near, inside, CARE: gl.constexpr):
    """top: the largest magnitude of a tile, a BF16 number's bits."""
    power = (((top << 16) + (0x7FFFFF - 0x7E0000)) & 0x7F800000) - (15 << 23)
    scale = gl.where(top > 0, gl.maximum(power, 1 << 23), 127 << 23)
    reciprocal = ((254 << 23) - scale).to(gl.float32, bitcast=True)
    _write(a, b, c, d, reciprocal, packed, first, near, inside, CARE)
    _write(e, f, g, h, reciprocal, packed, first, near + 8, inside, CARE)
    keeps = (inside != 0) & (near % 8 == 0)
    gl.store(s + first // 16 + near // 16, scale.to(gl.float32, bitcast=True), mask=keeps)


@gluon.jit
def _write(a, b, c, d, reciprocal, packed, first, near, inside, CARE: gl.constexpr):
    a, b = _pair(a, reciprocal, CARE), _pair(b, reciprocal, CARE)
    c, d = _pair(c, reciprocal, CARE), _pair(d, reciprocal, CARE)
    low, middle, high = _bytes(a, b, 0x5321), _bytes(b, c, 0x6532), _bytes(c, d, 0x7653)
    lane = near % 4
    further, next_middle, next_high = _of_next(low), _of_next(middle), _of_next(high)
    one, two = lane == 1, lane == 2
    v0 = gl.where(two, high, gl.where(one, middle, low))
    v1 = gl.where(two, further, gl.where(one, high, middle))
    v2 = gl.where(two, next_middle, gl.where(one, further, high))
    v3 = gl.where(two, next_high, gl.where(one, next_middle, further))
    place = packed + first * 3 + (near // 4 * 12 + lane * 4)
    gl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.s32 p, $6, 0; @p st.global.v4.b32 [$1], {$2, $3, $4, $5}; mov.b32 $0, $6; }",
        "=r,l,r,r,r,r,r", [place.to(gl.int64), v0, v1, v2, v3, inside * (lane < 3).to(gl.int32)],
        dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip


@gluon.jit
def _read(place, inside):
    """Four words of 16 bytes at each place, zeros outside."""
    return gl.inline_asm_elementwise(
        "{ .reg .pred p; setp.ne.s32 p, $5, 0; mov.b32 $0, 0; mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0; "
        "@p ld.global.v4.b32 {$0, $1, $2, $3}, [$4]; }",
        "=&r,=&r,=&r,=&r,l,r", [place.to(gl.int64), inside],
        dtype=(gl.int32, gl.int32, gl.int32, gl.int32), is_pure=False, pack=1,
    )  # fmt: skip


@gluon.jit
def _finite(word):
    """The same, zeros for infinities and NaN."""
    low, high = word & 0x7FFF, (word >> 16) & 0x7FFF
    return gl.where(low < 0x7F80, low, 0) | (gl.where(high < 0x7F80, high, 0) << 16)


@gluon.jit
def _larger(a, b):
    """The larger magnitude of each half of two words, NaN above all, under any sign."""
    return gl.inline_asm_elementwise(
        "max.NaN.xorsign.abs.bf16x2 $0, $1, $2;", "=r,r,r", [a, b], dtype=gl.int32, is_pure=True, pack=1
    )


@gluon.jit
def _among_eight(top):
    """The largest magnitude of eight threads' words."""
    top = gl.inline_asm_elementwise(
        "{ .reg .b32 t, m; shfl.sync.bfly.b32 t, $1, 1, 0x1f, -1; max.NaN.xorsign.abs.bf16x2 m, t, $1; "
        "shfl.sync.bfly.b32 t, m, 2, 0x1f, -1; max.NaN.xorsign.abs.bf16x2 m, t, m; "
        "shfl.sync.bfly.b32 t, m, 4, 0x1f, -1; max.NaN.xorsign.abs.bf16x2 $0, t, m; }",
        "=r,r", [top], dtype=gl.int32, is_pure=False, pack=1,
    )  # fmt: skip
    return gl.maximum(top & 0x7FFF, (top >> 16) & 0x7FFF)


@gluon.jit
def _of_next(word):
    """What the next thread of the warp has."""
    return gl.inline_asm_elementwise(
        "shfl.sync.down.b32 $0, $1, 1, 0x1f, -1;", "=r,r", [word], dtype=gl.int32, is_pure=False, pack=1
    )


@gluon.jit
def _bytes(a, b, ORDER: gl.constexpr):
    """Four of the bytes of two words."""
    return gl.inline_asm_elementwise(
        "prmt.b32 $0, $1, $2, $3;", "=r,r,r,r", [a, b, gl.full_like(a, ORDER)], dtype=gl.int32, is_pure=True, pack=1
    )


@gluon.jit
def _pair(word, reciprocal, CARE: gl.constexpr):
    """The codes of a word's two numbers, in its upper 24 bits."""
    low = (word << 16).to(gl.float32, bitcast=True)
    high = (word & -65536).to(gl.float32, bitcast=True)
    half = gl.inline_asm_elementwise(
        "cvt.rn.f16x2.f32 $0, $1, $2;", "=r,f,f", [_even(high, reciprocal), _even(low, reciprocal)],
        dtype=gl.int32, is_pure=True, pack=1,
    )  # fmt: skip
    half = _chosen(word, half, 0x80008000)
    half += (half >> 1) & 0x00080008
    if CARE:
        half = (_odd(word, half) & 0xFFFF) | (_odd(word >> 16, half >> 16) << 16)
    return _chosen(half, half << 4, 0xFFF00000)


@gluon.jit
def _chosen(a, b, MASK: gl.constexpr):
    """a's bits where the mask has ones, else b's."""
    return gl.inline_asm_elementwise(
        "lop3.b32 $0, $1, $2, $3, 0xE4;", "=r,r,r,r", [a, b, gl.full_like(a, MASK)],
        dtype=gl.int32, is_pure=True, pack=1,
    )  # fmt: skip


@gluon.jit
def _even(x, reciprocal):
    """x reciprocal, in multiples of 2^-20."""
    return gl.fma(x, reciprocal, gl.full_like(x, 12.0)) - 12.0


@gluon.jit
def _odd(number, half):
    """The code of infinity, the largest number's, or of NaN, above four spare bits; of other numbers, half."""
    size = number & 0x7FFF
    half = gl.where(size == 0x7F80, 0x7BF0 | (number & 0x8000), half)
    return gl.where(size > 0x7F80, 0x7E00, half)
