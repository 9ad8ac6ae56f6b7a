"""A profiler trace beside a simulated step, kernel by kernel: joined by kind and shape, to show where they part.

The trace's times by kind come as the tables that `python -m numerics calibrate --trace FILE --out DIR` writes: a row
for each kind and shape with how often it ran and its mean time. Of the run it is the first position's step, kernels by
themselves. For a picture also every kernel in its time: of the trace by stream, of the run by lane.
"""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwmodels.op import Attention, Gemm, Memory, Op
from hwmodels.refused import Refused
from hwmodels.units import MICRO, NS_PER_S, US_NS, format_quantity
from sim import assembly
from sim.layout.plan import lay_out
from sim.models.lowering import updates
from sim.result.joins import Bars, Joined
from sim.result.trace import LANES
from sim.scenario.values import Scenario
from sim.simulation import run, simulated

SEEN = 1e-4
"""Part of the busiest lane's time below which a lane is not drawn."""
ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of events of a Chrome trace that a GPU was busy with."""
TABLES = ("gemm", "attention", "memory")
UNSEEN = "_unseen"
"""What the kind of an update of zeros ends in; a trace does not tell them apart."""
KINDS: dict[str, Any] = {"gemm": Gemm, "attention": Attention, "memory": Memory}


def joined(scenario: Scenario, tables: Path) -> list[Joined]:
    """Those of either, by how far they part. tables: of the trace. Raises Refused."""
    if scenario.model is None:
        raise Refused("chunk_times have no kernels to join with a trace; name a scenario with a model")
    ours, theirs = _sums(_simulated(scenario)), _sums(_measured(tables))
    rows = [
        Joined(*key, *ours.get(key, (0, 0.0)), *theirs.get(key, (0, 0.0))) for key in dict.fromkeys((*ours, *theirs))
    ]
    return sorted(rows, key=lambda row: -abs(row.beyond_s))


def measured_bars(trace: Path) -> Bars:
    """Kernels of a trace by stream, the busiest first. Raises Refused where it is none."""
    opened = gzip.open if trace.suffix == ".gz" else open
    try:
        with opened(trace, "rt", encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        raise Refused("is no trace that can be read", str(trace)) from None
    events = content.get("traceEvents", []) if isinstance(content, dict) else content
    busy = [each for each in events if each.get("ph") == "X" and each.get("cat") in ON_DEVICE]
    streams = Counter[Any]()
    for each in busy:
        streams[each.get("tid")] += each["dur"]
    rows = {stream: i for i, (stream, _) in enumerate(streams.most_common())}
    kernels = [(rows[each.get("tid")], each["name"], each["ts"] * US_NS, each["dur"] * US_NS) for each in busy]
    return _bars([f"stream {stream}" for stream in rows], kernels)


def simulated_bars(scenario: Scenario) -> Bars:
    """Kernels of the first position's step by lane."""
    spans = run(replace(scenario, detail="op", outputs=("result", "report")), False).spans
    spans = spans.where(spans.position == 0)
    busy = {lane: int((spans.end - spans.start)[spans.lane == lane].sum()) for lane in range(len(LANES))}
    lanes = [lane for lane, time in busy.items() if time > SEEN * max(busy.values())]
    spans = spans.where(np.isin(spans.lane, lanes))
    kernels = [
        (lanes.index(lane), spans.labels[label], start, end - start)
        for lane, label, start, end in zip(spans.lane.tolist(), spans.label.tolist(), spans.start.tolist(),
                                           spans.end.tolist(), strict=True)
    ]  # fmt: skip
    return _bars([LANES[lane] for lane in lanes], kernels)


def _bars(rows: Sequence[str], kernels: Sequence[tuple[int, str, float, float]]) -> Bars:
    """Of (row, name, start, length in ns) each."""
    begin = min((start for _, _, start, _ in kernels), default=0.0)
    ordered = sorted(kernels, key=lambda each: (each[0], each[2]))
    return Bars(
        tuple(rows), tuple(row for row, *_ in ordered), tuple(name for _, name, *_ in ordered),
        tuple(round(start - begin) for _, _, start, _ in ordered),
        tuple(round(start - begin + length) for _, _, start, length in ordered),
    )  # fmt: skip


def _sums(launches: Iterator[tuple[Op, int, float]]) -> dict[tuple[str, str], tuple[int, float]]:
    """Kind and shape -> launches, and seconds of all of them."""
    total: dict[tuple[str, str], tuple[int, float]] = {}
    for op, count, seconds in launches:
        if (key := name(op)) is not None:
            known = total.get(key, (0, 0.0))
            total[key] = known[0] + count, known[1] + count * seconds
    return total


def name(op: Op) -> tuple[str, str] | None:
    """Kind and shape by which launches are joined; None of what is no kernel by itself."""
    if isinstance(op, Gemm):
        return f"product, {op.role}", f"{op.m} x {op.n} x {op.k} {op.precision}"
    if isinstance(op, Attention):
        window = f", window {op.window}" if op.window else ""
        return f"attention, {op.direction}", f"{op.batch} x {op.heads} x {op.sequence} x {op.qk}{window}"
    if isinstance(op, Memory):
        size = format_quantity(op.rows * (op.read + op.write), "data")
        return f"memory, {op.kind.removesuffix(UNSEEN)}", size  # however its bytes are cut into rows
    return None


def _simulated(scenario: Scenario) -> Iterator[tuple[Op, int, float]]:
    plan = lay_out(scenario)
    machine = assembly.machine(plan)
    for kit in simulated(plan, machine).lowered.kits[0]:
        phases = kit.composition.phases if kit.composition else ()
        for kernel in (kernel for phase in phases for kernel in phase.kernels):
            yield kernel.op, 1, machine.pricer.price(kernel.op).ns / NS_PER_S
    if update := updates(machine.family, machine.site.stack):
        for kernel in update.update(machine.site, machine.stages[0]):
            yield kernel.op, 1, machine.pricer.price(kernel.op).ns / NS_PER_S


def _measured(tables: Path) -> Iterator[tuple[Op, int, float]]:
    for table in TABLES:
        path = tables / f"{table}.json"
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
        for row in rows:
            kind = KINDS.get(row["op"])
            if kind is not None:
                op: Op = kind(**{key: row[key] for key in kind._fields if key in row})
                yield op, int(row["samples"]), float(row["us"]) * MICRO
