"""What rows that were left out of a fit say: how far they come back, and the spread that covers them."""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from numerics.tables.calibrate import Row, rounded

NINE_OF_TEN = 1.645
"""Standard deviations to each side that hold nine of ten."""
A_LITTLE = 1.001
"""So that rounding takes nobody out."""


class Part(NamedTuple):
    """A row of a table with the keys of its sources."""

    row: Row
    sources: set[str]


def errors(offs: Sequence[float], spread: float) -> Row:
    """What rows that were left out came back with: how many, median and 95th percentile of the size, and the part of
    them that nine times of ten of the spread covers."""
    sizes = sorted(abs(math.exp(off) - 1) for off in offs)
    within = sum(abs(off) <= NINE_OF_TEN * spread for off in offs) / len(offs)
    p95 = sizes[math.ceil(0.95 * len(sizes)) - 1]
    return {"rows": len(offs), "median": rounded(median(sizes)), "p95": rounded(p95), "covered": rounded(within)}


def covering(offs: Sequence[float]) -> float:
    """The least spread that covers nine of ten."""
    sizes = sorted(map(abs, offs))
    return rounded(sizes[math.ceil(0.9 * len(sizes)) - 1] / NINE_OF_TEN * A_LITTLE)


def apart(low: float, high: float) -> float:
    """Spread of what lies between two, nine times of ten."""
    return math.log(high / low) / 2 / NINE_OF_TEN
