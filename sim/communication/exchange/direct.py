"""The low-latency kernels of decoding: every token goes straight to the GPU of each of its experts, nothing is shared.

A row for each chosen expert crosses the NIC, or NVLink inside the node, and nothing is forwarded. The kernel uses the
whole device while it packs and unpacks and no SM while rows are under way (DeepEP V1 legacy.md, "receiving hook").
"""

from typing import NamedTuple

import numpy as np

from hwmodels.collectives import Wires
from sim.communication.exchange.line import Stage, finish_s
from sim.communication.exchange.roles import COPY

WARPS_PER_SM = 30
"""DeepEP V1's low-latency kernels: 3 groups of 10 warps an SM (csrc/kernels/internode_ll.cu)."""


class Decode(NamedTuple):
    """One exchange of a decoding step. tokens: of each rank. experts: a token chooses. ranks: of the group. nvlink:
    whether rows to the node's other GPUs go over NVLink (DeepEP since pull request 173, merged on 23 May 2025), and not
    through the NIC like all others."""

    combine: bool
    tokens: int
    experts: int
    row_bytes: float
    ranks: int
    gpus_per_node: int
    nvlink: bool = True

    @property
    def bytes(self) -> float:
        """What published bandwidths count: a row for each chosen expert, wherever it lives."""
        return self.tokens * self.experts * self.row_bytes

    @property
    def network_bytes(self) -> float:
        """Bytes across the NIC, experts being even over ranks."""
        near = min(self.gpus_per_node, self.ranks) if self.nvlink else 1
        return self.bytes * (1 - near / self.ranks)

    @property
    def nvlink_bytes(self) -> float:
        """Bytes over NVLink: to the other GPUs of the node."""
        return self.bytes * (min(self.gpus_per_node, self.ranks) - 1) / self.ranks if self.nvlink else 0.0


def bound_s(decode: Decode, links: Wires) -> float:
    """Seconds that the busier of the two ports needs."""
    inside = links.nvlink.between(min(decode.gpus_per_node, decode.ranks))
    return max(decode.network_bytes / links.network, decode.nvlink_bytes / inside)


def seconds(decode: Decode, links: Wires, sms: int) -> float:
    """One exchange on a device of `sms` SMs: pack a token, send it, unpack it; tokens follow one another."""
    row = COPY.seconds(decode.combine, decode.row_bytes)
    rows = decode.tokens * decode.experts
    turns = -(-decode.tokens // sms)  # an SM works on a token at a time, a warp for each of its experts
    unpack = max(row, rows * row / (sms * WARPS_PER_SM)) / turns
    far = decode.ranks > decode.gpus_per_node or not decode.nvlink
    latency = links.latency_s if far else links.nvlink.latency_s
    line = [
        Stage("pack", np.array([row])),
        Stage("links", np.array([bound_s(decode, links) / turns]), room=turns),
        Stage("unpack", np.array([unpack]), latency_s=latency, room=turns),
    ]
    return float(finish_s(line, turns)[0])
