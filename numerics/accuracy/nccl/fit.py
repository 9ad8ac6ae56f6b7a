"""Figures of `timing`, fitted to collectives that were measured one at a time inside an NVLink domain.

Least squares on the logarithm of predicted over measured, of which large ones count less than their square (a row in
hundred was disturbed); Levenberg's and Marquardt's steps on the logarithms of the figures, which are positive.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hwmodels.nccl import timing, tuner
from hwmodels.nccl.way import DIRECT, LL, NVLS, SIMPLE, Way
from hwmodels.units import MICRO
from numerics.accuracy.nccl.rows import Row

Floats = npt.NDArray[np.float64]
START = {
    "base_us": 10.0,
    "hop_us": 1.0,
    "part": 0.6,
    "fill": 2.0,
    "own": 0.4,
    "bend": 0.5,
    f"{DIRECT}.{LL}.part": 0.01,
}
"""Figures that the search begins with, by their last word or whole."""
ALLOWED = 0.1
"""Logarithm of a ratio from which on it counts less."""
MOST = 20.0
"""Of the logarithm of a figure, which the search may not leave."""
FARTHEST = 0.7
"""Of a logarithm in one turn: no figure is more than doubled."""
TURNS, ENOUGH = 60, 1e-10
"""Of the search at most, and the improvement that ends it."""
STEP, DAMPING, LEAST = 1e-4, 1e-2, 1e-10
DIGITS = 4
"""Of a figure that is written down."""


def way(row: Row) -> Way:
    """The way that NCCL is taken to have gone in a row."""
    fastest = tuner.choice(tuner.GENERATIONS[row.architecture], row.op, row.links)
    assert fastest is not None
    return fastest


def ratio(row: Row, by: Way, figures: timing.Figures) -> float:
    """Predicted over measured time of a row on a way."""
    seconds = timing.seconds(by, row.op, row.links, tuner.GENERATIONS[row.architecture], figures)
    return seconds / (row.us * MICRO)


def names(ways: Sequence[Way]) -> list[str]:
    """The figures that ways need."""
    needed = {"bend", "own"}
    for each in ways:
        if each.algorithm == NVLS:
            needed |= {f"{NVLS}.{name}" for name in ("base_us", "fill", "part")}
        else:
            parts = ("base_us", "part", "fill" if each.protocol == SIMPLE else "part")
            parts = parts if each.algorithm == DIRECT else ("base_us", "hop_us", "part")
            needed |= {f"{each.algorithm}.{each.protocol}.{name}" for name in parts}
    return sorted(needed)


def fit(rows: Sequence[Row]) -> dict[str, float]:
    """The figures of rows of one architecture."""
    ways = [way(row) for row in rows]
    of = names([*ways, Way(DIRECT, SIMPLE)])

    def misses(logarithms: Floats) -> Floats:
        figures = dict(zip(of, np.exp(np.clip(logarithms, -MOST, MOST)).tolist(), strict=True))
        off = np.array([math.log(ratio(row, by, figures)) for row, by in zip(rows, ways, strict=True)])
        return np.sign(off) * ALLOWED * np.sqrt(2 * (np.sqrt(1 + (off / ALLOWED) ** 2) - 1))

    begin = np.log([START.get(name, START[name.rpartition(".")[2]]) for name in of])
    best = np.exp(np.clip(_least(misses, begin), -MOST, MOST))
    return {name: float(f"{value:.{DIGITS}g}") for name, value in zip(of, best, strict=True)}


def _least(misses: Callable[[Floats], Floats], at: Floats) -> Floats:
    """Where the sum of squares is least, from `at` on."""
    damping, off = DAMPING, misses(at)
    for _ in range(TURNS):
        slopes = np.stack([(misses(at + STEP * unit) - off) / STEP for unit in np.eye(len(at))], axis=1)
        square = slopes.T @ slopes
        for _ in range(8):
            leap = np.linalg.solve(square + damping * np.diag(np.diag(square) + LEAST), slopes.T @ off)
            to = at - np.clip(leap, -FARTHEST, FARTHEST)
            other = misses(to)
            if other @ other < off @ off:
                break
            damping *= 4
        else:
            return at
        done = off @ off - other @ other < ENOUGH
        at, off, damping = to, other, max(damping / 5, LEAST)
        if done:
            return at
    return at
