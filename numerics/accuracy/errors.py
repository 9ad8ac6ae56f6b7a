"""How good prices are: every measured row priced without itself, and the tables against rates published elsewhere.

Leave-one-out: a row is taken out of the tables, every fit is made again without it, and the ladder of
`hwmodels.price` prices its operation from what is left. Three gaps: the `row` alone; all rows of its `size` (a grouped
product's N and K, a memory-bound kernel's bytes a row, so that no other row count helps); its whole `class`. Beside it
stands a roofline times one efficiency a class, fitted on the same rows. `page` writes the page.
"""

import math
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from hwmodels import fabric, node
from hwmodels import tables as calibration
from hwmodels.beside import SMALL_US
from hwmodels.collectives import wires
from hwmodels.op import Attention, Gemm, GroupedGemm, Memory, Op
from hwmodels.price import BF16, Pricer
from hwmodels.tables import Tables
from hwmodels.units import MICRO, US_NS
from numerics.accuracy import deepgemm
from numerics.tables import calibrate

GAPS = ("row", "size", "class")
NINETY = 1.645
"""Standard deviations on either side that hold 90 % of a normal distribution: spread = 90th percentile / NINETY."""
LATENCY = 5.0
"""Times its bound from which a kernel is no stream: its class is one of launches, index maps and atomics. A
judgement: streams of 20 us or more in the profile take up to 4.1 times their bound, index maps and routing over 61."""
TURN = "wgrad"
"""Role of the experts' weight gradients, whose turns on the SMs the table's fit holds beside its rows."""


class Point(NamedTuple):
    """A measured operation: microseconds alone, how many samples, and the least and largest of them."""

    op: Op
    us: float
    samples: int
    low_us: float
    high_us: float


@dataclass(frozen=True)
class Comparison:
    """The measured time of an operation and its price, both in microseconds."""

    us: float
    priced_us: float

    @property
    def error(self) -> float:
        """Of the price, as a part of the time; below 0 where the price is too low."""
        return self.priced_us / self.us - 1


@dataclass(frozen=True)
class FlatComparison(Comparison):
    """The same beside a roofline times one efficiency a class. flat_us: its price, microseconds."""

    flat_us: float

    @property
    def flat_error(self) -> float:
        return self.flat_us / self.us - 1


@dataclass(frozen=True)
class Miss(FlatComparison):
    """A measured operation, priced without itself. gap: what was taken out of the tables. samples: of its time."""

    label: str
    side: str
    gap: str
    rung: str
    samples: int


class Score(NamedTuple):
    """Errors of some prices, relative. total: of the sum of their times, so what does not average out.

    spread: relative standard deviation of the true time around the price, 90th percentile of |true / price - 1|.
    """

    prices: int
    median: float
    p95: float
    total: float
    flat_median: float
    flat_p95: float
    spread: float


@dataclass(frozen=True)
class Reduced(Pricer):
    """A pricer on tables of its own."""

    left: Tables | None = None

    @cached_property
    def shelf(self) -> tuple[Tables, ...]:
        return (self.left,) if self.left else ()


# --- taking rows out --------------------------------------------------------------------------------------------------


def points(tables: Tables) -> list[Point]:
    """Everything a table knows the time of, the turns of the experts' weight gradients included."""
    rows = [Point(op, r["us"], r["samples"], r["low_us"], r["high_us"]) for op, r in tables.exact.items()]
    turns = [Point(op, us, 1, us, us) for op, us in _turns(tables).items()]
    return [p for p in rows if p.us > 0] + turns


def _turns(tables: Tables) -> dict[Op, float]:
    turns: Any = tables.wave_fit[TURN].get("expert_turns", [])
    return {Gemm(t["m"], t["n"], t["k"], TURN): t["turn_us"] for t in turns}


def label(op: Op) -> str:
    """The class an operation is reported in: kinds of memory-bound kernels, kinds of products."""
    if isinstance(op, Memory):
        return op.kind
    if isinstance(op, Attention):
        return f"attention {op.direction}"
    assert isinstance(op, Gemm | GroupedGemm)
    if op.precision != "fp8":
        return "product, BF16"
    if op.role == TURN:
        return "product, weight gradient"
    return "product, grouped" if isinstance(op, GroupedGemm) else "product, forward and input gradient"


def taken(tables: Tables, op: Op, gap: str) -> set[Op]:
    """What leaves the tables with `op`."""
    if gap == "class":
        return {o for o in tables.exact if label(o) == label(op)}
    if gap == "size" and isinstance(op, GroupedGemm):
        return {o for o in tables.exact if isinstance(o, GroupedGemm) and (o.n, o.k) == (op.n, op.k)}
    if gap == "size" and isinstance(op, Memory):
        near = calibration.near(tables, op)
        return {o for o, row in tables.exact.items() if any(row is r for r in near)}
    return {op}


def without(tables: Tables, gone: Set[Op]) -> Tables:
    """The tables as they were if `gone` had never been measured: no rows, and fits made again."""
    exact = {op: row for op, row in tables.exact.items() if op not in gone}
    grouped: dict[tuple[int, int], list[dict[str, Any]]] = {}
    kinds: dict[str, list[dict[str, Any]]] = {}
    attention: dict[str, list[dict[str, Any]]] = {}
    for op, row in exact.items():
        if isinstance(op, GroupedGemm):
            grouped.setdefault((op.n, op.k), []).append(row)
        elif isinstance(op, Memory):
            kinds.setdefault(op.kind, []).append(row)
        elif isinstance(op, Attention):
            attention.setdefault(op.direction, []).append(row)
    memory_fit = calibrate.memory_fit(
        [row for rows in kinds.values() for row in rows], tables.reference["hbm_bytes_per_s"]
    )
    return replace(
        tables, exact=exact, grouped=grouped, kinds=kinds, attention=attention, memory_fit=memory_fit,
        wave_fit=_wave_fits(tables, exact, gone),
    )  # fmt: skip


def _wave_fits(tables: Tables, exact: dict[Any, dict[str, Any]], gone: Set[Op]) -> dict[str, dict[str, Any]]:
    shapes: dict[str, list[tuple[float, float, float, float]]] = {role: [] for role in tables.wave_fit}
    for op, row in exact.items():
        role = getattr(op, "role", "") if getattr(op, "precision", "fp8") == "fp8" else BF16
        if isinstance(op, Gemm | GroupedGemm) and role in shapes:
            shapes[role].append((op.rows if isinstance(op, GroupedGemm) else op.m, op.n, op.k, row["us"]))
    turns = {op: us for op, us in _turns(tables).items() if op not in gone}
    shapes[TURN] += [(op.m, op.n, op.k, us) for op, us in turns.items() if isinstance(op, Gemm)]
    return {role: calibrate.wave_fit(s, tables.sms) for role, s in shapes.items()}


def side(tables: Tables, point: Point) -> str:
    """What limits an operation: "product", "attention", "stream" (bandwidth) or "latency" (short, or far off it)."""
    if isinstance(point.op, Attention):
        return "attention"
    if not isinstance(point.op, Memory):
        return "product"
    return "latency" if point.us < SMALL_US or point.us > LATENCY * bound_us(tables, point.op) else "stream"


# --- pricing what was taken out ---------------------------------------------------------------------------------------


@cache
def machine() -> tuple[Any, Any]:
    """The H800 and the wires around it, as scenarios name them."""
    server = node.load("h800x8")
    return server.device, wires(server, fabric.load("mpft"))


def pricer(tables: Tables, compute_sms: int | None = None, mode: str = "measured") -> Pricer:
    """A pricer of an H800 on `tables`, compute on `compute_sms` SMs (None: as many as when the table was measured)."""
    device, links = machine()
    return Reduced(
        device, links, device.sms - (compute_sms or tables.sms), mode, left=None if mode == "roofline" else tables
    )


def bound_us(tables: Tables, op: Op, sms: int | None = None) -> float:
    """Microseconds that peak rates on `sms` SMs (None: the table's) and HBM bandwidth allow: no operation is faster."""
    ref, sms = tables.reference, sms or tables.sms
    peak = ref["bf16_flops" if getattr(op, "precision", "bf16") == "bf16" else "fp8_flops"] * sms / ref["sms"]
    return max(op.flop() / peak, op.bytes() / ref["hbm_bytes_per_s"]) / MICRO


def leave_out(device: str = "h800", gaps: Iterable[str] = GAPS) -> list[Miss]:
    """Every measured operation priced without itself, for each gap; what the ladder refuses then is not in the list."""
    tables = calibration.load(device)
    known = points(tables)
    out = []
    for gap in gaps:
        for point in known:
            gone = taken(tables, point.op, gap)
            if gap == "row" or len(gone) > 1 or (gap == "class" and isinstance(point.op, Memory)):
                out += list(_miss(tables, known, point, gap, gone))
    return out


def _miss(tables: Tables, known: list[Point], point: Point, gap: str, gone: set[Op]) -> Iterator[Miss]:
    if isinstance(point.op, Attention) or (gap == "class" and not isinstance(point.op, Memory)):
        return  # nothing is left to price it by: the ladder has no rung for another direction or role
    if gap == "class" and label(point.op) == "elementwise":
        return  # the class that others take their rate from
    price = pricer(without(tables, gone)).price(point.op)
    flat = efficiency(tables, point.op, [p for p in known if p.op not in gone]) * bound_us(tables, point.op)
    us = price.ns / US_NS
    yield Miss(point.us, us, flat, label(point.op), side(tables, point), gap, price.rung, point.samples)


def efficiency(tables: Tables, op: Op, known: list[Point]) -> float:
    """Time over bound, the median of the class's rows, or of all of its side (memory or products) if it has none."""
    same = [p for p in known if label(p.op) == label(op)]
    side = [p for p in known if isinstance(p.op, Memory) == isinstance(op, Memory)]
    ratios = [p.us / bound for p in same or side if (bound := bound_us(tables, p.op))]
    return float(np.median(ratios)) if ratios else 1.0


def roofline(device: str = "h800") -> list[Miss]:
    """Every measured operation on the last rung: peaks and bandwidth, nothing measured."""
    tables = calibration.load(device)
    bare, known = pricer(tables, mode="roofline"), points(tables)
    out = []
    for p in known:
        price, flat = bare.price(p.op), efficiency(tables, p.op, known) * bound_us(tables, p.op)
        out.append(Miss(p.us, price.ns / US_NS, flat, label(p.op), side(tables, p), "tables", price.rung, p.samples))
    return out


# --- elsewhere --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Transfer(FlatComparison):
    """A published rate as a time, priced by the ladder on all SMs. known: whether the tables have its shape."""

    what: deepgemm.Published
    rung: str
    known: bool


def transfers() -> list[Transfer]:
    """DeepGEMM's published rates on 132 SMs, against prices from the profile's tables (112 SMs, in a training step)."""
    tables = calibration.load("h800")
    sms = int(tables.reference["sms"])
    ladder, known = pricer(tables, sms), points(tables)
    out = []
    for p in deepgemm.published():
        price = ladder.price(p.op)
        shapes = tables.grouped if isinstance(p.op, GroupedGemm) else {(o.m, o.n, o.k): 0 for o in _dense(tables)}
        seen = ((p.op.n, p.op.k) if isinstance(p.op, GroupedGemm) else (p.op.m, p.op.n, p.op.k)) in shapes
        flat = efficiency(tables, p.op, known) * bound_us(tables, p.op, sms)
        out.append(Transfer(p.us, price.ns / US_NS, flat, p, price.rung, seen))
    return out


def _dense(tables: Tables) -> list[Gemm]:
    return [op for op in tables.exact if isinstance(op, Gemm) and op.precision == "fp8" and op.role == "fprop"]


# --- figures ----------------------------------------------------------------------------------------------------------


def score(misses: Iterable[Miss]) -> Score:
    """What a set of prices is worth. Raises ValueError when it is empty."""
    sample = list(misses)
    if not sample:
        raise ValueError("no prices to score")
    error = np.abs([m.error for m in sample])
    flat = np.abs([m.flat_error for m in sample])
    weight = np.array([m.samples for m in sample])
    total = float(weight @ [m.priced_us for m in sample] / (weight @ [m.us for m in sample])) - 1
    return Score(
        len(sample), float(np.median(error)), float(np.percentile(error, 95)), total, float(np.median(flat)),
        float(np.percentile(flat, 95)), spread((m.us, m.priced_us) for m in sample),
    )  # fmt: skip


def spread(pairs: Iterable[tuple[float, float]]) -> float:
    """Relative standard deviation of the truth around prices, from the 90th percentile of (true, price) pairs."""
    return float(np.percentile([abs(true / price - 1) for true, price in pairs], 90)) / NINETY


def expected_range(samples: int) -> float:
    """Expected largest minus least of `samples` standard normal draws (Tippett, Biometrika 17, 1925)."""
    x = np.linspace(-8, 8, 4001)
    below = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x])
    return float(np.sum(1 - below**samples - (1 - below) ** samples) * (x[1] - x[0]))


class Repeat(NamedTuple):
    """A row with several samples, and the relative standard deviation of one of them, from their range."""

    label: str
    side: str
    us: float
    samples: int
    deviation: float


def repeats(device: str = "h800") -> list[Repeat]:
    """How well one operation repeats: over layers of the profile, and places in a layer where its shape comes again."""
    tables = calibration.load(device)
    seen = [p for p in points(tables) if p.samples > 1]
    ranges = {n: expected_range(n) for n in {p.samples for p in seen}}
    return [
        Repeat(label(p.op), side(tables, p), p.us, p.samples, (p.high_us - p.low_us) / ranges[p.samples] / p.us)
        for p in seen
    ]


def deviation(seen: Iterable[Repeat], of_median: bool = False) -> float:
    """Relative standard deviation of one sample: root mean square over rows, each weighed by its time in the profile.

    of_median: of the median of a row's samples, which is sqrt(pi / 2 / samples) of that for normal ones.
    """
    rows = list(seen)
    weight = np.array([r.us * r.samples for r in rows])
    part = np.array([math.pi / 2 / r.samples if of_median else 1.0 for r in rows])
    return float(np.sqrt(weight @ (part * np.square([r.deviation for r in rows])) / weight.sum()))
