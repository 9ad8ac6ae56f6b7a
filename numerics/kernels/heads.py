"""Latent attention's heads: out of the up-projections and back. `numerics.reference.heads`. Bits: torch's and rope's.

Bound by device memory. For L = B S H lines of n + r and n + v elements in BF16:

    split_heads           2 L (n + v + r) read, 2 L (n + r + v + r) written; the shared key stays in L2
    split_heads_backward  2 L (n + r + v + 2 r) read, 2 L (n + v + r) written
"""

import triton
import triton.language as tl
from torch import Tensor

from numerics.reference.rope import check

LINES = 16
"""Lines (a head of a token) that a program of 4 warps moves: one or two 16-byte loads a thread and part."""
TOKENS = 16
"""Tokens whose heads a program sums."""


@triton.jit
def _turn(value, c, s, block: tl.constexpr, r: tl.constexpr):
    even, odd = tl.split(tl.reshape(value, (block, r // 2, 2)))
    return tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (block, r))


@triton.jit
def _angles(cos, sin, position, inside, direction: tl.constexpr, r: tl.constexpr):
    angle = position[:, None] * (r // 2) + tl.arange(0, r // 2)[None, :]
    c = tl.load(cos + angle, mask=inside, other=0.0)
    return c, tl.load(sin + angle, mask=inside, other=0.0) * direction


@triton.jit
def _move(source, target, first, from_, to, count, inside, block: tl.constexpr):
    """`count` elements of each line."""
    element = tl.arange(0, block)[None, :]
    mask = inside & (element < count)
    tl.store(target + to + element, tl.load(source + from_ + first + element, mask=mask), mask=mask)


@triton.jit
def _split(
    q, kv, shared, cos, sin, k, v, lines, heads, length, stride, n, width,
    r: tl.constexpr, block: tl.constexpr, n_block: tl.constexpr, v_block: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0) * block + tl.arange(0, block)
    inside = (line < lines)[:, None]
    token, wide = line // heads, line.to(tl.int64)[:, None]
    c, s = _angles(cos, sin, token % length, inside, 1.0, r)
    element = tl.arange(0, r)[None, :]
    place = q + wide * (n + r) + n + element
    value = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, _turn(value, c, s, block, r).to(q.dtype.element_ty), mask=inside)
    value = tl.load(shared + token.to(tl.int64)[:, None] * stride + element, mask=inside, other=0.0).to(tl.float32)
    tl.store(k + wide * (n + r) + n + element, _turn(value, c, s, block, r).to(k.dtype.element_ty), mask=inside)
    _move(kv, k, 0, wide * (n + width), wide * (n + r), n, inside, n_block)
    _move(kv, v, n, wide * (n + width), wide * width, width, inside, v_block)


@triton.jit
def _join(
    dq, dk, dv, cos, sin, dkv, lines, heads, length, n, width,
    r: tl.constexpr, block: tl.constexpr, n_block: tl.constexpr, v_block: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0) * block + tl.arange(0, block)
    inside = (line < lines)[:, None]
    wide = line.to(tl.int64)[:, None]
    c, s = _angles(cos, sin, line // heads % length, inside, -1.0, r)
    place = dq + wide * (n + r) + n + tl.arange(0, r)[None, :]
    value = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    tl.store(place, _turn(value, c, s, block, r).to(dq.dtype.element_ty), mask=inside)
    _move(dk, dkv, 0, wide * (n + r), wide * (n + width), n, inside, n_block)
    _move(dv, dkv, 0, wide * width, wide * (n + width) + n, width, inside, v_block)


@triton.jit
def _shared(dk, cos, sin, out, tokens, heads, length, n, r: tl.constexpr, block: tl.constexpr):
    token = tl.program_id(0) * block + tl.arange(0, block)
    inside = (token < tokens)[:, None]
    wide, element = token.to(tl.int64)[:, None], tl.arange(0, r)[None, :]
    total = tl.zeros((block, r), tl.float32)
    for head in range(heads):
        total += tl.load(dk + (wide * heads + head) * (n + r) + n + element, mask=inside, other=0.0).to(tl.float32)
    c, s = _angles(cos, sin, token % length, inside, -1.0, r)
    value = _turn(total.to(dk.dtype.element_ty).to(tl.float32), c, s, block, r)
    tl.store(out + wide * r + element, value.to(out.dtype.element_ty), mask=inside)


def split_heads(q: Tensor, kv: Tensor, shared: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q [B, S, H, n + r], kv [B, S, H, n + v], shared [B, S, r] (before rotation), cos and sin FP32 [S, r / 2] -> q,
    its last r elements turned in place, k [B, S, H, n + r], v [B, S, H, v]. r must be a power of two."""
    (b, length, heads, _), r = q.shape, shared.shape[-1]
    n = _rest(q, r, cos, sin)
    width = kv.shape[-1] - n
    kv = kv.contiguous()
    if shared.stride(-1) != 1 or shared.stride(0) != length * shared.stride(1):
        shared = shared.contiguous()
    k, v = q.new_empty(q.shape), kv.new_empty(b, length, heads, width)
    lines = b * length * heads
    if lines:
        blocks = (r, LINES, triton.next_power_of_2(max(n, 1)), triton.next_power_of_2(width))
        shape = (lines, heads, length, shared.stride(1), n, width, *blocks)
        _split[(triton.cdiv(lines, LINES),)](
            q, kv, shared, cos.contiguous(), sin.contiguous(), k, v, *shape, num_warps=4
        )
    return q, k, v


def split_heads_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk [B, S, H, n + r], dv [B, S, H, v] -> dq with its last r elements turned back in place, dkv [B, S, H,
    n + v], dshared [B, S, r]: summed over heads in FP32, rounded, turned back."""
    (b, length, heads, _), r, width = dq.shape, 2 * cos.shape[1], dv.shape[-1]
    n = _rest(dq, r, cos, sin)
    dk, dv, cos, sin = dk.contiguous(), dv.contiguous(), cos.contiguous(), sin.contiguous()
    dkv, dshared = dk.new_empty(b, length, heads, n + width), dk.new_empty(b, length, r)
    lines, tokens = b * length * heads, b * length
    if lines:
        blocks = (r, LINES, triton.next_power_of_2(max(n, 1)), triton.next_power_of_2(width))
        _join[(triton.cdiv(lines, LINES),)](
            dq, dk, dv, cos, sin, dkv, lines, heads, length, n, width, *blocks, num_warps=4
        )  # fmt: skip
        _shared[(triton.cdiv(tokens, TOKENS),)](
            dk, cos, sin, dshared, tokens, heads, length, n, r, TOKENS, num_warps=4
        )  # fmt: skip
    return dq, dkv, dshared


def _rest(q: Tensor, r: int, cos: Tensor, sin: Tensor) -> int:
    """Elements of q [B, S, H, n + r] that are not turned. Raises ValueError where q cannot be turned in place."""
    check(q[..., q.shape[-1] - r :], cos, sin)
    if r & (r - 1) or not q.is_contiguous():
        raise ValueError(f"a power of two of rotary elements at the end of contiguous heads is turned; got {r}")
    return q.shape[-1] - r
