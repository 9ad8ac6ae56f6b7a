# ruff: noqa: N803, N806, RUF059 - S, T, H and constants are capitals; roles unpack what they share
"""Attention forward on Hopper's warp-group instructions, in Gluon: one warp loads, two warpgroups attend.

The form that numerics/kernels/attention.py takes on a card for widths in parts of 64 and 128 (192 = 128 + 64); its
Triton kernel is the twin that the interpreter runs. Bound: the tensor core.

A program, one an SM, walks tiles of 128 queries of one head, 64 a warpgroup. The loader's copies (TMA) fill slots of
keys and of values behind a pair of barriers each, from the diagonal backwards. A warpgroup issues the scores of the
next block of keys, then this block's P V, and works on the next block's softmax while P V runs (FlashAttention-3,
arXiv 2407.08608, section 3.2); the other warpgroup has the tensor core when this one does not.
"""

from functools import lru_cache
from heapq import heappop, heappush
from typing import NamedTuple

import torch
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

ROWS = 128
"""Queries of a tile: 64 a warpgroup, the height of its product."""
REGISTERS, CONSUMER, LOADER = 168, 240, 24
"""A thread's at launch (12 warps share 65,536), then of the warpgroups that attend and of the loader."""


class Form(NamedTuple):
    """Blocks of `columns` keys, `stages` of them under way; `heads` whose tiles are walked together, longest first,
    so that their keys and values stay in L2. persistent: a program an SM walks many tiles; otherwise it has one."""

    columns: int = 128
    stages: int = 2
    heads: int = 4
    persistent: bool = True

    @property
    def name(self) -> str:
        return f"{ROWS}x{self.columns} s{self.stages}" + (f" {self.heads} heads" if self.persistent else " one tile")


DEFAULT = Form()
START = 1.0
"""What a tile takes beside its keys, in blocks of them."""


WIDTHS = {(192, 128), (128, 128), (64, 64)}
"""Of queries and keys, and of values: a warpgroup's output takes the place of the first part of its queries."""


def takes(q: Tensor, k: Tensor, v: Tensor, scale: float) -> bool:
    """Whether this card and these operands suit: Hopper, and no box that reads on into the next sequence.

    Statistics of a head must start at a multiple of 16 bytes, as the copy engine takes them.
    """
    here = q.is_meta or (q.is_cuda and torch.cuda.get_device_capability(q.device) == (9, 0))
    batch, s, _, d = q.shape
    whole = s % 4 == 0 if batch == 1 else s % ROWS == 0 and k.shape[1] % ROWS == 0
    return here and whole and (d, v.shape[3]) in WIDTHS and scale > 0


def forward(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, scale_log2: float, causal: bool, form: Form, sms: int
) -> None:  # fmt: skip
    """o [B,S,H,Dv] and lse [B,H,S] of contiguous q [B,S,H,Dqk], k [B,T,G,Dqk], v [B,T,G,Dv]; G divides H."""
    (batch, s, heads, d), t, shared = q.shape, k.shape[1], k.shape[2]
    first, second = parts(d)
    programs, rounds, turns = dealt(-(-s // ROWS), heads * batch, s, t, causal, form, sms)
    _forward[(programs,)](
        boxes(q, 64, first, 0), boxes(q, 64, second, first), boxes(k, form.columns, first, 0),
        boxes(k, form.columns, second, first), boxes(v, form.columns, v.shape[3], 0), boxes(o, 64, v.shape[3], 0),
        lse, on_device(turns, q.device), s, t, heads, heads // shared, -(-s // ROWS), rounds, scale_log2,
        D=d, FIRST=first, DV=v.shape[3], COLUMNS=form.columns, STAGES=form.stages, CAUSAL=causal,
        num_warps=4, maxnreg=REGISTERS,
    )  # fmt: skip


@lru_cache(maxsize=64)
def on_device(turns: tuple[int, ...], device: torch.device) -> Tensor:
    """Those turns as int32 on a device."""
    return torch.tensor(turns, dtype=torch.int32, device=device)


@lru_cache(maxsize=64)
def dealt(
    blocks: int, heads: int, s: int, t: int, causal: bool, form: Form, sms: int
) -> tuple[int, int, tuple[int, ...]]:
    """Programs, the most tiles one has, and the tiles of each, filled up with -1: a tile goes to the program that is
    free first, where a tile takes as long as it has blocks of keys and START more."""
    order = [
        head * blocks + block
        for group in range(0, heads, form.heads)
        for block in reversed(range(blocks))
        for head in range(group, min(group + form.heads, heads))
    ]
    programs = min(len(order), sms) if form.persistent else len(order)
    free = [(0.0, program) for program in range(programs)]
    hands: list[list[int]] = [[] for _ in range(programs)]
    for tile in order:
        until, program = heappop(free)
        hands[program].append(tile)
        seen = min((tile % blocks + 1) * ROWS + t - s, t) if causal else t
        heappush(free, (until + START + seen / form.columns, program))
    rounds = max(map(len, hands))
    return programs, rounds, tuple(tile for hand in hands for tile in hand + [-1] * (rounds - len(hand)))


def parts(width: int) -> tuple[int, int]:
    """A head's width as boxes of the copy engine, whose sides are powers of two: 192 -> (128, 64), 128 -> (128, 0)."""
    first = 1 << (width.bit_length() - 1)
    return first, width - first


def boxes(x: Tensor, rows: int, width: int, first: int) -> TensorDescriptor | None:
    """A descriptor of [rows, width] boxes of x [B, L, H, D] as a matrix [B L, H D], swizzled; None for no width."""
    if not width:
        return None
    batch, length, heads, d = x.shape
    flat = x.view(batch * length, heads * d)
    swizzle = min(128, width * x.element_size())
    layout = gl.NVMMASharedLayout(swizzle, 8 * x.element_size(), 2)
    return TensorDescriptor(flat, list(flat.shape), list(flat.stride()), [rows, width], layout)


@gluon.jit(do_not_specialize=["S", "T", "heads", "shared_by", "blocks", "rounds"])
def _forward(
    q0, q1, k0, k1, v, o, lse, turns, S, T, heads, shared_by, blocks, rounds, scale_log2,
    D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, COLUMNS: gl.constexpr, STAGES: gl.constexpr,
    CAUSAL: gl.constexpr,
):  # fmt: skip
    given = (q0, q1, k0, k1, v, o, lse, turns)
    sizes = (S, T, heads, shared_by, blocks, rounds)
    shared = _shared(given, D, FIRST, DV, COLUMNS, STAGES)
    gl.warp_specialize(
        [
            (_attend, (given, shared, sizes, scale_log2, 0, D, FIRST, DV, COLUMNS, STAGES, CAUSAL)),
            (_attend, (given, shared, sizes, scale_log2, 1, D, FIRST, DV, COLUMNS, STAGES, CAUSAL)),
            (_load, (given, shared, sizes, D, FIRST, DV, COLUMNS, STAGES, CAUSAL)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def _shared(
    given, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, COLUMNS: gl.constexpr, STAGES: gl.constexpr
):  # fmt: skip
    """Slots of queries (one a warpgroup), keys and values, and barriers of full and of empty slots."""
    q0, q1, k0, k1, v, o, lse, turns = given
    x0 = gl.allocate_shared_memory(q0.dtype, [2, 64, FIRST], q0.layout)
    y0 = gl.allocate_shared_memory(k0.dtype, [STAGES, COLUMNS, FIRST], k0.layout)
    z = gl.allocate_shared_memory(v.dtype, [STAGES, COLUMNS, DV], v.layout)
    x1, y1 = x0, y0
    if D > FIRST:
        x1 = gl.allocate_shared_memory(q0.dtype, [2, 64, D - FIRST], q1.layout)
        y1 = gl.allocate_shared_memory(k0.dtype, [STAGES, COLUMNS, D - FIRST], k1.layout)
    q_bars = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(q_bars.index(0), count=1)
    mbarrier.init(q_bars.index(1), count=2)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=2)
        mbarrier.init(v_empty.index(i), count=2)
    fence_async_shared()
    return x0, x1, y0, y1, z, q_bars, k_full, k_empty, v_full, v_empty


@gluon.jit
def _place(tile, sizes, COLUMNS: gl.constexpr, CAUSAL: gl.constexpr):
    """A tile's head of all sequences, first query, blocks of keys that it sees, and how many all its queries see."""
    S, T, heads, shared_by, blocks, rounds = sizes
    row = tile % blocks * 128
    if CAUSAL:
        last = gl.cdiv(gl.minimum(row + 128 + T - S, T), COLUMNS)
        clear = gl.minimum((row + T - S + 1) // COLUMNS, T // COLUMNS)
    else:
        last = gl.cdiv(T, COLUMNS)
        clear = T // COLUMNS
    return tile // blocks, row, last, clear


@gluon.jit
def _deal(round, turns, rounds):
    """The next round and this program's tile in it, -1 for none."""
    round += 1
    more = round < rounds
    tile = gl.load(turns + gl.program_id(0) * rounds + gl.minimum(round, rounds - 1))
    return round, gl.where(more, tile, -1)


@gluon.jit
def _load(
    given, shared, sizes, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr, COLUMNS: gl.constexpr,
    STAGES: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """The loader: a tile's first keys, its queries, then values and keys from the last block to the first."""
    q0, q1, k0, k1, v, o, lse, turns = given
    x0, x1, y0, y1, z, q_bars, k_full, k_empty, v_full, v_empty = shared
    S, T, heads, shared_by, blocks, rounds = sizes
    slot = 0
    phase = 1
    BYTES: gl.constexpr = v.dtype.primitive_bitwidth // 8
    round = 0
    tile = gl.load(turns + gl.program_id(0) * rounds)
    while tile >= 0:
        head, row, last, clear = _place(tile, sizes, COLUMNS, CAUSAL)
        query = head // heads * S + row
        at = head % heads
        key = head // heads * T
        group = at // shared_by
        for block in range(last):
            line = key + (last - 1 - block) * COLUMNS
            bar = k_full.index(slot)
            mbarrier.wait(k_empty.index(slot), phase)
            mbarrier.expect(bar, COLUMNS * D * BYTES)
            tma.async_copy_global_to_shared(k0, [line, group * D], bar, y0.index(slot))
            if D > FIRST:
                tma.async_copy_global_to_shared(k1, [line, group * D + FIRST], bar, y1.index(slot))
            if block == 0:
                mbarrier.wait(q_bars.index(1), (round + 1) % 2)
                mbarrier.expect(q_bars.index(0), 128 * D * BYTES)
                for i in gl.static_range(2):
                    tma.async_copy_global_to_shared(q0, [query + 64 * i, at * D], q_bars.index(0), x0.index(i))
                    if D > FIRST:
                        tma.async_copy_global_to_shared(
                            q1, [query + 64 * i, at * D + FIRST], q_bars.index(0), x1.index(i)
                        )
            bar = v_full.index(slot)
            mbarrier.wait(v_empty.index(slot), phase)
            mbarrier.expect(bar, COLUMNS * DV * BYTES)
            tma.async_copy_global_to_shared(v, [line, group * DV], bar, z.index(slot))
            slot, phase = _next(slot, phase, STAGES)
        round, tile = _deal(round, turns, rounds)


@gluon.jit
def _attend(
    given, shared, sizes, scale_log2, INDEX: gl.constexpr, D: gl.constexpr, FIRST: gl.constexpr, DV: gl.constexpr,
    COLUMNS: gl.constexpr, STAGES: gl.constexpr, CAUSAL: gl.constexpr,
):  # fmt: skip
    """A warpgroup's 64 queries of every tile."""
    q0, q1, k0, k1, v, o, lse, turns = given
    x0, x1, y0, y1, z, q_bars, k_full, k_empty, v_full, v_empty = shared
    S, T, heads, shared_by, blocks, rounds = sizes
    scores: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    values: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, DV, 16])
    operand: gl.constexpr = gl.DotOperandLayout(0, values, 2)
    slot = 0
    phase = 0
    round = 0
    tile = gl.load(turns + gl.program_id(0) * rounds)
    while tile >= 0:
        head, row, last, clear = _place(tile, sizes, COLUMNS, CAUSAL)
        row += 64 * INDEX
        top = gl.full([64], float("-inf"), gl.float32, gl.SliceLayout(1, scores))
        total = gl.zeros([64], gl.float32, gl.SliceLayout(1, scores))
        mbarrier.wait(q_bars.index(0), round % 2)
        mbarrier.wait(k_full.index(slot), phase)
        s = _scores(x0.index(INDEX), x1.index(INDEX), y0.index(slot), y1.index(slot), D, FIRST, COLUMNS)
        s = warpgroup_mma_wait(0, deps=[s])
        mbarrier.arrive(k_empty.index(slot))
        s = _masked(s, row, (last - 1) * COLUMNS, S, T, CAUSAL)
        p, top, total, shrink = _softmax(s, top, total, scale_log2)
        acc = gl.zeros([64, DV], gl.float32, values)
        ahead, ahead_phase = _next(slot, phase, STAGES)
        mbarrier.wait(k_full.index(ahead), ahead_phase, pred=last > 1)
        for step in range(1, last):
            own = INDEX + hidden(step)
            s = _scores(x0.index(own), x1.index(own), y0.index(ahead), y1.index(ahead), D, FIRST, COLUMNS)
            y = gl.convert_layout(p.to(v.dtype), operand)
            mbarrier.wait(v_full.index(slot), phase)
            acc = warpgroup_mma(y, z.index(slot), acc, is_async=True)
            s = warpgroup_mma_wait(1, deps=[s])
            mbarrier.arrive(k_empty.index(ahead))
            if last - 1 - step >= clear:
                s = _masked(s, row, (last - 1 - step) * COLUMNS, S, T, CAUSAL)
            p, top, total, shrink = _softmax(s, top, total, scale_log2)
            before = slot
            slot = ahead
            phase = ahead_phase
            ahead, ahead_phase = _next(slot, phase, STAGES)
            # The assembler would move the wait for P V before the softmax, but not over this one.
            mbarrier.wait(k_full.index(ahead), ahead_phase, pred=step + 1 < last)
            acc = warpgroup_mma_wait(0, deps=[acc])
            mbarrier.arrive(v_empty.index(before))
            acc = acc * gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, values)), 1)
        y = gl.convert_layout(p.to(v.dtype), operand)
        mbarrier.wait(v_full.index(slot), phase)
        acc = warpgroup_mma(y, z.index(slot), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        mbarrier.arrive(v_empty.index(slot))
        slot, phase = ahead, ahead_phase
        _write(given, x0.index(INDEX), acc, top * scale_log2, total, head, row, S, heads, DV, scores)
        mbarrier.arrive(q_bars.index(1))
        round, tile = _deal(round, turns, rounds)


@gluon.jit
def _write(given, box, acc, level, total, head, row, S, heads, DV: gl.constexpr, scores: gl.constexpr):
    """O and the logarithms of its sums, through the place in shared memory where the queries were."""
    q0, q1, k0, k1, v, o, lse, turns = given
    values: gl.constexpr = acc.type.layout
    out = acc * gl.expand_dims(gl.convert_layout(1.0 / total, gl.SliceLayout(1, values)), 1)
    box.store(out.to(v.dtype))
    fence_async_shared()
    tma.async_copy_shared_to_global(o, [head // heads * S + row, head % heads * DV], box)
    rows = row + gl.arange(0, 64, gl.SliceLayout(1, scores))
    ln_2: gl.constexpr = 0.6931471805599453
    gl.store(lse + head * S + rows, (level + gl.log2(total)) * ln_2, mask=rows < S)
    tma.store_wait(0)


@gluon.jit
def hidden(number):
    """Zero, of a number not below it: the compiler does not know, so addresses with it are made where they are used and
    take no registers meanwhile."""
    return gl.inline_asm_elementwise("shr.u32 $0, $1, 31;", "=r,r", [number], gl.int32, False, 1)


@gluon.jit
def _next(slot, phase, STAGES: gl.constexpr):
    """The slot after this one, and the phase of its barriers."""
    return gl.where(slot == STAGES - 1, 0, slot + 1), gl.where(slot == STAGES - 1, phase ^ 1, phase)


@gluon.jit
def _scores(x0, x1, y0, y1, D: gl.constexpr, FIRST: gl.constexpr, COLUMNS: gl.constexpr):
    """Begin X Y^T over both parts of the head."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    s = gl.zeros([64, COLUMNS], gl.float32, layout)
    s = warpgroup_mma(x0, y0.permute((1, 0)), s, use_acc=False, is_async=True)
    if D > FIRST:
        s = warpgroup_mma(x1, y1.permute((1, 0)), s, is_async=True)
    return s


@gluon.jit
def _masked(s, row, column, S, T, CAUSAL: gl.constexpr):
    """Scores of queries from `row` and keys from `column` on; -inf where a query may not look."""
    layout: gl.constexpr = s.type.layout
    columns = gl.expand_dims(gl.arange(0, s.shape[1], gl.SliceLayout(0, layout)), 0)
    last = T - 1 - column
    if CAUSAL:
        rows = row + T - S - column + gl.arange(0, s.shape[0], gl.SliceLayout(1, layout))
        seen = columns <= gl.expand_dims(gl.minimum(rows, last), 1)
    else:
        seen = columns <= last
    return gl.where(seen, s, float("-inf"))


@gluon.jit
def _softmax(s, top, total, scale_log2):
    """P of one more block, the largest scores, the sums, and what earlier sums are multiplied by."""
    higher = gl.maximum(top, gl.max(s, 1))
    level = gl.where(higher == float("-inf"), 0.0, higher * scale_log2)  # nothing seen yet
    p = _exp2(s * scale_log2 - gl.expand_dims(level, 1))
    shrink = _exp2(top * scale_log2 - level)
    return p, higher, total * shrink + gl.sum(p, 1), shrink


@gluon.jit
def _exp2(x):
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], gl.float32, True, 1)
