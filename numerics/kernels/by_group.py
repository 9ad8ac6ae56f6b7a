# ruff: noqa: N803 - M, N, K and constants are capitals, as in every text on matrix products
"""Products of rows that lie group by group, whose bounds only the device knows. `numerics.reference.by_group`.

Bound by the tensor core with thousands of rows a group, by memory with fewer. Weight gradients have few outputs and
many rows, so each group, or each of several spans of rows of a dense layer, has tiles of its own. No atomics: a sum
does not depend on timing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from numerics.kernels import outer
from numerics.kernels.gemm import available

ROWS, COLUMNS, DEPTH = 128, 128, 64
"""Tile of a plain product: 128 rows, so that a tile has one group."""


def grouped_product(x: Tensor, w: Tensor, group_of_row_block: Tensor, turned: bool = False) -> Tensor:
    """[R, N], or with `turned` [R, K], as in numerics.reference.by_group.grouped_product."""
    x = x if x.stride(1) == 1 else x.contiguous()
    w = w.contiguous()
    columns, depth = (w.shape[2], w.shape[1]) if turned else (w.shape[1], w.shape[2])
    out = x.new_empty(x.shape[0], columns)
    if out.numel():
        strides = (w.stride(0), 1, w.stride(1)) if turned else (w.stride(0), w.stride(1), 1)
        grid = (triton.cdiv(columns, COLUMNS), x.shape[0] // ROWS)
        _product[grid](
            x, w, out, group_of_row_block, columns, depth, x.stride(0), *strides, out.stride(0),
            ROWS, COLUMNS, DEPTH, num_warps=8, num_stages=3,
        )  # fmt: skip
    return out


def grouped_outer(a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """FP32 [G, N, K] as in numerics.reference.by_group.grouped_outer."""
    a, b = (x if x.stride(1) == 1 else x.contiguous() for x in (a, b))
    groups, n, k = offsets.shape[0] - 1, a.shape[1], b.shape[1]
    out = a.new_empty(groups, n, k, dtype=torch.float32)
    if out.numel():
        tiles = (triton.cdiv(n, ROWS), triton.cdiv(k, COLUMNS))
        _outer[(tiles[0] * tiles[1], groups)](
            a, b, out, offsets, n, k, a.stride(0), b.stride(0), tiles[1], ROWS, COLUMNS, DEPTH, num_warps=8,
            num_stages=3,
        )  # fmt: skip
    return out


def grouped_wgrad(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, offsets: Tensor, promote: int = 128
) -> Tensor:  # fmt: skip
    """FP32 [G, N, K] as in numerics.reference.by_group.grouped_wgrad; bits of numerics.kernels.wgrad with one group."""
    groups, n, k = offsets.shape[0] - 1, a.shape[0], b.shape[0]
    out = a_s.new_empty(groups, n, k)
    if out.numel() and outer.takes(a, b, promote):
        outer.outer(a, a_s, b, b_s, offsets, out, available(a, None))
    elif out.numel():
        tiles = (triton.cdiv(n, ROWS), triton.cdiv(k, COLUMNS))
        _wgrad[(tiles[0] * tiles[1], groups)](
            a, a_s, b, b_s, out, offsets, n, k, a.stride(0), b.stride(0), *a_s.stride(), *b_s.stride(), tiles[1],
            ROWS, COLUMNS, 128, promote > 0, num_warps=8, num_stages=3,
        )  # fmt: skip
    return out


@triton.jit
def _product(
    x, w, out, table, N, K, stride_x, stride_wg, stride_wn, stride_wk, stride_out,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1) * ROWS
    group = tl.load(table + tl.program_id(1))
    rows = (row + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    weight = w + tl.maximum(group, 0).to(tl.int64) * stride_wg
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, tl.where(group >= 0, K, 0), DEPTH):
        depth = first + tl.arange(0, DEPTH)
        left = tl.load(x + rows[:, None] * stride_x + depth[None, :], mask=depth[None, :] < K, other=0.0)
        inside = (depth[:, None] < K) & (columns[None, :] < N)
        right = tl.load(weight + depth[:, None] * stride_wk + columns[None, :] * stride_wn, mask=inside, other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    place = out + rows[:, None] * stride_out + columns[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=columns[None, :] < N)


@triton.jit
def _outer(
    a, b, out, offsets, N, K, stride_a, stride_b, tiles_k,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    n = tl.program_id(0) // tiles_k * ROWS + tl.arange(0, ROWS)
    k = tl.program_id(0) % tiles_k * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    end = tl.load(offsets + group + 1)
    for first in range(tl.load(offsets + group), end, DEPTH):
        rows = first + tl.arange(0, DEPTH)
        here = (rows < end)[:, None]
        rows = rows.to(tl.int64)[:, None]
        left = tl.load(a + rows * stride_a + n[None, :], mask=here & (n[None, :] < N), other=0.0)
        right = tl.load(b + rows * stride_b + k[None, :], mask=here & (k[None, :] < K), other=0.0)
        total = tl.dot(tl.trans(left), right, total, input_precision="ieee")
    _write(out, total, group, n, k, N, K)


@triton.jit
def _wgrad(
    a, a_s, b, b_s, out, offsets, N, K, stride_a, stride_b, stride_an, stride_ar, stride_bn, stride_br, tiles_k,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, PROMOTE: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1)
    n = tl.program_id(0) // tiles_k * ROWS + tl.arange(0, ROWS)
    k = tl.program_id(0) % tiles_k * COLUMNS + tl.arange(0, COLUMNS)
    left = tl.minimum(n, N - 1).to(tl.int64)
    right = tl.minimum(k, K - 1).to(tl.int64)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for block in range(tl.load(offsets + group) // DEPTH, tl.load(offsets + group + 1) // DEPTH):
        rows = block * DEPTH + tl.arange(0, DEPTH)
        x = tl.load(a + left[:, None] * stride_a + rows[None, :])
        y = tl.load(b + right[:, None] * stride_b + rows[None, :])
        if PROMOTE:
            x_s = tl.load(a_s + left * stride_an + block * stride_ar)
            y_s = tl.load(b_s + right * stride_bn + block * stride_br)
            total += tl.dot(x, tl.trans(y)) * x_s[:, None] * y_s[None, :]
        else:
            total = tl.dot(x, tl.trans(y), total)
    if not PROMOTE:
        total = total * tl.load(a_s + left * stride_an)[:, None] * tl.load(b_s + right * stride_bn)[None, :]
    _write(out, total, group, n, k, N, K)


@triton.jit
def _write(out, total, group, n, k, N, K):
    """A tile of a group's matrix."""
    place = out + (group.to(tl.int64) * N + n[:, None]) * K + k[None, :]
    tl.store(place, total, mask=(n < N)[:, None] & (k < K)[None, :])
