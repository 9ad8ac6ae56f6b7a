"""Routes of a slim fly: the direct cable, or the switches that both ends are joined to."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.topologies.slim_fly import SlimFly
from sim.communication.fabric.routes.protocol import NONE, Numbers

BLOCK = 4096
"""Flows whose common neighbours are looked up at once."""


@dataclass(frozen=True)
class SlimFlyRoutes:
    """Link i of switch s, number s * degree + i, leads to near[s, i].

    near [switches, degree], ascending; port [switches, switches]: which link leads there, NONE when not joined.
    """

    near: Numbers
    port: npt.NDArray[np.int16]

    @property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """All alike."""
        return (("switch to switch", self.near.size),)

    @property
    def hierarchical(self) -> bool:
        """Two switches have few shortest paths between them."""
        return False

    def choices(self, source: Numbers, target: Numbers) -> Numbers:
        """1 when joined, else how many switches both are joined to."""
        near = self.port[source, target] >= 0
        return np.where((source == target) | near, 1, self._middles(source, target).sum(axis=1))

    def paths(self, source: Numbers, target: Numbers, choice: Numbers) -> Numbers:
        """One link, or two over the `choice`-th common neighbour."""
        joined = self.port[source, target] >= 0
        common = self._middles(source, target)
        nth = (np.cumsum(common, axis=1) == (choice + 1)[:, None]) & common
        first = nth.argmax(axis=1)
        middle = self.near[source, first]
        degree = self.near.shape[1]
        path = np.stack([source * degree + first, middle * degree + self.port[middle, target]], axis=-1)
        path[joined, 0] = (source * degree + self.port[source, target])[joined]
        path[joined, 1] = NONE
        path[source == target] = NONE
        return path

    def ends(self, links: Numbers) -> tuple[Numbers, Numbers]:
        """The switch a link belongs to, and the one it leads to."""
        source = links // self.near.shape[1]
        return source, self.near[source, links % self.near.shape[1]]

    def _middles(self, source: Numbers, target: Numbers) -> npt.NDArray[np.bool_]:
        """Which neighbours of the source are joined to the target [flows, degree]."""
        blocks = [
            self.port[self.near[source[i : i + BLOCK]], target[i : i + BLOCK, None]] >= 0
            for i in range(0, len(source), BLOCK)
        ]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.near.shape[1]), dtype=bool)


def slim_fly_routes(plane: SlimFly) -> SlimFlyRoutes:
    """The routes of a slim fly. Raises Refused (one line) when its order has no field."""
    cables = np.array(list(plane.cables()), dtype=np.int64)
    both = np.concatenate([cables, cables[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    near = both[:, 1].reshape(plane.switches, plane.degree)
    port = np.full((plane.switches, plane.switches), NONE, dtype=np.int16)
    port[both[:, 0], both[:, 1]] = np.tile(np.arange(plane.degree), plane.switches)
    return SlimFlyRoutes(near, port)
