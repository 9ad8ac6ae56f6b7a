"""What a plane of switches tells of its links, whatever its topology."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

NONE = -1
"""Fills up paths that are shorter than others."""


class Routes(Protocol):
    """The directed links of one plane and the shortest paths between its leaves."""

    @property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """Classes of links in the order of their numbers: (name, how many)."""
        ...

    @property
    def hierarchical(self) -> bool:
        """Whether the shortest paths alone can carry any traffic, as in a fat tree."""
        ...

    def choices(self, source: Numbers, target: Numbers) -> Numbers:
        """How many shortest paths lead from leaf to leaf [flows]; 1 (the empty one) from a leaf to itself."""
        ...

    def paths(self, source: Numbers, target: Numbers, choice: Numbers) -> Numbers:
        """One shortest path each, `choice` from 0 to choices - 1 [flows, hops]."""
        ...

    def ends(self, links: Numbers) -> tuple[Numbers, Numbers]:
        """The switches that links come from and lead to."""
        ...
