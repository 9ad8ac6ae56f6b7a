"""Expected load of the expert exchange when routing is balanced in expectation.

Tokens choose experts by their affinities: the best groups by the sum of their two best affinities (V3) or by their best
one (V2), then the best experts inside them (DeepSeek-V3 report sec 2.1.2). With random affinities no expert is
favoured; how many distinct nodes and ranks a token reaches follows from the gate and is estimated once by sampling.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.models.mixture import Mixture

SAMPLES = 8192
"""Tokens of the estimate; its standard error is 0.002 nodes and 0.007 ranks a token for V3."""
PADDING = 128
"""Rows of each expert are padded to a multiple of the GEMM's tile (hwmodels.price.TILE)."""


class Load(NamedTuple):
    """Routing load of one rank in one layer and micro-batch.

    nodes_reached, ranks_reached: mean number of distinct nodes and ranks that a token reaches. received: rows that come
    by dispatch. rows: rows of its experts, padded to PADDING an expert; a rank's part of them where some share their
    columns and gather all of theirs.
    """

    nodes_reached: float
    ranks_reached: float
    received: int
    rows: int


def balanced(mixture: Mixture, tokens: int, group: int, gpus_per_node: int, sharing: int = 1) -> Load:
    """Expected load of each of `group` ranks when every expert is equally likely. sharing: ranks that share the columns
    of experts, whose rows each expert has."""
    m = mixture
    nodes, ranks = spread(m.experts, m.groups, m.chosen_groups, m.chosen, m.score, group, gpus_per_node)
    rows = tokens * m.chosen + padding(m.experts // group, sharing)
    return Load(nodes, ranks, round(tokens * ranks), rows)


def padding(experts: int, sharing: int) -> int:
    """Rows of padding of a rank: an expert's last tile is half full on average, behind a gather of `sharing` ranks."""
    return experts * PADDING // 2 // sharing


def filled(mixture: Mixture, tokens: int, group: int, sharing: int) -> int:
    """Rows of a rank's experts where each has room for as many as the mean, and has them: in whole tiles, of `sharing`
    ranks that share its columns together."""
    room = -(-tokens * mixture.chosen // mixture.experts) * group * sharing
    return mixture.experts // group * (-(-room // PADDING) * PADDING) // sharing


@cache
def spread(
    experts: int, groups: int, chosen_groups: int, chosen: int, score: str, ranks: int, gpus_per_node: int
) -> tuple[float, float]:
    """Distinct nodes and distinct ranks a token reaches on average, experts laid out in order over ranks and nodes, as
    evenly as they go where ranks do not divide them (copies do then)."""
    random = np.random.Generator(np.random.Philox(key=experts * ranks + chosen))
    logits = random.standard_normal((SAMPLES, experts), dtype=np.float32)
    affinity = 1 / (1 + np.exp(-logits))  # softmax would order them alike
    if groups > 1 and chosen_groups < groups:
        inside = affinity.reshape(SAMPLES, groups, -1)
        best = 2 if score == "sigmoid" else 1
        strength = np.partition(inside, -best, axis=2)[:, :, -best:].sum(2)
        # no more groups than that, also where two are as strong
        allowed = np.argsort(-strength, axis=1, kind="stable")[:, :chosen_groups]
        size, rows = experts // groups, np.arange(SAMPLES)[:, None]
        best_of = _best(inside[rows, allowed].reshape(SAMPLES, -1), chosen)
        picks = allowed[rows, best_of // size] * size + best_of % size
    else:
        picks = _best(affinity, chosen)
    rank = picks * ranks // experts
    return _distinct(rank // gpus_per_node, -(-ranks // gpus_per_node)), _distinct(rank, ranks)


def _best(values: npt.NDArray[np.floating[Any]], count: int) -> npt.NDArray[np.int64]:
    """Columns of the largest values of each row [row, count]. Where more are as large as the least of them, numpy's
    `argpartition` chooses; without that, a partition of the values alone takes a quarter of its time."""
    best = values >= np.partition(values, -count, axis=1)[:, -count, None]
    for row in np.flatnonzero(best.sum(axis=1) > count):
        best[row] = False
        best[row, np.argpartition(values[row], -count)[-count:]] = True
    return np.nonzero(best)[1].reshape(-1, count)


def _distinct(places: npt.NDArray[np.int64], count: int) -> float:
    """Mean number of different values in a row."""
    seen = np.zeros((len(places), count), dtype=bool)
    seen[np.arange(len(places))[:, None], places] = True
    return float(seen.sum()) / len(places)
