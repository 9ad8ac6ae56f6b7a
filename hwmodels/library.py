"""Prices by what a vendor library's kernels took: of the nearest measured shapes, over a bound.

No tile or wave is modelled: such libraries choose among many kernels. A time is the bound (the larger of FLOP at the
dense peak and bytes at HBM's bandwidth, after the fixed cost of a launch) times how much longer than it the nearest
measured shapes of the same kind took, weighted by distance in octaves. docs/PRICES.md has what that is worth with the
row, or all rows of its weights, left out.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.units import MICRO

FIXED_US = 3.0
"""Of the bound: from the first block's start to the last one's end of the smallest kernels (H200: 2 to 4 us)."""
NEAREST, BLUNT = 6, 0.05
"""Neighbours that count, and what is added to the square of their distances. Chosen, with `FIXED_US`, by rows left out:
4 to 8 neighbours and 0.05 to 0.25 come within 0.3 points in the median."""
ATTENTION_SHARP = 2.0
"""Power of a neighbour's weight in attention, whose rows are few and far apart: near ones count, where short sequences
of few heads would draw down the rate of long ones. Chosen by rows left out (1, 1.5, 2 and 3); of others it is 1."""
NEAR = 1.5
"""Octaves up to which a neighbour is near; beyond, utilisation is held."""
HEADS, GROUPS, WIDTHS, UNLIKE = 0.5, 0.25, 4.0, 4.0
"""Weights of an octave in heads, in heads that share keys, in widths, and in those of keys over those of values, beside
one in the length of sequences. A pair of widths is a kernel of its own (cuDNN's backward of 192 and 192 takes 1.7 times
as long as of 192 and 128 on an H200): chosen by rows left out (docs/PRICES.md)."""
BY_ROW = ("norm", "layer_norm", "softmax", "reduce", "topk", "attention")
"""How kinds of memory-bound kernels begin that take a row at a time: rows count besides bytes in all."""
BALANCE = 8.0
"""Octaves between a kernel that only reads and one that only writes."""
ACCUMULATE = 0.8
"""Part of HBM's bandwidth at which FP32 gradients are read and written again, where only a product without was
measured (NVIDIA's H200 and B200: docs/PRICES.md)."""
STREAM, STRANGE = "elementwise", 0.5
"""Kind whose rate one that was not measured takes, and how far off that is: of 30 kinds that were measured on an H200,
at 20 MB and more, half take 0.9 to 1.4 times as long as it for equal bytes, the others up to 6.8 times."""
TILE = 128
"""Queries, and keys, of a block of scores, which fused attention works on whole (FlashAttention-2 and -3 have blocks of
128 x 128 at a width of 64: arXiv:2307.08691 sec 3.3, arXiv:2407.08608 sec 3)."""
TINY = "tiny"
"""Kind of kernels that do next to nothing; others whose names begin so cost as much."""


class Row(NamedTuple):
    """A measured kernel. at: its place, in octaves. over: the logarithm of its time over the bound. row: as the table
    has it."""

    at: tuple[float, ...]
    over: float
    row: Mapping[str, Any]


class Reading(NamedTuple):
    """A price on the library's device: microseconds, rung, where from, relative spread, and what it scales by on
    another device (as a `Quote` has it)."""

    us: float
    rung: str
    source: str
    spread: float
    bound: str


class Measured(NamedTuple):
    """All of a library on a device. classes: kind of operation -> rows. spreads: rung -> relative standard deviation,
    by family of operations. reference: of the device. exact: what an operation is -> row."""

    folder: str
    reference: Mapping[str, float]
    classes: Mapping[Hashable, tuple[Row, ...]]
    exact: Mapping[Hashable, Mapping[str, Any]]
    spreads: Mapping[str, Mapping[str, float]]


def measured(
    folder: str, reference: Mapping[str, float], rows: Iterable[tuple[Op, Mapping[str, Any]]],
    spreads: Mapping[str, Mapping[str, float]],
) -> Measured:  # fmt: skip
    """Rows, each an operation and what the table says of it, indexed for look-up."""
    classes: dict[Hashable, list[Row]] = {}
    exact: dict[Hashable, Mapping[str, Any]] = {}
    for op, row in rows:
        over = math.log(float(row["us"]) / bound_us(reference, op))
        classes.setdefault(kind(op), []).append(Row(place(op), over, row))
        exact[identity(op)] = row
    return Measured(folder, reference, {key: tuple(group) for key, group in classes.items()}, exact, spreads)


# --- what an operation is ---------------------------------------------------------------------------------------------


def operation(row: Mapping[str, Any]) -> Op:
    """The operation of a table's row."""
    kinds: dict[str, Any] = {"gemm": Gemm, "grouped": GroupedGemm, "attention": Attention, "memory": Memory}
    fields = kinds[row["op"]]._fields
    op: Op = kinds[row["op"]](**{name: row[name] for name in fields if name in row})
    return op


def accumulates(op: Gemm) -> bool:
    """Whether a weight gradient is added to FP32, and not written in BF16."""
    return op.role == "wgrad" and op.result == "fp32"


def kind(op: Op) -> Hashable:
    """Operations that are neighbours of each other."""
    if isinstance(op, Gemm):
        return "gemm", op.precision, op.role, accumulates(op)
    if isinstance(op, GroupedGemm):
        return "grouped", op.precision, op.role
    if isinstance(op, Attention):
        return "attention", op.direction, op.causal, bool(op.window)
    assert isinstance(op, Memory)
    return "memory", TINY if op.kind.startswith(TINY) else op.kind


def family(op: Op) -> str:
    """What a spread is told for."""
    return {Gemm: "gemm", GroupedGemm: "grouped", Attention: "attention"}.get(type(op), "memory")


def identity(op: Op) -> Hashable:
    """Equal for operations that one row prices."""
    sides = tuple(value for value in op if isinstance(value, int | float) and not isinstance(value, bool))
    return kind(op), sides[:2] if isinstance(op, Memory) and op.kind.startswith(TINY) else sides


def place(op: Op) -> tuple[float, ...]:
    """Where an operation lies among its kind, in octaves."""
    if isinstance(op, Gemm):
        return _octaves(op.m, op.n, op.k)
    if isinstance(op, GroupedGemm):
        return _octaves(op.groups, op.rows / op.groups, op.n, op.k)
    if isinstance(op, Attention):
        between = math.sqrt(op.sequence * (op.keys or op.sequence))
        heads, length, widths, groups = _octaves(
            op.batch * op.heads, between, op.qk + op.v, op.heads / (op.kv_heads or op.heads)
        )
        unlike = math.log2(op.qk / op.v)
        return HEADS * heads, length, WIDTHS * widths, GROUPS * groups, UNLIKE * unlike
    assert isinstance(op, Memory)
    whole, row = _octaves(op.bytes(), op.read + op.write)
    return whole, row * op.kind.startswith(BY_ROW), BALANCE * op.read / max(op.read + op.write, 1.0)


def _octaves(*sizes: float) -> tuple[float, ...]:
    return tuple(math.log2(max(size, 1.0)) for size in sizes)


def bound_us(reference: Mapping[str, float], op: Op) -> float:
    """Microseconds that peak and bandwidth allow, after the fixed cost."""
    flop = op.flop() / reference[f"{_form(op)}_flops"] if op.flop() else 0.0
    return FIXED_US + max(flop, op.bytes() / reference["hbm_bytes_per_s"]) / MICRO


def _form(op: Op) -> str:
    """The number format whose peak counts."""
    return op.precision if isinstance(op, Gemm | GroupedGemm) else "bf16"


# --- prices -----------------------------------------------------------------------------------------------------------


def knows(library: Measured, op: Op) -> bool:
    """Whether it has rows for an operation, or for one that stands for it."""
    return isinstance(op, Gemm | GroupedGemm | Attention | Memory) and _class(library, op)[0] in library.classes


def nearby(library: Measured, op: Op) -> bool:
    """Whether it has rows of an operation's very kind within `NEAR` octaves of it."""
    if not knows(library, op):
        return False
    key, like, _ = _class(library, op)
    strange = isinstance(op, Memory) and like != op
    return not strange and any(apart(place(like), row.at) <= NEAR * NEAR for row in library.classes[key])


def _class(library: Measured, op: Op) -> tuple[Hashable, Op, float]:
    """The rows to go by, with the operation that stands for it and the bytes that it moves besides: of its own kind;
    for a product of another direction those of forward; for attention of all pairs causal attention with as many of
    them; for that of a window short sequences (`stretches`); for an unknown memory-bound kernel those that only
    stream."""
    own = kind(op)
    if own in library.classes:
        return own, op, 0.0
    if isinstance(op, Gemm | GroupedGemm):
        forward = op._replace(role="fprop")
        more = 6.0 * op.m * op.n if isinstance(op, Gemm) and accumulates(op) else 0.0
        return kind(forward), forward, more
    if isinstance(op, Attention) and not op.causal:
        length = round(math.sqrt(2 * op.sequence * (op.keys or op.sequence)))
        return _class(library, op._replace(causal=True, sequence=length, keys=0))
    if isinstance(op, Attention) and op.window:
        return _class(library, stretches(op))
    stream = op._replace(kind=STREAM) if isinstance(op, Memory) else op
    return kind(stream), stream, 0.0


def stretches(op: Attention) -> Attention:
    """Attention of a window as that of as many tokens in shorter sequences, in which a query's blocks hold as many
    pairs: of a window both edges cut through a block, of a causal sequence one does. Nobody published such kernels, or
    those with a sink, one by one; so what an edge costs besides (other masks, a number a head) is not in it."""
    seen = op._replace(direction="forward").flop() / (2 * (op.qk + op.v) * op.batch * op.heads * op.sequence)
    edge = TILE * max(0.0, 1 - op.window / (op.keys or op.sequence))
    length = min(op.sequence, round(2 * seen + edge))
    count = max(1, round(op.batch * op.sequence / length))
    return op._replace(batch=count, sequence=length, window=0, keys=0)


def quote(library: Measured, op: Op, exact: bool, sms: int) -> Reading:
    """The time of an operation on the library's device. exact: whether its very row counts, or only its neighbours.
    sms: that it may use; products and attention, which were measured on all, take longer by as many as they lack."""
    key, like, more = _class(library, op)
    bound = "memory" if isinstance(op, Memory) else _form(op)
    strange = isinstance(op, Memory) and like != op
    spreads, row = library.spreads[family(op)], library.exact.get(identity(like))
    slower = 1.0 if isinstance(op, Memory) else library.reference["sms"] / sms
    folder = f"{library.folder}/{family(op)}"
    if row and exact and not more and not strange:
        rung = "measured" if slower == 1 else "interpolated"
        return Reading(float(row["us"]) * slower, rung, f"{folder}: {_named(row)}", spreads[rung], bound)
    others = [r for r in library.classes[key] if r.row is not row] or list(library.classes[key])
    us, near = between(others, place(like), bound_us(library.reference, like), sharp(like))
    held = isinstance(op, Attention) and bool(op.window)  # no row is of a window
    rung = "transferred" if strange else "interpolated" if near[0][0] <= NEAR * NEAR and not held else "held"
    us += more / (ACCUMULATE * library.reference["hbm_bytes_per_s"]) / MICRO
    return Reading(us * slower, rung, f"{folder}: {len(near)} rows near {_named(near[0][1].row)}",
                   STRANGE if strange else spreads[rung], bound)  # fmt: skip


def loaded(library: Measured, op: Op) -> float:
    """How many times as long a product or attention takes at a price as on a rested card."""
    rows = library.classes[_class(library, op)[0]]
    return median(float(row.row["us"]) / float(row.row.get("burst_us", row.row["us"])) for row in rows)


def apart(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Square of the distance of two places."""
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def sharp(op: Op) -> float:
    """The power of a neighbour's weight."""
    return ATTENTION_SHARP if isinstance(op, Attention) else 1.0


def between(
    rows: Iterable[Row], at: tuple[float, ...], bound: float, sharp: float = 1.0
) -> tuple[float, list[tuple[float, Row]]]:
    """Microseconds at a place from the nearest rows, and these with the squares of their distances. sharp: see
    `sharp`."""
    near = sorted(((apart(at, row.at), row) for row in rows), key=lambda pair: pair[0])[:NEAREST]
    weights = [1 / (distance + BLUNT) ** sharp for distance, _ in near]
    over = sum(w * r.over for w, (_, r) in zip(weights, near, strict=True)) / sum(weights)
    return bound * math.exp(over), near


def _named(row: Mapping[str, Any]) -> str:
    return f"{', '.join(row['names'])} ({row['samples']} samples)"
