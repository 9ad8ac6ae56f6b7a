"""Loss-free balance: after every step the bias of each expert moves by a fixed amount against its load.

DeepSeek-V3 (arXiv 2412.19437 sec 2.1.2 and 4.2) after "Auxiliary-Loss-Free Load Balancing" (arXiv 2408.15664,
algorithm 1 and eq. 3 and 4). The bias takes part in the choice of experts only, never in their weights.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from hwmodels.units import MILLI
from sim.routing.gate import BLOCK, Gate, choose, draw
from sim.routing.keyed import generator
from sim.routing.popularity import Popularity, of_tails

SPEED = MILLI
"""Change of a bias per step: DeepSeek-V3 report sec 4.2, first 14.3 T tokens (0 for the last 500 B)."""


class Balancing(NamedTuple):
    """bias [experts] after the last step; max_violation [steps] of each step's load, before its update."""

    bias: npt.NDArray[np.float64]
    max_violation: npt.NDArray[np.float64]


def max_violation(load: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """MaxVio of loads [..., experts]: how far the largest is above the mean, as a share of it (eq. 4)."""
    loads = np.asarray(load, dtype=np.float64)
    violation: npt.NDArray[np.float64] = loads.max(axis=-1) / loads.mean(axis=-1) - 1
    return violation


def updated(bias: npt.NDArray[np.float64], load: npt.ArrayLike, speed: float = SPEED) -> npt.NDArray[np.float64]:
    """The bias [experts] after a step with this load [experts]: b + speed * sign(mean - load) (eq. 3)."""
    loads = np.asarray(load, dtype=np.float64)
    after: npt.NDArray[np.float64] = bias + speed * np.sign(loads.mean(axis=-1, keepdims=True) - loads)
    return after


def balance(
    gate: Gate, popularity: Popularity, tokens: int, steps: int, seed: int, layer: int = 0, speed: float = SPEED
) -> Balancing:
    """Steps of `tokens` tokens through the gate of one layer, the bias updated after each. popularity [experts].

    Raises Refused for a softmax gate, which has no bias.
    """
    if gate.best != 2:
        raise Refused("only a sigmoid gate has a bias (DeepSeek-V3 report sec 2.1.2)")
    factors, bias, violations = of_tails(gate, popularity), np.zeros(gate.experts), []
    for step in range(steps):
        load = _load(gate, factors, bias, tokens, generator(seed, "bias", layer, step))
        violations.append(float(max_violation(load)))
        bias = updated(bias, load, speed)
    return Balancing(bias, np.array(violations))


def _load(
    gate: Gate, factors: Popularity, bias: npt.NDArray[np.float64], tokens: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Tokens of each expert [experts]."""
    load = np.zeros(gate.experts, dtype=np.int64)
    for first in range(0, tokens, BLOCK):
        picks = choose(gate, draw(random, gate, min(BLOCK, tokens - first), factors), bias)
        load += np.bincount(picks.ravel(), minlength=gate.experts)
    return load
