"""Which way NCCL takes: the one that its own table says is the fastest.

The figures are those of src/graph/tuning.cc, topo.h, search.cc, nvls.cc and enqueue.cc of NVIDIA/nccl (v2.29.2 where
nothing else is said; v2.27.3 has the same latencies): microseconds, and GB/s of bus bandwidth. None is fitted. They
decide alone what is taken, not how long it takes (`timing`).
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from hwmodels.collectives import Wires
from hwmodels.nccl.way import DIRECT, LL, LL128, NVLS, NVLS_TREE, PROTOCOLS, RING, SIMPLE, TREE, Way, far_steps, steps
from hwmodels.op import Collective
from hwmodels.units import GIGA, KIB, MICRO

BASE_US = {
    RING: {LL: 6.6, LL128: 14.0, SIMPLE: 8.4}, TREE: {LL: 6.8, LL128: 14.0, SIMPLE: 8.4},
    NVLS: {SIMPLE: 0.0}, NVLS_TREE: {SIMPLE: 0.0},
}  # fmt: skip
"""Latency of a collective without steps."""
NEAR_US = {
    RING: {LL: 0.6, LL128: 1.9, SIMPLE: 3.4}, TREE: {LL: 0.6, LL128: 1.25, SIMPLE: 4.0},
    NVLS: {SIMPLE: 25.0}, NVLS_TREE: {SIMPLE: 25.0},
}  # fmt: skip
"""That of a step over NVLink."""
FAR_US = {
    RING: {LL: 2.7, LL128: 4.0, SIMPLE: 14.0}, TREE: {LL: 5.0, LL128: 8.5, SIMPLE: 14.0}, NVLS_TREE: {SIMPLE: 20.9},
}  # fmt: skip
"""That of a step over the network."""
POSTED_US = {LL: 1.0, LL128: 1.0, SIMPLE: 3.0}
"""Least latency of a step of a ring that crosses domains: its host posts each message (Intel processors; three times
with Simple)."""
PLATEAU = 1.4
"""Latency of rings with protocol Simple across domains, over that of their steps."""
FAR_LL = (39.0, 20.4)
"""Bus bandwidth of protocol LL on two domains and on more, with Intel processors."""
LL_PART, LL128_PART, TREE_PART, TREE_LL, TREE_LL128 = 0.5, 0.92, 0.92, 1 / 3.8, (7 / 9, 120 / 128)
"""Parts of the links' bandwidth: of a ring with LL and LL128; of a tree, and of that with LL and LL128 (one domain, and
several)."""
NIC_REACHED = 0.96
"""Part of a NIC's bandwidth: 48 of 50 GB/s (search.cc; NVIDIA staff in NVIDIA/nccl-tests issue 267: 48 to 49)."""
MOST_CHANNELS = 32
"""Channels that a graph may have (half of MAXCHANNELS)."""
SLOWER = 0.49
"""Speed of a channel over the fastest possible, down to which NCCL looks for more of them."""
HEADS = 32
"""GPUs of a domain that NVLS counts on at most (NCCL_MAX_NVLS_ARITY)."""
SMALLEST = 6
"""Binary logarithm of the smallest size in `TREE_LATE`."""
TREE_LATE = {
    LL: (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    LL128: (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9),
    SIMPLE: (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8,
             0.9, 0.9),
}  # fmt: skip
"""Bandwidth of trees at medium sizes, from 64 bytes on in powers of two, over that of large ones."""
LL128_SLOT = 576000.0
"""Bytes of a slot of the buffer of LL128 (src/include/device.h: 120 elements of 8 bytes for each of 640 threads, of
which 15 of 16 are no flags)."""
MULTICAST = ("bf16", "fp16", "fp32")
"""Formats that NVSwitches add up; those of 8 bits are not among them."""
EAGER_BYTES = 16384
"""Message to one rank up to which `direct` takes protocol LL (NCCL_P2P_LL_THRESHOLD)."""


class Generation(NamedTuple):
    """What NCCL knows of a generation of GPUs. Tuples are for one domain, two, and more.

    link: what it counts on of the nominal NVLink bandwidth. speeds: GB/s of a channel that it tries, in order.
    ll: most bus bandwidth of LL in a domain. ring_ll128, tree_ll128, tree, nvls_tree: most of a channel. nvls: part of
    NVLink's bandwidth that NVSwitches reach, 0 without. nvls_channels: in one domain, and in several.
    """

    link: float
    speeds: tuple[float, ...]
    ll: float
    ring_ll128: tuple[float, float, float]
    tree_ll128: tuple[float, float, float]
    tree: tuple[float, float, float]
    nvls_tree: tuple[float, float, float]
    nvls: float
    nvls_channels: tuple[int, int]


GENERATIONS = {
    "ampere": Generation(
        20.0 / 25, (40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3), 87.7, (20, 20, 20), (20, 20, 20), (24, 23.6, 17.8),
        (24, 23.6, 17.8), 0.0, (0, 0),
    ),
    "hopper": Generation(
        20.6 / 25, (60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3), 141.0, (36.7, 36.7, 36.7), (36.7, 36.7, 29.0),
        (38.7, 41.4, 36.0), (0, 57.7, 45.5), 0.85, (16, 16),
    ),
    "blackwell": Generation(
        40.1 / 50, (90, 80, 70, 60, 50, 45, 40, 30, 24, 20, 19, 18), 282.0, (34.5, 34.6, 34.5), (55.6, 31.67, 20.0),
        (70.0, 42.8, 24.0), (0, 96.0, 43.8), 0.74, (24, 32),
    ),
}  # fmt: skip
"""Architecture of a device -> what NCCL knows of it."""


class Graph(NamedTuple):
    """What NCCL searched for on a domain: channels, and the bus bandwidth of all of them in GB/s. A ring or tree then
    runs on twice as many."""

    channels: int
    bandwidth: float


def nvlink(links: Wires, ranks: int) -> float:
    """Nominal bytes/s of a GPU that talks to the other `ranks` of its domain."""
    return links.nvlink.between(ranks) / links.nvlink.efficiency


def per_domain(op: Collective) -> int:
    """Ranks of a domain."""
    return max(1, math.ceil(op.ranks / op.nodes))


def network(op: Collective, links: Wires) -> float:
    """Bytes/s of all NICs of a domain, one way."""
    return links.nic.bandwidth * links.nics * NIC_REACHED * op.ranks / op.nodes / op.slower


def graph(generation: Generation, op: Collective, links: Wires) -> Graph:
    """Channels and bandwidth that rings and trees have."""
    if per_domain(op) == 1:
        return _doubled(generation, links.nics, network(op, links) / GIGA)
    total = nvlink(links, per_domain(op)) * generation.link / GIGA
    legal = [speed for speed in generation.speeds if speed <= total] or [total]
    near = [speed for speed in legal if speed > SLOWER * legal[0]]
    bandwidth, speed = max((total // speed * speed, speed) for speed in near)
    inside = _doubled(generation, int(bandwidth // speed), bandwidth)
    if op.nodes == 1:
        return inside
    outside = _doubled(generation, links.nics * per_domain(op), network(op, links) / GIGA)
    return Graph(min(inside.channels, outside.channels), min(inside.bandwidth, outside.bandwidth))


def _doubled(generation: Generation, channels: int, bandwidth: float) -> Graph:
    """Twice the channels where each is fast, save where they are many enough."""
    each = bandwidth / channels
    many = generation.nvls and each < 50 and channels > 4
    twice = each >= 25 and not many
    return Graph(min(channels * (1 + twice), MOST_CHANNELS), bandwidth)


def choice(generation: Generation, op: Collective, links: Wires, algorithm: str = "", protocol: str = "") -> Way | None:
    """The way that NCCL takes; among those of an algorithm or a protocol, where one is said (NCCL_ALGO, NCCL_PROTO);
    None where there is none."""
    legal = (
        (us, way)
        for way, us in estimates(generation, op, links)
        if algorithm in ("", way.algorithm) and protocol in ("", way.protocol)
    )
    return min(legal, default=(0.0, None), key=lambda each: each[0])[1]


def estimates(generation: Generation, op: Collective, links: Wires) -> Iterator[tuple[Way, float]]:
    """Ways through a collective, with the microseconds that NCCL believes each to take."""
    if op.kind == "all_to_all":
        eager = op.nodes == 1 and op.size / op.ranks <= EAGER_BYTES
        yield Way(DIRECT, LL if eager else SIMPLE), 0.0
        return
    channels = graph(generation, op, links)
    for protocol in PROTOCOLS:
        yield Way(RING, protocol), _ring_us(generation, op, channels, protocol)
    if op.kind != "all_reduce":
        return
    for protocol in PROTOCOLS:
        yield Way(TREE, protocol), _tree_us(generation, op, channels, protocol)
    if switched(generation, op, links):
        yield Way(NVLS if op.nodes == 1 else NVLS_TREE, SIMPLE), _nvls_us(generation, op, links)


def switched(generation: Generation, op: Collective, links: Wires) -> bool:
    """Whether NVSwitches can reduce what is sent: two ranks or more of a domain around a switch that knows the
    format."""
    return bool(generation.nvls) and not links.nvlink.peers and per_domain(op) > 1 and op.form in MULTICAST


def _ring_us(generation: Generation, op: Collective, channels: Graph, protocol: str) -> float:
    place, bus = _place(op), channels.bandwidth
    if protocol == LL:
        bus = min(bus * LL_PART, generation.ll if op.nodes == 1 else FAR_LL[place - 1])
    elif protocol == LL128:
        bus = min(bus * LL128_PART, channels.channels * generation.ring_ll128[place])
    latency = BASE_US[RING][protocol] + ring_latency_us(op, protocol, NEAR_US[RING][protocol])
    if op.nodes > 1 and protocol == SIMPLE and op.kind == "all_reduce":
        latency *= PLATEAU
    return latency + op.size * steps(op) / op.ranks / (bus * GIGA) / MICRO


def ring_latency_us(op: Collective, protocol: str, near_us: float) -> float:
    """Of all steps of a ring. near_us: of one inside a domain."""
    far_us = FAR_US[TREE if per_domain(op) == 1 else RING][protocol]
    near_us = max(near_us, POSTED_US[protocol]) if op.nodes > 1 else near_us
    return (steps(op) - far_steps(op)) * near_us + far_steps(op) * far_us


def _tree_us(generation: Generation, op: Collective, channels: Graph, protocol: str) -> float:
    parts, logarithm = TREE_LATE[protocol], int(math.log2(max(1.0, op.size))) - SMALLEST
    part = parts[logarithm] if 0 <= logarithm < len(parts) else 1.0
    latency = BASE_US[TREE][protocol] + tree_latency_us(op, protocol, NEAR_US[TREE][protocol])
    return latency + op.size / (tree_bytes_s(generation, op, channels, protocol) * part) / MICRO


def tree_bytes_s(generation: Generation, op: Collective, channels: Graph, protocol: str) -> float:
    """Bytes/s of a large vector through a tree, as NCCL has it."""
    place = _place(op)
    bus = min(channels.bandwidth * TREE_PART, channels.channels * generation.tree[place])
    if protocol == LL:
        bus = min(bus * TREE_LL, generation.ll if op.nodes == 1 else FAR_LL[place - 1])
    elif protocol == LL128:
        bus = min(bus * TREE_LL128[op.nodes > 1], channels.channels * generation.tree_ll128[place])
    return bus / 2 * GIGA


def late(size: float, protocol: str) -> float:
    """Bytes of a large vector that pass a tree as long as these: medium ones have a part of its bandwidth, and none
    passes sooner than a smaller one."""
    parts = [(2.0 ** (SMALLEST + i), part) for i, part in enumerate(TREE_LATE[protocol])]
    return max(size, *(min(size, 2 * start) / part for start, part in parts if start <= size), 0.0)


def tree_chunk(op: Collective, channels: int) -> float:
    """Bytes that a channel of a tree with protocol LL128 passes on at once (src/enqueue.cc: a slot of the buffer,
    halved while there are few of them for its steps)."""
    chunk, ranks = LL128_SLOT, per_domain(op)
    hops = 1 + int(math.log2(op.nodes)) + 0.1 * ranks
    for times, least in ((64, 128 * KIB), (16, 32 * KIB)):
        while op.size // (channels * chunk) < hops * times / ranks and chunk > least:
            chunk /= 2
    return min(chunk, op.size / channels)


def tree_latency_us(op: Collective, protocol: str, near_us: float) -> float:
    """Up and down a chain of a domain's ranks and a tree of domains. near_us: of a step inside a domain."""
    return 2 * ((per_domain(op) - 1) * near_us + math.log2(op.nodes) * FAR_US[TREE][protocol])


def _nvls_us(generation: Generation, op: Collective, links: Wires) -> float:
    others = 1 - 1 / min(per_domain(op), HEADS)
    bus = 2 * nvlink(links, per_domain(op)) * generation.link * generation.nvls * others**2 / GIGA
    latency = NEAR_US[NVLS][SIMPLE]
    if op.nodes > 1:
        place = _place(op)
        outside = network(op, links) / GIGA * (2 if op.nodes == 2 else 1)
        bus = min(bus, outside, min(per_domain(op), HEADS) * generation.nvls_tree[place])
        latency += 2 * math.floor(math.log2(op.nodes)) * FAR_US[NVLS_TREE][SIMPLE]
    return latency + op.size * steps(op) / op.ranks / (bus * GIGA) / MICRO


def _place(op: Collective) -> int:
    """Where figures for one domain, two and more stand."""
    return min(op.nodes, 3) - 1
