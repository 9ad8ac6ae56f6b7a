"""Networks between nodes: fat trees in one or more planes, as `fabrics/*.yaml` say.

A plane is a network of its own: NIC number p of every node is on plane p (multi-plane), or all NICs are on one
plane. In a folded-Clos ("fat tree") plane of radix k, half of a switch's ports look down, half up: two layers join
k*k/2 endpoints with k leaves and k/2 spines, three layers join k^3/4 (Al-Fares et al., SIGCOMM 2008).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwmodels.document import Document, KeyPath
from hwmodels.figure import HERE, Figure, Reading
from hwmodels.node import Link
from hwmodels.shelf import Shelf, expand, names

if TYPE_CHECKING:
    import networkx as nx

SHELF = Shelf("fabric", HERE / "fabrics", "hwmodels/fabrics")

KINDS = ("fat-tree",)

KEYS = (
    "name", "kind", "planes", "nics_per_leaf", "radix", "layers", "link",
    "latency_same_leaf", "latency_cross_leaf",
)  # fmt: skip


@dataclass(frozen=True)
class Fabric:
    """A network of `planes` equal planes of switches with `radix` ports in `layers` layers.

    link: of one port. nics_per_leaf: NICs of one node on the same leaf switch (1 when every NIC has its own plane or
    rail). latency_same_leaf_s, latency_cross_leaf_s: end to end, NICs included, through one leaf or through a spine.
    """

    name: str
    kind: str
    planes: int
    nics_per_leaf: int
    radix: int
    layers: int
    link: Link
    latency_same_leaf_s: float
    latency_cross_leaf_s: float
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, repr=False)

    @property
    def down(self) -> int:
        """Ports of a switch that look down."""
        return self.radix // 2

    @property
    def nodes_per_leaf(self) -> int:
        """Nodes that share one leaf switch: between them a NIC reaches its like without a spine."""
        return self.down // self.nics_per_leaf

    @property
    def endpoints(self) -> int:
        """NICs that all planes together can join."""
        return int(self.planes * 2 * self.down**self.layers)

    @property
    def switches(self) -> int:
        """Switches of all planes: each layer has 2*(k/2)^(layers-1), the top one half as many."""
        return int(self.planes * (2 * self.layers - 1) * self.down ** (self.layers - 1))

    @property
    def links(self) -> int:
        """Links between switches, of all planes: as many between two layers as there are endpoints."""
        return self.endpoints * (self.layers - 1)

    def graph(self, endpoints: bool = False) -> "nx.Graph[str]":
        """One plane. Nodes have `layer` (0 the leaves, -1 endpoints), edges `bandwidth` in bytes/s one way.

        Switches are "leaf3", "spine7" in two layers; "leaf3.1", "middle3.2" (pod.index) and "core5" in three.
        endpoints: also "nic0", "nic1", ... in leaf order.
        """
        import networkx as nx

        graph: nx.Graph[str] = nx.Graph()
        leaves = self._two_layers(graph) if self.layers == 2 else self._three_layers(graph)
        for index, leaf in enumerate(leaves if endpoints else ()):
            for port in range(self.down):
                name = f"nic{index * self.down + port}"
                graph.add_node(name, layer=-1)
                graph.add_edge(leaf, name, bandwidth=self.link.bandwidth)
        return graph

    def _two_layers(self, graph: "nx.Graph[str]") -> list[str]:
        leaves = [f"leaf{i}" for i in range(self.radix)]
        spines = [f"spine{i}" for i in range(self.down)]
        graph.add_nodes_from(leaves, layer=0)
        graph.add_nodes_from(spines, layer=1)
        graph.add_edges_from(((leaf, spine) for leaf in leaves for spine in spines), bandwidth=self.link.bandwidth)
        return leaves

    def _three_layers(self, graph: "nx.Graph[str]") -> list[str]:
        half, speed = self.down, self.link.bandwidth
        pods = range(self.radix)
        graph.add_nodes_from((f"leaf{p}.{i}" for p in pods for i in range(half)), layer=0)
        graph.add_nodes_from((f"middle{p}.{i}" for p in pods for i in range(half)), layer=1)
        graph.add_nodes_from((f"core{i}" for i in range(half * half)), layer=2)
        for p in pods:
            for i in range(half):
                graph.add_edges_from(((f"leaf{p}.{i}", f"middle{p}.{j}") for j in range(half)), bandwidth=speed)
                graph.add_edges_from(((f"middle{p}.{i}", f"core{i * half + j}") for j in range(half)), bandwidth=speed)
        return [f"leaf{p}.{i}" for p in pods for i in range(half)]


def load(name: str) -> Fabric:
    """The fabric called `name` in `fabrics/`. Raises DocumentError."""
    return build(Document(name))


def available() -> tuple[str, ...]:
    """Names of the known fabrics."""
    return names(SHELF.folder)


def build(document: Document, key: KeyPath = ()) -> Fabric:
    """The fabric that a document (a name, or a mapping with or without `base:`) describes. Raises DocumentError."""
    reading = Reading(expand(document, SHELF, key), key)
    reading.keys(KEYS)
    reading.keys(("bandwidth", "efficiency"), "link")
    speed, share = reading.quantity("data/time", "link", "bandwidth"), reading.quantity("ratio", "link", "efficiency")
    fabric = Fabric(
        name=reading.word("name"),
        kind=reading.word("kind"),
        planes=reading.count("planes"),
        nics_per_leaf=reading.count("nics_per_leaf"),
        radix=reading.count("radix"),
        layers=reading.count("layers"),
        link=Link(speed, share, reading.quantity("time", "latency_same_leaf")),
        latency_same_leaf_s=reading.quantity("time", "latency_same_leaf"),
        latency_cross_leaf_s=reading.quantity("time", "latency_cross_leaf"),
        figures=reading.figures,
    )
    _check(fabric, reading)
    reading.check()
    return fabric


def _check(fabric: Fabric, reading: Reading) -> None:
    if fabric.kind and fabric.kind not in KINDS:
        reading.problem(("kind",), f"unknown kind {fabric.kind!r}; legal: {', '.join(KINDS)}")
    if fabric.layers and fabric.layers not in (2, 3):
        reading.problem(("layers",), f"a fat tree has 2 or 3 layers here; found {fabric.layers}")
    if fabric.radix % 2:
        reading.problem(("radix",), f"half the ports look down, half up: expected an even number; found {fabric.radix}")
    if fabric.nics_per_leaf and fabric.radix // 2 % fabric.nics_per_leaf:
        found = f"found {fabric.nics_per_leaf}"
        reading.problem(("nics_per_leaf",), f"expected a divisor of {fabric.radix // 2} ports; {found}")
