# ruff: noqa: N803, N806, RUF059 - S, T, H and constants are capitals; roles unpack what they share
"""What the two warpgroups of attention's backward multiply (flash_backward.py), in Gluon: 64 keys each.

Queries are rows; P and dS lie in shared memory, where products read them turned. Heads of 64 and 128 leave registers
beside dK and dV: dP is begun with S, and S of every other block of queries before dQ of the block before is waited for.
Heads of 192 do not (dK and dV take 160 of a thread's 240): one product's sums at a time, and P is read back.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from numerics.kernels.flash import hidden


@gluon.jit
def multiply(
    given, shared, sizes, place, scale_log2, scale, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr,
    DV: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """A warpgroup's 64 keys, and its columns of dQ: 64 of the first 128, and every other time those past them (of 64,
    all)."""
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    x0, x1, g, y0, y1, z, ds, own, out, level, mean, bars = shared
    q_full, q_empty, g_full, g_empty, ds_full, ds_empty, out_full, out_empty, keys = bars
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    group, key, outers, inners, start, outer_step, inner_step = place
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, FIRST, 16])
    values: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DV, 16])
    rest: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D - FIRST if D > FIRST else 8, 16])
    key += 64 * INDEX
    dk0 = gl.zeros([64, FIRST], gl.float32, wide)
    if D > FIRST:
        dk1 = gl.zeros([64, D - FIRST], gl.float32, rest)
        p = out.index(INDEX)._reinterpret(q0.dtype, [2, 64, 64], ds.layout)  # done with before dQ is there
    sum_v = gl.zeros([64, DV], gl.float32, values)
    mbarrier.wait(keys.index(0), 0)
    phase = 0
    for outer in range(outers):
        row = start + outer * outer_step
        for number in range(inners):
            for slot in gl.static_range(2):
                if D > FIRST:
                    part, sum_v = _one_by_one(
                        shared, p, sum_v, slot, phase, row + 64 * slot, key, sizes, scale_log2, INDEX, D, CAUSAL, narrow
                    )
                else:
                    here = hidden(number)
                    if D == 64 or slot == 0:
                        mbarrier.wait(q_full.index(slot), phase)
                        s = _scores(x0.index(slot + here), y0.index(INDEX + here), narrow)
                    mbarrier.wait(g_full.index(slot), phase)
                    dp = _scores(g.index(slot + here), z.index(INDEX + here), narrow)
                    s = warpgroup_mma_wait(1, deps=[s])
                    prob = _probabilities(shared, s, slot, row + 64 * slot, key, sizes, scale_log2, CAUSAL)
                    here = hidden(number)
                    if D == 128:
                        mbarrier.wait(out_empty.index(2 * INDEX + slot), phase ^ 1)
                        p = out.index(2 * INDEX + slot)._reinterpret(q0.dtype, [2, 64, 64], ds.layout)
                        p.index(here).store(prob.to(q0.dtype))
                        fence_async_shared()
                        turned = p.index(here).permute((1, 0))
                    else:
                        own.index(INDEX).store(prob.to(q0.dtype))
                        fence_async_shared()
                        turned = own.index(INDEX + here).permute((1, 0))
                    sum_v = warpgroup_mma(turned, g.index(slot + here), sum_v, is_async=True)
                    dp = warpgroup_mma_wait(1, deps=[dp])
                    away = mean.index(slot).load(gl.SliceLayout(1, narrow))
                    part = prob * (dp - gl.expand_dims(away, 1))
                here = hidden(number)
                mbarrier.wait(ds_empty.index(slot), phase ^ 1)
                mine = 2 * slot + INDEX + here
                ds.index(mine).store(part.to(q0.dtype))
                fence_async_shared()
                mbarrier.arrive(ds_full.index(slot))
                dk0 = warpgroup_mma(ds.index(mine).permute((1, 0)), x0.index(slot + here), dk0, is_async=True)
                if D > FIRST:
                    dk1 = warpgroup_mma(ds.index(mine).permute((1, 0)), x1.index(slot + here), dk1, is_async=True)
                # dQ of the block before, all keys, columns of this warpgroup: so warpgroups may be a block apart
                begun = slot == 1 or (number > 0) | (outer > 0)
                mbarrier.wait(ds_full.index(1 - slot), phase if slot == 1 else phase ^ 1)
                here = hidden(number)
                if D > FIRST:
                    dq = _columns(ds, y0, 2 * (1 - slot) + here, here, 64 * INDEX, narrow)
                    dq, dk0, dk1, sum_v = warpgroup_mma_wait(0, deps=[dq, dk0, dk1, sum_v])
                elif FIRST == 128:
                    dq = _columns(ds, y0, 2 * (1 - slot) + here, here, 64 * INDEX, narrow)
                    if slot == 0:
                        dk0, sum_v = warpgroup_mma_wait(1, deps=[dk0, sum_v])
                        mbarrier.wait(q_full.index(1), phase)
                        s = _scores(x0.index(1 + here), y0.index(INDEX + here), narrow)
                        dq = warpgroup_mma_wait(1, deps=[dq])
                    else:
                        dq, dk0, sum_v = warpgroup_mma_wait(0, deps=[dq, dk0, sum_v])
                else:
                    dk0, sum_v = warpgroup_mma_wait(0, deps=[dk0, sum_v])
                mbarrier.arrive(q_empty.index(slot))
                mbarrier.arrive(g_empty.index(slot))
                if D > FIRST:
                    _hand(dq, out.index(INDEX), out_full.index(INDEX), out_empty.index(INDEX), begun)
                elif FIRST == 128:
                    there = out_full.index(2 * INDEX + slot)
                    _hand(dq, out.index(2 * INDEX + slot), there, out_empty.index(2 * INDEX + slot), begun)
                if D != 128 and 1 - slot == INDEX:
                    dq = _columns(ds, y1, 2 * (1 - slot) + here, here, 0, narrow)
                    dq = warpgroup_mma_wait(0, deps=[dq])
                    mbarrier.wait(out_empty.index(INDEX), _parity(phase, slot, 1, INDEX, D))
                    _hand(dq, out.index(INDEX), out_full.index(INDEX), out_empty.index(INDEX), begun)
                mbarrier.arrive(ds_empty.index(1 - slot), pred=begun)
            phase ^= 1
            row += inner_step
    mbarrier.wait(ds_full.index(1), phase ^ 1)
    if FIRST == 128:
        dq = warpgroup_mma_wait(0, deps=[_columns(ds, y0, 2, 0, 64 * INDEX, narrow)])
        last: gl.constexpr = 2 * INDEX if D == 128 else INDEX
        mbarrier.wait(out_empty.index(last), _parity(phase, 0, 0, INDEX, D))
        _hand(dq, out.index(last), out_full.index(last), out_empty.index(last), True)
    if D != 128 and INDEX == 1:
        dq = warpgroup_mma_wait(0, deps=[_columns(ds, y1, 2, 0, 0, narrow)])
        mbarrier.wait(out_empty.index(INDEX), _parity(phase, 0, 1, INDEX, D))
        _hand(dq, out.index(INDEX), out_full.index(INDEX), out_empty.index(INDEX), True)
    _store(dk, dk0 * scale, group, key, sizes, 0, D)
    if D > FIRST:
        _store(dk, dk1 * scale, group, key, sizes, FIRST, D)
    _store(dv, sum_v, group, key, sizes, 0, DV)


@gluon.jit
def _one_by_one(
    shared, p, sum_v, slot, phase, row, key, sizes, scale_log2, INDEX: gl.constexpr, D: gl.constexpr,
    CAUSAL: gl.constexpr, layout: gl.constexpr,
):  # fmt: skip
    """dS of the block of queries that comes to a slot and this warpgroup's keys; and dV with its part, whose product
    runs on. Scores in two parts of the head; P waits in shared memory for dP."""
    x0, x1, g, y0, y1, z, ds, unused, out, level, mean, bars = shared
    q_full, q_empty, g_full, g_empty, ds_full, ds_empty, out_full, out_empty, keys = bars
    here = hidden(row)
    mbarrier.wait(q_full.index(slot), phase)
    s = gl.zeros([64, 64], gl.float32, layout)
    s = warpgroup_mma(x0.index(slot + here), y0.index(INDEX + here).permute((1, 0)), s, use_acc=False, is_async=True)
    s = warpgroup_mma(x1.index(slot + here), y1.index(INDEX + here).permute((1, 0)), s, is_async=True)
    s = warpgroup_mma_wait(0, deps=[s])
    prob = _probabilities(shared, s, slot, row, key, sizes, scale_log2, CAUSAL)
    here = hidden(row)
    mbarrier.wait(out_empty.index(INDEX), _parity(phase, slot, 0, INDEX, D))
    p.index(here).store(prob.to(p.dtype))
    fence_async_shared()
    mbarrier.wait(g_full.index(slot), phase)
    dp = _scores(g.index(slot + here), z.index(INDEX + here), layout)
    sum_v = warpgroup_mma(p.index(here).permute((1, 0)), g.index(slot + here), sum_v, is_async=True)
    dp = warpgroup_mma_wait(1, deps=[dp])
    away = mean.index(slot).load(gl.SliceLayout(1, layout))
    return p.index(here).load(layout).to(gl.float32) * (dp - gl.expand_dims(away, 1)), sum_v


@gluon.jit
def _scores(x, y, layout: gl.constexpr):
    """Begin X Y^T."""
    s = gl.zeros([64, 64], gl.float32, layout)
    return warpgroup_mma(x, y.permute((1, 0)), s, use_acc=False, is_async=True)


@gluon.jit
def _probabilities(shared, s, slot, row, key, sizes, scale_log2, CAUSAL: gl.constexpr):
    """P of a block of queries and this warpgroup's keys, from scores and their statistics."""
    x0, x1, g, y0, y1, z, ds, p, out, level, mean, bars = shared
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    layout: gl.constexpr = s.type.layout
    top = level.index(slot).load(gl.SliceLayout(1, layout)) * 1.4426950408889634
    prob = _exp2(s * scale_log2 - gl.expand_dims(top, 1))
    cut = (row + 64 > S) | (key + 64 > T)
    if CAUSAL:
        cut = cut | (row + T - S < key + 63)
    if cut:
        prob = _seen(prob, row, key, S, T, CAUSAL)
    return prob


@gluon.jit
def _columns(ds, y, first, here, COLUMN: gl.constexpr, layout: gl.constexpr):
    """Begin 64 columns of dQ: dS of both warpgroups, from slot `first` on, times their keys. here: zero."""
    dq = gl.zeros([64, 64], gl.float32, layout)
    dq = warpgroup_mma(ds.index(first), y.index(here).slice(COLUMN, 64, dim=1), dq, use_acc=False, is_async=True)
    return warpgroup_mma(ds.index(first + 1), y.index(1 + here).slice(COLUMN, 64, dim=1), dq, is_async=True)


@gluon.jit
def _parity(phase, slot: gl.constexpr, second: gl.constexpr, INDEX: gl.constexpr, D: gl.constexpr):
    """Of the barrier that says that the part of dQ before this one (`second`: past the first 128 columns, or all of 64)
    has left its place. A pair of blocks has three parts a warpgroup with heads of 192, one with 64, and two with 128,
    which has a place for each."""
    first: gl.constexpr = 1 if D > 128 else 0
    before: gl.constexpr = (first + INDEX if slot == 1 and D != 128 else 0) + (first if second else 0) + 1
    return phase ^ (before % 2)


@gluon.jit
def _hand(dq, out, full, empty, begun):
    """Give a tile of dQ to the warp that carries it to memory (flash_backward._tiles: 16 bytes of each thread, then the
    next of each); before the first block of queries, nothing."""
    if begun:
        held = dq.reshape([4, 2, 8, 8, 4, 2]).permute([3, 0, 2, 4, 1, 5]).reshape([128, 32])
        order: gl.constexpr = gl.BlockedLayout([1, 4], [4, 8], [4, 1], [1, 0])
        out.store(gl.convert_layout(held, order, assert_trivial=True))
        fence_async_shared()
        mbarrier.arrive(full)
    else:
        mbarrier.arrive(empty)


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
def _store(x, tile, group, row, sizes, FIRST: gl.constexpr, D: gl.constexpr):
    """Keys' rows of a head of x [B, T, G, D] from `row` on, columns from FIRST on."""
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    layout: gl.constexpr = tile.type.layout
    rows = row + gl.arange(0, 64, gl.SliceLayout(1, layout))
    columns = FIRST + gl.arange(0, tile.shape[1], gl.SliceLayout(0, layout))
    here = heads // shared_by
    lines = ((group // here * T + rows).to(gl.int64) * here + group % here) * D
    pointers = x + gl.expand_dims(lines, 1) + gl.expand_dims(columns, 0)
    gl.store(pointers, tile.to(x.dtype.element_ty), mask=gl.expand_dims(rows < T, 1))
