"""Ways through a plane of switches, one topology a file: directed links by number, and paths as rows of them.

Paths are int64 arrays [flows, hops], filled up with NONE. Switches are numbered as in `hwmodels.topologies`.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hwmodels.topologies import Topology
from hwmodels.topologies.dragonfly import Dragonfly
from hwmodels.topologies.fat_tree import FatTree
from hwmodels.topologies.slim_fly import SlimFly

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


def routes(topology: Topology) -> Routes:
    """The routes of a plane. Raises Refused (one line) when it can be counted but not wired."""
    from sim.network.routes.dragonfly import DragonflyRoutes
    from sim.network.routes.fat_tree import FatTreeRoutes
    from sim.network.routes.slim_fly import slim_fly_routes

    if isinstance(topology, FatTree):
        return FatTreeRoutes(topology)
    if isinstance(topology, SlimFly):
        return slim_fly_routes(topology)
    assert isinstance(topology, Dragonfly), "a new topology needs its routes here"
    return DragonflyRoutes(topology)


def links(found: Routes) -> int:
    """Directed links of one plane."""
    return sum(count for _, count in found.classes)


def detour(found: Routes, source: Numbers, middle: Numbers, target: Numbers, key: Numbers) -> Numbers:
    """Shortest paths to `middle` and on from there (Valiant), `key` choosing among equals [flows, 2 hops].

    Where that would use a link twice, the plain shortest path stands instead.
    """
    first = found.paths(source, middle, key % found.choices(source, middle))
    second = found.paths(middle, target, key % found.choices(middle, target))
    whole = np.concatenate([first, second], axis=1)
    ordered = np.sort(whole, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NONE)).any(axis=1)
    straight = found.paths(source, target, key % found.choices(source, target))
    whole[twice] = NONE
    whole[twice, : straight.shape[1]] = straight[twice]
    return whole
