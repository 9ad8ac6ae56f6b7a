"""Tables of a library's kernels from a trace of anyone's training step, in the form of those that a card was timed for.

Each kernel whose sizes the trace tells is a row, its time the mean of where nothing was sent beside it: as it took in
the job, in its company, at its clock. One trace has few rows, so they price what is near them (`Tables.sparse`). What a
price may be off comes from the trace's own rows left out, where there are enough of them.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hwmodels import library
from hwmodels.op import Gemm, GroupedGemm, Op
from hwmodels.price import SPREAD
from hwmodels.tables import KERNELS, library_rows
from hwmodels.units import MICRO
from numerics.tables.calibrate import Row, Table, launch_gap_us, rate, rounded, row
from numerics.tables.library import MEASURED, NONE, left_out, robust
from numerics.traces.hosts import Host
from numerics.traces.importer import Analysis
from numerics.traces.names import function
from numerics.traces.operations import ALONE, Operation
from numerics.traces.priced import priced, tensors

LIBRARY = "torch"
"""Whose kernels a trace has: those that torch calls, on the stacks torch and megatron alike."""
FASTEST = 3.0
"""Times HBM's bandwidth that no kernel reaches, out of the cache either: then sizes are not what it moved."""
ENOUGH = 5
"""Rows left out that tell a spread."""
FEW = {"measured": MEASURED, "interpolated": SPREAD["held"], "held": library.STRANGE}
"""Spreads where fewer do: as of prices held beyond what was measured, and of kernels that others stand for. More rows
say no less than the ladder of prices does: those of one job are too alike."""


class Kernels(NamedTuple):
    """What a trace's kernels are to hwmodels. rows: of tables. left: class -> microseconds of those that are none.
    unsaid: of those without sizes in the trace; whole: of all kernels; sent: of those that send."""

    rows: list[Row]
    left: Mapping[str, float]
    unsaid: float
    whole: float
    sent: float


def kernels(analysis: Analysis, reference: Mapping[str, float]) -> Kernels:
    """All of a trace."""
    times: dict[Any, list[float]] = defaultdict(list)
    first: dict[Any, Op] = {}
    names: dict[Any, set[str]] = defaultdict(set)
    left: dict[str, float] = defaultdict(float)
    unsaid = sent = 0.0
    for op in analysis.operations:
        us = sum(op.us)
        if op.kind.startswith("comm_"):
            sent += us
            continue
        what = priced(op)
        if what is None or not _possible(what, op.median_us, reference):
            left[op.kind] += us
            unsaid += us * (not tensors(op))
            continue
        key = library.identity(what)
        times[key] += _alone(op)
        names[key].add(op.operator.removeprefix("aten::") or function(op.kernel).own)
        first.setdefault(key, what)
    # with the mean of times: a step is their sum, and the same kernel may take two ways
    rows = [
        row(first[key], us, names[key]) | rate(first[key], us) | {"us": rounded(float(np.mean(us)))}
        for key, us in times.items()
    ]
    return Kernels(rows, left, unsaid, sum(sum(op.us) for op in analysis.operations), sent)


def _possible(op: Op, us: float, reference: Mapping[str, float]) -> bool:
    """Whether a device can do that in the time."""
    peak = reference.get(f"{op.precision if isinstance(op, Gemm | GroupedGemm) else 'bf16'}_flops", math.inf)
    least = max(op.flop() / peak, op.bytes() / (FASTEST * reference["hbm_bytes_per_s"])) / MICRO
    return us > 0 and us >= least


def _alone(op: Operation) -> list[float]:
    """Microseconds of the repeats beside which nothing was sent; of all where something always was."""
    return [us for us, beside in zip(op.us, op.beside, strict=True) if beside <= ALONE] or list(op.us)


def tables_of(analysis: Analysis, host: Host, head: Mapping[str, Any]) -> dict[str, Table]:
    """File stem -> table, of a trace on a device that hwmodels knows. head: device, source, reference, provenance."""
    rows = kernels(analysis, head["reference"]).rows
    head = {**head, "library": LIBRARY, "fit": {"spread": spreads(head["reference"], rows)}}
    by_table: dict[str, list[Row]] = defaultdict(list)
    for each in rows:
        by_table["gemm" if each["op"] == "grouped" else each["op"]].append(each)
    gap = {"launch_gap_us": launch_gap_us(analysis), **host._asdict()}
    return {name: {**head, "rows": by_table[name]} for name in KERNELS} | {"host": {**head, **gap, "rows": []}}


def spreads(reference: Mapping[str, float], rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Family -> relative standard deviation by rung: repeats of a row, and what comes back where rows are left out."""
    whole = library.measured("", reference, library_rows(rows), NONE)
    offs: dict[tuple[str, str], list[float]] = defaultdict(list)
    wide: dict[str, list[float]] = defaultdict(list)
    for op, each in library_rows(rows):
        name = library.family(op)
        wide[name].append(math.log(max(1.0, each["high_us"] / each["low_us"])) / math.sqrt(12))
        for rung, apart in (("interpolated", 0.0), ("held", library.NEAR**2)):
            if (off := left_out(whole, op, each, apart)) is not None:
                offs[name, rung].append(off)
    return {
        name: {
            "measured": rounded(float(np.hypot(MEASURED, np.median(wide[name] or [0.0])))),
            **{rung: _spread(offs[name, rung], rung) for rung in ("interpolated", "held")},
        }
        for name in NONE
    }  # fmt: skip


def _spread(offs: list[float], rung: str) -> float:
    return rounded(max(SPREAD[rung], robust(offs))) if len(offs) >= ENOUGH else FEW[rung]


def report(analysis: Analysis, host: Host, reference: Mapping[str, float]) -> Iterator[str]:
    """Lines: how much of the trace prices, why the rest does not, and what the host took."""
    said = kernels(analysis, reference)
    counted = said.whole - said.sent or 1.0
    part = 1 - sum(said.left.values()) / counted
    yield f"prices {part:.1%} of the time of kernels that compute, by {len(said.rows)} rows"
    if said.unsaid > 0.01 * counted:
        yield f"  {said.unsaid / counted:.1%} have no sizes there; record_shapes=True of torch.profiler writes them"
    for kind, us in sorted(said.left.items(), key=lambda pair: -pair[1])[:3]:
        if us > 0.005 * counted:
            yield f"  {us / counted:.1%} of class {kind} are no operation that hwmodels prices"
    if said.sent:
        yield f"  {said.sent / said.whole:.1%} of all kernel time is communication, priced as without a trace"
    yield from _host(host)


def _host(host: Host) -> Iterator[str]:
    if host.waited > 0.02:
        yield f"  for {host.waited:.0%} of its time the device waited for the host to launch"
    if host.forward_us and host.backward_us:
        keys = " ".join(f"cluster.node.launch.{name}={us:.3g}us"
                        for name, us in (("forward", host.forward_us), ("backward", host.backward_us)))  # fmt: skip
        yield f"  the host took so long for an elementwise operation, the profiler's own work included: {keys}"
