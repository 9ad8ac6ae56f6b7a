"""Which of a scenario's operations the tables of a trace price, in launches and in time."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.price import Price, Pricer
from hwmodels.tables import given
from hwmodels.units import MS_PER_S, NS_PER_S
from sim.assembly import machine
from sim.layout.plan import lay_out
from sim.models.lowering import updates
from sim.scenario import Scenario, load
from sim.scenario.fits import micro_batches
from sim.scenario.shelves import place

HOW = {"measured": "measured", "interpolated": "interpolated", "held": "held"}
"""Rung of a price from the trace -> what the table says; all else is not covered."""
NOT = "not covered"
COLUMNS = (*HOW.values(), NOT)
SHOWN = 8
"""Operations that are not covered, the longest ones."""


class Covered(NamedTuple):
    """An operation of a step: launches of it by one replica, nanoseconds of them all, how it is covered (of COLUMNS),
    and where its price is from."""

    op: Op
    launches: int
    ns: int
    how: str
    source: str


def operations(scenario: Scenario) -> dict[Op, int]:
    """Operation -> launches of it in a step, by all stages of one replica. Raises Refused."""
    own = machine(lay_out(scenario))
    counts: Counter[Op] = Counter()
    for unit in (unit for stage in own.stages for unit in stage):
        for direction in "FBW":
            for part in own.parts(unit, direction):
                counts.update({kernel.op: 0 for kernel in part.kernels})
                for kernel in part.kernels:
                    counts[kernel.op] += micro_batches(scenario)
    if lowered := updates(own.family, own.site.stack):
        counts.update(kernel.op for kernel in lowered.update(own.site, own.units))
    return dict(counts)


def covered(scenario: Scenario) -> list[Covered]:
    """Every operation of a step. scenario: with the tables of a trace."""
    pricer, label = machine(lay_out(scenario)).pricer, given(scenario.tables).source
    return [_covered(pricer, label, op, count) for op, count in operations(scenario).items()]


def _covered(pricer: Pricer, label: str, op: Op, count: int) -> Covered:
    price: Price = pricer.price(op)
    mine = price.source.startswith(f"{label}/")
    return Covered(op, count, price.ns * count, HOW.get(price.rung, NOT) if mine else NOT, price.source)


def kind(op: Op) -> str:
    """What an operation is counted with."""
    if isinstance(op, Gemm | GroupedGemm):
        return f"products, {op.precision}"
    if isinstance(op, Attention):
        return "attention"
    return "memory-bound" if isinstance(op, Memory) else "communication"


def lines(word: str, folder: Path) -> list[str]:
    """The table of a scenario, by its file or name, priced by a folder of a trace's tables. Raises Refused."""
    return list(table(load(place(word), [f"tables={folder.resolve()}"])))


def table(scenario: Scenario) -> Iterator[str]:
    """Lines: by kind of operation, and in all; then the longest that are not covered."""
    rows = covered(scenario)
    groups: dict[str, list[Covered]] = defaultdict(list)
    for row in rows:
        groups[kind(row.op)].append(row)
    yield f"{'operations of a step':22} {'launches':>9} {'ms':>9}  " + "  ".join(f"{name:>15}" for name in COLUMNS)
    for name, group in [*sorted(groups.items()), ("all", rows)]:
        yield _line(name, group)
    yield "of launches / of time; held: further from the trace's rows than 1.5 octaves, and no other table has it"
    far = sorted((row for row in rows if row.how == NOT), key=lambda row: -row.ns)
    for row in far[:SHOWN]:
        yield f"  not covered: {_ms(row.ns):.3f} ms, {_said(row.op)} ({row.source})"
    if len(far) > SHOWN:
        yield f"  and {len(far) - SHOWN} more, {_ms(sum(row.ns for row in far[SHOWN:])):.3f} ms"


def _line(name: str, rows: list[Covered]) -> str:
    launches, ns = sum(row.launches for row in rows) or 1, sum(row.ns for row in rows) or 1
    cells = []
    for how in COLUMNS:
        mine = [row for row in rows if row.how == how]
        cells.append(f"{sum(row.launches for row in mine) / launches:.0%} / {sum(row.ns for row in mine) / ns:.0%}")
    return f"{name:22} {launches:9} {_ms(ns):9.3f}  " + "  ".join(f"{cell:>15}" for cell in cells)


def _ms(ns: float) -> float:
    return ns / NS_PER_S * MS_PER_S


def _said(op: Op) -> str:
    """An operation in a line: what differs from its defaults."""
    usual = getattr(op, "_field_defaults", {})
    fields = ", ".join(f"{name} {value}" for name, value in op._asdict().items() if usual.get(name) != value)
    return f"{type(op).__name__.lower()}: {fields}"
