"""Steps priced once on a grid of batches and lengths, and interpolated between: linearly, in sequences and in keys."""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from hwmodels.units import ROUNDING_SLACK
from sim.serving.rank import Batch
from sim.serving.step import Stepper

Times = npt.NDArray[np.float64]

FIRST_KEYS, KEYS_STEP = 256, 2.0
"""Fewest keys of the grid, and the ratio of neighbours: attention is nearly linear between."""
EXACT, PER_OCTAVE = 8, 4
"""Sequences up to which every number has a node, and nodes an octave beyond."""


@cache
def nodes(at: float, first: float = 1.0, per_octave: int = PER_OCTAVE) -> tuple[float, float]:
    """Whole neighbours of the grid, at or around a number."""
    if at <= max(EXACT, first):
        return max(at, first), max(at, first)
    exponent = np.floor(np.log2(at) * per_octave + ROUNDING_SLACK)
    low, high = (float(round(2.0 ** ((exponent + i) / per_octave))) for i in (0, 1))
    return (low, high) if at >= low else (float(round(2.0 ** ((exponent - 1) / per_octave))), low)


def between(low: float, high: float, at: float) -> float:
    """How far from low to high, 0 to 1."""
    return (at - low) / (high - low) if high > low else 0.0


@dataclass(frozen=True)
class Grid:
    """Steps of an instance. queries: new tokens of a sequence in a decode step, drafts included."""

    decoding: Stepper
    prefilling: Stepper
    queries: int = 1
    known: dict[tuple[bool, float, int], float] = field(default_factory=dict, compare=False, repr=False)

    def decode_ns(self, sequences: int, keys: Times) -> Times:
        """Decode steps of so many sequences of a rank, one for each mean number of keys [steps]."""
        low, high = nodes(float(sequences))
        part = between(low, high, sequences)
        one = self._along(False, low, keys)
        return one if not part else one + part * (self._along(False, high, keys) - one)

    def prefill_ns(self, tokens: int, pairs: float) -> float:
        """A step of a rank over so many tokens of prompts, each of which sees `pairs` keys on average."""
        low, high = nodes(float(tokens))
        part, at = between(low, high, tokens), np.array([pairs])
        one = float(self._along(True, low, at)[0])
        return one if not part else one + part * (float(self._along(True, high, at)[0]) - one)

    def _along(self, prefill: bool, size: float, keys: Times) -> Times:
        """Between nodes of keys; beyond the longest that anybody asked for there is none."""
        last = max(1, int(np.ceil(np.log(max(float(keys.max()), 1.0) / FIRST_KEYS) / np.log(KEYS_STEP))))
        first = int(
            np.floor(np.log(max(float(keys.min()), FIRST_KEYS) / FIRST_KEYS) / np.log(KEYS_STEP) + ROUNDING_SLACK)
        )
        at = range(min(first, last - 1), last + 1)
        xs = np.array([FIRST_KEYS * KEYS_STEP**i for i in at])
        ys = np.array([self._node(prefill, size, i) for i in at])
        slope = (ys[1] - ys[0]) / (xs[1] - xs[0])  # below the first node
        times: Times = np.where(keys < xs[0], ys[0] + slope * (keys - xs[0]), np.interp(keys, xs, ys))
        return times

    def _node(self, prefill: bool, size: float, i: int) -> float:
        key = prefill, size, i
        if key not in self.known:
            keys = FIRST_KEYS * KEYS_STEP**i
            if prefill:
                self.known[key] = self.prefilling.ns(prompts(int(size), keys))
            else:
                self.known[key] = self.decoding.ns(Batch(int(size), self.queries, keys))
        return self.known[key]


def prompts(tokens: int, pairs: float) -> Batch:
    """Equal prompts, or parts of such, of so many tokens in all, each of which sees `pairs` keys on average: one where
    these are not its own alone."""
    sequences = max(1, min(tokens, math.ceil(tokens / (2 * pairs) - ROUNDING_SLACK)))
    queries = -(-tokens // sequences)
    return Batch(sequences, queries, max(float(queries), pairs + queries / 2), prefill=True)
