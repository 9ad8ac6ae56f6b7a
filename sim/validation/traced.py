"""A profiler trace beside a simulated step, kernel by kernel: joined by kind and shape, to show where they part.

The trace comes as the tables that `python -m numerics calibrate --trace FILE --out DIR` writes: a row for each kind and
shape with how often it ran and its mean time. Of the run it is the first position's step, kernels by themselves.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hwmodels.op import Attention, Gemm, Memory, Op
from hwmodels.refused import Refused
from hwmodels.units import MICRO, NS_PER_S, format_quantity
from sim import assembly
from sim.layout.plan import lay_out
from sim.models.lowering import updates
from sim.scenario.values import Scenario
from sim.simulation import simulated

TABLES = ("gemm", "attention", "memory")
UNSEEN = "_unseen"
"""What the kind of an update of zeros ends in; a trace does not tell them apart."""
KINDS: dict[str, Any] = {"gemm": Gemm, "attention": Attention, "memory": Memory}


class Joined(NamedTuple):
    """A kind and shape. counts and seconds, of all of its launches in a step; 0 where one side has none."""

    kind: str
    shape: str
    simulated: int
    simulated_s: float
    measured: int
    measured_s: float

    @property
    def beyond_s(self) -> float:
        """Seconds that the trace has more."""
        return self.measured_s - self.simulated_s


def joined(scenario: Scenario, tables: Path) -> list[Joined]:
    """Those of either, by how far they part. tables: of the trace. Raises Refused."""
    if scenario.model is None:
        raise Refused("chunk_times have no kernels to join with a trace; name a scenario with a model")
    ours, theirs = _sums(_simulated(scenario)), _sums(_measured(tables))
    rows = [
        Joined(*key, *ours.get(key, (0, 0.0)), *theirs.get(key, (0, 0.0))) for key in dict.fromkeys((*ours, *theirs))
    ]
    return sorted(rows, key=lambda row: -abs(row.beyond_s))


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
