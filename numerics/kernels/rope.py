"""Rotary position embedding, forward and backward. `numerics.reference.rope`.

Bound by device memory: 2 N bytes read and 2 N written for N elements in BF16 (the tables are small and stay in L2).
x may be a slice of a wider projection: its last dimension must be contiguous, the others may have any stride.
"""

import triton
import triton.language as tl
from torch import Tensor

from numerics.reference.rope import check, rope_tables, yarn_frequencies, yarn_temperature

__all__ = ["rope", "rope_backward", "rope_tables", "yarn_frequencies", "yarn_temperature"]

ELEMENTS = 2048
"""Elements a program of 4 warps turns: two 16-byte loads a thread."""


@triton.jit
def _rope(
    x, cos, sin, y, lines, heads, length, stride_b, stride_s, stride_h,
    d: tl.constexpr, block: tl.constexpr, direction: tl.constexpr,
):  # fmt: skip
    """A line is the d elements of one head at one position of one sequence."""
    line = tl.program_id(0) * block + tl.arange(0, block)
    inside = (line < lines)[:, None]
    token = line // heads
    batch = token // length
    position = token - batch * length
    start = batch.to(tl.int64) * stride_b + position.to(tl.int64) * stride_s + (line - token * heads) * stride_h
    element = tl.arange(0, d)[None, :]
    value = tl.load(x + start[:, None] + element, mask=inside, other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(value, (block, d // 2, 2)))
    angle = position[:, None] * (d // 2) + tl.arange(0, d // 2)[None, :]
    c = tl.load(cos + angle, mask=inside, other=0.0)
    s = tl.load(sin + angle, mask=inside, other=0.0) * direction
    turned = tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (block, d))
    tl.store(y + line.to(tl.int64)[:, None] * d + element, turned.to(y.dtype.element_ty), mask=inside)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, S, H, d], cos and sin float32 [S, d/2] -> [B, S, H, d] in x's dtype. d must be a power of two."""
    return _turn(x, cos, sin, 1.0)


def rope_backward(dy: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """dy [B, S, H, d] -> dx: the same turn the other way."""
    return _turn(dy, cos, sin, -1.0)


def _turn(x: Tensor, cos: Tensor, sin: Tensor, direction: float) -> Tensor:
    check(x, cos, sin)
    b, length, heads, d = x.shape
    if d & (d - 1):
        raise ValueError(f"the kernel takes a power of two of rotary elements; got {d}")
    x = x if x.stride(-1) == 1 else x.contiguous()
    y = x.new_empty(x.shape)
    if x.numel():
        block = max(1, ELEMENTS // d)
        lines = b * length * heads
        shape = (lines, heads, length, *x.stride()[:3])
        grid = (triton.cdiv(lines, block),)
        _rope[grid](x, cos.contiguous(), sin.contiguous(), y, *shape, d, block, direction, num_warps=4)
    return y
