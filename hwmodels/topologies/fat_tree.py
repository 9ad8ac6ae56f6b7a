"""Folded Clos networks of equal switches ("fat trees") in two or three layers (Al-Fares et al., SIGCOMM 2008)."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class FatTree:
    """Half of a switch's `radix` ports look down, half up; those of the top layer all look down.

    Leaves are numbered by pod and place in it, then middle switches likewise (three layers), then spines or cores.
    """

    radix: int
    layers: int

    @property
    def half(self) -> int:
        """Ports of a switch that look up, or down."""
        return self.radix // 2

    @property
    def hosts_per_switch(self) -> int:
        """Endpoints on a leaf."""
        return self.half

    @property
    def hosting(self) -> int:
        """Leaves."""
        return int(2 * self.half ** (self.layers - 1))

    @property
    def endpoints(self) -> int:
        """k^2/2 of radix k in two layers, k^3/4 in three."""
        return self.hosting * self.half

    @property
    def switches(self) -> int:
        """Switches: as many in each layer as there are leaves, in the top one half as many."""
        return int((2 * self.layers - 1) * self.half ** (self.layers - 1))

    @property
    def links(self) -> int:
        """Links: as many between two layers as there are endpoints."""
        return self.endpoints * (self.layers - 1)

    @property
    def ports(self) -> int:
        """All of them."""
        return self.radix

    def cables(self) -> Iterator[tuple[int, int]]:
        """Every leaf to every spine; or in pods to every middle switch, and middle j of each pod to its own cores."""
        half, leaves = self.half, self.hosting
        if self.layers == 2:
            yield from ((leaf, leaves + spine) for leaf in range(leaves) for spine in range(half))
            return
        for first in range(0, leaves, half):
            for i in range(half):
                yield from ((first + i, leaves + first + j) for j in range(half))
                yield from ((leaves + first + i, 2 * leaves + i * half + j) for j in range(half))

    def layer(self, switch: int) -> int:
        """0 a leaf, 1 a spine or a middle switch, 2 a core."""
        return switch // self.hosting

    def switch_name(self, switch: int) -> str:
        """leaf3, spine7 in two layers; leaf3.1, middle3.2 (pod.place) and core5 in three."""
        layer, place = divmod(switch, self.hosting)
        if self.layers == 2:
            return f"{('leaf', 'spine')[layer]}{place}"
        pod, inside = divmod(place, self.half)
        return f"core{place}" if layer == 2 else f"{('leaf', 'middle')[layer]}{pod}.{inside}"
