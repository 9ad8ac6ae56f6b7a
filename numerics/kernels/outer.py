# ruff: noqa: N803, N806, RUF059 - N, K and constants are capitals; roles unpack what they share
"""FP8 weight gradients group by group on Hopper, in Gluon: [G, N, K] = A B^T over each group's own span of rows.

The form that numerics/kernels/by_group.py's `grouped_wgrad` takes on a card: experts, whose spans only the device
knows, or spans of a dense layer with few outputs. That file's Triton kernel is the twin that the interpreter runs, with
equal bits. The roles are numerics/kernels/wgmma.py's: a warp that loads, two warpgroups that multiply 64 rows each;
here a tile's depth is its group's, and C is written, not added to.
"""

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from hwmodels.formats import TILE
from numerics.kernels.cluster import WARPS, alone, rewriting
from numerics.kernels.wgmma import boxes, by_column, runs
from numerics.kernels.wgmma_sums import give, multiply
from numerics.kernels.wgmma_tiles import WEIGHT, advance

ROWS, STAGES, REGISTERS = 128, 5, 168
"""Rows of a tile, by 128 columns; slots of 128 rows of both operands; the cap at launch, as wgmma's two consumers."""


def takes(a: Tensor, b: Tensor, promote: int) -> bool:
    """Whether this card and these operands suit: Hopper, promoted, rows that the copy engine can address, and an N that
    no box of 64 rows leaves."""
    here = a.is_meta or (a.is_cuda and torch.cuda.get_device_capability(a.device) == (9, 0))
    aligned = all(x.stride(-1) == 1 and not (x.stride(0) | x.data_ptr()) % 16 for x in (a, b))
    return here and promote == TILE and aligned and not a.shape[0] % 64 and not b.shape[0] % 4


def outer(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, offsets: Tensor, out: Tensor, sms: int) -> None:
    """out FP32 [G, N, K] from a [N, R], b [K, R], a_s and b_s a scale each 128 of R; offsets int32 [G + 1]."""
    groups, n, k = out.shape
    a_s, b_s = by_column(a_s), by_column(b_s)
    tiles = -(-n // ROWS), -(-k // 128)
    with rewriting():
        _outer[(min(groups * tiles[0] * tiles[1], sms),)](
            boxes(a, ROWS, 128), boxes(b, 128, 128), runs(a_s, ROWS), runs(b_s, 128), boxes(out.flatten(0, 1), 64, 64),
            offsets, n, *tiles, groups, a_s.stride(1), b_s.stride(1), SLOTS=STAGES, num_warps=4, maxnreg=REGISTERS,
        )  # fmt: skip


@gluon.jit(do_not_specialize=["N", "tiles_n", "tiles_k", "groups", "stride_a_s", "stride_b_s"])
def _outer(
    a, b, a_s, b_s, c, offsets, N, tiles_n, tiles_k, groups, stride_a_s, stride_b_s, SLOTS: gl.constexpr
):  # fmt: skip
    x = gl.allocate_shared_memory(a.dtype, [2 * SLOTS, 64, 128], a.layout)
    y = gl.allocate_shared_memory(b.dtype, [SLOTS, 128, 128], b.layout)
    x_s = gl.allocate_shared_memory(gl.float32, [2 * SLOTS, 64], a_s.layout)
    y_s = gl.allocate_shared_memory(gl.float32, [SLOTS, 128], b_s.layout)
    out = gl.allocate_shared_memory(c.dtype, [2, 64, 64], c.layout)
    full = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(SLOTS):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2 * WARPS)
    fence_async_shared()
    alone()
    given = (a, b, a_s, b_s, c, offsets)
    shared = (x, y, x_s, y_s, out, full, empty)
    sizes = (N, tiles_n, tiles_k, groups, stride_a_s, stride_b_s)
    gl.warp_specialize(
        [
            (_consume, (given, shared, sizes, 0, SLOTS)),
            (_consume, (given, shared, sizes, 1, SLOTS)),
            (_load, (given, shared, sizes, SLOTS)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def _place(tile, offsets, sizes):
    """A tile's group, row and column within it, and the first block of 128 and the number of blocks of its depth."""
    N, tiles_n, tiles_k, groups, stride_a_s, stride_b_s = sizes
    group = tile // (tiles_n * tiles_k)
    within = tile % (tiles_n * tiles_k)
    first = gl.load(offsets + group) // 128
    return group, within % tiles_n * 128, within // tiles_n * 128, first, gl.load(offsets + group + 1) // 128 - first


@gluon.jit
def _load(given, shared, sizes, SLOTS: gl.constexpr):
    a, b, a_s, b_s, c, offsets = given
    x, y, x_s, y_s, out, full, empty = shared
    N, tiles_n, tiles_k, groups, stride_a_s, stride_b_s = sizes
    rows = x._reinterpret(a.dtype, [SLOTS, 128, 128], a.layout)
    scales = x_s._reinterpret(gl.float32, [SLOTS, 128], a_s.layout)
    slot = 0
    phase = 1
    for tile in range(gl.program_id(0), groups * tiles_n * tiles_k, gl.num_programs(0)):
        group, row, col, first, depth = _place(tile, offsets, sizes)
        for block in range(first, first + depth):
            bar = full.index(slot)
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(bar, 256 * 128 + 4 * 256)
            tma.async_copy_global_to_shared(b, [col, block * 128], bar, y.index(slot))
            tma.async_copy_global_to_shared(b_s, [block * stride_b_s + col], bar, y_s.index(slot))
            tma.async_copy_global_to_shared(a, [row, block * 128], bar, rows.index(slot))
            tma.async_copy_global_to_shared(a_s, [block * stride_a_s + row], bar, scales.index(slot))
            slot, phase = advance(slot, phase, SLOTS)


@gluon.jit
def _consume(given, shared, sizes, INDEX: gl.constexpr, SLOTS: gl.constexpr):
    a, b, a_s, b_s, c, offsets = given
    x, y, x_s, y_s, out, full, empty = shared
    N, tiles_n, tiles_k, groups, stride_a_s, stride_b_s = sizes
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    buffers = (x, y, y, x_s, y_s, out, out, full, empty)
    slot = 0
    phase = 0
    if INDEX == 1:
        give(0)
    for tile in range(gl.program_id(0), groups * tiles_n * tiles_k, gl.num_programs(0)):
        group, row, col, first, depth = _place(tile, offsets, sizes)
        total = gl.zeros([64, 128], gl.float32, layout)
        beside = total
        for _ in range(depth):
            mbarrier.wait(full.index(slot), phase)
            total, beside = multiply(total, beside, 1.0, 1.0, slot, phase, buffers, INDEX, WEIGHT, 2, 128, 1)
            slot, phase = advance(slot, phase, SLOTS)
        _write(c, total, out.index(INDEX), group * N, row + 64 * INDEX, N, col)
    tma.store_wait(0)


@gluon.jit
def _write(c, total, out, base, row, N, col):
    """A consumer's rows of C, 64 columns at a time; none past its group's last."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 32])
    left, right = total.reshape([64, 2, 64]).permute([0, 2, 1]).split()
    tma.store_wait(0)
    out.store(gl.convert_layout(left, layout, assert_trivial=True))
    fence_async_shared()
    if row < N:
        tma.async_copy_shared_to_global(c, [base + row, col], out)
    tma.store_wait(0)
    out.store(gl.convert_layout(right, layout, assert_trivial=True))
    fence_async_shared()
    if row < N:
        tma.async_copy_shared_to_global(c, [base + row, col + 64], out)
