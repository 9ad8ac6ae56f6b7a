"""One exchange of an expert group, token by token: who sends how much where, and what each rank then computes."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.routing.balanced import PADDING, Load
from sim.routing.gate import BLOCK, Gate, Picks, choose, draw
from sim.routing.hosts import Hosts
from sim.routing.keyed import generator
from sim.routing.popularity import Popularity, of_tails

Counts = npt.NDArray[np.int64]


class Traffic(NamedTuple):
    """What a micro-batch of every rank of a group sends in one layer, in tokens; ranks and nodes as in the group.

    tokens: of each rank's micro-batch. to_ranks [sources, ranks], to_nodes [sources, nodes]: tokens with at least one
    expert there, the source's own rank and node included. slots [slots]: tokens of each expert, or of each copy of it.
    """

    tokens: int
    to_ranks: Counts
    to_nodes: Counts
    slots: Counts

    @property
    def received(self) -> Counts:
        """Tokens that come to each rank [ranks]; a token with two experts there comes once."""
        total: Counts = self.to_ranks.sum(axis=0)
        return total

    @property
    def rows(self) -> Counts:
        """Rows of each rank's experts [ranks], those of every expert padded to a multiple of PADDING."""
        total: Counts = padded(self.slots).reshape(len(self.to_ranks), -1).sum(axis=1)
        return total

    @property
    def nodes_reached(self) -> npt.NDArray[np.float64]:
        """Distinct nodes that a token of each source reaches on average [sources]."""
        mean: npt.NDArray[np.float64] = self.to_nodes.sum(axis=1) / self.tokens
        return mean

    @property
    def ranks_reached(self) -> npt.NDArray[np.float64]:
        """Distinct ranks that a token of each source reaches on average [sources]."""
        mean: npt.NDArray[np.float64] = self.to_ranks.sum(axis=1) / self.tokens
        return mean

    def loads(self) -> tuple[Load, ...]:
        """The load of each rank."""
        columns = (self.nodes_reached.tolist(), self.ranks_reached.tolist(), self.received.tolist(), self.rows.tolist())
        return tuple(Load(*row) for row in zip(*columns, strict=True))


def padded(tokens: Counts) -> Counts:
    """Rows that the grouped GEMM computes for experts with so many tokens."""
    return -(-tokens // PADDING) * PADDING


def traffic(
    gate: Gate, popularity: Popularity, hosts: Hosts, tokens: int, seed: int, layer: int, micro_batch: int,
    first_rank: int = 0,
) -> Traffic:  # fmt: skip
    """The traffic of one layer and micro-batch. popularity [experts] of the layer; first_rank: of the group."""
    factors, where = of_tails(gate, popularity), Lookup(hosts)
    sources = [
        _of_source(gate, factors, where, tokens, generator(seed, "tokens", layer, micro_batch, first_rank + source))
        for source in range(hosts.ranks)
    ]
    ranks, nodes, slots = (np.stack(column) for column in zip(*sources, strict=True))
    return Traffic(tokens, ranks, nodes, slots.sum(axis=0))


class Lookup:
    """Tables of a group's hosts: copies [experts], slots [experts, copies]; both read-only."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts, self.copies, self.slots = hosts, hosts.copies, hosts.slots()

    def slot_of(self, picks: Picks, first_token: int) -> Counts:
        """The slots [tokens, chosen] that picks [tokens, chosen] go to: token t takes copy t of an expert, in turn."""
        copy = 0 if self.slots.shape[1] == 1 else (first_token + np.arange(len(picks)))[:, None] % self.copies[picks]
        slot: Counts = self.slots[picks, copy]
        return slot


def _of_source(
    gate: Gate, factors: Popularity, where: Lookup, tokens: int, random: np.random.Generator
) -> tuple[Counts, Counts, Counts]:
    """Tokens of one rank to each rank, to each node and to each slot."""
    hosts = where.hosts
    ranks, nodes = np.zeros(hosts.ranks, np.int64), np.zeros(hosts.nodes, np.int64)
    slots = np.zeros(len(hosts.expert), np.int64)
    for first in range(0, tokens, BLOCK):
        picks = choose(gate, draw(random, gate, min(BLOCK, tokens - first), factors))
        slot = where.slot_of(picks, first)
        rank = slot // hosts.per_rank
        slots += np.bincount(slot.ravel(), minlength=len(slots))
        ranks += reached(rank, hosts.ranks).sum(axis=0)
        nodes += reached(rank // hosts.gpus_per_node, hosts.nodes).sum(axis=0)
    return ranks, nodes, slots


def reached(places: Counts, count: int) -> npt.NDArray[np.bool_]:
    """Whether each token reaches each place [tokens, count], of its places [tokens, n]."""
    seen = np.zeros((len(places), count), dtype=bool)
    seen[np.arange(len(places))[:, None], places] = True
    return seen
