# ruff: noqa: N803, N806, RUF059 - S, T, H and constants are capitals; roles unpack what they share
"""Attention backward on Hopper in one kernel of five products, in Gluon: one warp loads, two warpgroups multiply.

The form that numerics/kernels/attention.py takes on a card; its two Triton kernels (seven products) are the twins that
the interpreter runs. Bound: the tensor core, and shared memory almost as much (a product of 64 rows reads both operands
from there).

A program owns 128 keys of one head, 64 a warpgroup, whose dK and dV stay in registers (160 a thread of 192 + 128
columns). It walks the queries that see them, 64 at a time: S = Q K^T and dP = dO V^T for its own keys, dV += P^T dO and
dK += dS^T Q through shared memory, and dQ = dS K over all 128 keys, of which each warpgroup makes some columns. dQ is
added in FP32 by the copy engine, which reads what lies there and writes the sum: in any order, or (`ordered`) in the
order of falling keys behind a counter a block of queries, which makes every bit repeat. Programs of later keys start
first and two blocks of queries ahead, so that order costs no waiting.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from numerics.kernels.flash import REGISTERS, boxes, hidden, parts
from numerics.kernels.wgmma import add_in_memory, barrier

KEYS, QUERIES = 128, 64
"""Keys a program owns, queries it visits at a time."""


class Form(NamedTuple):
    """ordered: dQ is added in one order, so that its bits repeat; heads: of keys, whose blocks start together."""

    ordered: bool = True
    heads: int = 4

    @property
    def name(self) -> str:
        return f"five products, {'one order' if self.ordered else 'any order'}, {self.heads} heads"


DEFAULT = Form()


def backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, sums: Tensor,
    dq: Tensor, dk: Tensor, dv: Tensor, scale: float, causal: bool, form: Form,
) -> None:  # fmt: skip
    """dq, dk, dv of contiguous operands as `flash.forward` takes them; sums: zeros FP32 [B,S,H,Dqk]."""
    (batch, s, heads, d), t, shared = q.shape, k.shape[1], k.shape[2]
    first, second = parts(d)
    turns = torch.zeros(batch * heads * -(-s // 128) * 4 if form.ordered else 1, dtype=torch.int32, device=q.device)
    blocks = -(-t // KEYS)
    _backward[(blocks * shared * batch,)](
        boxes(q, QUERIES, first, 0), boxes(q, QUERIES, second, first), boxes(do, QUERIES, v.shape[3], 0),
        boxes(k, 64, first, 0), boxes(k, 64, second, first), boxes(v, 64, v.shape[3], 0),
        _row(lse), _row(delta), boxes(sums, QUERIES, 64, 0), dk, dv, turns, s, t, heads, heads // shared, blocks,
        min(form.heads, shared * batch), scale * 1.4426950408889634, scale,
        D=d, FIRST=first, DV=v.shape[3], STAGES=2, CAUSAL=causal, ORDERED=form.ordered,
        num_warps=4, maxnreg=REGISTERS,
    )  # fmt: skip
    _round[(triton.cdiv(dq.numel(), 4096),)](sums, dq, dq.numel(), scale, 4096, num_warps=4)


def _row(x: Tensor) -> TensorDescriptor:
    """A descriptor of runs of 64 of the FP32 vector x."""
    return TensorDescriptor(x.view(-1), [x.numel()], [1], [QUERIES], gl.NVMMASharedLayout(0, 32, 1))


@triton.jit
def _round(x, y, size, scale, block: tl.constexpr):
    """y = scale x, in y's type."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    tl.store(y + at, (tl.load(x + at, mask=at < size) * scale).to(y.dtype.element_ty), mask=at < size)


@gluon.jit(do_not_specialize=["S", "T", "heads", "shared_by", "blocks", "together"])
def _backward(
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns, S, T, heads, shared_by, blocks, together, scale_log2, scale,
    D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
    ORDERED: gl.constexpr,
):  # fmt: skip
    given = (q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns)
    sizes = (S, T, heads, shared_by, blocks, together)
    shared = _shared(given, D, FIRST, DV, STAGES)
    gl.warp_specialize(
        [
            (_multiply, (given, shared, sizes, scale_log2, scale, 0, D, FIRST, DV, STAGES, CAUSAL, ORDERED)),
            (_multiply, (given, shared, sizes, scale_log2, scale, 1, D, FIRST, DV, STAGES, CAUSAL, ORDERED)),
            (_load, (given, shared, sizes, D, FIRST, DV, STAGES, CAUSAL, ORDERED)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def _shared(given, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, STAGES: gl.constexpr):
    """Keys and values, slots of queries and of dO with their statistics, P, dS and dQ, and barriers."""
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    y0 = gl.allocate_shared_memory(k0.dtype, [2, 64, FIRST], k0.layout)
    z = gl.allocate_shared_memory(v.dtype, [2, 64, DV], v.layout)
    x0 = gl.allocate_shared_memory(q0.dtype, [STAGES, 64, FIRST], q0.layout)
    g = gl.allocate_shared_memory(do.dtype, [STAGES, 64, DV], do.layout)
    x1, y1 = x0, y0
    if D > FIRST:
        x1 = gl.allocate_shared_memory(q0.dtype, [STAGES, 64, D - FIRST], q1.layout)
        y1 = gl.allocate_shared_memory(k0.dtype, [2, 64, D - FIRST], k1.layout)
    square: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    ds = gl.allocate_shared_memory(q0.dtype, [4, 64, 64], square)
    out = gl.allocate_shared_memory(gl.float32, [2, 64, 64], sums.layout)
    level = gl.allocate_shared_memory(gl.float32, [STAGES, 64], lse.layout)
    mean = gl.allocate_shared_memory(gl.float32, [STAGES, 64], delta.layout)
    q_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    g_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    g_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ds_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    ds_empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    keys = gl.allocate_shared_memory(gl.int64, [1, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(q_full.index(i), count=1)
        mbarrier.init(g_full.index(i), count=1)
        mbarrier.init(q_empty.index(i), count=2)
        mbarrier.init(g_empty.index(i), count=2)
        mbarrier.init(ds_full.index(i), count=2)
        mbarrier.init(ds_empty.index(i), count=2)
    mbarrier.init(keys.index(0), count=1)
    fence_async_shared()
    return x0, x1, g, y0, y1, z, ds, out, level, mean, q_full, q_empty, g_full, g_empty, ds_full, ds_empty, keys


@gluon.jit
def _place(sizes, CAUSAL: gl.constexpr, ORDERED: gl.constexpr):
    """This program's head of keys in all sequences, first key, and the first query that sees it, in whole pairs.

    `together` heads start at once, those blocks that most queries see first; in order, those of later keys.
    """
    S, T, heads, shared_by, blocks, together = sizes
    wave = gl.program_id(0) // (together * blocks)
    within = gl.program_id(0) % (together * blocks)
    here = gl.minimum(together, gl.num_programs(0) // blocks - wave * together)
    block = within // here
    if ORDERED:
        block = blocks - 1 - block
    start = 0
    if CAUSAL:
        start = gl.maximum(block * 128 - (T - S), 0) // 128 * 128
    return wave * together + within % here, block * 128, start


@gluon.jit
def _load(
    given, shared, sizes, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, STAGES: gl.constexpr,
    CAUSAL: gl.constexpr, ORDERED: gl.constexpr,
):  # fmt: skip
    """The loader: keys and values once, then blocks of queries and of dO of all heads that share them."""
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    x0, x1, g, y0, y1, z, ds, out, level, mean, q_full, q_empty, g_full, g_empty, ds_full, ds_empty, keys = shared
    S, T, heads, shared_by, blocks, together = sizes
    group, key, start = _place(sizes, CAUSAL, ORDERED)
    groups = heads // shared_by
    sequence = group // groups
    at = group % groups
    mbarrier.expect(keys.index(0), 128 * (D + DV) * 2)
    for i in gl.static_range(2):
        line = sequence * T + key + 64 * i
        tma.async_copy_global_to_shared(k0, [line, at * D], keys.index(0), y0.index(i))
        if D > FIRST:
            tma.async_copy_global_to_shared(k1, [line, at * D + FIRST], keys.index(0), y1.index(i))
        tma.async_copy_global_to_shared(v, [line, at * DV], keys.index(0), z.index(i))
    phase = 1
    for one in range(shared_by):
        head = at * shared_by + one
        for pair in range(start, S, 128):
            for slot in gl.static_range(2):
                row = pair + 64 * slot
                line = sequence * S + row
                bar = q_full.index(slot)
                mbarrier.wait(q_empty.index(slot), phase)
                mbarrier.expect(bar, 64 * D * 2 + 256)
                tma.async_copy_global_to_shared(q0, [line, head * D], bar, x0.index(slot))
                if D > FIRST:
                    tma.async_copy_global_to_shared(q1, [line, head * D + FIRST], bar, x1.index(slot))
                tma.async_copy_global_to_shared(lse, [(sequence * heads + head) * S + row], bar, level.index(slot))
                bar = g_full.index(slot)
                mbarrier.wait(g_empty.index(slot), phase)
                mbarrier.expect(bar, 64 * DV * 2 + 256)
                tma.async_copy_global_to_shared(do, [line, head * DV], bar, g.index(slot))
                tma.async_copy_global_to_shared(delta, [(sequence * heads + head) * S + row], bar, mean.index(slot))
            phase ^= 1


@gluon.jit
def _multiply(
    given, shared, sizes, scale_log2, scale, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr,
    DV: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr, ORDERED: gl.constexpr,
):  # fmt: skip
    """A warpgroup's 64 keys, and its columns of dQ."""
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    x0, x1, g, y0, y1, z, ds, out, level, mean, q_full, q_empty, g_full, g_empty, ds_full, ds_empty, keys = shared
    S, T, heads, shared_by, blocks, together = sizes
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, FIRST, 16])
    values: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DV, 16])
    rest: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D - FIRST if D > FIRST else 64, 16])
    group, key, start = _place(sizes, CAUSAL, ORDERED)
    groups = heads // shared_by
    sequence = group // groups
    key += 64 * INDEX
    dk0 = gl.zeros([64, FIRST], gl.float32, wide)
    dk1 = gl.zeros([64, D - FIRST if D > FIRST else 64], gl.float32, rest)
    sum_v = gl.zeros([64, DV], gl.float32, values)
    mbarrier.wait(keys.index(0), 0)
    square: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    p = out.index(INDEX)._reinterpret(q0.dtype, [2, 64, 64], square)  # P is done with before dQ is there
    phase = 0
    line = 0  # of the block of queries before, whose dQ is made beside this one's dK
    column = 0
    counter = 0
    before = 0
    settled = 0
    owed = 0
    for one in range(shared_by):
        head = group % groups * shared_by + one
        for pair in range(start, S, 128):
            for slot in gl.static_range(2):
                row = pair + 64 * slot
                prob = _probabilities(shared, slot, phase, row, key, sizes, scale_log2, INDEX, D, FIRST, CAUSAL, narrow)
                # P and dS are kept in shared memory: there are no registers beside dK and dV
                here = hidden(row)
                if ORDERED:
                    _settle(turns + settled, owed)
                    owed = 0
                else:
                    tma.store_wait(0)
                p.index(here).store(prob.to(q0.dtype))
                fence_async_shared()
                mbarrier.wait(g_full.index(slot), phase)
                part, sum_v = _score_gradients(shared, p, sum_v, slot, here, INDEX, narrow)
                here = hidden(row)
                mbarrier.wait(ds_empty.index(slot), phase ^ 1)
                mine = 2 * slot + INDEX + here
                ds.index(mine).store(part.to(q0.dtype))
                fence_async_shared()
                mbarrier.arrive(ds_full.index(slot))
                dk0 = warpgroup_mma(ds.index(mine).permute((1, 0)), x0.index(slot + here), dk0, is_async=True)
                if D > FIRST:
                    dk1 = warpgroup_mma(ds.index(mine).permute((1, 0)), x1.index(slot + here), dk1, is_async=True)
                # dQ of the block before, all keys, columns of this warpgroup: so warpgroups may be a block apart
                begun = slot == 1 or (pair > start) | (one > 0)
                mbarrier.wait(ds_full.index(1 - slot), phase if slot == 1 else phase ^ 1)
                here = hidden(row)
                if FIRST == 128:
                    dq = _columns(ds, y0, 2 * (1 - slot) + here, here, 64 * INDEX, narrow)
                    dq, dk0, dk1, sum_v = warpgroup_mma_wait(0, deps=[dq, dk0, dk1, sum_v])
                    mbarrier.arrive(q_empty.index(slot))
                    mbarrier.arrive(g_empty.index(slot))
                    if begun:
                        _in_turn(turns + counter, before, ORDERED)
                        _add(sums, dq, out.index(INDEX), line, column + 64 * INDEX)
                        owed = 1
                else:
                    dk0, dk1, sum_v = warpgroup_mma_wait(0, deps=[dk0, dk1, sum_v])
                    mbarrier.arrive(q_empty.index(slot))
                    mbarrier.arrive(g_empty.index(slot))
                if (D > FIRST or FIRST == 64) and 1 - slot == INDEX:
                    dq = _columns(ds, y1 if D > FIRST else y0, 2 * (1 - slot) + here, here, 0, narrow)
                    dq = warpgroup_mma_wait(0, deps=[dq])
                    if begun:
                        _in_turn(turns + counter, before, ORDERED and FIRST == 64)
                        _add(sums, dq, out.index(INDEX), line, column + (FIRST if D > FIRST else 0))
                        owed = 1
                mbarrier.arrive(ds_empty.index(1 - slot), pred=begun)
                line = sequence * S + row
                column = head * D
                settled = counter
                if ORDERED:
                    counter = (((sequence * heads + head) * gl.cdiv(S, 128) + row // 128) * 2 + slot) * 2 + INDEX
                    before = _before(pair, key, sizes, CAUSAL)
            phase ^= 1
    mbarrier.wait(ds_full.index(1), phase ^ 1)
    if ORDERED:
        _settle(turns + settled, owed)
    _last_queries(given, shared, line, column, counter, before, INDEX, D, FIRST, ORDERED, narrow)
    at = group % groups
    _store(dk, dk0 * scale, sequence, at, key, T, groups, 0, D)
    if D > FIRST:
        _store(dk, dk1 * scale, sequence, at, key, T, groups, FIRST, D)
    _store(dv, sum_v, sequence, at, key, T, groups, 0, DV)
    tma.store_wait(0)


@gluon.jit
def _probabilities(
    shared, slot, phase, row, key, sizes, scale_log2, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr,
    CAUSAL: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """P of the block of queries that comes to a slot and this warpgroup's keys, from scores and their statistics."""
    x0, x1, g, y0, y1, z, ds, out, level, mean, q_full, q_empty, g_full, g_empty, ds_full, ds_empty, keys = shared
    S, T, heads, shared_by, blocks, together = sizes
    here = hidden(row)
    mbarrier.wait(q_full.index(slot), phase)
    s = gl.zeros([64, 64], gl.float32, layout)
    s = warpgroup_mma(x0.index(slot + here), y0.index(INDEX + here).permute((1, 0)), s, use_acc=False, is_async=True)
    if D > FIRST:
        s = warpgroup_mma(x1.index(slot + here), y1.index(INDEX + here).permute((1, 0)), s, is_async=True)
    s = warpgroup_mma_wait(0, deps=[s])
    top = level.index(slot).load(gl.SliceLayout(1, layout)) * 1.4426950408889634
    prob = _exp2(s * scale_log2 - gl.expand_dims(top, 1))
    cut = (row + 64 > S) | (key + 64 > T)
    if CAUSAL:
        cut = cut | (row + T - S < key + 63)
    if cut:
        prob = _seen(prob, row, key, S, T, CAUSAL)
    return prob


@gluon.jit
def _score_gradients(shared, p, sum_v, slot, here, INDEX: gl.constexpr, layout: gl.constexpr):
    """dS of that block, from P in shared memory; and dV with its part, whose product runs on. here: zero."""
    x0, x1, g, y0, y1, z, ds, out, level, mean, q_full, q_empty, g_full, g_empty, ds_full, ds_empty, keys = shared
    dp = gl.zeros([64, 64], gl.float32, layout)
    dp = warpgroup_mma(g.index(slot + here), z.index(INDEX + here).permute((1, 0)), dp, use_acc=False, is_async=True)
    sum_v = warpgroup_mma(p.index(here).permute((1, 0)), g.index(slot + here), sum_v, is_async=True)
    dp = warpgroup_mma_wait(1, deps=[dp])
    away = mean.index(slot).load(gl.SliceLayout(1, layout))
    return p.index(here).load(layout).to(gl.float32) * (dp - gl.expand_dims(away, 1)), sum_v


@gluon.jit
def _before(pair, key, sizes, CAUSAL: gl.constexpr):
    """How many programs, of later keys, add to dQ of this pair of blocks of queries before this one."""
    S, T, heads, shared_by, blocks, together = sizes
    before = blocks - 1 - key // 128
    if CAUSAL:
        before = gl.minimum((pair + 127 + T - S) // 128, blocks - 1) - key // 128
    return before


@gluon.jit
def _last_queries(
    given, shared, line, column, counter, before, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr,
    ORDERED: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """dQ of the last block of queries, behind which no other follows."""
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    x0, x1, g, y0, y1, z, ds, out, level, mean, q_full, q_empty, g_full, g_empty, ds_full, ds_empty, keys = shared
    if FIRST == 128:
        dq = _columns(ds, y0, 2, 0, 64 * INDEX, layout)
        dq = warpgroup_mma_wait(0, deps=[dq])
        _in_turn(turns + counter, before, ORDERED)
        _add(sums, dq, out.index(INDEX), line, column + 64 * INDEX)
    if (D > FIRST or FIRST == 64) and INDEX == 1:
        dq = _columns(ds, y1 if D > FIRST else y0, 2, 0, 0, layout)
        dq = warpgroup_mma_wait(0, deps=[dq])
        _in_turn(turns + counter, before, ORDERED and FIRST == 64)
        _add(sums, dq, out.index(INDEX), line, column + (FIRST if D > FIRST else 0))
    if ORDERED:
        _settle(turns + counter, 1)


@gluon.jit
def _columns(ds, y, first, here, COLUMN: gl.constexpr, layout: gl.constexpr):
    """Begin 64 columns of dQ: dS of both warpgroups, from slot `first` on, times their keys. here: zero."""
    dq = gl.zeros([64, 64], gl.float32, layout)
    dq = warpgroup_mma(ds.index(first), y.index(here).slice(COLUMN, 64, dim=1), dq, use_acc=False, is_async=True)
    return warpgroup_mma(ds.index(first + 1), y.index(1 + here).slice(COLUMN, 64, dim=1), dq, is_async=True)


@gluon.jit
def _add(sums, dq, out, row, column):
    """Add 64 x 64 of dQ to what lies in memory, through shared memory; the copy is not waited for."""
    tma.store_wait(0)
    out.store(dq)
    fence_async_shared()
    add_in_memory(sums, [row, column], out)


@gluon.jit
def _in_turn(counter, before, ORDERED: gl.constexpr):
    """In order: until programs of later keys have added theirs."""
    if ORDERED:
        while gl.atomic_add(counter, 0, sem="acquire") < before:
            pass


@gluon.jit
def _settle(counter, owed):
    """Wait until what this warpgroup added is in memory; where it is owed, let the next program add."""
    zero = gl.full([128], 0, gl.int32, gl.BlockedLayout([1], [32], [4], [0]))
    gl.inline_asm_elementwise("cp.async.bulk.wait_group 0; mov.b32 $0, $1;", "=r,r", [zero], gl.int32, False, 1)
    barrier()
    gl.atomic_add(counter, owed, sem="release")


@gluon.jit
def _seen(prob, row, key, S, T, CAUSAL: gl.constexpr):
    """P with zeros where a query may not look, or there is none."""
    layout: gl.constexpr = prob.type.layout
    rows = row + gl.arange(0, 64, gl.SliceLayout(1, layout))
    last = gl.where(rows < S, T - 1 - key, -1)
    if CAUSAL:
        last = gl.minimum(last, rows + T - S - key)
    columns = gl.arange(0, 64, gl.SliceLayout(0, layout))
    return gl.where(gl.expand_dims(columns, 0) <= gl.expand_dims(last, 1), prob, 0.0)


@gluon.jit
def _exp2(x):
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], gl.float32, True, 1)


@gluon.jit
def _store(x, tile, sequence, head, row, length, heads, FIRST: gl.constexpr, D: gl.constexpr):
    """Rows of x [B, length, heads, D] from `row` on, columns from FIRST on."""
    layout: gl.constexpr = tile.type.layout
    rows = row + gl.arange(0, 64, gl.SliceLayout(1, layout))
    columns = FIRST + gl.arange(0, tile.shape[1], gl.SliceLayout(0, layout))
    lines = ((sequence * length + rows).to(gl.int64) * heads + head) * D
    pointers = x + gl.expand_dims(lines, 1) + gl.expand_dims(columns, 0)
    gl.store(pointers, tile.to(x.dtype.element_ty), mask=gl.expand_dims(rows < length, 1))
