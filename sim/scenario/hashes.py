"""Bits that look random and belong to their keys: what places scattered nodes, and how a switch tells flows apart."""

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

WEYL, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""Constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): increment and the two multipliers of its mixer."""


def hashes(seed: int, *columns: npt.NDArray[np.int64]) -> Hashes:
    """64 bits of each row of the columns [rows]; equal rows and seeds give equal bits."""
    word = (1 << 64) - 1
    state = np.full(columns[0].shape, seed & word, dtype=np.uint64)
    for column in columns:
        state = _mixed(state + column.astype(np.uint64) + np.uint64(WEYL))
    return state


def _mixed(state: Hashes) -> Hashes:
    """The finaliser of SplitMix64; arithmetic wraps."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(FIRST)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(SECOND)
    return state ^ (state >> np.uint64(31))
