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
        return tuple((name, self.tree.endpoints) for name in names[self.tree.layers])

    @property
    def hierarchical(self) -> bool:
        """There are as many links up as endpoints."""
        return True

    def choices(self, source: Numbers, target: Numbers) -> Numbers:
        """Spines; or middle switches inside a pod, and cores between pods."""
        half = self.tree.half
        apart = source != target
        if self.tree.layers == 2:
            return np.where(apart, half, 1)
        return np.where(apart, np.where(self._pod(source) == self._pod(target), half, half * half), 1)

    def paths(self, source: Numbers, target: Numbers, choice: Numbers) -> Numbers:
        """Choice is the spine, or the middle switch plus half times the core's place under it."""
        half, stage = self.tree.half, self.tree.endpoints
        middle = choice % half
        up, down = source * half + middle, target * half + middle
        if self.tree.layers == 2:
            path = np.stack([up, stage + down], axis=-1)
        else:
            core = choice // half
            over = stage + (self._pod(source) * half + middle) * half + core
            under = 2 * stage + (self._pod(target) * half + middle) * half + core
            far = self._pod(source) != self._pod(target)
            path = np.stack([up, np.where(far, over, NONE), np.where(far, under, NONE), 3 * stage + down], axis=-1)
        path[source == target] = NONE
        return path

    def ends(self, links: Numbers) -> tuple[Numbers, Numbers]:
        """Lower and upper switch of each link's cable, in the order of its direction."""
        half, stage, leaves = self.tree.half, self.tree.endpoints, self.tree.hosting
        number, place = links // stage, links % stage
        lower, port = place // half, place % half
        if self.tree.layers == 2:
            low, high, upward = lower, leaves + port, number == 0
        else:
            inner = (number == 1) | (number == 2)
            low = np.where(inner, leaves + lower, lower)
            core = 2 * leaves + lower % half * half + port
            high = np.where(inner, core, leaves + self._pod(lower) * half + port)
            upward = number < 2
        return np.where(upward, low, high), np.where(upward, high, low)

    def _pod(self, leaf: Numbers) -> Numbers:
        pod: Numbers = leaf // self.tree.half
        return pod
