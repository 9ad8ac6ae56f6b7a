"""How the nodes of a cluster are plugged into the fabric: the leaf of every NIC, and every directed link by number.

Links are numbered: NICs sending, NICs receiving (both by node, then NIC), then plane by plane the links between
switches as `sim.communication.fabric.routes` numbers them. The number after the last stands for "no link".
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import port, wires
from hwmodels.fabric import Fabric
from hwmodels.refused import Refused
from sim.communication.fabric.routes import Numbers, Routes, links, routes
from sim.scenario import slots
from sim.scenario.values import Cluster

NIC_CLASSES = ("NIC out", "NIC in")


class Rates(NamedTuple):
    """Effective bytes/s in one direction of a NIC, and of a port between switches."""

    nic: float
    port: float


@dataclass(frozen=True)
class Cabling:
    """`gpus` GPUs a node with `nics_per_gpu` NICs each; node i is in slot slots[i] of the fabric."""

    fabric: Fabric
    gpus: int
    nics_per_gpu: int
    slots: tuple[int, ...]
    rates: Rates

    @property
    def nodes(self) -> int:
        """How many there are."""
        return len(self.slots)

    @property
    def nics(self) -> int:
        """NICs of a node."""
        return self.gpus * self.nics_per_gpu

    @property
    def aligned(self) -> bool:
        """Whether NICs reach only their like on other nodes without a spine (planes or rails)."""
        return self.fabric.planes > 1 or self.fabric.rails(self.nics) > 1

    @cached_property
    def routes(self) -> Routes:
        """Routes of one plane. Raises Refused (one line) when the fabric can be counted but not wired."""
        return routes(self.fabric.topology)

    @cached_property
    def links(self) -> int:
        """Directed links, NICs included."""
        return 2 * self.ports + self.fabric.planes * links(self.routes)

    @property
    def ports(self) -> int:
        """NICs of all nodes."""
        return self.nodes * self.nics

    def leaf(self, node: Numbers, nic: Numbers) -> Numbers:
        """The leaf, in its plane, that a NIC is plugged into."""
        fabric = self.fabric
        pod = np.asarray(self.slots)[node] // fabric.nodes_per_leaf
        leaf: Numbers = pod * fabric.rails(self.nics) + nic // fabric.planes // fabric.nics_per_leaf
        return leaf

    def endpoint(self, node: Numbers, nic: Numbers) -> Numbers:
        """The endpoint, in its plane, that a NIC is: leaves in order, and the ports of a leaf in order."""
        fabric = self.fabric
        place = np.asarray(self.slots)[node] % fabric.nodes_per_leaf * fabric.nics_per_leaf
        place = place + nic // fabric.planes % fabric.nics_per_leaf
        endpoint: Numbers = self.leaf(node, nic) * fabric.down + place
        return endpoint

    @cached_property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """Classes of links between switches with their numbers in all planes, after those of NICs."""
        inner = tuple((name, count * self.fabric.planes) for name, count in self.routes.classes)
        return tuple((name, self.ports) for name in NIC_CLASSES) + inner

    def class_of(self, numbers: Numbers) -> Numbers:
        """Index into `classes` of links."""
        ports, plane_links = self.ports, links(self.routes)
        stops = np.cumsum([count for _, count in self.routes.classes])
        inner = np.searchsorted(stops, np.maximum(numbers - 2 * ports, 0) % plane_links, side="right")
        index: Numbers = np.where(numbers < 2 * ports, numbers // ports, 2 + inner)
        return index

    def capacity(self, numbers: Numbers) -> npt.NDArray[np.float64]:
        """Effective bytes/s of links."""
        return np.where(numbers < 2 * self.ports, self.rates.nic, self.rates.port)

    def ends(self, numbers: Numbers) -> tuple[tuple[str, str], ...]:
        """What each link comes from and leads to: node3.nic5, plane5.leaf0."""
        of_nics = numbers < 2 * self.ports
        names = dict(zip(numbers[of_nics].tolist(), self._nic_ends(numbers[of_nics]), strict=True))
        names |= dict(zip(numbers[~of_nics].tolist(), self._switch_ends(numbers[~of_nics]), strict=True))
        return tuple(names[number] for number in numbers.tolist())

    def _nic_ends(self, numbers: Numbers) -> list[tuple[str, str]]:
        node, nic = np.divmod(numbers % self.ports, self.nics)
        called = cache(self.fabric.topology.switch_name)
        pairs = [
            (f"node{n}.nic{c}", f"plane{c % self.fabric.planes}.{called(leaf)}")
            for n, c, leaf in zip(node.tolist(), nic.tolist(), self.leaf(node, nic).tolist(), strict=True)
        ]
        return [pair if number < self.ports else pair[::-1] for number, pair in zip(numbers, pairs, strict=True)]

    def _switch_ends(self, numbers: Numbers) -> list[tuple[str, str]]:
        plane, link = np.divmod(numbers - 2 * self.ports, links(self.routes))
        called = cache(self.fabric.topology.switch_name)
        return [
            (f"plane{p}.{called(a)}", f"plane{p}.{called(b)}")
            for p, a, b in zip(plane.tolist(), *(end.tolist() for end in self.routes.ends(link)), strict=True)
        ]


def cabling(cluster: Cluster, placement: str | tuple[int, ...] = "packed", seed: int = 0) -> Cabling:
    """The cabling of a cluster with a fabric. Raises Refused with one line.

    Ports are as fast as the NICs plugged into them unless the scenario states their speed (`hwmodels.collectives`).
    """
    node, fabric = cluster.node, cluster.fabric
    if fabric is None:
        raise Refused("nothing is said about switches; name a fabric", key="cluster.fabric")
    nics = node.gpus * node.nics_per_gpu
    where = slots.allocate(placement, cluster.nodes, fabric.most_nodes(nics), seed)
    rates = Rates(wires(node, fabric).nic.effective, port(node.nic, fabric).effective)
    return Cabling(fabric, node.gpus, node.nics_per_gpu, where, rates)
