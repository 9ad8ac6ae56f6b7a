# ruff: noqa: N803 - M, K and constants are capitals
"""Casts of columns on Hopper, in Gluon: 128 x 64 elements come by the copy engine and turn in shared memory.

The form that numerics/kernels/casts.py takes on a card where the copy engine can address rows and columns; its Triton
kernel is the twin that the interpreter runs, with equal bits. Bound: device memory.

A program walks tiles with `stages` of them on the way. A thread reads 8 rows x 8 columns from swizzled shared memory,
16 bytes at a time, so that what it has of each column is 8 codes side by side; four threads fill a sector of 32.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from hwmodels.formats import TILE
from numerics.kernels.wgmma import barrier

TINY = gl.constexpr(2.0**-80)
LIFT = gl.constexpr(2.0**64)


class Form(NamedTuple):
    """`stages` tiles under way in each of `programs` programs an SM; lines: codes turn once more through shared memory,
    so that a line of 128 is written at once."""

    stages: int = 2
    programs: int = 3
    lines: bool = False

    @property
    def name(self) -> str:
        return f"s{self.stages} {self.programs} programs" + " lines" * self.lines


WIDTH = gl.constexpr(64)
"""Columns of a tile."""
FORMS = {
    (False, False): Form(2, 3, True),
    (False, True): Form(2, 4),
    (True, False): Form(3, 3, True),
    (True, True): Form(3, 4),
}
"""By whether the matrix is codes and whether scales are powers of two: the fastest of those timed on an H200 (4096 x
7168, 2026-11-30): 31.5, 33.1, 35.1 and 33.6 us; without `lines` 33.8 and 38.0 where they are not powers of two."""


def takes(x: Tensor) -> bool:
    """Whether this card and matrix suit: Hopper, rows that the copy engine can address, columns of whole vectors."""
    here = x.is_meta or (x.is_cuda and torch.cuda.get_device_capability(x.device) == (9, 0))
    return here and not (x.stride(0) * x.element_size() % 16 or x.data_ptr() % 16 or x.shape[0] % 16)


def turn(
    x: Tensor, x_s: Tensor | None, q: Tensor, s: Tensor, power_of_two: bool, sms: int, form: Form | None = None
) -> None:  # fmt: skip
    """q [K, M] codes and s [K, M/128] of x [M, K] in 128x1 tiles; x_s: 1x128 scales of x, where x is codes."""
    form = form or FORMS[x_s is not None, power_of_two]
    m, k = x.shape
    across = -(-k // 64)
    tiles = -(-m // TILE) * across
    layout = gl.NVMMASharedLayout(min(128, 64 * x.element_size()), 8 * x.element_size(), 2)
    box = TensorDescriptor(x, list(x.shape), list(x.stride()), [TILE, 64], layout)
    strides = (0, 0) if x_s is None else x_s.stride()
    _turn[(min(tiles, sms * form.programs),)](
        box, s if x_s is None else x_s, q, s, m, k, q.stride(0), *strides, s.stride(1), across, tiles,
        STAGES=form.stages, CODED=x_s is not None, POWER=power_of_two,
        LINES=form.lines, num_warps=4,
        maxnreg=168 if form.lines else None,
    )  # fmt: skip


@gluon.jit(do_not_specialize=["across", "tiles", "scale_stride", "scale_step", "step"])
def _turn(
    x, x_s, q, s, M, K, pitch, scale_stride, scale_step, step, across, tiles,
    STAGES: gl.constexpr, CODED: gl.constexpr, POWER: gl.constexpr,
    LINES: gl.constexpr,
):  # fmt: skip
    # 8 rows of 8 columns a thread, rows first; 8 threads side by side read a line of shared memory.
    turned: gl.constexpr = gl.DistributedLinearLayout(
        [[1, 0], [2, 0], [4, 0], [0, 1], [0, 2], [0, 4]], [[0, 8], [0, 16], [0, 32], [8, 0], [16, 0]],
        [[32, 0], [64, 0]], [], [128, 64],
    )  # fmt: skip
    # 16 rows of 4 columns a thread; 8 threads side by side write a line of 128 codes.
    lined: gl.constexpr = gl.DistributedLinearLayout(
        [[1, 0], [2, 0], [4, 0], [8, 0], [0, 16], [0, 32]], [[16, 0], [32, 0], [64, 0], [0, 1], [0, 2]],
        [[0, 4], [0, 8]], [], [128, 64],
    )  # fmt: skip
    written: gl.constexpr = lined if LINES else turned
    boxes = gl.allocate_shared_memory(x.dtype, [STAGES, 128, WIDTH], x.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
    fence_async_shared()
    barrier()
    for i in gl.static_range(STAGES):
        _fetch(x, boxes.index(i), full.index(i), gl.program_id(0) + i * gl.num_programs(0), across, tiles)
    slot = 0
    phase = 0
    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):
        down = tile // across
        first = tile % across * WIDTH
        rows = down * 128 + gl.arange(0, 128, gl.SliceLayout(1, turned))
        columns = first + gl.arange(0, WIDTH, gl.SliceLayout(0, turned))
        if CODED:
            place = x_s + rows * scale_stride + first // 128 * scale_step
            scale = gl.load(place, mask=rows < M, other=1.0)
        mbarrier.wait(full.index(slot), phase)
        value = boxes.index(slot).load(turned).to(gl.float32)
        barrier()
        ahead = tile + STAGES * gl.num_programs(0)
        _fetch(x, boxes.index(slot), full.index(slot), ahead, across, tiles)
        if CODED:
            value = value * gl.expand_dims(scale, 1)
        code, column_scale = _quantize(value, POWER)
        down_rows = down * 128 + gl.arange(0, 128, gl.SliceLayout(1, written))
        across_columns = first + gl.arange(0, 64, gl.SliceLayout(0, written))
        mask = gl.expand_dims(down_rows < M, 1) & gl.expand_dims(across_columns < K, 0)
        places = gl.expand_dims(across_columns.to(gl.int64) * pitch, 0) + gl.expand_dims(down_rows, 1)
        gl.store(q + places, gl.convert_layout(code, written), mask=mask)
        gl.store(s + down * step + columns, column_scale, mask=columns < K)
        phase = gl.where(slot == STAGES - 1, phase ^ 1, phase)
        slot = gl.where(slot == STAGES - 1, 0, slot + 1)


@gluon.jit
def _fetch(x, box, full, tile, across, tiles):
    """Begin the copy of a tile, where there is one."""
    inside = tile < tiles
    mbarrier.expect(full, 128 * WIDTH * x.dtype.primitive_bitwidth // 8, pred=inside)
    tma.async_copy_global_to_shared(x, [tile // across * 128, tile % across * WIDTH], full, box, pred=inside)


@gluon.jit
def _quantize(x, POWER: gl.constexpr):
    """x float32 [128, W], a tile a column -> E4M3 codes, scales [W]: as numerics/kernels/casts.py, bit for bit."""
    largest = gl.max(gl.abs(x), 0)
    rare = gl.max(((largest == float("inf")) | ((largest > 0) & (largest < TINY))).to(gl.int32), 0) > 0
    if rare:
        size = gl.abs(x)
        largest = gl.max(gl.where(size < float("inf"), size, 0.0), 0)
    if POWER:
        bits = largest.to(gl.int32, bitcast=True)
        power = ((bits + (0x7FFFFF - 0x600000)) & 0x7F800000) - (8 << 23)
        scale = gl.where(largest > 0, gl.maximum(power, 1 << 23).to(gl.float32, bitcast=True), 1.0)
        reciprocal = ((254 << 23) - scale.to(gl.int32, bitcast=True)).to(gl.float32, bitcast=True)
        code = x * gl.expand_dims(reciprocal, 0)
    else:
        scale = _scale(largest, rare)
        lift = gl.where((scale < TINY) & rare, LIFT, 1.0)
        divisor = scale * lift
        reciprocal = gl.expand_dims(gl.div_rn(gl.full_like(divisor, 1.0), divisor), 0)
        divisor = gl.expand_dims(divisor, 0)
        if rare:
            code = gl.where(gl.abs(x) == float("inf"), x, _divide(x * gl.expand_dims(lift, 0), divisor, reciprocal))
        else:
            code = _divide(x, divisor, reciprocal)
    return code.to(gl.float8e4nv), scale


@gluon.jit
def _scale(largest, rare):
    """largest / 448, correctly rounded and not below 2^-126; 1 for zero."""
    if rare:
        scale = gl.maximum(gl.div_rn(largest, gl.full_like(largest, 448.0)), 2.0**-126)
    else:
        reciprocal = gl.full_like(largest, 0.002232142835855484)
        q = largest * reciprocal
        scale = gl.fma(gl.fma(q, gl.full_like(largest, -448.0), largest), reciprocal, q)
    return gl.where(largest > 0, scale, 1.0)


@gluon.jit
def _divide(x, divisor, reciprocal):
    """x / divisor, correctly rounded (casts.quotient says how)."""
    r = gl.broadcast(reciprocal, x)[0]
    q = x * r
    return gl.fma(gl.fma(q, gl.broadcast(divisor, x)[0], x * -1.0), r * -1.0, q)
