"""Exchanges and links that the tests of this folder share."""

import numpy as np
from hypothesis import strategies as st

from hwmodels import node
from hwmodels.collectives import Wires, wires
from hwmodels.op import AllToAll
from sim.communication.exchange.ports import Ports, of_tokens
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
