"""How far collectives are off: predicted over measured, of rows that were in the fit and of rows left out of it."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hwmodels.collectives import collective_seconds
from hwmodels.nccl.way import Way
from hwmodels.units import GIB, KIB, MIB, MICRO
from numerics.accuracy.nccl import fit
from numerics.accuracy.nccl.rows import Row

BANDS = ((512 * KIB, "to 512 KiB"), (16 * MIB, "1 to 16 MiB"), (GIB - 1, "32 to 512 MiB"), (math.inf, "1 GiB and more"))
"""Ends of the bands of sizes, and what they are called."""
Figures = dict[str, dict[str, float]]
"""Architecture -> its figures."""


class Score(NamedTuple):
    """Of predicted / measured - 1. median, p95: of its size. bias: its median."""

    rows: int
    median: float
    p95: float
    bias: float


class Miss(NamedTuple):
    """A row that was priced. ratio: predicted over measured."""

    row: Row
    way: Way
    ratio: float


def band(row: Row) -> str:
    """Which band of sizes a row is in."""
    return next(name for end, name in BANDS if row.op.size <= end)


GAPS: dict[str, Callable[[Row], object]] = {
    "GPU": lambda row: row.gpu, "operation": lambda row: row.op.kind, "number of ranks": lambda row: row.op.ranks,
    "band of sizes": band,
}  # fmt: skip
"""What is left out together."""


def score(ratios: Iterable[float]) -> Score:
    """Of predicted over measured times."""
    off = np.array(list(ratios)) - 1
    if not len(off):
        return Score(0, math.nan, math.nan, math.nan)
    size = np.abs(off)
    return Score(len(off), float(np.median(size)), float(np.percentile(size, 95)), float(np.median(off)))


def misses(rows: Iterable[Row], figures: Figures) -> Iterator[Miss]:
    """Rows by the model."""
    for row in rows:
        by = fit.way(row)
        yield Miss(row, by, fit.ratio(row, by, figures[row.architecture]))


def rival(row: Row) -> float:
    """Predicted over measured, by the closed form of rings over the documents' effective bandwidths."""
    return collective_seconds(row.op, row.links) / (row.us * MICRO)


def left_out(rows: Sequence[Row]) -> Iterator[tuple[str, Miss]]:
    """Rows of one architecture by figures that are fitted without all that share a property with them: which, and how
    it went. Rows on a way that no other row shows are passed over, and so is what has nothing beside it."""
    for gap, of in GAPS.items():
        for value in sorted({str(of(row)) for row in rows}):
            rest = [row for row in rows if str(of(row)) != value]
            known = {fit.way(row) for row in rest}
            out = [row for row in rows if str(of(row)) == value and fit.way(row) in known]
            if rest and out:
                figures = fit.fit(rest)
                for row in out:
                    by = fit.way(row)
                    yield gap, Miss(row, by, fit.ratio(row, by, figures))


def spreads(missed: Iterable[Miss]) -> dict[str, float]:
    """Way in words -> root mean square of the logarithm of the ratios."""
    logarithms: dict[str, list[float]] = {}
    for miss in missed:
        logarithms.setdefault(str(miss.way), []).append(math.log(miss.ratio))
    return {way: round(float(np.sqrt(np.mean(np.square(off)))), 3) for way, off in sorted(logarithms.items())}
