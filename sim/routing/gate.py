"""The gate that sends tokens to experts, on affinities drawn at random: limited to groups, with or without a bias.

DeepSeek-V3 (arXiv 2412.19437 sec 2.1.2): sigmoid affinities, the best groups by the sum of their two best, then the
best experts inside them; a bias joins for the choice only. DeepSeek-V2 (arXiv 2405.04434 sec 2.1.3): softmax
affinities, which order the experts of a token as their logits do; a group is as good as its best expert.

Logits are standard normal up to an expert's popularity. What is drawn is not the logit but its tail: the chance of a
higher one, uniform on (0, 1). An expert of popularity w has its tails divided by w, so that it clears any threshold w
times as often as the others; the smallest tails win.
"""

from functools import cache, reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.models.mixture import Mixture

Tails = npt.NDArray[np.float32]
Picks = npt.NDArray[np.int32]

MANTISSA = 23
"""Bits of fraction of a float32 (IEEE 754)."""
STEPS = 10
"""Leading bits of the fraction that the table of affinities tells apart: 0.1 % of a tail, 5e-5 of an affinity."""
SMALLEST, LARGEST = -40, 14
"""Powers of two between which tails fall: 32-bit draws, popularity 1/16384 to 256."""
WINITZKI = 0.147
"""Constant of the inverse error function's closed form (S. Winitzki, 2008, "A handy approximation for the error
function")."""
BLOCK = 1 << 10
"""Tokens drawn at once: with 256 experts 1 MB, which stays in a core's cache (twice as fast as 4,096 at once)."""


class Gate(NamedTuple):
    """How a token chooses: `chosen` of `experts`, from at most `chosen_groups` of `groups` equal groups.

    best: affinities that speak for a group: 2 (sigmoid gate of V3) or 1 (softmax gate of V2).
    """

    experts: int
    groups: int
    chosen_groups: int
    chosen: int
    best: int

    @property
    def limited(self) -> bool:
        """Whether groups matter."""
        return self.groups > 1 and self.chosen_groups < self.groups


def gate_of(mixture: Mixture) -> Gate:
    """The gate of a model's routed layers."""
    best = min(2 if mixture.score == "sigmoid" else 1, mixture.experts // mixture.groups)
    return Gate(mixture.experts, mixture.groups, mixture.chosen_groups, mixture.chosen, best)


def draw(generator: np.random.Generator, gate: Gate, tokens: int, popularity: npt.NDArray[np.float64]) -> Tails:
    """Tails [tokens, experts] of random affinities; popularity [experts] is how often each clears a threshold."""
    tails = generator.random((tokens, gate.experts), dtype=np.float32)
    tails += np.float32(2.0**-25)  # draws are multiples of 2^-24 from 0 on; a tail is above 0
    tails *= (1 / popularity).astype(np.float32)
    return tails


def choose(gate: Gate, tails: Tails, bias: npt.NDArray[np.float64] | None = None) -> Picks:
    """Experts [tokens, chosen] that tokens with these tails [tokens, experts] go to, in no particular order.

    bias [experts] is added to affinities (sigmoids of logits) to choose, as V3 does; without it tails alone decide.
    """
    if bias is None:
        keys = _numbered(tails)
    else:
        keys = _numbered(np.float32(HEADROOM) - (affinity(tails) + bias.astype(np.float32)))
    if gate.limited:
        keys = _of_best_groups(gate, keys, bias is not None)
    best = np.partition(keys, gate.chosen - 1, axis=1)[:, : gate.chosen]
    return best & _low(gate.experts)


HEADROOM = 4.0
"""Affinity and bias are taken from this, so that keys are above 0: a bias stays within -3 and 3."""


def affinity(tails: Tails) -> npt.NDArray[np.float32]:
    """Sigmoid of the standard normal logit that is exceeded with a chance of `tails`."""
    index = (tails.view(np.int32) >> (MANTISSA - STEPS)) - _bits(2.0**SMALLEST)
    return np.take(_affinities(), index, mode="clip")


@cache
def _affinities() -> npt.NDArray[np.float32]:
    """Affinity at the middle of each step of tails, by the leading bits of a float32; tails above 1 count as 1."""
    steps = np.arange(_bits(2.0**SMALLEST), _bits(2.0**LARGEST)) << (MANTISSA - STEPS)
    tails = (steps + (1 << (MANTISSA - STEPS - 1))).astype(np.int32).view(np.float32).astype(np.float64)
    tails = np.minimum(tails, 1 - 2.0**-STEPS)
    log = np.log(4 * tails * (1 - tails))
    half = 2 / (np.pi * WINITZKI) + log / 2
    normal = np.sign(0.5 - tails) * np.sqrt(2 * (np.sqrt(half**2 - log / WINITZKI) - half))
    sigmoid: npt.NDArray[np.float32] = (1 / (1 + np.exp(-normal))).astype(np.float32)
    return sigmoid


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.int32)) >> (MANTISSA - STEPS)


def _of_best_groups(gate: Gate, keys: Picks, biased: bool) -> Picks:
    """Keys [tokens, experts of the chosen groups] of the groups with the largest sums of their best."""
    tokens, size = len(keys), gate.experts // gate.groups
    inside = keys.reshape(tokens, gate.groups, size)
    best = np.partition(inside, gate.best - 1, axis=2)[:, :, : gate.best].view(np.float32)
    worths = HEADROOM - best if biased else affinity(best)
    # of so few in a row, numpy's own sum takes five times as long
    worth = reduce(np.add, [worths[..., k] for k in range(gate.best)])
    order = _numbered(np.float32(HEADROOM * gate.best) - worth)
    groups = np.partition(order, gate.chosen_groups - 1, axis=1)[:, : gate.chosen_groups] & _low(gate.groups)
    kept: Picks = inside[np.arange(tokens)[:, None], groups].reshape(tokens, -1)
    return kept


def _numbered(values: npt.NDArray[np.float32]) -> Picks:
    """`values` [tokens, n] above 0 as whole numbers in the same order, their lowest bits replaced by the column.

    Equal values then differ, the lower column first, and a selection of keys says which columns it took.
    """
    columns = values.shape[1]
    keys: Picks = values.view(np.int32) & ~_low(columns)
    keys |= np.arange(columns, dtype=np.int32)
    return keys


def _low(count: int) -> np.int32:
    """Mask of the bits that number `count` columns."""
    return np.int32((1 << (count - 1).bit_length()) - 1)
