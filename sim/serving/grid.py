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
EMPTY: Times = np.zeros(0)

FIRST_KEYS = 256.0
"""Keys of the second node; each next one has twice as many: attention is nearly linear between."""
EXACT, PER_OCTAVE, OF_PROMPTS = 8, 4, 2
"""Sequences up to which every number has a node, and nodes an octave beyond; those of tokens of prompts."""


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
    known: dict[tuple[bool, float, float, float], float] = field(default_factory=dict, compare=False, repr=False)
    rows: dict[float, tuple[Times, Times]] = field(default_factory=dict, compare=False, repr=False)

    def decode_ns(self, sequences: int, keys: Times) -> Times:
        """Decode steps of so many sequences of a rank, one for each mean number of keys [steps], rising."""
        low, high = nodes(float(sequences))
        part = between(low, high, sequences)
        one = self._decode(low, keys)
        return one if not part else one + part * (self._decode(high, keys) - one)

    def prefill_ns(self, tokens: int, pairs: float, mean: float = 1.0) -> float:
        """A step of a rank over so many tokens of prompts, each of which sees `pairs` keys on average. mean: tokens of
        all groups over those of as many as this one, the fullest (`sim.serving.rank.Batch`), to the next power of 2."""
        low, high = nodes(float(tokens), per_octave=OF_PROMPTS)
        part, mean = between(low, high, tokens), 2.0 ** math.ceil(math.log2(mean) - ROUNDING_SLACK)
        one = self._prompts(low, pairs, mean)
        return one if not part else one + part * (self._prompts(high, pairs, mean) - one)

    def _prompts(self, tokens: float, pairs: float, mean: float) -> float:
        """Between the nodes around so many keys."""
        octave = math.floor(math.log2(max(pairs, FIRST_KEYS / 2) / FIRST_KEYS))
        low, high = (FIRST_KEYS * 2.0**octave if octave >= 0 else 1.0), FIRST_KEYS * 2.0 ** (octave + 1)
        one, other = (self._node(True, tokens, keys, mean) for keys in (low, high))
        return one + between(low, high, pairs) * (other - one)

    def _decode(self, size: float, keys: Times) -> Times:
        """Between nodes of keys: one key, and then octaves up to the longest that anybody asked for."""
        xs, ys = self.rows.get(size, (EMPTY, EMPTY))
        if not len(xs) or keys[-1] > xs[-1]:
            octaves = max(1, math.ceil(math.log2(max(float(keys[-1]), 1.0) / FIRST_KEYS)))
            xs = np.array([1.0, *(FIRST_KEYS * 2.0**i for i in range(octaves + 1))])
            ys = np.array([self._node(False, size, x) for x in xs.tolist()])
            self.rows[size] = xs, ys
        times: Times = np.interp(keys, xs, ys)
        return times

    def _node(self, prefill: bool, size: float, keys: float, mean: float = 1.0) -> float:
        key = prefill, size, keys, mean
        if key not in self.known:
            if prefill:
                self.known[key] = self.prefilling.ns(prompts(int(size), keys)._replace(mean=mean))
            else:
                self.known[key] = self.decoding.ns(Batch(int(size), self.queries, keys))
        return self.known[key]


def prompts(tokens: int, pairs: float) -> Batch:
    """Equal prompts, or parts of such, of so many tokens in all, each of which sees `pairs` keys on average: one where
    these are not its own alone."""
    sequences = max(1, min(tokens, math.ceil(tokens / (2 * pairs) - ROUNDING_SLACK)))
    queries = -(-tokens // sequences)
    return Batch(sequences, queries, max(float(queries), pairs + queries / 2), prefill=True)
