"""What prices of a vendor library's kernels are worth (docs/PRICES.md): rows left out, both states, the host."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from statistics import median
from typing import Any

from hwmodels import tables as calibration
from hwmodels.library import Measured, Row, apart, between, bound_us, kind, operation, place, sharp
from hwmodels.op import Gemm
from hwmodels.tables import FOLDER
from hwmodels.units import MICRO, TERA
from numerics.accuracy import kernels_page
from numerics.accuracy.markdown import percent, prose, table

LIBRARY = """
A stack that trains with a vendor's kernels is priced by them: `Pricer(library="torch")` asks the tables of that
library first (hwmodels/tables, a folder in a device's), of the device and of its siblings, and what is not there of the
project's own tables. No tiles are modelled, since such libraries choose among many kernels: a time is the bound (peak
and HBM, after {fixed} us) times how much longer than it the six nearest measured shapes of the same kind took, in
octaves.

{rows} operations of torch {torch} (cuBLAS, cuDNN's attention, torch's own kernels) on an H200. What a price is off by
where rows are left out: *row*, its own; *weights*, all of its weights; *octave*, all within an octave of it. It is most
where a kernel takes 2 us, and where one kind is several kernels (topk, reduce, gather, preparing attention's backward).
"""
STATES = """
Two states were measured, and a price is their geometric mean. *Burst*: a rested card at 1,980 MHz, a call now and then,
the L2 cache written over; for memory-bound kernels the other end is the same call again, with what fits in the cache
still there. *Company*: between products (0.7 of the time) and additions at full bandwidth without a pause, as hungry as
a step can be (692 W of 700, about 1,530 MHz). *Load*: the kernel alone without a pause. Products are slowed by {alone}
under load and by {company} in company; where between the two a training step is depends on its pauses and on how much
its other kernels draw (the fused optimizer 470 to 550 W, additions 640 to 660), which no timing of single kernels says,
so the spread of a measured product is {spread}. Bursts of 3 ms and more meet the limit themselves: they are taken back
to a rested card by what they lack under load. A training step on Hopper has another clock than midway: what the watts
of its own kernels leave (`hwmodels.pace`), from a rested card's on.
"""
HOST = """
Microseconds of the host for a call that it does not wait for (Python, torch {torch}, {host}): forward, recording for
backward, and backward by autograd of single calls with the accumulation of their gradients; a node in a chain takes
{node}. A kernel that is queued starts {gap} us after the one before, in a graph {graph} us. Runs take of these the gap
alone: what the host takes is a node's (`cluster.node.launch`), from chains of operations, and other operations are told
in those; the product recorded here, {mul} us, is another measurement of its 14.9 us forward.
"""
GAPS, FEW = ("row", "weights", "octave"), 8


def library(folder: str = "h200/torch") -> str:
    """The section of one library on one device."""
    measured = calibration.load(folder).library
    assert measured is not None
    files = {path.stem: json.loads(path.read_text()) for path in (FOLDER / folder).glob("*.json")}
    said, fit = files["gemm"]["provenance"], files["gemm"]["fit"]
    rows = [row for group in measured.classes.values() for row in group]
    clock = fit["clock"]
    parts = [
        prose(LIBRARY, fixed=3, rows=f"{len(rows):,}", torch=said["versions"]["torch"]),
        table(f"kind | rows | {' | '.join(f'{gap}: median | 95 %' for gap in GAPS)} | signed", _errors(measured)),
        prose(STATES, alone=percent(clock["alone"] - 1), company=percent(clock["gemm"] - 1),
              spread=percent(fit["spread"]["gemm"]["measured"])),
        table("kernel | burst of | rows | TFLOP/s in a burst | as priced | load over burst", _rates(rows)),
        table("kind | company over burst", _clocks(clock)),
        _host(files["host"], said),
        kernels_page.elsewhere(),
    ]  # fmt: skip
    return "\n\n".join(parts)


def _errors(measured: Measured) -> Iterator[list[str]]:
    """By kind: what comes back where rows are left out; kinds of a few rows have no line."""
    for key in sorted(measured.classes, key=str):
        rows = measured.classes[key]
        if len(rows) < FEW:
            continue
        cells, signed = [_called(key), str(len(rows))], 0.0
        for gap in GAPS:
            offs = [off for row in rows if (off := _off(measured, rows, row, gap)) is not None]
            known = offs and (gap != "weights" or isinstance(operation(rows[0].row), Gemm))
            sizes = sorted(abs(math.exp(off) - 1) for off in offs)
            cells += [percent(median(sizes)), percent(sizes[int(0.95 * (len(sizes) - 1))])] if known else ["", ""]
            signed = math.exp(median(offs)) - 1 if gap == "row" else signed
        yield [*cells, percent(signed, True)]


def _called(key: Any) -> str:
    words = [str(word) for word in key if not isinstance(word, bool)]
    extra = " to FP32" if key[0] == "gemm" and key[-1] else ""
    return (
        " ".join(words).replace("memory ", "").replace("gemm bf16", "product").replace("grouped bf16", "grouped")
        + extra
    )


def _off(measured: Measured, rows: tuple[Row, ...], row: Row, gap: str) -> float | None:
    """The logarithm of a price over a row's time without that row and more; None where less than three are left."""
    op = operation(row.row)
    others = [r for r in rows if r is not row and not _gone(op, row, r, gap)]
    if len(others) < 3:
        return None
    us, _ = between(others, place(op), bound_us(measured.reference, op), sharp(op))
    return math.log(us / row.row["us"])


def _gone(op: Any, row: Row, other: Row, gap: str) -> bool:
    """Whether a gap takes another row as well."""
    if gap == "octave":
        return apart(row.at, other.at) <= 1
    if gap == "row" or not isinstance(op, Gemm):
        return False
    like = operation(other.row)
    assert isinstance(like, Gemm)
    return (op.m, op.n) == (like.m, like.n) if op.role == "wgrad" else (op.n, op.k) == (like.n, like.k)


def _rates(rows: list[Row]) -> Iterator[list[str]]:
    """Products and attention by how long a burst is: rates, and what load adds."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        op = operation(row.row)
        if op.flop():
            us = row.row["burst_us"]
            size = "under 0.1 ms" if us < 100 else "0.1 to 3 ms" if us < 3000 else "over 3 ms"
            groups[_called(kind(op)), size].append(row)
    for (name, size), group in sorted(groups.items()):
        rates = [operation(r.row).flop() / (r.row[key] * MICRO) / TERA for key in ("burst_us", "us") for r in group]
        burst, priced = median(rates[: len(group)]), median(rates[len(group) :])
        loads = [r.row["loaded_us"] / r.row["burst_us"] for r in group if "loaded_us" in r.row]
        load = f"{median(loads):.2f} ({len(loads)})" if loads else ""
        yield [name, size, str(len(group)), f"{burst:,.0f}", f"{priced:,.0f}", load]


def _clocks(clock: dict[str, float]) -> Iterator[list[str]]:
    for name, factor in sorted(clock.items()):
        if name not in ("alone", "alone attention", "slope", "apart"):
            yield [{"gemm": "product", "groupedgemm": "grouped product"}.get(name, name), f"{factor:.2f}"]


def _host(host: dict[str, Any], said: dict[str, Any]) -> str:
    calls = {key: host[f"{key}_us"] for key in ("forward", "recorded", "backward")}
    names = sorted({name for times in calls.values() for name in times})
    rows = [[name, *(f"{times[name]:.1f}" if name in times else "" for times in calls.values())] for name in names]
    text = prose(
        HOST, torch=said["versions"]["torch"], host=said["host"], node=f"{host['backward_node_us']:.0f}",
        gap=f"{host['launch_gap_us']:.2f}", graph=f"{host['graph_gap_us']:.2f}",
        mul=f"{host['recorded_us']['mul']:.1f}",
    )  # fmt: skip
    return f"{text}\n\n{table('call | forward | recorded | backward', rows)}"
