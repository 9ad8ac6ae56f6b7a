"""Equal-cost multipath: a switch hashes a flow's addresses and takes that one of the equal ways, whatever its load."""

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


def throughput(flows: int, uplinks: int, seed: int = 0, draws: int = 400) -> float:
    """What part of the uplinks' bandwidth equal flows get that are hashed onto them, when the last one has finished.

    The mean load over the largest one, itself a mean over `draws`; 1 where every uplink carries as many.
    """
    draw, flow = np.indices((draws, flows)).reshape(2, -1)
    uplink = (hashes(seed, draw, flow) % np.uint64(uplinks)).astype(np.int64)
    loads = np.bincount(draw * uplinks + uplink, minlength=draws * uplinks).reshape(draws, uplinks)
    return float(flows / uplinks / loads.max(axis=1).mean())
