"""HybridEP's dispatch and combine by what was measured of its kernels: docs/README_Hybrid-EP.md of
github.com/deepseek-ai/DeepEP (branch hybrid-ep, 94a9f8f, MIT), kernels alone, 4,096 tokens of 7,168 in BF16, each to 8
random experts.

* Inside an NVLink domain, GB200s: bytes that a rank receives, a token once, its own rank's included (tests/
  test_hybrid_ep.py: nvl_recv_bytes), over time, by ranks. A B200 has 735 and 674 GB/s with 8 ranks and 16 SMs. Between
  SMs it is straight; beyond 36 ranks the last figure holds.
* Over nodes of 8 H100s with a 400 Gb/s NIC each: bytes that a rank sends, a token once to each node, its own included
  (tests/utils.py: count_rdma_send_from_routing_map), by nodes, with 16 SMs: more are taken to win nothing, for 8 do as
  well.

Each row of these had probabilities of all experts of its NVLink domain with it, 8 a rank, in FP32 (tests/
test_hybrid_ep.py: NUM_LOCAL_EXPERTS), which the figures leave out and the exchanges here have in their rows.

With fewer than 16 SMs it is in proportion; links that are slower or faster make it so. What the call does besides
(metadata, a permute) is not in it, and no wait for ranks that come later.
"""

import numpy as np

from hwmodels.collectives import Wires
from hwmodels.op import AllToAll

RANKS = (8, 16, 24, 32, 36)
NEAR = {
    "dispatch": {16: (750.15, 661.93, 637.80, 629.79, 612.85), 32: (764.03, 706.95, 665.97, 642.23, 632.31)},
    "combine": {16: (684.27, 600.75, 565.53, 547.25, 543.27), 32: (737.13, 666.26, 639.80, 605.15, 596.99)},
}
"""Direction -> SMs -> GB/s by ranks."""
NODES = (2, 4, 8)
FAR = {"dispatch": (71.71, 57.69, 49.97), "combine": (62.95, 57.46, 49.77)}
"""Direction -> GB/s by nodes."""
FEW, MANY = 16, 32
MEASURED_ROW, LIKELY = 2.0 * 7168, 4.0 * 8
"""Bytes of a token of those measurements, and of the probabilities beside it for each rank of the domain."""
NVLINK, NIC = 900.0, 50.0
"""GB/s of the links that they were measured on, in one direction."""


def seconds(op: AllToAll, links: Wires, sms: int) -> float:
    """One exchange, `sms` SMs driving it."""
    enough = min(1.0, sms / FEW) * (1 + LIKELY * _domain(op) / MEASURED_ROW)
    if op.group_nodes > 1:
        rate = float(np.interp(op.group_nodes, NODES, FAR[op.direction])) * links.nic.bandwidth * links.nics / NIC
        return op.logical_bytes() / (rate * enough)
    few, many = (float(np.interp(op.group, RANKS, NEAR[op.direction][held])) for held in (FEW, MANY))
    between = (min(max(sms, FEW), MANY) - FEW) / (MANY - FEW)
    return op.bytes() / ((few + (many - few) * between) * enough * links.nvlink.bandwidth / NVLINK)


def _domain(op: AllToAll) -> int:
    """Ranks of a domain as they were measured."""
    return op.group // op.group_nodes if op.group_nodes > 1 else min(op.group, RANKS[-1])
