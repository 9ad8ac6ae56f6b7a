"""Fits of products' tiles (`hwmodels.tiles`) to published times of single kernels.

Published times are bursts: a card that meets its power limit runs the long ones slower than a rested card does. The fit
has that beside the tiles (`Burst`), so what is left of them is the rested card. Only operations that IEEE 754 rounds
the same everywhere are used (no logarithm, no power), and sums are exact, so that a fit comes back to the last digit.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.tiles import FULL, TILES, Card, Tiles
from hwmodels.units import MICRO

Vector = npt.NDArray[np.float64]

FOLDS = 6
"""Weights are left out by sixths."""
STRAY = 0.05
"""Relative error from which a row counts by its size and not its square."""
FINEST = 1e-3
"""Smallest step of the search, relative to what a number ranges over."""
ROUNDS = 80


class Times(NamedTuple):
    """Published products [m, k] by [k, n]: sides, microseconds without casts, bytes."""

    m: Vector
    n: Vector
    k: Vector
    us: Vector
    size: Vector

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.us)

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Times":
        """Only some of them."""
        return Times(*(column[chosen] for column in self))


class Burst(NamedTuple):
    """What a power limit adds to long bursts. slower: part of the time in the end; after_us: from a product's time
    on, where a burst is some dozens of it."""

    slower: float
    after_us: float


STEADY = Burst(0.0, 0.0)
"""Of a card that does not meet its limit, or has rested."""


class Range(NamedTuple):
    """Where a number of a fit starts, its bounds and first step."""

    start: float
    low: float
    high: float
    step: float


RANGES = (
    Range(4.0, 0.5, 15.0, 1.0), Range(0.8, 0.2, 1.0, 0.1), Range(0.05, 0.0, 1.5, 0.1), Range(0.5, 0.0, 8.0, 1.0),
    Range(0.5, 0.0, 1.0, 0.2), Range(0.7, 0.15, 1.0, 0.15), Range(0.1, 0.0, 0.5, 0.05),
    Range(500.0, 200.0, 2000.0, 200.0),
)  # fmt: skip
"""Of `Tiles` and of `Burst`. HBM reaches all of its data sheet at most."""
RESTED = Range(0.0, 0.0, 0.0, 0.0)
"""Of a burst on a card that does not meet its limit."""


def times_us(tiles: Tiles, rows: Times, card: Card, burst: Burst = STEADY) -> Vector:
    """Microseconds of many products, as `hwmodels.tiles.product_us` has each."""
    rate, best = tiles.part * card.flops * MICRO, np.full(rows.count, np.inf)
    for high, wide in TILES:
        rounds = np.ceil(rows.m / high) * np.ceil(rows.n / wide) / card.sms
        rounds = (1 - tiles.whole) * np.maximum(1.0, rounds) + tiles.whole * np.ceil(rounds)
        edges = 1 + tiles.edge * (FULL / high + FULL / wide - 1)
        inside = 2 * high * wide * rows.k * edges / rate
        best = np.minimum(best, rounds * (inside + tiles.tile_us))
    moved = rows.size / (tiles.hbm * card.bytes_per_s) / MICRO
    us = tiles.fixed_us + np.sqrt(np.sqrt(best * best * best * best + moved * moved * moved * moved))
    out: Vector = us * (1 + burst.slower * np.maximum(0.0, 1 - burst.after_us / us))
    return out


def fitted(rows: Times, card: Card, limited: bool = True) -> tuple[Tiles, Burst]:
    """Tiles and what bursts lose, of least error. limited: whether the card meets its power limit."""
    ranges = RANGES if limited else (*RANGES[:-2], RESTED, RANGES[-1])
    numbers = searched(lambda x: _loss(x, rows, card), ranges)
    return Tiles(*numbers[:-2]), Burst(*numbers[-2:])


def _loss(numbers: Sequence[float], rows: Times, card: Card) -> float:
    us = times_us(Tiles(*numbers[:-2]), rows, card, Burst(*numbers[-2:]))
    off = np.abs(us - rows.us) / np.sqrt(us * rows.us)
    return math.fsum(np.where(off < STRAY, 0.5 * off * off / STRAY, off - 0.5 * STRAY)) / rows.count


def searched(loss: Callable[[Sequence[float]], float], ranges: Sequence[Range]) -> list[float]:
    """Numbers of least loss: one at a time a step up or down, with steps that shrink where neither helps."""
    at, steps = [each.start for each in ranges], [each.step for each in ranges]
    best = loss(at)
    for _ in range(ROUNDS):
        for i, each in enumerate(ranges):
            for step in (steps[i], -steps[i]):
                there = [*at[:i], min(each.high, max(each.low, at[i] + step)), *at[i + 1 :]]
                if (now := loss(there)) < best:
                    best, at = now, there
                    break
            else:
                steps[i] /= 2
        if all(step <= FINEST * each.step for step, each in zip(steps, ranges, strict=True)):
            break
    return at


def left_out(rows: Times, card: Card, limited: bool = True) -> list[float]:
    """Logarithms of times over published ones, where all rows of a product's weights had no say in the fit."""
    weights: dict[tuple[float, float], int] = {}
    fold = np.array([weights.setdefault((n, k), len(weights)) % FOLDS for n, k in zip(rows.n, rows.k, strict=True)])
    offs: list[float] = []
    for i in range(min(FOLDS, len(weights))):
        tiles, burst = fitted(rows.where(fold != i), card, limited)
        gone = rows.where(fold == i)
        offs += [math.log(one / other) for one, other in zip(times_us(tiles, gone, card, burst), gone.us, strict=True)]
    return offs
