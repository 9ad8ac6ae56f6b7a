"""Routes of a dragonfly: inside the group to the switch with the right cable, over it, and inside again."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwmodels.topologies.dragonfly import Dragonfly
from sim.communication.fabric.routes.protocol import NONE, Numbers


@dataclass(frozen=True)
class DragonflyRoutes:
    """Links inside groups come first, a - 1 of each switch in the order of the others; then each group's a h ports."""

    plane: Dragonfly

    @property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """Inside groups and between them."""
        plane = self.plane
        inside = plane.switches * (plane.switches_per_group - 1)
        return (("inside group", inside), ("between groups", plane.groups * plane.outward))

    @property
    def hierarchical(self) -> bool:
        """Two groups have few cables between them."""
        return False

    @cached_property
    def ports(self) -> Numbers:
        """Ports of a group that lead so many groups further on [groups, most], filled up with NONE; row 0 empty."""
        offsets = np.array(self.plane.offsets)
        most = int(np.bincount(offsets).max())
        table = np.full((self.plane.groups, most), NONE)
        for offset in range(1, self.plane.groups):
            numbers = np.flatnonzero(offsets == offset)
            table[offset, : len(numbers)] = numbers
        return table

    @cached_property
    def mates(self) -> Numbers:
        """Port at the other end of each port's cable."""
        return np.array(self.plane.mates, dtype=np.int64)

    def choices(self, source: Numbers, target: Numbers) -> Numbers:
        """Cables between the two groups; 1 inside a group."""
        count = (self.ports >= 0).sum(axis=1)
        cables: Numbers = np.maximum(count[self._offset(source, target)], 1)
        return cables

    def paths(self, source: Numbers, target: Numbers, choice: Numbers) -> Numbers:
        """Inside, between, inside; one link inside when the group is the same."""
        a, h = self.plane.switches_per_group, self.plane.global_ports
        group, goal = source // a, target // a
        far = group != goal
        port: Numbers = np.where(far, self.ports[self._offset(source, target), choice], 0)
        leaves = np.where(far, port // h, target % a)
        enters = self.mates[port] // h
        first = self._inside(group, source % a, leaves)
        across = np.where(far, self.classes[0][1] + group * self.plane.outward + port, NONE)
        last = np.where(far, self._inside(goal, enters, target % a), NONE)
        return np.stack([first, across, last], axis=-1)

    def ends(self, links: Numbers) -> tuple[Numbers, Numbers]:
        """Switches of a link inside a group, or of a port and its mate."""
        plane = self.plane
        a, h, inner = plane.switches_per_group, plane.global_ports, self.classes[0][1]
        source, other = np.divmod(links, max(a - 1, 1))
        beside = source // a * a + other + (other >= source % a)
        group, port = np.divmod(np.maximum(links - inner, 0), plane.outward)
        further = (group + np.array(plane.offsets)[port]) % plane.groups
        between = links >= inner
        start, end = group * a + port // h, further * a + self.mates[port] // h
        return np.where(between, start, source), np.where(between, end, beside)

    def _offset(self, source: Numbers, target: Numbers) -> Numbers:
        a = self.plane.switches_per_group
        offset: Numbers = (target // a - source // a) % self.plane.groups
        return offset

    def _inside(self, group: Numbers, source: Numbers, target: Numbers) -> Numbers:
        """The link between two switches of a group, NONE from a switch to itself."""
        a = self.plane.switches_per_group
        link = (group * a + source) * (a - 1) + target - (target > source)
        return np.where(source == target, NONE, link)
