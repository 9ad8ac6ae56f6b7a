"""What each rank of a group sends, in whole rows: its tokens over channels, and a channel's rows in chunks for nodes.

Seen from a rank: the node `turn` on from its own, and there the GPU `shift` on from the one with its index, through
which its rows go. Loads are expected values. A channel's rows for a node lie around them as those of tokens that choose
on their own (DeepEP V1 posts what is full, and what is left at the end), drawn evenly instead of at random.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import gcd, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.op import AllToAll

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cargo:
    """One exchange of a group as a dispatch moves it; a combine moves it backwards. tokens: of each rank's micro-batch.

    to_nodes [ranks, turns], to_ranks [ranks, turns, shifts]: tokens of a rank that reach a node, and a GPU there. One
    rank stands for all where nothing tells them apart: what it sends to others is what others send to it.
    """

    combine: bool
    row_bytes: float
    tokens: int
    to_nodes: Rows
    to_ranks: Rows

    @property
    def nodes(self) -> int:
        return int(self.to_nodes.shape[1])

    @property
    def gpus(self) -> int:
        """Of a node."""
        return int(self.to_ranks.shape[2])


def even(op: AllToAll) -> Cargo:
    """Of one rank that stands for a group whose loads are even."""
    nodes, gpus = op.group_nodes, op.group // op.group_nodes
    to_nodes = np.full((1, nodes), op.tokens * op.nodes_reached / nodes)
    to_ranks = np.full((1, nodes, gpus), op.tokens * op.ranks_reached / op.group)
    return Cargo(op.direction == "combine", op.row_bytes, op.tokens, to_nodes, to_ranks)


class Chunk(NamedTuple):
    """Rows that travel together. at: tokens of the channel up to which they go. turn: of the node that they reach.
    split [shifts]: rows for each GPU there."""

    at: int
    turn: int
    rows: int
    split: tuple[int, ...]


def chunks(cargo: Cargo, rank: int, tokens: int, channel: int, most: int) -> list[Chunk]:
    """What a channel with `tokens` of a rank's tokens sends, in the order in which it is full; at most `most` rows."""
    reach = cargo.to_nodes[rank] / max(cargo.tokens, 1)
    all_rows = _whole(reach, tokens, channel)
    plan: list[Chunk] = []
    for turn, rows in enumerate(all_rows):
        if rows:
            share = cargo.to_ranks[rank, turn] / cargo.to_nodes[rank, turn]
            plan += _of_node(turn, rows, tokens, min(most, rows), tuple(share.tolist()))
    return sorted(plan)


def _of_node(turn: int, rows: int, tokens: int, most: int, share: tuple[float, ...]) -> Iterator[Chunk]:
    """Chunks of `rows` rows, spread evenly over `tokens` tokens."""
    spare = [(shift + 0.5) / len(share) for shift in range(len(share))]
    for first in range(0, rows, most):
        count = min(most, rows - first)
        split = []
        for shift, part in enumerate(share):
            exact = spare[shift] + count * part
            whole = int(exact)
            spare[shift] = exact - whole
            split.append(whole)
        if not any(split):  # a row that reaches a node reaches a GPU there
            split[max(range(len(share)), key=spare.__getitem__)] = 1
        yield Chunk(-(-(first + count) * tokens // rows), turn, count, tuple(split))


def _whole(reach: Rows, tokens: int, shuffle: int) -> list[int]:
    """Rows of `tokens` tokens for each node [turns], of tokens that reach it with a chance of `reach` [turns]."""
    nodes = len(reach)
    spare, rows = 0.5, []
    for turn, chance in enumerate(np.minimum(reach, 1.0).tolist()):
        spread = _spread(nodes)[(turn * _stride(nodes) + shuffle) % nodes]
        exact = tokens * chance + spread * sqrt(tokens * chance * (1 - chance))
        whole = min(max(int(exact + spare), 0), tokens)
        spare = min(max(spare + exact - whole, 0.0), 1.0)
        rows.append(whole)
    return rows


@cache
def _spread(nodes: int) -> tuple[float, ...]:
    """Standard deviations from the mean of as many evenly likely draws [nodes]."""
    return tuple(NormalDist().inv_cdf((k + 0.5) / nodes) for k in range(nodes)) if nodes > 1 else (0.0,)


@cache
def _stride(nodes: int) -> int:
    """Steps that visit all nodes, neighbours far apart."""
    return next(k for k in range(max(1, round(nodes * 0.618)), nodes + 2) if gcd(k, nodes) == 1)


def over_channels(tokens: int, channels: int) -> list[int]:
    """A rank's tokens over channels, evenly."""
    less, more = divmod(tokens, channels)
    return [less + (number < more) for number in range(channels)]
