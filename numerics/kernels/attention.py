# ruff: noqa: N803 - M, N, K and constants are capitals, as in every text on matrix products
"""Causal attention forward and backward for Hopper, also of heads that share keys; BF16 operands, FP32 softmax.

Specification: numerics/reference/attention.py. Bound: the tensor core (640 FLOP a query-key pair forward at widths 192
and 128, beside one exponential). Own kernels after FlashAttention-2 (arXiv 2307.08691, algorithms 1 and 2). A width
that is no power of two is cut in two dots, 192 = 128 + 64: padding it to 256 would waste a quarter of the products.

On a card whole boxes go to Hopper's forms in Gluon (kernels/flash.py, flash_backward.py). The kernels here take the
rest, and are the twins that the interpreter runs. Their backward is two kernels, one a block of keys (dk, dv) and one a
block of queries (dq): seven products instead of five, but no sums in memory, so a gradient does not depend on timing.
Hopper's adds dq in one order, or in any (flash_backward.Form). P is rounded to the
operands' type before P V, and P and dS before the gradients' products, since the tensor core takes nothing wider;
statistics and sums stay FP32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from numerics.kernels import flash, flash_backward
from numerics.kernels.gemm import available
from numerics.reference.attention import check

LOG2_E = 1.4426950408889634
"""log2(e): the chip has exp2, so scores are kept in units of log 2 inside."""
SMALLEST_WIDTH = 16
"""Least contraction of tl.dot (triton.language.dot)."""


class Config(NamedTuple):
    """Tiles of `rows` rows that a program owns and `columns` that it visits; stages, warps, descriptor: gemm.Config."""

    rows: int
    columns: int
    stages: int
    warps: int
    descriptor: bool = True

    @property
    def name(self) -> str:
        loads = "tma" if self.descriptor else "pointer"
        return f"{self.rows}x{self.columns} w{self.warps} s{self.stages} {loads}"


FORWARD = {"tma": Config(128, 64, 3, 8), "pointer": Config(128, 64, 3, 8, False), "wide": Config(128, 128, 2, 8)}
"""Forms of the forward kernel (owns queries) that a bench compares; the first is the default."""


class Twins(NamedTuple):
    """Tiles of the dk, dv kernel, which owns keys, and of the dq kernel, which owns queries."""

    keys: Config
    queries: Config


TWINS = {
    "tma": Twins(Config(64, 64, 2, 8), Config(128, 64, 2, 8)),
    "pointer": Twins(Config(64, 32, 2, 8, False), Config(128, 64, 2, 8, False)),
}
"""Forms of the two backward kernels; the first is the default."""


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = True, config: Config | flash.Form | None = None
) -> tuple[Tensor, Tensor]:
    """o [B,S,H,Dv], lse [B,H,S] as in numerics.reference.attention.attention; operands BF16 or FP16.

    config: a form other than the default, which is Hopper's where that suits.
    """
    q, k, v = _checked(q, k, v, causal)
    (batch, s, heads, _), t = q.shape, k.shape[1]
    o = q.new_empty(batch, s, heads, v.shape[3])
    lse = q.new_empty(batch, heads, s, dtype=torch.float32)
    if config is None and flash.takes(q, k, v, scale):
        config = flash.DEFAULT
    if isinstance(config, flash.Form):
        flash.forward(q, k, v, o, lse, scale * LOG2_E, causal, config, available(q, None))
        return o, lse
    config = _fitting(config or FORWARD["tma"], FORWARD["pointer"], q, v, own=s, visited=t)
    _forward[(-(-s // config.rows), batch * heads)](
        *_boxes(q, config.rows, config), *_boxes(k, config.columns, config), _boxes(v, config.columns, config)[0],
        o, lse, s, t, heads, scale * LOG2_E, **_constants(q, v, config), SHARED=heads // k.shape[2], CAUSAL=causal,
        num_warps=config.warps,
    )  # fmt: skip
    return o, lse


def attention_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, scale: float, causal: bool = True,
    delta: Tensor | None = None, config: Twins | flash_backward.Form | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv as in numerics.reference.attention.attention_backward. delta: of `backward_prepare`, where it was made
    before; config: a form other than the default, which is Hopper's where that suits."""
    q, k, v = _checked(q, k, v, causal)
    do, o, lse = do.to(q.dtype).contiguous(), o.contiguous(), lse.contiguous()
    if config is None and flash.takes(q, k, v, scale):
        config = flash_backward.DEFAULT
    if isinstance(config, flash_backward.Form):
        return _on_hopper(do, q, k, v, o, lse, delta, scale, causal, config)
    config = config or TWINS["tma"]
    delta = _row_products(do, o) if delta is None else delta.contiguous()
    dq = _gradient_of_queries(do, q, k, v, lse, delta, scale, causal, config.queries)
    return dq, *_gradient_of_keys(do, q, k, v, lse, delta, scale, causal, config.keys)


def _on_hopper(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, delta: Tensor | None, scale: float,
    causal: bool, form: flash_backward.Form,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    room = flash_backward.room(q)
    if delta is None and not form.ordered and room == q.numel():
        delta, sums = backward_prepare(do, o, q.shape[3])
    else:
        delta = _row_products(do, o) if delta is None else delta.contiguous()
        sums = (torch.empty if form.ordered else torch.zeros)(room, dtype=torch.float32, device=q.device)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    flash_backward.backward(do, q, k, v, lse, delta, sums, dq, dk, dv, scale, causal, form)
    return dq, dk, dv


def backward_prepare(do: Tensor, o: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """delta, and FP32 zeros, as in numerics.reference.attention.backward_prepare; one kernel."""
    zeros = o.new_empty(*o.shape[:3], width, dtype=torch.float32)
    return _row_products(do.contiguous(), o.contiguous(), zeros), zeros


def _row_products(do: Tensor, o: Tensor, zeros: Tensor | None = None) -> Tensor:
    """delta [B,H,S] FP32: sum over the head of dO * O. zeros [B,S,H,C] FP32: cleared on the way."""
    batch, s, heads, width = o.shape
    delta = o.new_empty(batch, heads, s, dtype=torch.float32)
    cleared = 0 if zeros is None else zeros.shape[3]
    _delta[(-(-s // 64), batch * heads)](
        do, o, delta, delta if zeros is None else zeros, s, heads, WIDTH=width, PADDED=triton.next_power_of_2(width),
        CLEARED=cleared, CLEARED_PADDED=triton.next_power_of_2(cleared or 1), ROWS=64, num_warps=4,
    )  # fmt: skip
    return delta


def _gradient_of_queries(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, scale: float, causal: bool, config: Config
) -> Tensor:
    (batch, s, heads, _), t = q.shape, k.shape[1]
    dq = torch.empty_like(q)
    config = _fitting(config, TWINS["pointer"].queries, q, v, own=s, visited=t)
    _queries[(-(-s // config.rows), batch * heads)](
        *_boxes(q, config.rows, config), _boxes(do, config.rows, config)[0], *_boxes(k, config.columns, config),
        _boxes(v, config.columns, config)[0], lse, delta, dq, s, t, heads, scale, scale * LOG2_E,
        **_constants(q, v, config), SHARED=heads // k.shape[2], CAUSAL=causal, num_warps=config.warps,
    )  # fmt: skip
    return dq


def _gradient_of_keys(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, scale: float, causal: bool, config: Config
) -> tuple[Tensor, Tensor]:
    (batch, s, heads, _), t = q.shape, k.shape[1]
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    config = _fitting(config, TWINS["pointer"].keys, q, v, own=t, visited=s)
    _keys[(-(-t // config.rows), batch * k.shape[2])](
        *_boxes(k, config.rows, config), _boxes(v, config.rows, config)[0], *_boxes(q, config.columns, config),
        _boxes(do, config.columns, config)[0], lse, delta, dk, dv, s, t, k.shape[2], scale, scale * LOG2_E,
        **_constants(q, v, config), SHARED=heads // k.shape[2], CAUSAL=causal, num_warps=config.warps,
    )  # fmt: skip
    return dk, dv


def _checked(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Sequence[Tensor]:
    """The operands, contiguous. ValueError for shapes or types that the kernels do not take."""
    check(q, k, v, causal)
    types = {x.dtype for x in (q, k, v)}
    if len(types) > 1 or not types <= {torch.bfloat16, torch.float16}:
        raise ValueError(f"q, k and v are all bfloat16 or all float16; got {q.dtype}, {k.dtype}, {v.dtype}")
    if not (q.numel() and k.numel() and v.numel()):
        raise ValueError(f"nothing to attend to: q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}")
    return [x.contiguous() for x in (q, k, v)]


def widths(width: int) -> tuple[int, int]:
    """A head's width as the two powers of two that cover it: 192 -> (128, 64), 128 -> (128, 0), 24 -> (16, 16)."""
    first = max(1 << (width.bit_length() - 1), SMALLEST_WIDTH)
    return (first, max(triton.next_power_of_2(width - first), SMALLEST_WIDTH)) if width > first else (first, 0)


def _fitting(config: Config, pointers: Config, q: Tensor, v: Tensor, own: int, visited: int) -> Config:
    """`config`, or the tiles for pointers where a descriptor's box would read on into the next head or sequence."""
    even = q.shape[3] == sum(widths(q.shape[3])) and v.shape[3] == _padded(v.shape[3])
    whole = even and own % config.rows == 0 and visited % config.columns == 0
    return config if whole or not config.descriptor else pointers


def _padded(width: int) -> int:
    return max(triton.next_power_of_2(width), SMALLEST_WIDTH)


def _constants(q: Tensor, v: Tensor, config: Config) -> dict[str, Any]:
    d0, d1 = widths(q.shape[3])
    return {
        "D": q.shape[3], "D0": d0, "D1": d1, "DV": v.shape[3], "DVP": _padded(v.shape[3]), "ROWS": config.rows,
        "COLUMNS": config.columns, "STAGES": config.stages, "DESCRIPTOR": config.descriptor,
    }  # fmt: skip


def _boxes(x: Tensor, rows: int, config: Config) -> tuple[Any, Any]:
    """x [B,S,H,D] as the kernels take it: itself twice, or descriptors of its [rows, 128] and [rows, 64] boxes."""
    if not config.descriptor:
        return x, x
    batch, s, heads, d = x.shape
    flat = x.view(batch * s, heads * d)
    first, second = (TensorDescriptor(flat, list(flat.shape), list(flat.stride()), [rows, w or d]) for w in widths(d))
    return first, second


@triton.jit
def _tile(
    x, batch, head, row, length, H,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, DESCRIPTOR: tl.constexpr,
):  # fmt: skip
    """[ROWS, WIDTH] of x [B, length, H, D] from `row` and element FIRST of a head; zeros outside."""
    if DESCRIPTOR:
        loaded = x.load([batch * length + row, head * D + FIRST])
    else:
        rows = row + tl.arange(0, ROWS)
        columns = FIRST + tl.arange(0, WIDTH)
        offsets = (batch * length + rows).to(tl.int64) * (H * D) + head * D
        mask = (rows[:, None] < length) & (columns[None, :] < D)
        loaded = tl.load(x + offsets[:, None] + columns[None, :], mask=mask, other=0.0)
    return loaded


@triton.jit
def _write(
    x, tile, batch, head, row, length, H,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The inverse of `_tile`, rounding to x's type."""
    rows = row + tl.arange(0, ROWS)
    columns = FIRST + tl.arange(0, WIDTH)
    offsets = (batch * length + rows).to(tl.int64) * (H * D) + head * D
    mask = (rows[:, None] < length) & (columns[None, :] < D)
    tl.store(x + offsets[:, None] + columns[None, :], tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _scores(x0, x1, y0, y1, D1: tl.constexpr):
    """X Y^T over both parts of the head."""
    s = tl.dot(x0, tl.trans(y0))
    if D1 > 0:
        s = tl.dot(x1, tl.trans(y1), s)
    return s


@triton.jit
def _forward(
    q0, q1, k0, k1, v, o, lse, S, T, H, scale_log2,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, STAGES: tl.constexpr, DESCRIPTOR: tl.constexpr, SHARED: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1) % H
    batch = tl.program_id(1) // H
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS  # late queries see most keys: longest first
    x0 = _tile(q0, batch, head, row, S, H, 0, D0, D, ROWS, DESCRIPTOR)
    x1 = x0
    if D1 > 0:
        x1 = _tile(q1, batch, head, row, S, H, D0, D1, D, ROWS, DESCRIPTOR)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DVP], tl.float32)
    clear, end = _visible_keys(row, S, T, ROWS, COLUMNS, CAUSAL)
    for masked in tl.static_range(2):
        first = clear if masked else 0
        last = end if masked else clear
        for column in tl.range(first, last, COLUMNS, num_stages=STAGES):
            y0 = _tile(k0, batch, head // SHARED, column, T, H // SHARED, 0, D0, D, COLUMNS, DESCRIPTOR)
            y1 = y0
            if D1 > 0:
                y1 = _tile(k1, batch, head // SHARED, column, T, H // SHARED, D0, D1, D, COLUMNS, DESCRIPTOR)
            s = _scores(x0, x1, y0, y1, D1) * scale_log2
            if masked:
                s = tl.where(_seen(row, column, S, T, ROWS, COLUMNS, CAUSAL), s, float("-inf"))
            higher = tl.maximum(top, tl.max(s, 1))  # finite: every query sees key 0, which is in the first block
            p = tl.exp2(s - higher[:, None])
            shrink = tl.exp2(top - higher)
            total = total * shrink + tl.sum(p, 1)
            z = _tile(v, batch, head // SHARED, column, T, H // SHARED, 0, DVP, DV, COLUMNS, DESCRIPTOR)
            acc = tl.dot(p.to(z.dtype), z, acc * shrink[:, None])
            top = higher
    _write(o, acc / total[:, None], batch, head, row, S, H, 0, DVP, DV, ROWS)
    rows = row + tl.arange(0, ROWS)
    log2_e: tl.constexpr = 1.4426950408889634
    tl.store(lse + (batch * H + head) * S + rows, (top + tl.log2(total)) / log2_e, mask=rows < S)


@triton.jit
def _visible_keys(row, S, T, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr):
    """Keys before `clear` are seen by all ROWS queries from `row` on, in whole blocks; keys from `end` on by none."""
    if CAUSAL:
        clear = tl.minimum((row + T - S + 1) // COLUMNS, T // COLUMNS) * COLUMNS
        end = tl.minimum(row + ROWS + T - S, T)
    else:
        clear = T // COLUMNS * COLUMNS
        end = T
    return clear, end


@triton.jit
def _seen(row, column, S, T, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr):
    """[ROWS, COLUMNS]: whether a query from `row` on may look at a key from `column` on."""
    rows = row + tl.arange(0, ROWS)
    columns = column + tl.arange(0, COLUMNS)
    seen = columns[None, :] < T
    if CAUSAL:
        seen = seen & (columns[None, :] <= rows[:, None] + T - S)
    return seen


@triton.jit
def _delta(
    do, o, delta, zeros, S, H, WIDTH: tl.constexpr, PADDED: tl.constexpr,
    CLEARED: tl.constexpr, CLEARED_PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Row sums of dO * O; `zeros` [.., CLEARED] is cleared beside them where CLEARED is not 0."""
    head = tl.program_id(1) % H
    batch = tl.program_id(1) // H
    row = tl.program_id(0) * ROWS
    x = _tile(do, batch, head, row, S, H, 0, PADDED, WIDTH, ROWS, False).to(tl.float32)
    y = _tile(o, batch, head, row, S, H, 0, PADDED, WIDTH, ROWS, False).to(tl.float32)
    rows = row + tl.arange(0, ROWS)
    tl.store(delta + (batch * H + head) * S + rows, tl.sum(x * y, 1), mask=rows < S)
    if CLEARED:
        nothing = tl.zeros([ROWS, CLEARED_PADDED], tl.float32)
        _write(zeros, nothing, batch, head, row, S, H, 0, CLEARED_PADDED, CLEARED, ROWS)


@triton.jit
def _queries(
    q0, q1, do, k0, k1, v, lse, delta, dq, S, T, H, scale, scale_log2,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, STAGES: tl.constexpr, DESCRIPTOR: tl.constexpr, SHARED: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """dq of ROWS queries: dS = P * (dO V^T - delta), dQ = scale * dS K."""
    head = tl.program_id(1) % H
    batch = tl.program_id(1) // H
    row = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    x0 = _tile(q0, batch, head, row, S, H, 0, D0, D, ROWS, DESCRIPTOR)
    x1 = x0
    d0 = tl.zeros([ROWS, D0], tl.float32)
    d1 = d0
    if D1 > 0:
        x1 = _tile(q1, batch, head, row, S, H, D0, D1, D, ROWS, DESCRIPTOR)
        d1 = tl.zeros([ROWS, D1], tl.float32)
    g = _tile(do, batch, head, row, S, H, 0, DVP, DV, ROWS, DESCRIPTOR)
    rows = row + tl.arange(0, ROWS)
    level, mean = _statistics(lse, delta, rows, batch * H + head, S)
    clear, end = _visible_keys(row, S, T, ROWS, COLUMNS, CAUSAL)
    for masked in tl.static_range(2):
        first = clear if masked else 0
        last = end if masked else clear
        for column in tl.range(first, last, COLUMNS, num_stages=STAGES):
            y0 = _tile(k0, batch, head // SHARED, column, T, H // SHARED, 0, D0, D, COLUMNS, DESCRIPTOR)
            y1 = y0
            if D1 > 0:
                y1 = _tile(k1, batch, head // SHARED, column, T, H // SHARED, D0, D1, D, COLUMNS, DESCRIPTOR)
            z = _tile(v, batch, head // SHARED, column, T, H // SHARED, 0, DVP, DV, COLUMNS, DESCRIPTOR)
            p = tl.exp2(_scores(x0, x1, y0, y1, D1) * scale_log2 - level[:, None])
            if masked:
                p = tl.where(_seen(row, column, S, T, ROWS, COLUMNS, CAUSAL), p, 0.0)
            ds = (p * (tl.dot(g, tl.trans(z)) - mean[:, None])).to(y0.dtype)
            d0 = tl.dot(ds, y0, d0)
            if D1 > 0:
                d1 = tl.dot(ds, y1, d1)
    _write(dq, d0 * scale, batch, head, row, S, H, 0, D0, D, ROWS)
    if D1 > 0:
        _write(dq, d1 * scale, batch, head, row, S, H, D0, D1, D, ROWS)


@triton.jit
def _statistics(lse, delta, rows, sequence, S):
    """Log-sum-exp in units of log 2 and delta of some queries; zeros past the end, where dO is zero too."""
    log2_e: tl.constexpr = 1.4426950408889634
    inside = rows < S
    level = tl.load(lse + sequence * S + rows, mask=inside, other=0.0) * log2_e
    return level, tl.load(delta + sequence * S + rows, mask=inside, other=0.0)


@triton.jit
def _seeing_queries(key, S, T, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CAUSAL: tl.constexpr):
    """The first query that sees any of ROWS keys, and the first that sees all of them, in blocks of COLUMNS."""
    start = 0
    clear = 0
    if CAUSAL:
        start = tl.maximum(key - (T - S), 0) // COLUMNS * COLUMNS
        clear = tl.minimum(tl.cdiv(tl.maximum(key + ROWS - 1 - (T - S), 0), COLUMNS), tl.cdiv(S, COLUMNS)) * COLUMNS
    return start, clear


@triton.jit
def _keys(
    k0, k1, v, q0, q1, do, lse, delta, dk, dv, S, T, H, scale, scale_log2,
    D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, DV: tl.constexpr, DVP: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, STAGES: tl.constexpr, DESCRIPTOR: tl.constexpr, SHARED: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """dk, dv of ROWS keys, summed over the heads that share them, everything transposed: S^T = K Q^T, dV = P^T dO,
    dK = scale * dS^T Q."""
    head = tl.program_id(1) % H
    batch = tl.program_id(1) // H
    key = tl.program_id(0) * ROWS  # early keys are seen by most queries: longest first
    x0 = _tile(k0, batch, head, key, T, H, 0, D0, D, ROWS, DESCRIPTOR)
    x1 = x0
    d0 = tl.zeros([ROWS, D0], tl.float32)
    d1 = d0
    if D1 > 0:
        x1 = _tile(k1, batch, head, key, T, H, D0, D1, D, ROWS, DESCRIPTOR)
        d1 = tl.zeros([ROWS, D1], tl.float32)
    z = _tile(v, batch, head, key, T, H, 0, DVP, DV, ROWS, DESCRIPTOR)
    values = tl.zeros([ROWS, DVP], tl.float32)
    start, clear = _seeing_queries(key, S, T, ROWS, COLUMNS, CAUSAL)
    for one in tl.range(0, SHARED):
        asking = head * SHARED + one
        heads = H * SHARED
        for masked in tl.static_range(2):
            for row in tl.range(start if masked else clear, clear if masked else S, COLUMNS, num_stages=STAGES):
                y0 = _tile(q0, batch, asking, row, S, heads, 0, D0, D, COLUMNS, DESCRIPTOR)
                y1 = y0
                if D1 > 0:
                    y1 = _tile(q1, batch, asking, row, S, heads, D0, D1, D, COLUMNS, DESCRIPTOR)
                g = _tile(do, batch, asking, row, S, heads, 0, DVP, DV, COLUMNS, DESCRIPTOR)
                rows = row + tl.arange(0, COLUMNS)
                level, mean = _statistics(lse, delta, rows, batch * heads + asking, S)
                p = tl.exp2(_scores(x0, x1, y0, y1, D1) * scale_log2 - level[None, :])
                if masked:
                    p = tl.where((key + tl.arange(0, ROWS))[:, None] <= rows[None, :] + T - S, p, 0.0)
                values = tl.dot(p.to(g.dtype), g, values)
                ds = (p * (tl.dot(z, tl.trans(g)) - mean[None, :])).to(y0.dtype)
                d0 = tl.dot(ds, y0, d0)
                if D1 > 0:
                    d1 = tl.dot(ds, y1, d1)
    _write(dv, values, batch, head, key, T, H, 0, DVP, DV, ROWS)
    _write(dk, d0 * scale, batch, head, key, T, H, 0, D0, D, ROWS)
    if D1 > 0:
        _write(dk, d1 * scale, batch, head, key, T, H, D0, D1, D, ROWS)
