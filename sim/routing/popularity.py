"""How unequally experts are liked: drawn, scaled to a stated imbalance, or taken from a recorded histogram.

A popularity is an expert's expected number of tokens over the mean of its layer's experts. It belongs to (seed, layer):
every micro-batch and every expert group of the cluster meets the same popular experts, only with other tokens.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.routing.gate import BLOCK, Gate, choose, draw
from sim.routing.keyed import generator
from sim.scenario.values import PROFILE_SPREAD, Routing

Popularity = npt.NDArray[np.float64]

LEAST = 2.0**-14
"""Smallest popularity of a recorded expert (a gate divides tails by it: see gate.LARGEST). Those that nobody chose, all
together, get less than 0.007 % of a layer's choices by it."""
MOMENT_TOKENS = 65_536
"""Tokens from which a gate's response is estimated; the standard error of its exponents is below 0.01."""
NUDGE = 0.1
"""Relative change of popularity that the response is measured with; it is linear in logarithms well beyond."""
HALVINGS = 60
"""Halvings of the interval in which a scale is searched; more cannot be told apart in a float."""


def popularity(routing: Routing, seed: int, layers: int, experts: int) -> Popularity:
    """Popularity [layers, experts] that a scenario's routing asks for; layers count those with experts, MTP last."""
    if routing.kind == "sampled":
        return sampled(seed, layers, experts, PROFILE_SPREAD if routing.spread is None else routing.spread)
    if routing.kind == "skewed":
        return skewed(seed, layers, experts, routing.max_vio or 0.0)
    if routing.kind == "recorded":
        return recorded(routing.histogram or (), layers)
    return even(layers, experts)


def even(layers: int, experts: int) -> Popularity:
    """Popularity [layers, experts] of experts that are all liked alike."""
    return np.ones((layers, experts))


def sampled(seed: int, layers: int, experts: int, spread: float = PROFILE_SPREAD) -> Popularity:
    """Log-normal popularity [layers, experts] with the standard deviation `spread` (as a share of the mean)."""
    sigma = np.sqrt(np.log1p(spread**2))
    return _normalised(np.exp(sigma * _draws(seed, layers, experts)))


def skewed(seed: int, layers: int, experts: int, max_vio: float) -> Popularity:
    """Popularity [layers, experts] whose largest value is exactly 1 + max_vio in every layer.

    The same draws as `sampled`, stretched: exp(scale * draw) with the scale that meets MaxVio (arXiv 2408.15664 eq. 4).
    """
    draws = _draws(seed, layers, experts)
    draws -= draws.max(axis=1, keepdims=True)
    low, high = np.zeros((layers, 1)), np.full((layers, 1), 1.0)
    while ((1 / np.exp(high * draws).mean(axis=1, keepdims=True) < 1 + max_vio) & (high < experts)).any():
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        less = 1 / np.exp(middle * draws).mean(axis=1, keepdims=True) < 1 + max_vio
        low, high = np.where(less, middle, low), np.where(less, high, middle)
    return _normalised(np.exp(high * draws))


def recorded(histogram: npt.ArrayLike, layers: int) -> Popularity:
    """Popularity [layers, experts] of recorded tokens [rows, experts]: one row for all layers, or a row each.

    Layers past the last row (the multi-token-prediction modules) take the last. Only shares of a row count. Experts
    nobody chose stay possible, with LEAST, because the gate needs a chance to divide by.
    """
    rows = np.maximum(_normalised(np.asarray(histogram, dtype=np.float64)), LEAST)
    return _normalised(rows[np.minimum(np.arange(layers), len(rows) - 1)])


def of_tails(gate: Gate, popularity: Popularity) -> Popularity:
    """What tails must be divided by so that experts are chosen as often as `popularity` [..., experts] says.

    An expert is chosen in proportion to its own factor; those of its group matter too, because a group of liked experts
    is let in more often: loads of groups answer to factors with the exponent 1 + response. Within 1 % of the asked
    loads at a spread of 0.15, within 4 % of the largest one at a MaxVio of 7.
    """
    power = response(gate).load
    grouped = popularity.reshape(*popularity.shape[:-1], gate.groups, -1)
    mates = grouped.mean(axis=-1, keepdims=True)
    return _normalised((grouped * mates ** (-power / (1 + power))).reshape(popularity.shape))


def _normalised(values: Popularity) -> Popularity:
    mean: Popularity = values.mean(axis=-1, keepdims=True)
    return values / mean


def _draws(seed: int, layers: int, experts: int) -> Popularity:
    """Standard normal [layers, experts], each layer from its own generator."""
    return np.stack([generator(seed, "popularity", layer).standard_normal(experts) for layer in range(layers)])


class Response(NamedTuple):
    """How groups answer to popularity.

    load: exponent of extra load by being let in more often. reach: exponent of the chance that a token uses the group
    in its load. variance: of a token's choices inside one group, all experts alike.
    """

    load: float
    reach: float
    variance: float


@cache
def response(gate: Gate) -> Response:
    """The gate's response, measured once: every other group nudged up, the rest down, then the other way round."""
    if not gate.limited:
        return Response(0.0, 0.0, 0.0)
    pattern = np.where(np.arange(gate.groups) % 2, -NUDGE, NUDGE)
    up, even_groups = np.log1p(NUDGE) - np.log1p(-NUDGE), np.arange(gate.groups) % 2 == 0
    load, reach = [], []
    *nudged, alike = _choices_by_group(gate, [1 + pattern, 1 - pattern, np.ones(gate.groups)])
    for sign, inside in zip((1, -1), nudged, strict=True):
        picks, used = inside.mean(axis=0), (inside > 0).mean(axis=0)
        load.append(sign * np.log(picks[even_groups].mean() / picks[~even_groups].mean()))
        reach.append(sign * np.log(used[even_groups].mean() / used[~even_groups].mean()))
    variance = float(alike.var(axis=0).mean())
    return Response(float(np.mean(load) / up - 1), float(np.mean(reach) / np.mean(load)), variance)


def _choices_by_group(gate: Gate, liked: Sequence[Popularity]) -> list[npt.NDArray[np.int64]]:
    """Experts that each of MOMENT_TOKENS tokens chooses in each group [tokens, groups], for each popularity of groups;
    the tokens are the same."""
    random, size = generator(0, "gate"), gate.experts // gate.groups
    alike, first = np.ones(gate.experts), (np.arange(BLOCK) * gate.groups)[:, None]
    counts = [np.empty((MOMENT_TOKENS, gate.groups), np.int64) for _ in liked]
    for at in range(0, MOMENT_TOKENS, BLOCK):
        tails = draw(random, gate, BLOCK, alike)
        for own, factors in zip(counts, liked, strict=True):
            group = choose(gate, tails * np.repeat(1 / factors, size).astype(np.float32)) // size
            cells = np.bincount((first + group).ravel(), minlength=BLOCK * gate.groups)
            own[at : at + BLOCK] = cells.reshape(BLOCK, -1)
    return counts
