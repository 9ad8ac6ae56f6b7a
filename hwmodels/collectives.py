"""How long communication takes alone: closed forms over the links of one rank. No result is below the bandwidth bound.

An all-to-all costs the largest port load over that port's effective bandwidth (in a non-blocking plane this is the
max-min fair answer); rings cost their bytes over the slowest hop plus a latency a step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from hwmodels.fabric import Fabric
from hwmodels.figure import OVERRIDE, Figure
from hwmodels.node import Link, Node
from hwmodels.op import AllToAll, Collective, HostCopy, Send

ENOUGH_SMS = 20
"""SMs that saturate InfiniBand and NVLink with warp-specialised kernels (DeepSeek-V3 report, arXiv 2412.19437,
sec 3.2.2). Fewer move proportionally less; more move no more."""


class Hindrance(NamedTuple):
    """Slow-down of some traffic by links between switches. slower: its time over its time on NICs alone, 1 or more.
    exchanges: exchanges' load on this traffic's busiest link, over their load on a NIC."""

    slower: float = 1.0
    exchanges: float = 0.0


UNHINDERED = Hindrance()


@dataclass(frozen=True)
class Wires:
    """Links as one rank sees them. latency_s: across a leaf switch; far_latency_s: across the spine.

    slower: how many times longer exchanges take than on NICs alone, for links between switches; shared_slower: and
    with other traffic on those. left: part of the NICs that other traffic leaves to exchanges. sharp: part of the NICs'
    rate at which switches reduce what ranks send, 0 where they do not.
    """

    nvlink: Link
    nic: Link
    nics: int
    pcie: Link
    latency_s: float
    far_latency_s: float
    slower: float = 1.0
    shared_slower: float = 1.0
    left: float = 1.0
    sharp: float = 0.0

    @property
    def alone(self) -> "Wires":
        """The links as exchanges find them by themselves."""
        return self.slowed(self.slower)

    @property
    def shared(self) -> "Wires":
        """The links as exchanges find them beside other traffic, on NICs or between switches, whichever is slower."""
        return self.slowed(max(self.slower, self.shared_slower, 1 / self.left))

    def slowed(self, factor: float) -> "Wires":
        """Wires with NICs so many times slower."""
        return self if factor == 1 else replace(self, nic=replace(self.nic, bandwidth=self.nic.bandwidth / factor))

    @property
    def nominal(self) -> "Wires":
        """The links at all of their bandwidth."""
        nvlink, nic = replace(self.nvlink, efficiency=1.0), replace(self.nic, efficiency=1.0)
        return replace(self, nvlink=nvlink, nic=nic)

    @property
    def network(self) -> float:
        """Effective bytes/s of the rank's NICs, each way."""
        return self.nic.effective * self.nics


def wires(node: Node, fabric: Fabric | None, slower: float = 1.0, shared_slower: float = 1.0) -> Wires:
    """Links of a rank in a cluster of such nodes.

    slower, shared_slower: see Wires. A NIC is no faster than the port that it is plugged into.
    """
    if fabric is None:
        latency = node.nic.latency_s
        return Wires(node.nvlink, node.nic, node.nics_per_gpu, host_link(node), latency, latency)
    nic, plug = node.nic, port(node.nic, fabric)
    if plug.effective < nic.effective:
        nic = replace(nic, bandwidth=plug.effective / nic.efficiency)
    near, far = _latencies(node, fabric)
    return Wires(
        node.nvlink, nic, node.nics_per_gpu, host_link(node), near, far, slower, shared_slower, sharp=fabric.sharp
    )


def port(nic: Link, fabric: Fabric) -> Link:
    """A port of the switches. Those of a shipped fabric are as fast as the NICs plugged into them; what a scenario
    states of a port counts."""
    link = fabric.link
    bandwidth = link.bandwidth if _stated(fabric.figures, "link.bandwidth") else nic.bandwidth
    return Link(bandwidth, link.efficiency if _stated(fabric.figures, "link.efficiency") else nic.efficiency, 0.0)


def _stated(figures: Mapping[str, Figure], key: str) -> bool:
    """Whether a scenario states a figure, not a document that ships."""
    return key in figures and figures[key].source == OVERRIDE


def _latencies(node: Node, fabric: Fabric) -> tuple[float, float]:
    """Across a leaf switch and across the spine, end to end: the fabric's, NICs included. Where a scenario states the
    NIC's alone, which is through one switch too, it counts, and the spine adds to it what it adds in the fabric."""
    near, far = fabric.latency_same_leaf_s, fabric.latency_cross_leaf_s
    if not _stated(node.figures, "nic.latency") or _stated(fabric.figures, "latency_same_leaf"):
        return near, far
    return node.nic.latency_s, far if _stated(fabric.figures, "latency_cross_leaf") else node.nic.latency_s + far - near


def host_link(node: Node) -> Link:
    """Between a GPU and host memory: PCIe, unless the memory behind it is slower. The documents' latencies are both of
    one round trip, so they do not add."""
    memory, pcie = node.device.host, node.pcie
    part = min(1.0, memory.bandwidth_bytes_per_s / pcie.bandwidth)
    return Link(pcie.bandwidth * part, pcie.efficiency, max(pcie.latency_s, memory.latency_s))


def exchange_bound_seconds(op: AllToAll, links: Wires) -> float:
    """The bandwidth bound: bytes over the network at the NIC's rate or over NVLink at its rate, whichever is longer."""
    return max(op.wire_bytes() / links.network, op.nvlink_bytes() / links.nvlink.between(op.group // op.group_nodes))


def exchange_seconds(op: AllToAll, links: Wires, sms: int) -> float:
    """One dispatch or combine alone, `sms` SMs driving it."""
    latency = links.latency_s if op.group_nodes > 1 else 0.0
    return exchange_bound_seconds(op, links) * max(1.0, ENOUGH_SMS / sms) + latency + links.nvlink.latency_s


def send_seconds(op: Send, links: Wires) -> float:
    """One pipeline message to a neighbour stage."""
    if not op.leaves_node:
        return op.size / links.nvlink.between(2) + links.nvlink.latency_s
    return op.size / links.network * op.slower + (links.far_latency_s if op.leaves_leaf else links.latency_s)


def collective_seconds(op: Collective, links: Wires) -> float:
    """A ring over `ranks` on `nodes` nodes: each node passes the vector through all its ranks' NICs and over NVLink. An
    all-reduce goes by switches that reduce where that is faster. In an all-to-all each rank sends to each other."""
    if op.ranks <= 1 or not op.size:
        return 0.0
    if op.kind == "all_to_all":
        return _to_all_seconds(op, links)
    ring = _ring_seconds(op, links)
    return min(ring, sharp_seconds(op, links)) if links.sharp and op.nodes > 1 and op.kind == "all_reduce" else ring


def sharp_seconds(op: Collective, links: Wires) -> float:
    """An all-reduce in the switches: each node sends its sum up once and gets that of all back once, while the sums of
    nodes are made and handed on over NVLink (a reduce-scatter and an all-gather)."""
    per_node = op.ranks / op.nodes
    across = links.nic.bandwidth * links.nics * links.sharp * per_node / op.slower
    inside = 2 * op.size * (1 - 1 / per_node) / links.nvlink.between(math.ceil(per_node))
    return max(op.size / across, inside) + 2 * math.log2(per_node) * links.nvlink.latency_s + links.far_latency_s


def _to_all_seconds(op: Collective, links: Wires) -> float:
    """The largest port load."""
    outside, inside = op.wire_bytes(), op.bytes() - op.wire_bytes()
    latency = links.nvlink.latency_s + (links.far_latency_s if op.nodes > 1 else 0.0)
    near = links.nvlink.between(math.ceil(op.ranks / op.nodes))
    return max(outside / links.network * op.slower, inside / near) + latency


def _ring_seconds(op: Collective, links: Wires) -> float:
    per_node = op.ranks / op.nodes
    across = links.network * per_node / op.slower
    inside = links.nvlink.between(math.ceil(per_node))
    rate = across if per_node <= 1 else inside if op.nodes == 1 else min(across, inside)
    passes = 2 if op.kind == "all_reduce" else 1
    far = links.far_latency_s if op.nodes > 1 else 0.0
    ring = (op.ranks - op.nodes) * links.nvlink.latency_s + op.nodes * far
    tree = math.log2(per_node) * links.nvlink.latency_s + math.log2(op.nodes) * far
    # small vectors go up and down a tree, where the number of hops is what counts
    hops = min(ring, tree) if op.kind == "all_reduce" else ring
    return op.bytes() / rate + passes * hops


def host_seconds(op: HostCopy, links: Wires) -> float:
    return op.size / links.pcie.effective + links.pcie.latency_s
