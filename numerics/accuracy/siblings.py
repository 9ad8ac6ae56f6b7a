"""What transfer between devices is worth: the same kernels measured on two cards, each priced from the other's tables.

`python -m numerics calibrate --gpu` runs this repository's kernels at the same shapes on every card. So a card's row
stands beside what the ladder's rung "transferred" says of it from a sibling's tables (utilisation held; bandwidth and
rate by the data sheets), and nothing but the card differs: of an H200, whose tables are of newer kernels, the rows of
the day that an H100 was measured stand there (hwmodels/tables/h200/twins). The H800 profile's kernels are others:
beside them a card's rows say how this repository's kernels compare with DeepSeek's, on a chip that computes alike.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hwmodels import device
from hwmodels import tables as calibration
from hwmodels.op import GroupedGemm, Memory, Op
from hwmodels.price import Pricer
from hwmodels.tables import Tables
from hwmodels.transfer import at_bandwidth
from hwmodels.units import US_NS
from numerics.accuracy.errors import Comparison, machine, points, side

GRID = ((0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.92, 0.96, 1.0), (1.0, 1.5, 2.0, 2.5, 3.0, 4.0))
"""REACHED and POWER of hwmodels.transfer that a refit chooses from."""


@dataclass(frozen=True)
class Both(Comparison):
    """An operation measured on a device, and priced there from another's tables."""

    op: Op
    side: str
    rung: str


class Score(NamedTuple):
    """Errors: median and 95th percentile of their size, the signed median, and the error of the summed time."""

    count: int
    median: float
    p95: float
    signed: float
    total: float


def measured_cards() -> tuple[str, ...]:
    """Devices whose tables hold this repository's kernels, alone on the whole card."""
    return tuple(d for d in calibration.available() if calibration.load(d).sms == device.load(d).sms)


def beside(card: str) -> str:
    """The tables of a card that another one's stand beside: with the same kernels."""
    twins = f"{card}/{calibration.TWINS}"
    return twins if (calibration.FOLDER / twins).is_dir() else card


def pairs() -> Iterator[tuple[str, str]]:
    """Each card with every other: (tables, priced device)."""
    cards = measured_cards()
    yield from ((a, b) for a in cards for b in cards if a != b)


def transferred(source: str, target: str) -> list[Both]:
    """Every operation that both devices measured, on all their SMs: the target's time, and its price from the source.

    Raises FileNotFoundError where either has no tables.
    """
    known, measured = (calibration.load(beside(card)) for card in (source, target))
    card = replace(device.load(target), tables=None, siblings=(beside(source),))
    return _priced(Pricer(card, machine()[1], 0), known, measured)


def other_kernels(source: str = "h800") -> dict[str, list[Both]]:
    """Card -> operations of the profile that it measured too, priced there from the profile's tables."""
    out = {}
    for name in measured_cards():
        known, measured = calibration.load(source), calibration.load(name)
        card = replace(device.load(name), tables=None, siblings=(source,))
        out[name] = _priced(Pricer(card, machine()[1], 0), known, measured)
    return out


def _priced(pricer: Pricer, known: Tables, measured: Tables) -> list[Both]:
    """Rows of `measured` that `known` has too; grouped products count by their N and K."""
    out = []
    for point in points(measured):
        there = (point.op.n, point.op.k) in known.grouped if isinstance(point.op, GroupedGemm) else (
            point.op in known.exact
        )  # fmt: skip
        if there:
            price = pricer.price(point.op)
            out.append(Both(point.us, price.ns / US_NS, point.op, side(measured, point), price.rung))
    return out


class Fit(NamedTuple):
    """What memory-bound kernels say of hwmodels.transfer, and errors of the kind that had no say. kind: left out."""

    kind: str
    reached: float
    power: float
    error: float
    count: int


def refits(source: str, target: str) -> list[Fit]:
    """Leave one kind out: the constants that bring the other kinds back best (median error on a grid), and this kind's
    median error with them. Raises FileNotFoundError where either has no tables."""
    known, measured = (calibration.load(beside(card)) for card in (source, target))
    old, new = (t.reference["hbm_bytes_per_s"] for t in (known, measured))
    kinds: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for op, row in known.exact.items():
        if isinstance(op, Memory) and op in measured.exact and op.bytes():
            kinds[op.kind].append((row["us"], op.bytes(), measured.exact[op]["us"]))
    errors = {
        (r, p): {k: np.abs([at_bandwidth(us, size, old, new, r, p) / true - 1 for us, size, true in rows])
                 for k, rows in kinds.items()}
        for r in GRID[0] for p in GRID[1]
    }  # fmt: skip
    out = []
    for kind, rows in kinds.items():
        others = {c: np.concatenate([e for k, e in by.items() if k != kind]) for c, by in errors.items()}
        best = min(others, key=lambda c: float(np.median(others[c])))
        out.append(Fit(kind, *best, float(np.median(errors[best][kind])), len(rows)))
    return out


def score(rows: Iterable[Both]) -> Score:
    """Raises ValueError when there is none."""
    sample = list(rows)
    if not sample:
        raise ValueError("nothing to score")
    errors = np.array([b.error for b in sample])
    size = np.abs(errors)
    total = sum(b.priced_us for b in sample) / sum(b.us for b in sample) - 1
    return Score(
        len(sample), float(np.median(size)), float(np.percentile(size, 95)), float(np.median(errors)), float(total)
    )  # fmt: skip


def by_side(rows: Iterable[Both]) -> dict[str, list[Both]]:
    """What limits an operation -> those."""
    out: dict[str, list[Both]] = defaultdict(list)
    for both in rows:
        out[both.side].append(both)
    return out
