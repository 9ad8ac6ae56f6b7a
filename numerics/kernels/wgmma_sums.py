# ruff: noqa: N803, N806, RUF059 - M, N, K and constants are capitals; roles unpack what they share
"""What a warpgroup of numerics/kernels/wgmma.py does that multiplies: its sums of a tile, promoted, and their storage.

A tile is one sum of 64 rows a warpgroup, or two of 64 x 128 (one below the other, or beside it). Of dense products of
large tiles a sum is stored while products that follow run: the first beside the last of the second, the last beside
the first of the next tile. Of weight gradients, whose two scales an element leave less time, warpgroups take turns:
one begins products when the other has begun its own.
"""

from typing import Any

from triton._C.libtriton import ir
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from numerics.kernels.wgmma_tiles import DENSE, MASKED, WEIGHT, advance, place, walk


@gluon.jit
def consume(
    given, shared, sizes, strides, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """All tiles of a program, of which this warpgroup has 64 rows or twice 64."""
    if MODE == WEIGHT and INDEX == 1:
        give(0)
    if MODE == DENSE and BLOCK_N == 128 and CONSUMERS > 1:
        _ahead(given, shared, sizes, strides, INDEX, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)
    else:
        _one_by_one(given, shared, sizes, strides, INDEX, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)
    tma.store_wait(0)


@gluon.jit
def _one_by_one(
    given, shared, sizes, strides, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """Each tile is stored before the next begins."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c = strides
    WIDE: gl.constexpr = 128 if BLOCK_N > 128 else BLOCK_N
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDE, 32])
    below: gl.constexpr = 64 * PIECES * INDEX
    slot = 0
    phase = 0
    blocks = gl.cdiv(K, 128)
    first, count, step = walk(sizes, PAIR)
    for tile in range(first, count, step):
        row, col, group, filled = place(tile, table, sizes, MODE, 64 * CONSUMERS * PIECES, BLOCK_N, BAND, PAIR)
        total = gl.zeros([64, WIDE], gl.float32, layout)
        beside = gl.zeros([64, WIDE], gl.float32, layout)
        near = 1.0
        far = 1.0
        at, past = _scales(b_s, N, col, group, strides, MODE, BLOCK_N)
        if MODE != WEIGHT:
            near = gl.load(at)
            far = gl.load(past)
        for block in range(gl.where(filled > 0, blocks, 0)):
            next = near
            next_far = far
            if MODE != WEIGHT:  # loaded here, the next block's scales come while this block's products run
                step_k = gl.minimum(block + 1, blocks - 1) * stride_bsk
                next = gl.load(at + step_k)
                if BLOCK_N > 128:
                    next_far = gl.load(past + step_k)
            mbarrier.wait(full.index(slot), phase)
            total, beside = multiply(
                total, beside, near, far, slot, phase, shared, INDEX, MODE, CONSUMERS, BLOCK_N, PIECES
            )
            near = next
            far = next_far
            slot, phase = advance(slot, phase, STAGES)
        if MODE == WEIGHT:
            _add(c, total, out.index(INDEX), row + below, col)
        else:
            tma.store_wait(0)
            _store(c, total, out.index(PIECES * INDEX), row, below, col, filled, group_rows, MODE)
            if PIECES == 2 or BLOCK_N > 128:
                _store_second(given, shared, beside, row, col, filled, group_rows, INDEX, MODE, PIECES)


@gluon.jit
def _ahead(
    given, shared, sizes, strides, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """A tile's last sum is stored beside the first products of the next; of two, the first beside its last ones."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c = strides
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 128, 32])
    below: gl.constexpr = 64 * PIECES * INDEX
    mine: gl.constexpr = PIECES * INDEX
    last: gl.constexpr = 64 * (PIECES - 1)
    pending: gl.constexpr = PIECES - 1
    slot = 0
    phase = 0
    blocks = gl.cdiv(K, 128)
    first, count, step = walk(sizes, PAIR)
    before = -1
    before_col = 0
    total = gl.zeros([64, 128], gl.float32, layout)
    beside = gl.zeros([64, 128], gl.float32, layout)
    for tile in range(first, count, step):
        row, col, group, filled = place(tile, table, sizes, MODE, 64 * CONSUMERS * PIECES, BLOCK_N, BAND, PAIR)
        at, past = _scales(b_s, N, col, group, strides, MODE, BLOCK_N)
        near = gl.load(at)
        next = gl.load(at + gl.minimum(1, blocks - 1) * stride_bsk)
        mbarrier.wait(full.index(slot), phase)
        part, scale = _begin(shared, slot, 0, total, INDEX, MODE, CONSUMERS, PIECES)
        if before >= 0:
            tma.store_wait(pending)
            finished = beside if PIECES == 2 else total
            _store(c, finished, out.index(mine + pending), before, below + last, before_col, 1, group_rows, MODE)
        part = warpgroup_mma_wait(0, deps=[part])
        if PIECES == 1:
            mbarrier.arrive(empty.index(slot))
        total = _fixed(_promoted(gl.zeros([64, 128], gl.float32, layout), part, scale * near))
        if PIECES == 2:
            mbarrier.wait(full.index(slot), phase)
            part, scale = _begin(shared, slot, 1, total, INDEX, MODE, CONSUMERS, PIECES)
            part = warpgroup_mma_wait(0, deps=[part])
            mbarrier.arrive(empty.index(slot))
            beside = _fixed(_promoted(gl.zeros([64, 128], gl.float32, layout), part, scale * near))
        near = next
        slot, phase = advance(slot, phase, STAGES)
        for block in range(1, blocks - pending):
            next = gl.load(at + gl.minimum(block + 1, blocks - 1) * stride_bsk)
            mbarrier.wait(full.index(slot), phase)
            total, beside = multiply(
                total, beside, near, near, slot, phase, shared, INDEX, MODE, CONSUMERS, BLOCK_N, PIECES
            )
            near = next
            slot, phase = advance(slot, phase, STAGES)
        if PIECES == 2:
            mbarrier.wait(full.index(slot), phase)
            part, scale = _begin(shared, slot, 0, total, INDEX, MODE, CONSUMERS, PIECES)
            part = warpgroup_mma_wait(0, deps=[part])
            total = _fixed(_promoted(total, part, scale * near))
            mbarrier.wait(full.index(slot), phase)
            part, scale = _begin(shared, slot, 1, total, INDEX, MODE, CONSUMERS, PIECES)
            tma.store_wait(1)
            _store(c, total, out.index(mine), row, below, col, 1, group_rows, MODE)
            part = warpgroup_mma_wait(0, deps=[part])
            mbarrier.arrive(empty.index(slot))
            beside = _fixed(_promoted(beside, part, scale * near))
            slot, phase = advance(slot, phase, STAGES)
        before = row
        before_col = col
    if before >= 0:
        tma.store_wait(pending)
        finished = beside if PIECES == 2 else total
        _store(c, finished, out.index(mine + pending), before, below + last, before_col, 1, group_rows, MODE)


@gluon.jit
def _scales(b_s, N, col, group, strides, MODE: gl.constexpr, BLOCK_N: gl.constexpr):
    """Where b's scales of a tile's columns begin, and of those from 128 on; a tile may lie past N."""
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c = strides
    at = b_s
    past = b_s
    if MODE != WEIGHT:
        at = b_s + group * stride_bsg + gl.minimum(col, N - 1) // 128 * stride_bsn
        past = at
        if BLOCK_N > 128:
            past = b_s + group * stride_bsg + gl.minimum(col + 128, N - 1) // 128 * stride_bsn
    return at, past


@gluon.jit
def multiply(
    total, beside, near, far, slot, phase, shared, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """The sums with 128 elements of K more, promoted. near, far: b's scales of the first and the second sum."""
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    part, scale = _begin(shared, slot, 0, total, INDEX, MODE, CONSUMERS, PIECES)
    if MODE == WEIGHT:  # all that is in the slot is read before it is given back
        column = _fixed(y_s.index(slot).load(gl.SliceLayout(0, total.type.layout)))
        scale = _fixed(scale)
        part = warpgroup_mma_wait(0, deps=[part])
        mbarrier.arrive(empty.index(slot))
        total += part * gl.expand_dims(scale, 1) * gl.expand_dims(column, 0)
    else:
        part = warpgroup_mma_wait(0, deps=[part])
        if PIECES == 1 and BLOCK_N <= 128:
            mbarrier.arrive(empty.index(slot))
        total = _promoted(total, part, scale * near)
    if PIECES == 2 or BLOCK_N > 128:
        # Made before what follows, behind which there is a loop of waiting (for what has come): the compiler would
        # else begin the second products first, and keep both in registers that there are not.
        total = _fixed(total)
        mbarrier.wait(full.index(slot), phase)
        part, scale = _begin(shared, slot, 1, beside, INDEX, MODE, CONSUMERS, PIECES)
        part = warpgroup_mma_wait(0, deps=[part])
        mbarrier.arrive(empty.index(slot))
        beside = _fixed(_promoted(beside, part, scale * far))
    return total, beside


@gluon.jit
def _begin(
    shared, slot, SECOND: gl.constexpr, total, INDEX: gl.constexpr, MODE: gl.constexpr, CONSUMERS: gl.constexpr,
    PIECES: gl.constexpr,
):  # fmt: skip
    """Begin the scratch sum of 128 elements of K for the first or the second sum, and the scales of its rows."""
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    layout: gl.constexpr = total.type.layout
    rows = (slot * CONSUMERS + INDEX) * PIECES
    right = y.index(slot)
    if SECOND and PIECES == 2:
        rows += 1
    elif SECOND:
        right = y_side.index(slot)
    scale = x_s.index(rows).load(gl.SliceLayout(1, layout))
    blank = gl.zeros([64, total.shape[1]], gl.float32, layout)
    if MODE == WEIGHT:
        _await(INDEX)
    part = warpgroup_mma(x.index(rows), right.permute((1, 0)), blank, use_acc=False, is_async=True)
    if MODE == WEIGHT:
        give(1 - INDEX)
    return part, scale


@gluon.jit
def _await(WHO: gl.constexpr):
    """Wait for the turn of one of two warpgroups: a barrier at which it waits, and the other has arrived."""
    if WHO == 0:
        _said("bar.sync 10, 256; mov.u32 $0, 0;")
    else:
        _said("bar.sync 11, 256; mov.u32 $0, 0;")


@gluon.jit
def give(WHO: gl.constexpr):
    """Give the turn to a warpgroup."""
    if WHO == 0:
        _said("bar.arrive 10, 256; mov.u32 $0, 0;")
    else:
        _said("bar.arrive 11, 256; mov.u32 $0, 0;")


@gluon.jit
def _said(PTX: gl.constexpr):
    gl.inline_asm_elementwise(PTX, "=r", [], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def _promoted(total, part, scale):
    """total and a scratch sum times a scale a row."""
    return total + part * gl.expand_dims(scale, 1)


@gluon.jit
def _fixed(x):
    """x, made before what follows."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)


@gluon.jit
def _store(c, total, out, row, below: gl.constexpr, col, filled, group_rows, MODE: gl.constexpr):
    """64 rows of C, `below` the tile's first, through shared memory; the copy is not waited for."""
    if MODE == MASKED:
        rows = below + gl.arange(0, 64, gl.SliceLayout(1, total.type.layout))
        total = gl.where(gl.expand_dims(rows < filled, 1), total, 0.0)
    out.store(total.to(c.dtype))
    fence_async_shared()
    if MODE != MASKED or row % group_rows + below < group_rows:
        tma.async_copy_shared_to_global(c, [row + below, col], out)


@gluon.jit
def _store_second(
    given, shared, total, row, col, filled, group_rows, INDEX: gl.constexpr, MODE: gl.constexpr, PIECES: gl.constexpr
):  # fmt: skip
    """The second sum of a tile at row and col: rows below the first, or columns beside it."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    if PIECES == 2:
        _store(c, total, out.index(2 * INDEX + 1), row, 128 * INDEX + 64, col, filled, group_rows, MODE)
    else:
        _store(c_side, total, out_side.index(INDEX), row, 64 * INDEX, col + 128, filled, group_rows, MODE)


@gluon.jit
def _add(c, total, out, row, col):
    """C += total, 64 columns at a time, by the copy engine. One program owns a tile: a sum gets one addition a call,
    so it does not depend on timing."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 32])
    left, right = total.reshape([64, 2, 64]).permute([0, 2, 1]).split()
    tma.store_wait(0)
    out.store(gl.convert_layout(left, layout, assert_trivial=True))
    fence_async_shared()
    add_in_memory(c, [row, col], out)
    tma.store_wait(0)
    out.store(gl.convert_layout(right, layout, assert_trivial=True))
    fence_async_shared()
    add_in_memory(c, [row, col + 64], out)


@builtin
def add_in_memory(target: Any, coordinates: Any, source: Any, _semantic: Any = None) -> None:
    """The copy engine adds `source` in shared memory to a box of `target`."""
    where = _semantic._convert_to_ir_values(coordinates, require_i64=False)
    _semantic.builder.create_async_tma_reduce(ir.DESCRIPTOR_REDUCE_KIND.ADD, target.handle, where, source.handle)
