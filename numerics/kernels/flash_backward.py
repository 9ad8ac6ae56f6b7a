# ruff: noqa: N803, N806, RUF059 - S, T, H and constants are capitals; roles unpack what they share
"""Attention backward on Hopper in one kernel of five products, in Gluon: a warp loads, two warpgroups multiply, two
warps carry dQ to memory.

The form that numerics/kernels/attention.py takes on a card; its two Triton kernels (seven products) are the twins that
the interpreter runs. Bound: the tensor core, and shared memory almost as much (a product of 64 rows reads both operands
from there).

A program owns 128 keys of one head, 64 a warpgroup, whose dK and dV stay in registers. It walks the queries that see
them, 64 at a time: S = Q K^T and dP = dO V^T for its own keys, dV += P^T dO and dK += dS^T Q through shared memory, and
dQ = dS K over all 128 keys, of which each warpgroup makes some columns (flash_products.py). dQ is added in FP32 by the
copy engine: in any order to zeros, or (`ordered`) behind a counter a block of queries, where the first to come stores
and the others add, which makes every bit repeat.

**Who adds when.** A wave is `heads` heads, whose programs start together. In even waves programs of later keys come
first and walk up from the diagonal: each meets a block of queries just after the one of the next later keys, and short
programs leave first. Odd waves are that backwards: programs of earlier keys come first, long ones into the places that
fall free, walk down to the diagonal and end together. Of a causal square of n blocks two waves fill n + 1 SMs a head
for n steps, and nobody waits. (DASH, arXiv 2601.21824, pairs two orders for the same end.)

**What L2 keeps.** Programs of heads that share keys walk one head after another at unlike speeds, since each sees its
own number of queries: 8 heads of 4,096 tokens are so far apart that five of six visits to Q, dO and dQ miss L2, 5 GB
from memory. So where two waves visit too much for L2 (`ABREAST`), all programs of a wave go abreast: each pair of
blocks of queries with all its heads, in even waves down to the diagonal and in odd ones up from it. A program then adds
just behind its neighbour, for which the last of 32 waits once (in any order 64 of 8 heads take 86 us less).

**Nobody waits for ever.** A program waits for programs of its own wave with a lower number only; a card starts programs
in the order of their numbers, and the lowest that has not ended waits for none.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from hwmodels.units import MB
from numerics.kernels.flash import REGISTERS, boxes, parts
from numerics.kernels.flash_products import multiply
from numerics.kernels.wgmma import barrier
from numerics.kernels.wgmma_sums import add_in_memory

KEYS, QUERIES, TILE = 128, 64, 4096
"""Keys a program owns, queries it visits at a time, and sums of dQ that are added at a time."""
ABREAST = 250 * MB
"""Bytes of Q, dO and FP32 dQ that two waves visit, from which on programs of causal heads that share keys go abreast:
less is in L2 often enough to be read from memory beside products. On an H200 with 60 MB of L2 (2026-11-30) this chose
the faster at 15 of 16 shapes of 67 to 537 MB: 64 of 8 heads of 128 take 1,259 us abreast and 1,458 apart at 4,096
tokens (268 MB), 921 and 910 at 3,072, 619 and 589 at 2,048; 64 of 2 heads 1.4 % longer than they could."""


class Form(NamedTuple):
    """ordered: dQ is added in one order, so that its bits repeat; heads: of keys, whose blocks make a wave."""

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
    """dq, dk, dv of contiguous operands as `flash.forward` takes them; sums: `room` of FP32, zeros unless ordered."""
    (batch, s, heads, d), t, shared = q.shape, k.shape[1], k.shape[2]
    first, second = parts(d)
    turns = torch.zeros(batch * heads * -(-s // 128) * 4 if form.ordered else 1, dtype=torch.int32, device=q.device)
    blocks, groups = -(-t // KEYS), shared * batch
    _backward[(blocks * groups,)](
        boxes(q, QUERIES, first, 0), boxes(q, QUERIES, second, first), boxes(do, QUERIES, v.shape[3], 0),
        boxes(k, 64, first, 0), boxes(k, 64, second, first), boxes(v, 64, v.shape[3], 0),
        _row(lse), _row(delta), _tiles(sums), dk, dv, turns, s, t, heads, heads // shared, blocks,
        min(form.heads, groups), groups, int(abreast(q, k, v, causal, form)), scale * 1.4426950408889634, scale,
        D=d, FIRST=first, DV=v.shape[3], CAUSAL=causal, ORDERED=form.ordered, num_warps=4, maxnreg=REGISTERS,
    )  # fmt: skip
    _round[(room(q) // TILE,)](sums, dq, s, heads, scale, D=d, num_warps=4)


def abreast(q: Tensor, k: Tensor, v: Tensor, causal: bool, form: Form) -> bool:
    """Whether all programs of a wave are at one pair of blocks of queries at a time, and not each at its own."""
    batch, s, heads, d = q.shape
    sharing = heads // k.shape[2]
    visited = min(2 * form.heads, k.shape[2] * batch) * sharing * s * (4 * d + 2 * (d + v.shape[3]))
    return causal and sharing > 1 and visited >= ABREAST


def room(q: Tensor) -> int:
    """How many FP32 sums dQ of q [B,S,H,Dqk] takes: whole pairs of blocks of queries."""
    batch, s, heads, d = q.shape
    return batch * heads * -(-s // (2 * QUERIES)) * 2 * QUERIES * d


def _tiles(sums: Tensor) -> TensorDescriptor:
    """A descriptor of tiles of 64 queries and 64 columns, one after another. Each is 128 runs of 32, in the order in
    which threads hold it: a thread writes 16 bytes at a time and no two meet in a bank, and what the copy engine adds
    is 16 KiB in one piece."""
    flat = sums.view(-1, 32)
    return TensorDescriptor(flat, list(flat.shape), [32, 1], [TILE // 32, 32], gl.NVMMASharedLayout(128, 32, 2))


def _row(x: Tensor) -> TensorDescriptor:
    """A descriptor of runs of 64 of the FP32 vector x."""
    return TensorDescriptor(x.view(-1), [x.numel()], [1], [QUERIES], gl.NVMMASharedLayout(0, 32, 1))


@triton.jit
def _round(x, y, S, heads, scale, D: tl.constexpr):
    """y [B,S,H,D] = scale x, in y's type; a tile of x (`_tiles`) a program."""
    tile = tl.program_id(0)
    block = tile // (D // 64)
    blocks = tl.cdiv(S, 128) * 2
    head = block // blocks
    of_threads = tl.load(x + tile.to(tl.int64) * 4096 + tl.arange(0, 4096)) * scale
    held = tl.reshape(of_threads.to(y.dtype.element_ty), (8, 4, 8, 4, 2, 2))
    rows = block % blocks * 64 + tl.arange(0, 64)
    columns = tile % (D // 64) * 64 + tl.arange(0, 64)
    lines = ((head // heads * S + rows).to(tl.int64) * heads + head % heads) * D
    whole = tl.reshape(tl.permute(held, (1, 4, 2, 0, 3, 5)), (64, 64))
    tl.store(y + lines[:, None] + columns[None, :], whole, mask=rows[:, None] < S)


@gluon.jit(do_not_specialize=["S", "T", "heads", "shared_by", "blocks", "together", "groups", "abreast"])
def _backward(
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns, S, T, heads, shared_by, blocks, together, groups, abreast,
    scale_log2, scale, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, CAUSAL: gl.constexpr,
    ORDERED: gl.constexpr,
):  # fmt: skip
    given = (q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns)
    sizes = (S, T, heads, shared_by, blocks, together, groups, abreast)
    shared = _shared(given, D, FIRST, DV)
    gl.warp_specialize(
        [
            (_multiply, (given, shared, sizes, scale_log2, scale, 0, D, FIRST, DV, CAUSAL, ORDERED)),
            (_multiply, (given, shared, sizes, scale_log2, scale, 1, D, FIRST, DV, CAUSAL, ORDERED)),
            (_load, (given, shared, sizes, D, FIRST, DV, CAUSAL, ORDERED)),
            (_carry, (given, shared, sizes, 0, D, FIRST, CAUSAL, ORDERED)),
            (_carry, (given, shared, sizes, 1, D, FIRST, CAUSAL, ORDERED)),
        ],
        [4, 1, 1, 1],
        [240, 24, 24, 24],
    )


@gluon.jit
def _shared(given, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr):
    """Keys and values, two slots of queries and of dO with their statistics and of dS, P, places of dQ, and barriers.

    Heads of 128 have two places of dQ a warpgroup. But for heads of 64, P lies where dQ comes to lie later.
    """
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    y0 = gl.allocate_shared_memory(k0.dtype, [2, 64, FIRST], k0.layout)
    z = gl.allocate_shared_memory(v.dtype, [2, 64, DV], v.layout)
    x0 = gl.allocate_shared_memory(q0.dtype, [2, 64, FIRST], q0.layout)
    g = gl.allocate_shared_memory(do.dtype, [2, 64, DV], do.layout)
    x1, y1 = x0, y0
    if D > FIRST:
        x1 = gl.allocate_shared_memory(q0.dtype, [2, 64, D - FIRST], q1.layout)
        y1 = gl.allocate_shared_memory(k0.dtype, [2, 64, D - FIRST], k1.layout)
    square: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    ds = gl.allocate_shared_memory(q0.dtype, [4, 64, 64], square)
    out = gl.allocate_shared_memory(gl.float32, [4 if D == 128 else 2, 128, 32], sums.layout)
    p = ds
    if D == 64:
        p = gl.allocate_shared_memory(q0.dtype, [2, 64, 64], square)
    level = gl.allocate_shared_memory(gl.float32, [2, 64], lse.layout)
    mean = gl.allocate_shared_memory(gl.float32, [2, 64], delta.layout)
    q_full, q_empty = _barriers(2, 1, 2)
    g_full, g_empty = _barriers(2, 1, 2)
    ds_full, ds_empty = _barriers(2, 2, 2)
    out_full, out_empty = _barriers(4 if D == 128 else 2, 1, 1)
    keys, unused = _barriers(1, 1, 1)
    fence_async_shared()
    bars = (q_full, q_empty, g_full, g_empty, ds_full, ds_empty, out_full, out_empty, keys)
    return x0, x1, g, y0, y1, z, ds, p, out, level, mean, bars


@gluon.jit
def _barriers(NUMBER: gl.constexpr, FULL: gl.constexpr, EMPTY: gl.constexpr):
    """Of full and of empty slots, and how many arrive at each."""
    full = gl.allocate_shared_memory(gl.int64, [NUMBER, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [NUMBER, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(NUMBER):
        mbarrier.init(full.index(i), count=FULL)
        mbarrier.init(empty.index(i), count=EMPTY)
    return full, empty


@gluon.jit
def _place(sizes, CAUSAL: gl.constexpr, ORDERED: gl.constexpr):
    """This program's head of keys in all sequences, first key, how many pairs of blocks of queries see it, the first
    pair that it meets, the step to the next, and whether keys rise in its wave. In any order, blocks that most queries
    see start first."""
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    wave = gl.program_id(0) // (together * blocks)
    within = gl.program_id(0) % (together * blocks)
    here = gl.minimum(together, groups - wave * together)
    back = wave % 2 == 1
    block = within // here
    if ORDERED:
        block = gl.where(back, block, blocks - 1 - block)
    start = 0
    if CAUSAL:
        start = gl.maximum(block * 128 - (T - S), 0) // 128 * 128
    pairs = gl.cdiv(S - start, 128)
    down = back != (abreast != 0)
    start = gl.where(down, start + (pairs - 1) * 128, start)
    return wave * together + within % here, block * 128, pairs, start, gl.where(down, -128, 128), back


@gluon.jit
def _loops(pairs, sizes):
    """How often a program's outer and inner loops run: over pairs of blocks of queries and the heads of each, if
    programs go abreast, or over heads and the pairs of each."""
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    return gl.where(abreast != 0, pairs, shared_by), gl.where(abreast != 0, shared_by, pairs)


@gluon.jit
def _visited(outer, inner, start, step, sizes):
    """The pair of blocks of queries and the head, of those that share the keys, that the loops have come to."""
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    return start + gl.where(abreast != 0, outer, inner) * step, gl.where(abreast != 0, inner, outer)


@gluon.jit
def _before(pair, key, back, sizes, CAUSAL: gl.constexpr):
    """How many programs add to dQ of this pair of blocks of queries before this one: of later keys, or of earlier."""
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    seen = blocks
    if CAUSAL:
        seen = gl.minimum((pair + 127 + T - S) // 128 + 1, blocks)
    return gl.where(back, key // 128, seen - 1 - key // 128)


@gluon.jit
def _multiply(
    given, shared, sizes, scale_log2, scale, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr,
    DV: gl.constexpr, CAUSAL: gl.constexpr, ORDERED: gl.constexpr,
):  # fmt: skip
    """A warpgroup's 64 keys."""
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    group, key, pairs, start, step, back = _place(sizes, CAUSAL, ORDERED)
    outers, inners = _loops(pairs, sizes)
    outer_step = gl.where(abreast != 0, step, 0)
    place = group, key, outers, inners, start, outer_step, step - outer_step
    multiply(given, shared, sizes, place, scale_log2, scale, INDEX, D, FIRST, DV, CAUSAL)


@gluon.jit
def _load(
    given, shared, sizes, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, CAUSAL: gl.constexpr,
    ORDERED: gl.constexpr,
):  # fmt: skip
    """The loader: keys and values once, then blocks of queries and of dO of all heads that share them."""
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    x0, x1, g, y0, y1, z, ds, p, out, level, mean, bars = shared
    q_full, q_empty, g_full, g_empty, ds_full, ds_empty, out_full, out_empty, keys = bars
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    group, key, pairs, start, step, back = _place(sizes, CAUSAL, ORDERED)
    outers, inners = _loops(pairs, sizes)
    per_sequence = heads // shared_by
    sequence = group // per_sequence
    at = group % per_sequence
    mbarrier.expect(keys.index(0), 128 * (D + DV) * 2)
    for i in gl.static_range(2):
        line = sequence * T + key + 64 * i
        tma.async_copy_global_to_shared(k0, [line, at * D], keys.index(0), y0.index(i))
        if D > FIRST:
            tma.async_copy_global_to_shared(k1, [line, at * D + FIRST], keys.index(0), y1.index(i))
        tma.async_copy_global_to_shared(v, [line, at * DV], keys.index(0), z.index(i))
    phase = 1
    for outer in range(outers):
        for inner in range(inners):
            pair, one = _visited(outer, inner, start, step, sizes)
            head = at * shared_by + one
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
def _carry(
    given, shared, sizes, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr, CAUSAL: gl.constexpr,
    ORDERED: gl.constexpr,
):  # fmt: skip
    """The warp that brings a warpgroup's dQ to memory: in its turn, and the next turn comes when it has landed.

    Of each block of queries a warpgroup makes 64 columns, and of every other one those past 128, or of 64 all.
    """
    q0, q1, do, k0, k1, v, lse, delta, sums, dk, dv, turns = given
    x0, x1, g, y0, y1, z, ds, p, out, level, mean, bars = shared
    q_full, q_empty, g_full, g_empty, ds_full, ds_empty, out_full, out_empty, keys = bars
    S, T, heads, shared_by, blocks, together, groups, abreast = sizes
    group, key, pairs, start, step, back = _place(sizes, CAUSAL, ORDERED)
    outers, inners = _loops(pairs, sizes)
    per_sequence = heads // shared_by
    sequence = group // per_sequence
    phase = 0
    for outer in range(outers):
        for inner in range(inners):
            pair, one = _visited(outer, inner, start, step, sizes)
            head = group % per_sequence * shared_by + one
            before = _before(pair, key, back, sizes, CAUSAL)
            for slot in gl.static_range(2):
                block = ((sequence * heads + head) * gl.cdiv(S, 128) + pair // 128) * 2 + slot
                turn = turns + block * 2 + INDEX
                line = block * (D * 2)
                if ORDERED and (FIRST == 128 or slot == INDEX):
                    _await(turn, before)
                if D == 128:
                    box = out.index(2 * INDEX + 1 - slot)
                    _bring(sums, box, bars, 2 * INDEX + 1 - slot, phase, line + 128 * INDEX, before, ORDERED)
                    if slot == 1:
                        phase ^= 1
                if D > 128:
                    _bring(sums, out.index(INDEX), bars, INDEX, phase, line + 128 * INDEX, before, ORDERED)
                    phase ^= 1
                if D != 128 and slot == INDEX:
                    line += 256 if D > FIRST else 0
                    _bring(sums, out.index(INDEX), bars, INDEX, phase, line, before, ORDERED)
                    phase ^= 1
                if ORDERED and (FIRST == 128 or slot == INDEX):
                    _settle(turn)
    tma.store_wait(0)


@gluon.jit
def _bring(
    sums, box, bars, INDEX: gl.constexpr, phase, line, before, ORDERED: gl.constexpr
):  # fmt: skip
    """A tile of dQ from its place to memory; the place is free when the copy engine has read it."""
    q_full, q_empty, g_full, g_empty, ds_full, ds_empty, out_full, out_empty, keys = bars
    mbarrier.wait(out_full.index(INDEX), phase)
    if ORDERED and before == 0:
        tma.async_copy_shared_to_global(sums, [line, 0], box)
    else:
        add_in_memory(sums, [line, 0], box)
    tma.store_wait(0)
    mbarrier.arrive(out_empty.index(INDEX))


@gluon.jit
def _await(turn, number):
    """Until so many have added."""
    gl.inline_asm_elementwise(
        "{ .reg .pred p; .reg .b32 v; AGAIN: ld.acquire.gpu.global.b32 v, [$1]; setp.lt.s32 p, v, $2; @p bra AGAIN; "
        "mov.b32 $0, v; }",
        "=r,l,r", [turn, number], gl.int32, False, 1,
    )  # fmt: skip


@gluon.jit
def _settle(turn):
    """When what this warp added is in memory, the next program's turn comes."""
    zero = gl.program_id(0) * 0
    gl.inline_asm_elementwise("cp.async.bulk.wait_group 0; mov.b32 $0, $1;", "=r,r", [zero], gl.int32, False, 1)
    barrier()
    gl.atomic_add(turn, 1, sem="release")
