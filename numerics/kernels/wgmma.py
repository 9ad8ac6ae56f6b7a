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

What held tiles of 192 x 128 back was L2 (4096 x 7168 x 16384, H200, 2026-11-30: 612 us without loads, 722 us without
products, 828 us with both). What has made them faster, on the same day: tiles of 256 x 128 (719 us); warps that wait
and arrive by themselves (cluster.py; 117 to 109 us at 4096 x 2112 x 7168); multiply-adds that let others in (117 to 106
there, with the former and stores beside products 101); stores beside products (wgmma_sums.py; 1 to 3 % where K is at
most 2,048); pairs of programs of which each loads half of the rows for both (1 % over V3's six shapes, 3 % of weight
gradients); bands of 16 tile rows (8 % at K = 512).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from hwmodels.formats import TILE
from numerics.kernels.cluster import BLOCKS, WARPS, alone, meet, rewriting, shared_row
from numerics.kernels.wgmma_sums import consume
from numerics.kernels.wgmma_tiles import DENSE, GROUPED, MASKED, WEIGHT, advance, place, walk

barrier = getattr(gl, "thread_barrier", None) or gl.barrier
"""Of a warpgroup's threads, by its name in Triton 3.6 or in 3.7."""


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
        """Tile columns over n; of pairs of programs they come in pairs."""
        return 2 * -(-n // (2 * self.block_n)) if self.pair else -(-n // self.block_n)

    def tiles(self, m: int, n: int) -> int:
        """Tiles of a matrix [m, n]."""
        return -(-m // self.block_m) * self.columns(n)

    @property
    def boxes(self) -> int:
        """Rows of a that one copy brings: all of a tile's, or 64 where they are no power of two."""
        return self.block_m if self.block_m & (self.block_m - 1) == 0 else 64

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


DENSE_FORMS = {
    Form(2, 128, 3, pieces=2, pair=True, band=16): (0.766, 0.84), Form(3, 128, 4): (0.546, 1.08),
    Form(2, 128, 5): (0.412, 0.66),
}  # fmt: skip
"""Forms of large products, with microseconds that a tile takes for 128 elements of K and besides: what waves are
weighed by. Fitted to twelve shapes (H200, 2026-11-30, M of 256 to 16,384: least squares of relative errors after 6 us
a call, that of 4096 x 7168 x 16384 counted four times); each of the twelve gets its fastest form."""
GROUPED_FORM = Form(2, 256, 3, band=16)
"""Of experts' rows, which come in blocks of 128. Pairs were 2 % slower."""
FEW_FORM = Form(1, 128, 8)
"""Of at most 64 rows a group."""
MASKED_FORM = Form(2, 128, 5)
"""Of at most 128 rows a group, or more."""
WEIGHT_FORM = Form(2, 128, 5, pair=True)
"""Of weight gradients. Tiles of 192 x 128 were 3 % faster at one of V3's shapes (2112 x 7168) and up to 13 % slower at
five."""
LONG = 2048
"""The least K for which no more programs run than the number of waves asks for: they leave L2 and power to others (up
to 5 % faster; at K = 512, where stores bind, 9 % slower)."""
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
    return quickest(m, n, k, sms)


def quickest(m: int, n: int, k: int, sms: int) -> Form:
    """The one of DENSE_FORMS that takes least for a [m, k] b [n, k]^T, as waves of tiles."""
    blocks = -(-k // TILE)
    us = {
        form: -(-form.tiles(m, n) // sms) * (blocks * each + besides)
        for form, (each, besides) in DENSE_FORMS.items() if form.pieces <= blocks
    }  # fmt: skip
    return min(us, key=us.__getitem__)


def masked_form(group_rows: int) -> Form:
    """The form for up to `group_rows` rows a group."""
    return FEW_FORM if group_rows <= 64 else MASKED_FORM


def dense(a: Tensor, a_s: Tensor, b: Tensor, b_s: Tensor, out: Tensor, form: Form, sms: int) -> None:
    """out [M, N] = a [M, K] b [N, K]^T."""
    if form.pieces > -(-a.shape[1] // TILE):
        raise ValueError(f"{form.name} takes at least {form.pieces} blocks of K; got K = {a.shape[1]}")
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


def programs(form: Form, tiles: int, k: int, sms: int) -> int:
    """How many run: at most one an SM, of long products as few as need as many waves, of pairs an even number."""
    each = 2 if form.pair else 1
    tiles, most = tiles // each, sms // each
    if k >= LONG:
        most = -(-tiles // -(-tiles // most))
    return each * min(tiles, most)


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
    strides = (0, *b_s.stride()) if b_s.ndim == 2 else b_s.stride()
    a_s = by_column(a_s)
    if weight:
        b_s = by_column(b_s)
        strides = (0, *b_s.stride())
    wide, side, rows = min(form.block_n, 128), max(form.block_n - 128, 0), form.boxes
    with rewriting():
        _products[(programs(form, tiles_m * columns, k, sms),)](
            boxes(a, rows // 2 if form.pair else rows, 128), boxes(b, wide, 128),
            boxes(b, side, 128) if side else None,
            runs(a_s, rows), runs(b_s, form.block_n) if weight else b_s,
            boxes(out, 64, 64 if weight else wide), boxes(out, 64, side) if side else None, table,
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


def boxes(x: Tensor, rows: int, columns: int) -> TensorDescriptor:
    """A descriptor of boxes of a matrix, in the swizzled layout that warp-group products read and stores write."""
    swizzle = min(128, columns * x.element_size())
    layout = gl.NVMMASharedLayout(swizzle, 8 * x.element_size(), 2)
    return TensorDescriptor(x, list(x.shape), list(x.stride()), [rows, columns], layout)


def runs(scales: Tensor, rows: int) -> TensorDescriptor:
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
                (consume, (given, shared, sizes, strides, 0, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_load, (given, shared, sizes, strides, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
            ],
            [1],
            [24],
        )
    elif CONSUMERS == 2:
        gl.warp_specialize(
            [
                (consume, (given, shared, sizes, strides, 0, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (consume, (given, shared, sizes, strides, 1, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (_load, (given, shared, sizes, strides, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
            ],
            [4, 1],
            [240, 24],
        )
    else:
        gl.warp_specialize(
            [
                (consume, (given, shared, sizes, strides, 0, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (consume, (given, shared, sizes, strides, 1, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
                (consume, (given, shared, sizes, strides, 2, MODE, CONSUMERS, BLOCK_N, STAGES, BAND, PAIR, PIECES)),
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
    y_side, y_s, out_side = y, x_s, x  # where a form has no use for them
    if BLOCK_N > 128:
        y_side = gl.allocate_shared_memory(b.dtype, [STAGES, BLOCK_N - 128, 128], b.layout)
        out_side = gl.allocate_shared_memory(c.dtype, [CONSUMERS, 64, BLOCK_N - 128], c_side.layout)
    if MODE == WEIGHT:
        y_s = gl.allocate_shared_memory(gl.float32, [STAGES, BLOCK_N], b_s.layout)
    out = gl.allocate_shared_memory(c.dtype, [CONSUMERS * PIECES, 64, 64 if MODE == WEIGHT else WIDE], c.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=CONSUMERS * WARPS * (BLOCKS if PAIR else 1))
    fence_async_shared()
    alone()
    if PAIR:
        barrier()
        meet()
    return x, y, y_side, x_s, y_s, out, out_side, full, empty


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
    BOX: gl.constexpr = a_s.block_type.shape[0]
    PARTS: gl.constexpr = BLOCK_M // BOX
    SHARE: gl.constexpr = a.block_type.shape[0]
    pieces = x._reinterpret(a.dtype, [STAGES * BLOCK_M // SHARE, SHARE, 128], a.layout)
    scales = x_s._reinterpret(gl.float32, [STAGES * PARTS, BOX], a_s.layout)
    slot = 0
    phase = 1
    blocks = gl.cdiv(K, 128)
    first, count, step = walk(sizes, PAIR)
    for tile in range(first, count, step):
        row, col, group, filled = place(tile, table, sizes, MODE, BLOCK_M, BLOCK_N, BAND, PAIR)
        for block in range(gl.where(filled > 0, blocks, 0)):
            bar = full.index(slot)
            mbarrier.wait(empty.index(slot), phase)
            mbarrier.expect(bar, BYTES)
            tma.async_copy_global_to_shared(b, [group * N + col, block * 128], bar, y.index(slot))
            if BLOCK_N > 128:
                tma.async_copy_global_to_shared(b_side, [group * N + col + 128, block * 128], bar, y_side.index(slot))
            if MODE == WEIGHT:
                tma.async_copy_global_to_shared(b_s, [block * stride_bsk + col], bar, y_s.index(slot))
            for i in gl.static_range(PARTS):
                part = slot * PARTS + i
                if PAIR:  # half of the rows, to both; the other half comes from there
                    half = gl.program_id(0) % 2
                    at = shared_row(row + BOX * i + SHARE * half)
                    tma.async_copy_global_to_shared(a, [at, block * 128], bar, pieces.index(2 * part + half))
                else:
                    tma.async_copy_global_to_shared(a, [row + BOX * i, block * 128], bar, pieces.index(part))
                tma.async_copy_global_to_shared(a_s, [block * stride_a_s + row + BOX * i], bar, scales.index(part))
            slot, phase = advance(slot, phase, STAGES)
    if PAIR:  # no block ends before the other has sent it all and taken all
        for _ in gl.static_range(STAGES):
            mbarrier.wait(empty.index(slot), phase)
            slot, phase = advance(slot, phase, STAGES)
