"""Routes of a fat tree: up to any switch above both leaves, then down the only way."""

from dataclasses import dataclass

import numpy as np

from hwmodels.topologies.fat_tree import FatTree
from sim.communication.fabric.routes.protocol import NONE, Numbers


@dataclass(frozen=True)
class FatTreeRoutes:
    """Links are numbered by stage of the way (up, up, down, down), then by lower switch, then by its upward port.

    In two layers port s of a leaf leads to spine s. In three, port j of a leaf leads to middle switch j of its pod,
    and port c of middle switch j to core j * half + c.
    """

    tree: FatTree

    @property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """Named by the switch that sends."""
        names = {2: ("leaf up", "spine down"), 3: ("leaf up", "middle up", "core down", "middle down")}
        return tuple((name, self.tree.layer_links) for name in names[self.tree.layers])

    @property
    def hierarchical(self) -> bool:
        """Every way goes up and comes down, and none round about is better."""
        return True

    def choices(self, source: Numbers, target: Numbers) -> Numbers:
        """Spines; or middle switches inside a pod, and cores between pods."""
        up, apart = self.tree.uplinks, source != target
        if self.tree.layers == 2:
            return np.where(apart, up, 1)
        near = self._pod(source) == self._pod(target)
        return np.where(apart, np.where(near, up, up * self.tree.half), 1)

    def paths(self, source: Numbers, target: Numbers, choice: Numbers) -> Numbers:
        """Choice is the spine, or the middle switch plus the ports up times the core's place under it."""
        half, ports, stage = self.tree.half, self.tree.uplinks, self.tree.layer_links
        middle = choice % ports
        up, down = source * ports + middle, target * ports + middle
        if self.tree.layers == 2:
            path = np.stack([up, stage + down], axis=-1)
        else:
            core = choice // ports
            over = stage + (self._pod(source) * ports + middle) * half + core
            under = 2 * stage + (self._pod(target) * ports + middle) * half + core
            far = self._pod(source) != self._pod(target)
            path = np.stack([up, np.where(far, over, NONE), np.where(far, under, NONE), 3 * stage + down], axis=-1)
        path[source == target] = NONE
        return path

    def ends(self, links: Numbers) -> tuple[Numbers, Numbers]:
        """Lower and upper switch of each link's cable, in the order of its direction."""
        half, ports, stage, leaves = self.tree.half, self.tree.uplinks, self.tree.layer_links, self.tree.hosting
        number, place = links // stage, links % stage
        lower, port = place // ports, place % ports
        if self.tree.layers == 2:
            low, high, upward = lower, leaves + port, number == 0
        else:
            inner, middle = (number == 1) | (number == 2), place // half
            low = np.where(inner, leaves + middle, lower)
            core = leaves + self.tree.radix * ports + middle % ports * half + place % half
            high = np.where(inner, core, leaves + self._pod(lower) * ports + port)
            upward = number < 2
        return np.where(upward, low, high), np.where(upward, high, low)

    def _pod(self, leaf: Numbers) -> Numbers:
        pod: Numbers = leaf // self.tree.half
        return pod
