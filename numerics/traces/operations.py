"""An operation of a traced program, and the shapes of its products as far as the trace tells them."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from numerics.traces.rules import Rules

BESIDE, ALONE = 0.95, 0.05
"""Shares of a kernel's time beside communication from which it counts as with it, and up to which as without."""
TILE = 128
"""Columns that one scale of an operand covers (DeepSeek-V3 report sec 3.3.2: 1x128 tiles)."""
_ROLE = re.compile(r"(.+?)(_recompute|_dgrad|_wgrad)?(?:_e\d+)?\Z")
_PASS = re.compile(r"\(([FBW])\)\Z")
_TILE = re.compile(r"tilesize(\d+)x(\d+)")


class Shape(NamedTuple):
    """C[m, n] (+)= A[m, k] B[k, n]; 0 where the trace does not tell. A grouped product's m is all its rows."""

    m: float = 0
    n: float = 0
    k: float = 0


@dataclass(frozen=True)
class Operation:
    """One operation of the program with its repeats. Tuples have an entry a repeat, in launch order.

    phase: annotation, or "". position: place in the phase's sequence, or -1 when it was not placed. op: its name.
    kind: class (rules.CLASSES). kernel: name of its kernel. repeats: which occurrence of the phase.
    us: microseconds. beside: share of that time during which a communication kernel moved data. grids: blocks in x, y,
    z; shared_bytes: dynamic shared memory. known: a rule says what its kernel does; general: only a catch-all matched
    it. loose: it belongs to no sequence. joined: the launch is in the trace. operator: the host operator that launched
    it; dims, types, strides, given: of its operands, and its other arguments, as torch writes them; node: of autograd,
    that called it ("": none).
    """

    phase: str
    position: int
    op: str
    kind: str
    kernel: str
    known: bool
    general: bool
    loose: bool
    repeats: tuple[int, ...]
    us: tuple[float, ...]
    beside: tuple[float, ...]
    grids: tuple[tuple[int, ...], ...]
    shared_bytes: tuple[int, ...]
    joined: tuple[bool, ...]
    operator: str = ""
    dims: str = ""
    types: str = ""
    strides: str = ""
    given: str = ""
    node: str = ""
    shapes: tuple[Shape, ...] = ()

    @property
    def path(self) -> str:
        return f"{self.phase}/{self.op}"

    @property
    def median_us(self) -> float:
        return float(np.median(self.us))

    def with_communication(self) -> float | None:
        """Median of the repeats that ran beside communication all the time, or None."""
        return _median(t for t, b in zip(self.us, self.beside, strict=True) if b >= BESIDE)

    def without_communication(self) -> float | None:
        return _median(t for t, b in zip(self.us, self.beside, strict=True) if b <= ALONE)


def _median(values: Iterable[float]) -> float | None:
    sample = list(values)
    return float(np.median(sample)) if sample else None


class Rows(NamedTuple):
    """Rows of a micro-batch, read off grids. padded, received: direction F, B or W -> one number a repeat."""

    tokens: int
    padded: Mapping[str, tuple[int, ...]]
    received: Mapping[str, tuple[int, ...]]


def pass_of(phase: str) -> str:
    """F, B or W of a phase of a model's layer, which annotations write behind its name: attn(F). Empty: of no layer."""
    match = _PASS.search(phase)
    return match[1] if match else ""


def rows(operations: Iterable[Operation], rules: Rules) -> Rows:
    """First grid dimension of the operations that the rules name for it (one block a row)."""
    by_path = {op.path: tuple(grid[0] for grid in op.grids) for op in operations if op.position >= 0}
    named = rules.shapes
    padded = {d: by_path[p] for d, p in named.get("padded", {}).items() if p in by_path}
    received = {d: by_path[p] for d, p in named.get("received", {}).items() if p in by_path}
    tokens = by_path.get(named.get("tokens", ""), (0,))
    return Rows(tokens[0], padded, received)


def deduce(operations: Iterable[Operation], rules: Rules) -> tuple[Operation, ...]:
    """The operations with the shapes of their products filled in.

    K comes from the dynamic shared memory of persistent products, which holds one scale for each 128 of K. N of a
    product is K of its input gradient, and the weight gradient's sides are both; rows come from grids. Products that
    no sequence names take the dimensions of the host operator that launched them.
    """
    operations = tuple(operations)
    counts = rows(operations, rules)
    inner, outer = _widths(operations, rules.shapes.get("shared_memory"))
    out = []
    for op in operations:
        if op.kind.startswith("gemm") and op.position >= 0:
            share = sum(_group(other) == _group(op) for other in operations) if op.op[-1:].isdigit() else 1
            sizes = _rows_of(op, counts, share)
            out.append(replace(op, shapes=tuple(_shape(op, size, inner, outer) for size in sizes)))
        elif op.kind.startswith("gemm") and op.dims:
            out.append(replace(op, shapes=(from_dims(op.dims),) * len(op.us)))
        else:
            out.append(op)
    return tuple(out)


def _base(op: Operation) -> tuple[str, str]:
    """Name of the product an operation belongs to, and its role: "", _recompute, _dgrad or _wgrad."""
    match = _ROLE.match(op.op)
    return (match[1], match[2] or "") if match else (op.op, "")


def _group(op: Operation) -> tuple[str, str]:
    return op.phase, _base(op)[0]


def _rows_of(op: Operation, counts: Rows, share: int) -> list[float]:
    """Rows of each repeat: those of the experts for routed products (one expert's share each for per-expert ones)."""
    padded = counts.padded.get(pass_of(op.phase), ())
    if (op.kind == "gemm_grouped" or share > 1) and len(padded) == len(op.us):
        return [size / share for size in padded]
    return [counts.tokens] * len(op.us)


def _widths(operations: Iterable[Operation], memory: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Product -> its K (columns of the input), and K of its input gradient (columns of the output)."""
    inner: dict[str, int] = {}
    outer: dict[str, int] = {}
    tiled: dict[tuple[str, str], tuple[int, ...]] = {}
    for op in operations:
        base, role = _base(op)
        if memory and op.kind in memory["classes"]:
            scales = op.shared_bytes[0] - memory["fixed_bytes"]
            (outer if role == "_dgrad" else inner)[base] = scales * TILE // memory["bytes_per_tile"]
        elif op.kind == "gemm_bf16" and (match := _TILE.search(op.kernel)):
            tiled[base, role] = (*op.grids[0], int(match[1]), int(match[2]))
    for (base, role), (x, y, _, _, side) in tiled.items():
        if role or (base, "_wgrad") not in tiled:
            continue
        across = tiled[base, "_wgrad"]  # a block a tile of the weight: its number over that of output columns
        outer[base], inner[base] = y * side, across[0] * across[1] // y * side
        assert x > 0
    return inner, outer


def _shape(op: Operation, size: float, inner: Mapping[str, int], outer: Mapping[str, int]) -> Shape:
    base, role = _base(op)
    k, n = inner.get(base, 0), outer.get(base, 0)
    return {"_dgrad": Shape(size, k, n), "_wgrad": Shape(n, k, size)}.get(role, Shape(size, n, k))


def from_dims(dims: str) -> Shape:
    """Shape of a product from torch's "Input Dims"; zeros when it is none.

    Of aten's mm, addmm, bmm, baddbmm and linear the last two matrices count (before them a sum may stand), of
    _scaled_mm the first two: scales of rows and columns follow, whose product would have K of 1.
    """
    try:
        listed = json.loads(dims)
    except (ValueError, RecursionError):
        return Shape()
    operands = [d for d in listed if _is_matrix(d)] if isinstance(listed, list) else []
    products = (_product(a, b) for a, b in reversed(list(pairwise(operands))))
    return next((shape for shape in products if shape.k > 1), Shape())


def _is_matrix(dims: object) -> bool:
    return isinstance(dims, list) and len(dims) >= 2 and all(type(size) is int and size > 0 for size in dims)


def _product(a: list[int], b: list[int]) -> Shape:
    """a [..., m, k] times b [k, n] or [n, k] (or a batch of these), else zeros."""
    if len(b) == len(a) == 3 and b[1] == a[2] and b[0] == a[0]:
        return Shape(a[0] * a[1], b[2], a[2])
    if len(b) != 2:
        return Shape()
    n = b[1] if b[0] == a[-1] else b[0] if b[1] == a[-1] else 0
    return Shape(prod(a[:-1]), n, a[-1]) if n else Shape()
