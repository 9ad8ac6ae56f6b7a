"""Places of the experts of a layer: which rank of an expert group holds which of them, copies included."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Hosts:
    """Slots of an expert group. expert [slots]: the expert in each slot; neighbouring slots share a rank.

    ranks: of the group. gpus_per_node: ranks that share a node. An expert in several slots is copied; its tokens take
    the copies in turn.
    """

    expert: npt.NDArray[np.int64]
    ranks: int
    gpus_per_node: int

    @property
    def nodes(self) -> int:
        """Nodes that the group lies on."""
        return -(-self.ranks // self.gpus_per_node)

    @property
    def per_rank(self) -> int:
        """Slots of one rank."""
        return len(self.expert) // self.ranks

    @property
    def copies(self) -> npt.NDArray[np.int64]:
        """Slots that hold each expert [experts]."""
        return np.bincount(self.expert)

    def slots(self) -> npt.NDArray[np.int64]:
        """Slots of each expert [experts, most copies]; experts with fewer copies repeat theirs cyclically."""
        order, copies = np.argsort(self.expert, kind="stable"), self.copies
        turns = np.arange(copies.max())[None, :] % copies[:, None]
        table: npt.NDArray[np.int64] = order[(np.cumsum(copies) - copies)[:, None] + turns]
        return table


def in_order(experts: int, ranks: int, gpus_per_node: int) -> Hosts:
    """Every expert once, in order over the ranks."""
    return Hosts(np.arange(experts), ranks, gpus_per_node)
