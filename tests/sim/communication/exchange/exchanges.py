"""Exchanges and links that the tests of this folder share."""

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hwmodels import node
from hwmodels.collectives import Wires, wires
from hwmodels.op import AllToAll
from sim.communication.exchange.events.cargo import Cargo
from sim.communication.exchange.ports import Ports
from sim.validation import exchanges

LINKS: Wires = wires(node.load("h800x8"), None)
FP8_ROW, BF16_ROW = 7392.0, 14336.0
"""Bytes a row of the published benchmarks: 7,168 values with 56 FP32 scales, or in BF16."""
SPREAD = exchanges.SPREAD | {128: (5.72, 7.83), 320: (3.99, 7.88)}
"""Group size -> distinct nodes and ranks a token. 128: routing.spread of V3; 320: if it still went to four nodes."""


def op(direction: str = "dispatch", group: int = 64, tokens: int = 4096, row_bytes: float | None = None) -> AllToAll:
    row = row_bytes or (FP8_ROW if direction == "dispatch" else BF16_ROW)
    nodes, ranks = SPREAD[group]
    return AllToAll(direction, "", tokens, row, nodes, ranks, group, max(1, group // 8))


def random_tokens(seed: int, nodes: int, gpus: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """to_nodes and to_ranks of tokens that choose 4 ranks each, with unequal popularity."""
    random = np.random.default_rng(seed)
    ranks = nodes * gpus
    weight = random.dirichlet(np.full(ranks, 1.5))
    chosen = min(4, ranks)
    to_nodes, to_ranks = np.zeros((ranks, nodes), np.int64), np.zeros((ranks, ranks), np.int64)
    for source in range(ranks):
        for _ in range(tokens):
            picks = random.choice(ranks, chosen, replace=False, p=weight)
            to_ranks[source, picks] += 1
            to_nodes[source, np.unique(picks // gpus)] += 1
    return to_nodes, to_ranks


uneven = st.builds(
    random_tokens, st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4), st.integers(1, 40)
)  # fmt: skip
directions = st.sampled_from(["dispatch", "combine"])


def uneven_ports(direction: str, matrices: tuple[np.ndarray, np.ndarray], row_bytes: float = FP8_ROW) -> Ports:
    to_nodes, to_ranks = matrices
    return of_tokens(direction, row_bytes, float(to_ranks.sum(axis=1).max()), to_nodes, to_ranks)


def of_tokens(
    direction: str, row_bytes: float, tokens: float, to_nodes: npt.NDArray[np.number], to_ranks: npt.NDArray[np.number]
) -> Ports:
    """Ports of every rank of a group. to_nodes [ranks, nodes], to_ranks [ranks, ranks]: tokens of each source that
    reach a node or a rank, its own included. tokens: of each rank's
    micro-batch."""
    ranks, nodes = to_nodes.shape
    per_node = ranks // nodes
    by_node = to_nodes.astype(float).reshape(nodes, per_node, nodes)
    by_rank = to_ranks.astype(float).reshape(nodes, per_node, nodes, per_node)
    sent, arrived = by_node.sum(axis=2), by_node.sum(axis=0).T
    inside = np.einsum("aia->ai", by_node)
    forwarded, received = by_rank.sum(axis=(0, 3)).T, by_rank.sum(axis=(0, 1))
    same = np.einsum("aibi->bi", by_rank)
    columns = (
        np.full((nodes, per_node), float(tokens)), sent, forwarded, received,
        sent - inside, arrived - inside, forwarded - same, received - same,
    )  # fmt: skip
    return Ports(direction == "combine", row_bytes, nodes, per_node, *(c.ravel() for c in columns))


def cargo_of_tokens(
    direction: str, row_bytes: float, tokens: int, to_nodes: npt.NDArray[np.number], to_ranks: npt.NDArray[np.number]
) -> Cargo:
    """Of every rank of a group; matrices and words as in `of_tokens`."""
    ranks, nodes = to_nodes.shape
    gpus = ranks // nodes
    node, index = np.divmod(np.arange(ranks), gpus)
    turn, shift = np.arange(nodes), np.arange(gpus)
    there = (node[:, None] + turn) % nodes
    mate = (index[:, None] + shift) % gpus
    places = there[:, :, None] * gpus + mate[:, None, :]
    rows = np.arange(ranks)
    return Cargo(
        direction == "combine", row_bytes, tokens, to_nodes.astype(float)[rows[:, None], there],
        to_ranks.astype(float)[rows[:, None, None], places],
    )  # fmt: skip
