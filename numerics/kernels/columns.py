# ruff: noqa: N803 - M, K and constants are capitals
"""Casts of columns on Hopper, in Gluon: 128 rows come by the copy engine in an order in which they turn on the way.

The form that numerics/kernels/casts.py takes on a card where the copy engine can address rows and columns; its Triton
kernel is the twin that the interpreter runs, with equal bits. Bound: device memory.

A program walks tiles of 128 rows of 128 bytes with `stages` of them on the way. The copy engine reads every sixteenth
row first: eight lanes of a warp so find their eight strips of 16 rows in different banks of swizzled shared memory, a
thread has 16 codes of a column one after the other, and eight of them write a line of 128 codes. No warp waits for
another but to hand back shared memory. Tiles with infinities or tiny numbers come wrong out of this; a program that met
one walks its tiles once more, with care.
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
TINY_BITS = gl.constexpr((127 - 80) << 23)
INFINITE_BITS = gl.constexpr(0x7F800000)
WHOLE = torch.contiguous_format
STRIP = 16
"""Rows of a column in a thread: a store of 16 bytes."""


class Form(NamedTuple):
    """`stages` tiles under way in each of `programs` programs an SM."""

    stages: int
    programs: int


WIDTH, EACH = gl.constexpr(64), gl.constexpr(4)
"""Columns of a tile, and of a thread of its four warps. With 128 a tile, or two a thread of twice the warps, an SM had
as many or more threads and was slower."""
FORMS = {False: Form(3, 4), True: Form(2, 4)}
"""By whether the matrix is codes: the fastest of those timed on an H200 (4096 x 7168, 2026-11-30), 27.9 us and of codes
22.3, where copies of as many bytes took 25.8 and 19.5."""


def takes(x: Tensor) -> bool:
    """Whether this card and matrix suit: Hopper, rows that the copy engine can address, columns of whole vectors."""
    here = x.is_meta or (x.is_cuda and torch.cuda.get_device_capability(x.device) == (9, 0))
    suits = x.dtype in (torch.bfloat16, torch.float8_e4m3fn)
    return here and suits and not (x.stride(0) * x.element_size() % 16 or x.data_ptr() % 16 or x.shape[0] % STRIP)


def turn(
    x: Tensor, x_s: Tensor | None, q: Tensor, s: Tensor, power_of_two: bool, sms: int, form: Form | None = None
) -> None:  # fmt: skip
    """q [K, M] codes and s [K, M/128] of x [M, K] in 128x1 tiles; x_s: 1x128 scales of x, where x is codes."""
    coded = x_s is not None
    form = form or FORMS[coded]
    m, k = x.shape
    strips = x.as_strided((STRIP, m // STRIP, k), (x.stride(0), STRIP * x.stride(0), 1))
    layout = gl.NVMMASharedLayout(64 * x.element_size(), 8 * x.element_size(), 3)
    box = TensorDescriptor(strips, list(strips.shape), list(strips.stride()), [STRIP, 8, 64], layout)
    if x_s is None:
        scales, step_in = s, 0
    else:
        scales = x_s if x_s.stride(0) == 1 and not x_s.data_ptr() % 16 else x_s.t().clone(memory_format=WHOLE).t()
        step_in = scales.stride(1)
    flat = scales.as_strided(((scales.shape[1] - 1) * scales.stride(1) + scales.shape[0],), (1,))
    runs = TensorDescriptor(flat, list(flat.shape), [1], [TILE], gl.NVMMASharedLayout(0, 32, 1))
    across, below = -(-k // 64), -(-m // TILE)
    programs = min(across * below, sms * form.programs)
    _turn[(programs,)](
        box, runs, x, scales, q, s, m, k, x.stride(0), q.stride(0), step_in, s.stride(1), across, below,
        programs // across, programs % across,
        STAGES=form.stages, CODED=coded, POWER=power_of_two, num_warps=4, maxnreg=128,
    )  # fmt: skip


@gluon.jit(do_not_specialize=["across", "below", "step_in", "hop_down", "hop_across"])
def _turn(
    x, runs, x_raw, x_s, q, s, M, K, stride, pitch, step_in, step, across, below, hop_down, hop_across,
    STAGES: gl.constexpr, CODED: gl.constexpr, POWER: gl.constexpr,
):  # fmt: skip
    # A strip of 16 rows, 4 columns a thread: columns first as they come (of BF16 words of two), rows first as they go.
    come: gl.constexpr = _strips(EACH if CODED else EACH // 2, True)
    go: gl.constexpr = _strips(EACH, False)
    by_column: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(0, go))
    by_row: gl.constexpr = gl.SliceLayout(2, go)
    boxes = gl.allocate_shared_memory(x.dtype, [STAGES, 16, 8, WIDTH], x.layout)
    scales = gl.allocate_shared_memory(gl.float32, [STAGES, 128], runs.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
    fence_async_shared()
    barrier()
    down, column = gl.program_id(0) // across, gl.program_id(0) % across
    down_ahead, ahead = down, column
    for i in gl.static_range(STAGES):
        _fetch(x, runs, boxes.index(i), scales.index(i), full.index(i), down_ahead, ahead, below, step_in, CODED)
        down_ahead, ahead = _hop(down_ahead, ahead, across, hop_down, hop_across)
    strip = gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(0, by_row)) * 16, 0)
    strip += gl.expand_dims(gl.arange(0, 16, gl.SliceLayout(1, by_row)), 1)
    place = gl.expand_dims(strip, 2)
    columns = gl.arange(0, WIDTH, by_column)
    line = _spread(columns.to(gl.int64) * pitch)
    rare = gl.zeros([WIDTH], gl.int32, by_column)
    slot = 0
    phase = 0
    while down < below:
        first = column * WIDTH
        mbarrier.wait(full.index(slot), phase)
        if CODED:
            value = boxes.index(slot).load(come).to(gl.float32)
            row_scale = _by_strip(scales).index(slot).permute((1, 0)).load(gl.SliceLayout(2, come))
            barrier()
            value = gl.convert_layout(value * gl.expand_dims(row_scale, 2), go)
            largest = gl.max(gl.max(gl.abs(value), 0), 0)
        else:
            words = boxes._reinterpret(gl.int32, [STAGES, 16, 8, 32], _words()).index(slot).load(come)
            barrier()
            top = gl.reduce(gl.reduce(words & 0x7FFF7FFF, 0, _most), 0, _most)
            largest = gl.convert_layout(_apart(top, [WIDTH]), by_column)
            value = gl.convert_layout(_apart(words, [16, 8, WIDTH]), go)
        box, scale = boxes.index(slot), scales.index(slot)
        _fetch(x, runs, box, scale, full.index(slot), down_ahead, ahead, below, step_in, CODED)
        down_ahead, ahead = _hop(down_ahead, ahead, across, hop_down, hop_across)
        bits = largest.to(gl.int32, bitcast=True)
        rare |= ((bits >= INFINITE_BITS) | ((bits > 0) & (bits < TINY_BITS))).to(gl.int32)
        code, column_scale = _quantize(value, largest, False, POWER)
        _write(code, column_scale, q, s, down, first, place, line, columns, M, K, pitch, step)
        phase = gl.where(slot == STAGES - 1, phase ^ 1, phase)
        slot = gl.where(slot == STAGES - 1, 0, slot + 1)
        down, column = _hop(down, column, across, hop_down, hop_across)
    if gl.max(rare, 0) > 0:
        for tile in range(gl.program_id(0), across * below, gl.num_programs(0)):
            down, first = tile // across, tile % across * WIDTH
            for part in range(EACH):
                _with_care(x_raw, x_s, q, s, down, first, part, M, K, stride, pitch, step_in, step, CODED, POWER)


@gluon.jit
def _with_care(
    x, x_s, q, s, down, first, part, M, K, stride, pitch, step_in, step, CODED: gl.constexpr, POWER: gl.constexpr
):  # fmt: skip
    """A quarter of a tile's columns, one a thread: each thread has the rows and columns that it had before."""
    layout: gl.constexpr = _strips(1, False)
    place = gl.expand_dims(gl.arange(0, 8, gl.SliceLayout(0, gl.SliceLayout(2, layout))) * 16, 0)
    place += gl.expand_dims(gl.arange(0, 16, gl.SliceLayout(1, gl.SliceLayout(2, layout))), 1)
    column = part + EACH * gl.arange(0, WIDTH // EACH, gl.SliceLayout(0, gl.SliceLayout(0, layout)))
    mask = gl.expand_dims(place < M - down * 128, 2) & _spread(column < K - first)
    source = x + (down.to(gl.int64) * 128 * stride + first)
    value = gl.load(source + (gl.expand_dims(place * stride, 2) + _spread(column)), mask=mask, other=0.0).to(gl.float32)
    if CODED:
        scale = gl.load(x_s + (first // 128 * step_in + down * 128) + place, mask=place < M - down * 128, other=1.0)
        value = value * gl.expand_dims(scale, 2)
    size = gl.abs(value)
    largest = gl.max(gl.max(gl.where(size < float("inf"), size, 0.0), 0), 0)
    code, column_scale = _quantize(value, largest, True, POWER)
    target = q + (first.to(gl.int64) * pitch + down * 128)
    gl.store(target + (_spread(column.to(gl.int64) * pitch) + gl.expand_dims(place, 2)), code, mask=mask)
    gl.store(s + (down * step + first) + column, column_scale, mask=column < K - first)


@gluon.constexpr_function
def _strips(each, columns_first):
    """8 strips of 16 rows by 16 x each columns: a strip and `each` columns a thread, four of these a warp."""
    doubling = lambda first, count: [[0, 0, first << i] for i in range((count - 1).bit_length())]
    rows, columns = [[1, 0, 0], [2, 0, 0], [4, 0, 0], [8, 0, 0]], doubling(1, each)
    registers = columns + rows if columns_first else rows + columns
    lanes = [[0, 1, 0], [0, 2, 0], [0, 4, 0], *doubling(each, 4)]
    return gl.DistributedLinearLayout(registers, lanes, doubling(4 * each, 4), [], [16, 8, 16 * each])


@gluon.constexpr_function
def _words():
    """Where words of two BF16 numbers lie in a box."""
    return gl.NVMMASharedLayout(128, 32, 3)


@gluon.jit
def _by_strip(scales):
    """Rows' scales, 16 a strip."""
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    return scales._reinterpret(gl.float32, [scales.shape[0], 8, 16], layout)


@gluon.jit
def _most(a, b):
    """The larger of each half of two words."""
    return gl.inline_asm_elementwise("max.u16x2 $0, $1, $2;", "=r,r,r", [a, b], dtype=gl.int32, is_pure=True, pack=1)


@gluon.jit
def _apart(words, SHAPE: gl.constexpr):
    """The two BF16 numbers of each word in float32, side by side."""
    low = (words << 16).to(gl.float32, bitcast=True)
    high = (words & -65536).to(gl.float32, bitcast=True)
    return gl.reshape(gl.join(low, high), SHAPE)


@gluon.jit
def _hop(down, column, across, hop_down, hop_across):
    """Row and column of tiles of a program's next tile."""
    down += hop_down
    column += hop_across
    over = column >= across
    return gl.where(over, down + 1, down), gl.where(over, column - across, column)


@gluon.jit
def _fetch(x, runs, box, scales, full, down, column, below, step_in, CODED: gl.constexpr):
    """Begin the copy of a tile, and of its rows' scales, where there is one."""
    inside = down < below
    first = column * WIDTH
    mbarrier.expect(full, 128 * WIDTH * x.dtype.primitive_bitwidth // 8 + (512 if CODED else 0), pred=inside)
    tma.async_copy_global_to_shared(x, [0, down * 8, first], full, box, pred=inside)
    if CODED:
        tma.async_copy_global_to_shared(runs, [first // 128 * step_in + down * 128], full, scales, pred=inside)


@gluon.jit
def _write(code, scale, q, s, down, first, place, line, columns, M, K, pitch, step):
    near = columns < K - first
    mask = (place < M - down * 128) & _spread(near)
    base = q + first.to(gl.int64) * pitch + down * 128
    gl.store(base + line + place, code, mask=mask)
    gl.store(s + down * step + first + columns, scale, mask=near)


@gluon.jit
def _quantize(x, largest, RARE: gl.constexpr, POWER: gl.constexpr):
    """x float32 [16, 8, W], a tile a column, whose largest finite magnitudes are given [W] -> E4M3 codes, scales [W]:
    as numerics/kernels/casts.py, bit for bit. Not RARE: for tiles without infinities and maxima below TINY."""
    if POWER:
        bits = largest.to(gl.int32, bitcast=True)
        power = ((bits + (0x7FFFFF - 0x600000)) & 0x7F800000) - (8 << 23)
        scale = gl.where(largest > 0, gl.maximum(power, 1 << 23).to(gl.float32, bitcast=True), 1.0)
        reciprocal = ((254 << 23) - scale.to(gl.int32, bitcast=True)).to(gl.float32, bitcast=True)
        code = x * _spread(reciprocal)
    elif RARE:
        scale = gl.maximum(gl.div_rn(largest, gl.full_like(largest, 448.0)), 2.0**-126)
        scale = gl.where(largest > 0, scale, 1.0)
        lift = gl.where(scale < TINY, LIFT, 1.0)
        divided = _divide(x * _spread(lift), scale * lift)
        code = gl.where(gl.abs(x) == float("inf"), x, divided)
    else:
        reciprocal = gl.full_like(largest, 0.002232142835855484)
        q = largest * reciprocal
        scale = gl.fma(gl.fma(q, gl.full_like(largest, -448.0), largest), reciprocal, q)
        scale = gl.where(largest > 0, scale, 1.0)
        code = _divide(x, scale)
    return code.to(gl.float8e4nv), scale


@gluon.jit
def _spread(x):
    return gl.expand_dims(gl.expand_dims(x, 0), 0)


@gluon.jit
def _divide(x, divisor):
    """x / divisor, correctly rounded (casts.quotient says how). The divisor and its reciprocal are normal numbers, so
    that one step of Newton's rounds 1 / divisor as a division would."""
    reciprocal = gl.inline_asm_elementwise(
        "{ .reg .f32 r, n, e; rcp.approx.ftz.f32 r, $1; neg.f32 n, $1; fma.rn.f32 e, n, r, 0f3F800000; "
        "fma.rn.f32 $0, r, e, r; }",
        "=f,f", [divisor], dtype=gl.float32, is_pure=True, pack=1,
    )  # fmt: skip
    r = gl.broadcast(_spread(reciprocal), x)[0]
    q = x * r
    return gl.fma(gl.fma(q, gl.broadcast(_spread(divisor), x)[0], x * -1.0), r * -1.0, q)
