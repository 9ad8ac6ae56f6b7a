"""What an exchange asks of each rank's ports and warps, in rows.

A token that leaves its node goes once for each distinct node it reaches to the GPU with its source's index, and from
there over NVLink to the GPU of each distinct rank it reaches (DeepSeek-V3 report, arXiv 2412.19437, sec 3.2.2).
Combine is the same journey backwards, reduced on the way.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwmodels.op import AllToAll

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ports:
    """Rows of one exchange at each rank, all arrays [ranks], as a dispatch moves them; a combine moves them backwards.

    tokens: of the rank's micro-batch. sent: rows it packs, one for each node a token reaches, its own included.
    forwarded: rows it hands to ranks of its node, itself included. received: rows that come to its experts.
    nic_out, nic_in: rows across its NIC. nvlink_out, nvlink_in: rows across its NVLink port.
    """

    combine: bool
    row_bytes: float
    nodes: int
    gpus_per_node: int
    tokens: Rows
    sent: Rows
    forwarded: Rows
    received: Rows
    nic_out: Rows
    nic_in: Rows
    nvlink_out: Rows
    nvlink_in: Rows

    @property
    def network_rows(self) -> Rows:
        """Rows of the busier direction of each rank's NIC."""
        return np.maximum(self.nic_out, self.nic_in)

    @property
    def nvlink_rows(self) -> Rows:
        """Rows of the busier direction of each rank's NVLink port."""
        return np.maximum(self.nvlink_out, self.nvlink_in)

    def raised(self, received: float = 1.0, reached: float = 1.0) -> "Ports":
        """With so many times as many rows for the rank's experts (they load its NVLink port and warps), and for its
        node (they cross its NIC and are forwarded)."""
        return replace(
            self, received=self.received * received, nvlink_in=self.nvlink_in * received, nic_in=self.nic_in * reached,
            forwarded=self.forwarded * reached, nvlink_out=self.nvlink_out * reached,
        )  # fmt: skip


def of_op(op: AllToAll) -> Ports:
    """Ports of one rank that stands for all of a group whose loads are even."""
    per_node = op.group // op.group_nodes
    sent, ranks = op.tokens * op.nodes_reached, op.tokens * op.ranks_reached
    wire, nvlink = sent * (1 - 1 / op.group_nodes), ranks * (1 - 1 / per_node)
    columns = (op.tokens, sent, ranks, ranks, wire, wire, nvlink, nvlink)
    arrays = (np.array([float(rows)]) for rows in columns)
    return Ports(op.direction == "combine", op.row_bytes, op.group_nodes, per_node, *arrays)


def even_tokens(op: AllToAll) -> tuple[Rows, Rows]:
    """to_nodes [ranks, nodes] and to_ranks [ranks, ranks] of an even exchange: tokens of each source that reach
    a node or a rank, its own included (sim.routing.traffic.Traffic has them of an uneven one)."""
    to_nodes = np.full((op.group, op.group_nodes), op.tokens * op.nodes_reached / op.group_nodes)
    return to_nodes, np.full((op.group, op.group), op.tokens * op.ranks_reached / op.group)
