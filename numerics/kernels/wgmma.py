# ruff: noqa: N803, N806, RUF059 - M, N, K and constants are capitals; roles unpack what they share
"""FP8 products on Hopper's warp-group instructions, in Gluon: one warp loads, two or three warpgroups multiply.

The forms that numerics/kernels/gemm.py, grouped.py and wgrad.py take on a card; their Triton kernels are the twins that
the interpreter runs, with equal bits (the sum of every 128 elements is made by the same instructions, and added to the
FP32 sum in the same order by the same fused multiply-add).

A program, one an SM, walks tiles of 64 or 128 rows a consumer. The loader's copies (TMA) fill `STAGES` slots of shared
memory behind a pair of barriers each: `full` (bytes have come) and `empty` (all consumers are done). A consumer
multiplies 128 elements of K into a scratch sum, frees the slot, and adds the scratch sum times both scales to its FP32
sum on the CUDA cores, while another consumer has the tensor core: that overlap is what the form is for. Scales of rows
travel with the operands; they lie M-contiguous, [blocks of K, M], as the casts store them.

What binds them is L2 (4096 x 7168 x 16384, H200, 2026-11-30): tiles of 192 x 128 take 612 us without loads, 722 us
without products (9 TB/s), 828 us with both. So tiles are 256 x 128 where waves allow it (719 us): two pieces of 64 rows
a consumer share b. Two programs may also make a pair (cluster.py): each loads half of the rows for both.
"""

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
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
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from hwmodels.formats import TILE
from numerics.kernels.cluster import ARRIVALS, meet, rewriting, shared_row

barrier = getattr(gl, "thread_barrier", None) or gl.barrier
"""Of a warpgroup's threads, by its name in Triton 3.6 or in 3.7."""
DENSE = gl.constexpr(0)
GROUPED = gl.constexpr(1)
MASKED = gl.constexpr(2)
WEIGHT = gl.constexpr(3)


class Form(NamedTuple):
    """How one product is cut: 64 `consumers` `pieces` rows by block_n columns, `stages` blocks of 128 of K in flight.

    pieces: of 64 rows that a consumer multiplies one after the other. pair: programs load rows for each other. band:
    tile rows that neighbouring programs share.
    """

    consumers: int
    block_n: int
    stages: int
    pieces: int = 1
    pair: bool = False
    band: int = 8

    @property
    def block_m(self) -> int:
        return 64 * self.consumers * self.pieces

    def columns(self, n: int) -> int:
        """Tile columns over n; of 192 columns, and of pairs of programs, they come in pairs."""
        if self.block_n == 192 or self.pair:
            return 2 * -(-n // (2 * self.block_n))
        return -(-n // self.block_n)

    def tiles(self, m: int, n: int) -> int:
        """Tiles of a matrix [m, n]."""
        return -(-m // self.block_m) * self.columns(n)

    @property
    def name(self) -> str:
        words = [f"{self.block_m}x{self.block_n}", f"{self.consumers} consumers", f"s{self.stages}"]
        words += ["pair"] * self.pair
        return " ".join(words + [f"band {self.band}"] * (self.band != 8))


LAUNCH_REGISTERS = {1: None, 2: 168, 3: 128}
"""Cap at launch by consumers: a program's threads share 65,536 registers, of which the loader gives up all but 24 each
(then 240 or 160 a consumer's thread)."""


def takes(a: Tensor, b: Tensor, out: Tensor, promote: int) -> bool:
    """Whether this card and these operands suit: Hopper, promoted every 128, rows that the copy engine can address."""
    here = a.is_meta or (a.is_cuda and torch.cuda.get_device_capability(a.device) == (9, 0))
    aligned = all(x.stride(-1) == 1 and not (x.stride(-2) * x.element_size() | x.data_ptr()) % 16 for x in (a, b, out))
    return here and promote == 128 and aligned


DENSE_FORMS = {Form(3, 128, 4): (0.65, 0.7), Form(2, 128, 3, pieces=2): (0.80, 1.8), Form(2, 128, 5): (0.49, 0.74)}
"""Forms of large products, with microseconds that a tile takes for 128 elements of K (4096 x 7168 x 16384) and besides
(mean of the three shapes of V3 with K of at most 2,048; H200, 2026-11-30, time over waves): what waves are weighed by.

None is of pairs. Those had equal bits at every shape, and took 1.4 to 2 times as long behind a fence in each arrival;
without it (cluster.py) no card has run them: `python -m numerics bench --only pairs` does."""
GROUPED_FORM = Form(2, 192, 4)
"""Of experts' rows, which come in blocks of 128."""
FEW_FORM = Form(1, 128, 8)
"""Of at most 64 rows a group."""
MASKED_FORM = Form(2, 128, 5)
"""Of at most 128 rows a group, or more."""
WEIGHT_FORMS = {Form(3, 128, 4): (0.892, 0.0), Form(2, 128, 3, pieces=2): (1.284, 0.0)}
"""Of weight gradients, as DENSE_FORMS (4,096 tokens, median of the six shapes)."""
SHARED = 232_448 - 2048
"""Bytes of shared memory a program may take on Hopper (227 KiB; CUDA programming guide, compute capability 9.0), less
barriers and alignment."""


def deepest(form: Form) -> Form:
    """`form` with as many slots as shared memory holds beside the buffer of C, at most 8."""
    slot = (form.block_m + form.block_n) * 128 + 4 * (form.block_m + form.block_n)
    return form._replace(stages=min(8, (SHARED - 2 * form.block_m * form.block_n) // slot))


def choose(m: int, n: int, k: int, sms: int) -> Form:
    """The form of a dense product: for few rows the one that spreads b over the SMs, else that of the fewest waves."""
    if m <= TILE:
        consumers = 1 if m <= TILE // 2 else 2
        width = min((128, 64, 32, 16), key=lambda w: -(-n // (w * sms)) * w)
        return deepest(Form(consumers, width, 8))
    return quickest(DENSE_FORMS, m, n, k, sms)


def quickest(forms: dict[Form, tuple[float, float]], m: int, n: int, k: int, sms: int) -> Form:
    """The one of `forms` that takes least for a [m, k] b [n, k]^T, as waves of tiles."""
    blocks = -(-k // TILE)
    us = {form: -(-form.tiles(m, n) // sms) * (blocks * each + besides) for form, (each, besides) in forms.items()}
    return min(us, key=us.__getitem__)


def masked_form(group_rows: int) -> Form:
    """The form for up to `group_rows` rows a group."""
    return FEW_FORM if group_rows <= 64 else MASKED_FORM


def dense(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor, form: Form, sms: int) -> None:
    """out [M, N] = a [M, K] b [N, K]^T."""
    rows = -(-a.shape[0] // form.block_m)
    _launch(DENSE, a, a_s, b, b_s, out, form, sms, rows)


def grouped(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, table: Tensor, out: Tensor, form: Form, sms: int
) -> None:  # fmt: skip
    """out [R, N]: rows of a times the weight b [G, N, K] of their group; table: the group of each 128 rows."""
    if TILE % form.block_m:
        raise ValueError(f"a tile's rows divide {TILE}, a row block's height; got {form.block_m}")
    rows = a.shape[0] // form.block_m
    _launch(GROUPED, a, a_s, b.flatten(0, 1), b_s, out, form, sms, rows, table=table)


def masked(
    a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, rows: Tensor, out: Tensor, form: Form, sms: int
) -> None:  # fmt: skip
    """out [G Rmax, N]: the first rows[g] rows of each group, zeros after them; Rmax is a multiple of 64."""
    group_rows = a.shape[0] // b.shape[0]
    tile_rows = b.shape[0] * -(-group_rows // form.block_m)
    _launch(MASKED, a, a_s, b.flatten(0, 1), b_s, out, form, sms, tile_rows, group_rows, rows)


def weight(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor, form: Form, sms: int) -> None:
    """out [N, K] += a [N, M] b [K, M]^T, both with a scale a row and 128 of M."""
    _launch(WEIGHT, a, a_s, b, b_s, out, form, sms, -(-a.shape[0] // form.block_m))


def _launch(
    mode: Any, a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor, form: Form, sms: int,
    tiles_m: int, group_rows: int = 1, table: Tensor | None = None,
) -> None:  # fmt: skip
    """Run `_products` on matrices a [M, K], b [N, K] (stacked: [G N, K]), out [M, N]; tiles_m: over all groups."""
    form = form._replace(pair=form.pair and sms > 1)
    m, k = a.shape
    n = out.shape[1]
    weight = mode is WEIGHT
    columns = form.columns(n)
    wide, side = min(form.block_n, 128), form.block_n == 192
    strides = (0, *b_s.stride()) if b_s.ndim == 2 else b_s.stride()
    a_s = by_column(a_s)
    if weight:
        b_s = by_column(b_s)
        strides = (0, *b_s.stride())
    programs = 2 * min(tiles_m * columns // 2, sms // 2) if form.pair else min(tiles_m * columns, sms)
    with rewriting() if form.pair else nullcontext():
        _products[(programs,)](
            _boxes(a, 32 if form.pair else 64, 128), _boxes(b, wide, 128), _boxes(b, 64, 128) if side else None,
            _flat(a_s, 64), _flat(b_s, form.block_n) if weight else b_s,
            _boxes(out, 64, 64 if weight else wide), _boxes(out, 64, 64) if side else None, table,
            m, n, k, tiles_m, columns, group_rows, a_s.stride(1), *strides, out.stride(0),
            MODE=mode.value, CONSUMERS=form.consumers, BLOCK_N=form.block_n, STAGES=form.stages, BAND=form.band,
            PAIR=form.pair, PIECES=form.pieces, num_warps=4, maxnreg=LAUNCH_REGISTERS[form.consumers],
        )  # fmt: skip


def by_column(scales: Tensor) -> Tensor:
    """Scales [rows, blocks of K] with rows side by side, as the copy engine takes them: a copy where they are not.

    Where a run of scales starts must be a multiple of 16 bytes (an illegal instruction otherwise, seen on an H200 with
    77 rows), so rows of other lengths are copied to longer ones.
    """
    if scales.stride(0) == 1 and not (scales.data_ptr() % 16 or scales.stride(1) % 4):
        return scales
    rows, blocks = scales.shape
    wide = scales.new_empty(blocks, -(-rows // 4) * 4)[:, :rows]
    return wide.copy_(scales.t()).t()


def _boxes(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A descriptor of boxes of a matrix, in the swizzled layout that warp-group products read and stores write."""
    swizzle = min(128, columns * x.element_size())
    layout = gl.NVMMASharedLayout(swizzle, 8 * x.element_size(), 2)
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, columns], layout)


def _flat(scales: Tensor, rows: int) -> TensorDescriptor:
    """A descriptor of runs of `rows` scales anywhere in memory; `block * stride + row` is where one starts."""
    length = (scales.shape[1] - 1) * scales.stride(1) + scales.shape[0]
    flat = scales.as_strided((length,), (1,))
    return TensorDescriptor(flat, [length], [1], [rows], gl.NVMMASharedLayout(0, 32, 1))


@gluon.jit(do_not_specialize=["M", "N", "K", "tiles_m", "tiles_n", "group_rows", "stride_a_s", "stride_bsg",
                              "stride_bsn", "stride_bsk"])  # fmt: skip
def _products(
    a, b, b_side, a_s, b_s, c, c_side, table, M, N, K, tiles_m, tiles_n, group_rows,
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    given = (a, b, b_side, a_s, b_s, c, c_side, table)
    shared = _shared(given, MODE, CONSUMERS, BLOCK_N, STAGES, PAIR, PIECES)
    sizes = (M, N, K, tiles_m, tiles_n, group_rows)
    strides = (stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c)
    if CONSUMERS == 1:
        gl.warp_specialize(
            [
                (_consume, (given, shared, sizes, strides, 0, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_load, (given, shared, sizes, strides, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
            ],
            [1],
            [24],
        )
    elif CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (given, shared, sizes, strides, 0, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_consume, (given, shared, sizes, strides, 1, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_load, (given, shared, sizes, strides, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
            ],
            [4, 1],
            [240, 24],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (given, shared, sizes, strides, 0, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_consume, (given, shared, sizes, strides, 1, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_consume, (given, shared, sizes, strides, 2, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_load, (given, shared, sizes, strides, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
            ],
            [4, 4, 1],
            [160, 160, 24],
        )


@gluon.jit
def _shared(
    given, MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """Slots of operands and scales, a program's piece of C, and barriers of full and of empty slots."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    WIDE: gl.constexpr = 128 if BLOCK_N > 128 else BLOCK_N
    x = gl.allocate_shared_memory(a.dtype, [STAGES * CONSUMERS * PIECES, 64, 128], a.layout)
    y = gl.allocate_shared_memory(b.dtype, [STAGES, WIDE, 128], b.layout)
    x_s = gl.allocate_shared_memory(gl.float32, [STAGES * CONSUMERS * PIECES, 64], a_s.layout)
    y_side, y_s, out, out_side = y, x_s, x, x  # where a form has no use for them
    if BLOCK_N == 192:
        y_side = gl.allocate_shared_memory(b.dtype, [STAGES, 64, 128], b.layout)
        out_side = gl.allocate_shared_memory(c.dtype, [CONSUMERS, 64, 64], c_side.layout)
    if MODE == WEIGHT:
        y_s = gl.allocate_shared_memory(gl.float32, [STAGES, BLOCK_N], b_s.layout)
        out = gl.allocate_shared_memory(c.dtype, [CONSUMERS * PIECES, 64, 64], c.layout)
    else:
        out = gl.allocate_shared_memory(c.dtype, [CONSUMERS * PIECES, 64, WIDE], c.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS * ARRIVALS if PAIR else CONSUMERS)
    fence_async_shared()
    if PAIR:
        barrier()
        meet()
    return x, y, y_side, x_s, y_s, out, out_side, full, empty


@gluon.jit
def _place(
    tile, table, sizes, MODE: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr,
):  # fmt: skip
    """Where a tile lies: row of a and C, columns of its wide and its narrow piece, group, and rows that count.

    Tiles are walked in bands of BAND tile rows, down each band column by column: programs that run together share
    operands in L2. Of 192 columns, 128 share one of b's scales and 64 half of another's: pairs of tiles share three.
    """
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    if PAIR:
        tiles_n = tiles_n // 2
    band = tile // (BAND * tiles_n)
    height = gl.minimum(tiles_m - band * BAND, BAND)
    within = tile % (BAND * tiles_n)
    tile_m = band * BAND + within % height
    tile_n = within // height
    if PAIR:
        tile_n = 2 * tile_n + gl.program_id(0) % 2
    row = tile_m * BLOCK_M
    group = 0
    filled = BLOCK_M
    if MODE == GROUPED:
        group = gl.load(table + row // 128)
        filled = gl.where(group >= 0, BLOCK_M, 0)
        group = gl.maximum(group, 0)
    elif MODE == MASKED:
        tiles_a_group = gl.cdiv(group_rows, BLOCK_M)
        group = tile_m // tiles_a_group
        first = tile_m % tiles_a_group * BLOCK_M
        row = group * group_rows + first
        filled = gl.load(table + group) - first
    col = tile_n * BLOCK_N
    side = col
    if BLOCK_N == 192:
        col = tile_n // 2 * 384 + tile_n % 2 * 256
        side = tile_n // 2 * 384 + tile_n % 2 * 64 + 128
    return row, col, side, group, filled


@gluon.jit
def _walk(sizes, PAIR: gl.constexpr):
    """First tile of a program, number of tiles, and step from one to the next; of pairs of tiles for a pair."""
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    blocks: gl.constexpr = 2 if PAIR else 1
    return gl.program_id(0) // blocks, tiles_m * tiles_n // blocks, gl.num_programs(0) // blocks


@gluon.jit
def _load(
    given, shared, sizes, strides,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """The loader: for each tile and 128 of K, wait until the slot is free, then copy both operands and their scales."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c = strides
    BLOCK_M: gl.constexpr = 64 * CONSUMERS * PIECES
    BYTES: gl.constexpr = (BLOCK_M + BLOCK_N) * 128 + 4 * BLOCK_M + (4 * BLOCK_N if MODE == WEIGHT else 0)
    halves = x
    if PAIR:
        halves = x._reinterpret(a.dtype, [2 * STAGES * CONSUMERS * PIECES, 32, 128], a.layout)
    slot = 0
    phase = 1
    blocks = gl.cdiv(K, 128)
    first, count, step = _walk(sizes, PAIR)
    for tile in range(first, count, step):
        row, col, side, group, filled = _place(tile, table, sizes, MODE, BLOCK_M, BLOCK_N, BAND, PAIR)
        depth = gl.where(filled > 0, blocks, 0)
        for block in range(depth):
            bar = full.index(slot)
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(bar, BYTES)
            tma.async_copy_global_to_shared(b, [group * N + col, block * 128], bar, y.index(slot))
            if BLOCK_N == 192:
                tma.async_copy_global_to_shared(b_side, [group * N + side, block * 128], bar, y_side.index(slot))
            if MODE == WEIGHT:
                tma.async_copy_global_to_shared(b_s, [block * stride_bsk + col], bar, y_s.index(slot))
            for i in gl.static_range(CONSUMERS * PIECES):
                part = slot * CONSUMERS * PIECES + i
                if PAIR:  # half of the rows, to both; the other half comes from there
                    half = gl.program_id(0) % 2
                    place = shared_row(row + 64 * i + 32 * half)
                    tma.async_copy_global_to_shared(a, [place, block * 128], bar, halves.index(2 * part + half))
                else:
                    tma.async_copy_global_to_shared(a, [row + 64 * i, block * 128], bar, x.index(part))
                tma.async_copy_global_to_shared(a_s, [block * stride_a_s + row + 64 * i], bar, x_s.index(part))
            slot, phase = _next(slot, phase, STAGES)
    if PAIR:  # no block ends before the other has sent it all and taken all
        for _ in gl.static_range(STAGES):
            mbarrier.wait(empty.index(slot), phase)
            slot, phase = _next(slot, phase, STAGES)


@gluon.jit
def _consume(
    given, shared, sizes, strides, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, BAND: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """A warpgroup that multiplies: one or two pieces of 64 rows of every tile; of 192 columns 128 and then 64."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c = strides
    slot = 0
    phase = 0
    blocks = gl.cdiv(K, 128)
    first, count, step = _walk(sizes, PAIR)
    for tile in range(first, count, step):
        row, col, side, group, filled = _place(tile, table, sizes, MODE, 64 * CONSUMERS * PIECES, BLOCK_N, BAND, PAIR)
        depth = gl.where(filled > 0, blocks, 0)
        total, beside, slot, phase = _sums(
            given, shared, sizes, strides, col, side, group, depth, slot, phase, INDEX,
            MODE, CONSUMERS, BLOCK_N, STAGES, PAIR, PIECES,
        )  # fmt: skip
        below: gl.constexpr = 64 * PIECES * INDEX
        mine: gl.constexpr = PIECES * INDEX
        if MODE == WEIGHT:
            # Two pieces have two buffers, of which one may be on its way.
            _add(c, total, out.index(mine), out.index(mine + PIECES - 1), row + below, col, PIECES - 1)
            if PIECES == 2:
                _add(c, beside, out.index(mine), out.index(mine + 1), row + below + 64, col, 1)
            if depth > 0:
                mbarrier.arrive(empty.index(_before(slot, STAGES)))
        else:
            tma.store_wait(0)
            _store(c, total, out.index(mine), row, below, col, filled, group_rows, MODE)
            if PIECES == 2:
                _store(c, beside, out.index(mine + 1), row, below + 64, col, filled, group_rows, MODE)
            elif BLOCK_N == 192:
                _store(c_side, beside, out_side.index(INDEX), row, below, side, filled, group_rows, MODE)
    tma.store_wait(0)


@gluon.jit
def _sums(
    given, shared, sizes, strides, col, side, group, depth, slot, phase, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr,
    PAIR: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """A warpgroup's sums of one tile, of its wide and narrow columns or its two pieces, and the slot and phase next."""
    a, b, b_side, a_s, b_s, c, c_side, table = given
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    M, N, K, tiles_m, tiles_n, group_rows = sizes
    stride_a_s, stride_bsg, stride_bsn, stride_bsk, stride_c = strides
    WIDE: gl.constexpr = 128 if BLOCK_N > 128 else BLOCK_N
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDE, 32])
    thin: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 32])
    blocks = gl.cdiv(K, 128)
    total = gl.zeros([64, WIDE], gl.float32, layout)
    beside = gl.zeros([64, 64], gl.float32, thin)
    if PIECES == 2:
        beside = gl.zeros([64, WIDE], gl.float32, layout)
    near = 1.0
    far = 1.0
    if MODE != WEIGHT:
        first = gl.minimum(col, N - 1)  # a tile of a pair may lie past N
        at = b_s + group * stride_bsg + first // 128 * stride_bsn
        near = gl.load(at)
        if BLOCK_N == 192:  # a tile's narrow piece may lie past N: its columns are dropped then, whatever its scale
            past = b_s + group * stride_bsg + gl.minimum(side, N - 1) // 128 * stride_bsn
            far = gl.load(past)
    for block in range(depth):
        if MODE != WEIGHT:  # loaded here, the next block's scales come while this block's products run
            step = gl.minimum(block + 1, blocks - 1) * stride_bsk
            next = gl.load(at + step)
            if BLOCK_N == 192:
                next_far = gl.load(past + step)
        mbarrier.wait(full.index(slot), phase)
        total, beside = _multiply(
            total, beside, near, far, slot, phase, block, shared, INDEX, MODE, CONSUMERS, BLOCK_N, STAGES, PIECES
        )
        if MODE != WEIGHT:
            near = next
            if BLOCK_N == 192:
                far = next_far
        slot, phase = _next(slot, phase, STAGES)
    return total, beside, slot, phase


@gluon.jit
def _multiply(
    total, beside, near, far, slot, phase, block, shared, INDEX: gl.constexpr,
    MODE: gl.constexpr, CONSUMERS: gl.constexpr, BLOCK_N: gl.constexpr, STAGES: gl.constexpr, PIECES: gl.constexpr,
):  # fmt: skip
    """The sums with 128 elements of K more, promoted. near, far: b's scales of the wide and the narrow piece."""
    x, y, y_side, x_s, y_s, out, out_side, full, empty = shared
    layout: gl.constexpr = total.type.layout
    thin: gl.constexpr = beside.type.layout
    first = slot * CONSUMERS * PIECES + PIECES * INDEX
    left = x.index(first)
    scale = x_s.index(first).load(gl.SliceLayout(1, layout))
    part = _start(left, y.index(slot), total)
    part = warpgroup_mma_wait(0, deps=[part])
    if MODE == WEIGHT:
        # There are no registers for column scales: they are read while they are multiplied, and a slot is given
        # back only behind the next products, which wait for these sums. Given back here, it was once seen to be
        # overwritten before it was read (1,088 of 117 million elements, H200).
        if block > 0:
            mbarrier.arrive(empty.index(_before(slot, STAGES)))
    elif PIECES == 1 and BLOCK_N <= 128:
        mbarrier.arrive(empty.index(slot))
    total = _promoted(total, part, scale, near, y_s, slot, MODE)
    if PIECES == 2:
        # Made before what follows, behind which there is a loop of waiting (for what has come): the compiler would
        # else begin the second products first, and keep both in registers that there are not.
        total = _fixed(total)
        scale = x_s.index(first + 1).load(gl.SliceLayout(1, layout))
        mbarrier.wait(full.index(slot), phase)
        part = _start(x.index(first + 1), y.index(slot), beside)
        part = warpgroup_mma_wait(0, deps=[part])
        if MODE != WEIGHT:
            mbarrier.arrive(empty.index(slot))
        beside = _fixed(_promoted(beside, part, scale, near, y_s, slot, MODE))
    elif BLOCK_N == 192:
        part = _start(left, y_side.index(slot), beside)
        part = warpgroup_mma_wait(0, deps=[part])
        mbarrier.arrive(empty.index(slot))
        thin_scale = gl.convert_layout(scale * far, gl.SliceLayout(1, thin), assert_trivial=True)
        beside += part * gl.expand_dims(thin_scale, 1)
    return total, beside


@gluon.jit
def _promoted(total, part, scale, near, y_s, slot, MODE: gl.constexpr):
    """total and a scratch sum, times its rows' scales and b's: one, or of weight gradients one a column."""
    if MODE == WEIGHT:
        column = y_s.index(slot).load(gl.SliceLayout(0, total.type.layout))
        total += part * gl.expand_dims(scale, 1) * gl.expand_dims(column, 0)
    else:
        total += part * gl.expand_dims(scale * near, 1)
    return total


@gluon.jit
def _fixed(x):
    """x, made before what follows."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1)


@gluon.jit
def _start(left, right, total):
    """Begin the scratch sum of 128 elements of K, in the shape of `total`."""
    layout: gl.constexpr = total.type.layout
    blank = gl.zeros([64, total.shape[1]], gl.float32, layout)
    return warpgroup_mma(left, right.permute((1, 0)), blank, use_acc=False, is_async=True)


@gluon.jit
def _next(slot, phase, STAGES: gl.constexpr):
    """The slot after this one, and the phase of its barriers."""
    phase = gl.where(slot == STAGES - 1, phase ^ 1, phase)
    return gl.where(slot == STAGES - 1, 0, slot + 1), phase


@gluon.jit
def _before(slot, STAGES: gl.constexpr):
    """The slot before this one."""
    return gl.where(slot == 0, STAGES, slot) - 1


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
def _add(c, total, first, second, row, col, PENDING: gl.constexpr):
    """C += total, 64 columns at a time, by the copy engine, `PENDING` of its reads of the buffers unfinished. One
    program owns a tile: a sum gets one addition a call, so it does not depend on timing."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 32])
    left, right = total.reshape([64, 2, 64]).permute([0, 2, 1]).split()
    tma.store_wait(PENDING)
    first.store(gl.convert_layout(left, layout, assert_trivial=True))
    fence_async_shared()
    add_in_memory(c, [row, col], first)
    tma.store_wait(PENDING)
    second.store(gl.convert_layout(right, layout, assert_trivial=True))
    fence_async_shared()
    add_in_memory(c, [row, col + 64], second)


@builtin
def add_in_memory(target: Any, coordinates: Any, source: Any, _semantic: Any = None) -> None:
    """The copy engine adds `source` in shared memory to a box of `target`."""
    where = _semantic._convert_to_ir_values(coordinates, require_i64=False)
    _semantic.builder.create_async_tma_reduce(ir.DESCRIPTOR_REDUCE_KIND.ADD, target.handle, where, source.handle)
