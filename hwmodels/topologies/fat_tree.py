"""Folded Clos networks of equal switches ("fat trees") in two or three layers (Al-Fares et al., SIGCOMM 2008)."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class FatTree:
    """A leaf has `up` of its `radix` ports to switches above and the rest to endpoints: half and half, or with `up`
    stated fewer, which oversubscribes it. Switches in the middle have half of their ports up; the top layer has none.

    Leaves are numbered by pod and place in it, then middle switches likewise (three layers), then spines or cores.
    """

    radix: int
    layers: int
    up: int = 0

    @property
    def half(self) -> int:
        """Half of a switch's ports: leaves of a pod in three layers, and what a middle switch has up or down."""
        return self.radix // 2

    @property
    def uplinks(self) -> int:
        """Ports of a leaf that look up; spines, or middle switches of a pod, there are as many."""
        return self.up or self.half

    @property
    def hosts_per_switch(self) -> int:
        """Endpoints on a leaf."""
        return self.radix - self.uplinks

    @property
    def hosting(self) -> int:
        """Leaves."""
        return int(2 * self.half ** (self.layers - 1))

    @property
    def endpoints(self) -> int:
        """k^2/2 of radix k in two layers, k^3/4 in three, where half of a leaf's ports look down."""
        return self.hosting * self.hosts_per_switch

    @property
    def layer_links(self) -> int:
        """Links between two layers: as many as there are endpoints, where half of a leaf's ports look down."""
        return self.hosting * self.uplinks

    @property
    def switches(self) -> int:
        """Leaves; then as many for each port up as there are pods in a middle layer, and half as many on top."""
        above = (2 * self.layers - 3) * self.half ** (self.layers - 2)
        return self.hosting + int(above * self.uplinks)

    @property
    def links(self) -> int:
        """Links: as many between any two layers."""
        return self.layer_links * (self.layers - 1)

    @property
    def ports(self) -> int:
        """All of them."""
        return self.radix

    def cables(self) -> Iterator[tuple[int, int]]:
        """Every leaf to every spine; or in pods to every middle switch, and middle j of each pod to its own cores."""
        half, up, leaves = self.half, self.uplinks, self.hosting
        if self.layers == 2:
            yield from ((leaf, leaves + spine) for leaf in range(leaves) for spine in range(up))
            return
        cores = leaves + self.radix * up
        for pod in range(self.radix):
            yield from ((pod * half + i, leaves + pod * up + j) for i in range(half) for j in range(up))
            yield from ((leaves + pod * up + j, cores + j * half + c) for j in range(up) for c in range(half))

    def layer(self, switch: int) -> int:
        """0 a leaf, 1 a spine or a middle switch, 2 a core."""
        return self._place(switch)[0]

    def switch_name(self, switch: int) -> str:
        """leaf3, spine7 in two layers; leaf3.1, middle3.2 (pod.place) and core5 in three."""
        layer, place = self._place(switch)
        if self.layers == 2:
            return f"{('leaf', 'spine')[layer]}{place}"
        pod, inside = divmod(place, (self.half, self.uplinks, 1)[layer])
        return f"core{place}" if layer == 2 else f"{('leaf', 'middle')[layer]}{pod}.{inside}"

    def _place(self, switch: int) -> tuple[int, int]:
        """Layer of a switch, and its number in it."""
        middle = switch - self.hosting
        if middle < 0:
            return 0, switch
        above = middle - self.radix * self.uplinks
        return (1, middle) if self.layers == 2 or above < 0 else (2, above)
