"""Networks between nodes as `fabrics/*.yaml` say: fat trees, slim flies and dragonflies, in one or more planes.

A plane is a network of its own: NIC number p of every node is on plane p (multi-plane), or all NICs are on one plane.
NICs of a node that share a plane are on rails: each `nics_per_leaf` of them have leaves of their own (multi-rail).
How a plane is wired, and how many endpoints, switches and cables that makes, is in `topologies/`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwmodels.document import Document, KeyPath, unknown
from hwmodels.figure import HERE, Figure, Reading
from hwmodels.node import Link
from hwmodels.refused import Refused
from hwmodels.shelf import Shelf, expand, names
from hwmodels.topologies import Topology
from hwmodels.topologies.dragonfly import Dragonfly
from hwmodels.topologies.fat_tree import FatTree
from hwmodels.topologies.slim_fly import SlimFly

if TYPE_CHECKING:
    import networkx as nx

SHELF = Shelf("fabric", HERE / "fabrics", "hwmodels/fabrics")

SHAPES = {
    "fat-tree": ("layers",),
    "slim-fly": ("order", "hosts_per_switch"),
    "dragonfly": ("groups", "switches_per_group", "global_ports", "hosts_per_switch"),
}
"""Kind of a plane -> the keys that say its shape."""

KINDS = tuple(SHAPES)

OVERSUBSCRIPTION = "oversubscription"
"""Key of what may be left out of a fat tree: ports of a leaf that look at endpoints over those that look up."""

COSTS = ("switch", "link", "endpoint")

SHARED = (
    "name", "kind", "planes", "nics_per_leaf", "radix", "link", "latency_same_leaf", "latency_cross_leaf", "cost",
    "sharp",
)  # fmt: skip

KEYS = tuple(dict.fromkeys([*SHARED, *(key for keys in SHAPES.values() for key in keys), OVERSUBSCRIPTION]))

NEAR = 0.01
"""Part by which a stated oversubscription may miss that of whole ports (5 to 3 is written 1.67)."""


@dataclass(frozen=True)
class Cost:
    """What a fabric costs in USD: a switch, a cable between switches, and the cable and NIC of an endpoint."""

    switch_usd: float
    link_usd: float
    endpoint_usd: float


@dataclass(frozen=True)
class Fabric:
    """A network of `planes` equal planes of switches with `radix` ports, wired as `topology` says.

    link: of one port. nics_per_leaf: NICs of one node on the same leaf switch (1 when every NIC has its own plane or
    rail). latency_same_leaf_s, latency_cross_leaf_s: end to end, NICs included, through one leaf or through a spine.
    A leaf is any switch that has endpoints. cost: None when nothing is said about money. sharp: part of the NICs' rate
    at which switches reduce what ranks send (SHARP), 0 where they do not.
    """

    name: str
    kind: str
    topology: Topology
    planes: int
    nics_per_leaf: int
    radix: int
    link: Link
    latency_same_leaf_s: float
    latency_cross_leaf_s: float
    cost: Cost | None = None
    sharp: float = 0.0
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, repr=False)

    @property
    def layers(self) -> int:
        """Layers of switches; 1 where all switches are alike."""
        return self.topology.layers

    @property
    def down(self) -> int:
        """Ports of a leaf that look at endpoints."""
        return self.topology.hosts_per_switch

    @property
    def blocking(self) -> bool:
        """Whether leaves have fewer links up than endpoints, so that even traffic can be too much for them."""
        return isinstance(self.topology, FatTree) and self.topology.hosts_per_switch > self.topology.uplinks

    @property
    def nodes_per_leaf(self) -> int:
        """Nodes that share one leaf switch: between them a NIC reaches its like without another switch."""
        return self.down // self.nics_per_leaf

    @property
    def endpoints(self) -> int:
        """NICs that all planes together can join."""
        return self.planes * self.topology.endpoints

    @property
    def switches(self) -> int:
        """Switches of all planes."""
        return self.planes * self.topology.switches

    @property
    def links(self) -> int:
        """Cables between switches, of all planes."""
        return self.planes * self.topology.links

    @property
    def cost_usd(self) -> float:
        """What the whole fabric costs, linear in its parts. Raises Refused when nothing is said about money."""
        if self.cost is None:
            raise Refused(f"{self.name} (fabric) has no cost; write cost: {{switch: ..., link: ..., endpoint: ...}}")
        parts = (self.switches, self.links, self.endpoints)
        each = (self.cost.switch_usd, self.cost.link_usd, self.cost.endpoint_usd)
        return sum(count * price for count, price in zip(parts, each, strict=True))

    @property
    def cost_per_endpoint_usd(self) -> float:
        """The fabric's cost over the endpoints that it can join. Raises Refused as `cost_usd`."""
        return self.cost_usd / self.endpoints

    def rails(self, nics: int) -> int:
        """Leaves that the NICs of one node, `nics` in all, are on in each plane."""
        return math.ceil(nics / (self.planes * self.nics_per_leaf))

    def most_nodes(self, nics: int) -> int:
        """Nodes with `nics` NICs each that it can join, whole pods of rails only."""
        return self.topology.hosting // self.rails(nics) * self.nodes_per_leaf

    def graph(self, endpoints: bool = False) -> "nx.Graph[str]":
        """One plane. Nodes have `layer` (0 the leaves, -1 endpoints), edges `bandwidth` in bytes/s one way and
        `links`, the cables side by side. endpoints: also "nic0", "nic1", ... in leaf order.

        Raises Refused with one line when the plane can be counted but not wired.
        """
        import networkx as nx

        graph: nx.Graph[str] = nx.Graph()
        plane, speed = self.topology, self.link.bandwidth
        called = [plane.switch_name(switch) for switch in range(plane.switches)]
        graph.add_nodes_from((name, {"layer": plane.layer(switch)}) for switch, name in enumerate(called))
        for a, b in plane.cables():
            side = graph.edges[called[a], called[b]]["links"] if graph.has_edge(called[a], called[b]) else 0
            graph.add_edge(called[a], called[b], links=side + 1, bandwidth=(side + 1) * speed)
        for nic in range(plane.endpoints if endpoints else 0):
            graph.add_node(f"nic{nic}", layer=-1)
            graph.add_edge(called[nic // plane.hosts_per_switch], f"nic{nic}", links=1, bandwidth=speed)
        return graph


def load(name: str) -> Fabric:
    """The fabric called `name` in `fabrics/`. Raises DocumentError."""
    return build(Document(name))


def available() -> tuple[str, ...]:
    """Names of the known fabrics."""
    return names(SHELF.folder)


def build(document: Document, key: KeyPath = ()) -> Fabric:
    """The fabric that a document (a name, or a mapping with or without `base:`) describes. Raises DocumentError."""
    reading = Reading(expand(document, SHELF, key), key)
    kind = reading.word("kind")
    shape = SHAPES.get(kind)
    tree = kind == "fat-tree"
    reading.keys(KEYS if shape is None else (*SHARED, *shape, *([OVERSUBSCRIPTION] if tree else [])))
    reading.keys(("bandwidth", "efficiency"), "link")
    speed, share = reading.quantity("data/time", "link", "bandwidth"), reading.quantity("ratio", "link", "efficiency")
    if shape is None and kind:
        reading.problem(("kind",), unknown(kind, "kind", KINDS))
    radix, sizes = reading.count("radix"), [reading.count(name) for name in shape or ()]
    fabric = Fabric(
        name=reading.word("name"),
        kind=kind,
        topology=_topology(kind, radix, sizes, _uplinks(reading, radix) if tree else 0),
        planes=reading.count("planes"),
        nics_per_leaf=reading.count("nics_per_leaf"),
        radix=radix,
        link=Link(speed, share, reading.quantity("time", "latency_same_leaf")),
        latency_same_leaf_s=reading.quantity("time", "latency_same_leaf"),
        latency_cross_leaf_s=reading.quantity("time", "latency_cross_leaf"),
        cost=_cost(reading),
        sharp=_sharp(reading),
        figures=reading.figures,
    )
    if shape and not reading.problems:
        _check(fabric, reading)
    reading.check()
    return fabric


def _topology(kind: str, radix: int, sizes: list[int], uplinks: int) -> Topology:
    """The plane of a kind; `sizes` in the order of SHAPES."""
    if kind == "slim-fly":
        return SlimFly(*sizes)
    return Dragonfly(*sizes) if kind == "dragonfly" else FatTree(radix, (sizes or [2])[0], uplinks)


def _uplinks(reading: Reading, radix: int) -> int:
    """Ports of a leaf that look up; 0 where nothing is said. What no whole number of ports gives is noted."""
    if reading.content(OVERSUBSCRIPTION) is None:
        return 0
    ratio = reading.quantity("ratio", OVERSUBSCRIPTION)
    up = min(max(1, round(radix / (1 + ratio))), max(1, radix - 1))
    nearest = (radix - up) / up
    if ratio and abs(nearest / ratio - 1) > NEAR:
        where = f"expected a ratio that {radix} ports can be split in, e.g. {nearest:.4g} ({radix - up} down, {up} up)"
        reading.problem((OVERSUBSCRIPTION,), f"{where}; found {ratio:g}")
    return up


def _sharp(reading: Reading) -> float:
    if reading.content("sharp") is None:
        return 0.0
    part = reading.quantity("ratio", "sharp")
    if part > 1:
        reading.problem(("sharp",), f"expected a ratio from 0 to 1; found {part:g}")
    return part


def _cost(reading: Reading) -> Cost | None:
    if reading.content("cost") is None or not reading.keys(COSTS, "cost"):
        return None
    return Cost(*(reading.quantity("money", "cost", part) for part in COSTS))


def _check(fabric: Fabric, reading: Reading) -> None:
    """Note what cannot be wired: odd ports, too many, groups out of reach, NICs that do not share leaves evenly."""
    plane, radix = fabric.topology, fabric.radix
    if isinstance(plane, FatTree):
        if plane.layers not in (2, 3):
            reading.problem(("layers",), f"a fat tree has 2 or 3 layers here; found {plane.layers}")
        if radix % 2:
            reading.problem(("radix",), f"half the ports look down, half up: expected an even number; found {radix}")
    elif plane.ports > radix:
        reading.problem(("radix",), f"a switch uses {plane.ports} ports, more than its {radix}")
    if isinstance(plane, SlimFly) and plane.residue == 2:
        reading.problem(("order",), f"expected 4w - 1, 4w or 4w + 1 (e.g. {plane.buildable()}); found {plane.order}")
    if isinstance(plane, Dragonfly):
        _check_groups(plane, reading)
    if plane.hosts_per_switch % fabric.nics_per_leaf:
        actual = f"found {fabric.nics_per_leaf}"
        reading.problem(("nics_per_leaf",), f"expected a divisor of {plane.hosts_per_switch} ports; {actual}")


def _check_groups(plane: Dragonfly, reading: Reading) -> None:
    most = plane.outward + 1
    if not 2 <= plane.groups <= most:
        each = f"{plane.switches_per_group} switches x {plane.global_ports} global ports reach"
        reading.problem(("groups",), f"expected 2 to {most} groups ({each} {most - 1} others); found {plane.groups}")
    elif plane.outward * plane.groups % 2:
        reading.problem(("groups",), f"{plane.outward} global ports x {plane.groups} groups is odd: one has no mate")
