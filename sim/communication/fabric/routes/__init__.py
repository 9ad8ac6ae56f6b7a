"""Ways through a plane of switches, one topology a file: directed links by number, and paths as rows of them.

Paths are int64 arrays [flows, hops], filled up with NONE. Switches are numbered as in `hwmodels.topologies`.
"""

import numpy as np

from hwmodels.topologies import Topology
from hwmodels.topologies.dragonfly import Dragonfly
from hwmodels.topologies.fat_tree import FatTree
from hwmodels.topologies.slim_fly import SlimFly
from sim.communication.fabric.routes.protocol import NONE, Numbers, Routes

__all__ = ["NONE", "Numbers", "Routes", "detour", "links", "routes"]


def routes(topology: Topology) -> Routes:
    """The routes of a plane. Raises Refused (one line) when it can be counted but not wired."""
    from sim.communication.fabric.routes.dragonfly import DragonflyRoutes
    from sim.communication.fabric.routes.fat_tree import FatTreeRoutes
    from sim.communication.fabric.routes.slim_fly import slim_fly_routes

    if isinstance(topology, FatTree):
        return FatTreeRoutes(topology)
    if isinstance(topology, SlimFly):
        return slim_fly_routes(topology)
    assert isinstance(topology, Dragonfly), "a new topology needs its routes here"
    return DragonflyRoutes(topology)


def links(plane: Routes) -> int:
    """Directed links of one plane."""
    return sum(count for _, count in plane.classes)


def detour(plane: Routes, source: Numbers, middle: Numbers, target: Numbers, key: Numbers) -> Numbers:
    """Shortest paths to `middle` and on from there (Valiant), `key` choosing among equals [flows, 2 hops].

    Where that would use a link twice, the plain shortest path stands instead.
    """
    first = plane.paths(source, middle, key % plane.choices(source, middle))
    second = plane.paths(middle, target, key % plane.choices(middle, target))
    whole = np.concatenate([first, second], axis=1)
    ordered = np.sort(whole, axis=1)
    twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NONE)).any(axis=1)
    straight = plane.paths(source, target, key % plane.choices(source, target))
    whole[twice] = NONE
    whole[twice, : straight.shape[1]] = straight[twice]
    return whole
