"""How long a way through a collective takes, alone.

A step of a ring has a latency and a share of the vector to move; they overlap, so over all steps their times add as the
parts of a norm (of order 1 + `bend`: at 0 they add, at a large one the longer counts), after a latency of the kernel
(`base_us`). A rank's own part costs a fraction of a step (`own`: it is read and written in its own memory). NVSwitches
pass the vector once, after the first chunks of all channels have gone in and out (`fill`); so do messages to all. The
figures are fitted to collectives of one NVLink domain, one at a time (figures.json, by `python -m numerics
collectives`). Across domains nothing is fitted: steps have NCCL's latencies, and bytes pass the slowest of NVLink, the
domain's NICs and what NCCL's source says of a protocol there; a tree with protocol LL128 is filled chunk by chunk.
"""

import math
from collections.abc import Mapping

from hwmodels.collectives import Wires, sharp_seconds
from hwmodels.nccl import tuner
from hwmodels.nccl.tuner import (
    FAR_LL,
    FAR_US,
    LL128_PART,
    LL_PART,
    NEAR_US,
    TREE_LL,
    TREE_LL128,
    TREE_PART,
    Generation,
    late,
    network,
    nvlink,
    per_domain,
    ring_latency_us,
    tree_bytes_s,
    tree_chunk,
    tree_latency_us,
)  # fmt: skip
from hwmodels.nccl.way import DIRECT, LL, LL128, NVLS, NVLS_TREE, RING, SHARP, SIMPLE, TREE, Way, steps
from hwmodels.op import Collective, Send
from hwmodels.units import GIGA, KIB, MICRO

CHUNKS = {
    NVLS: ((64, 128 * KIB), (8, 64 * KIB), (2, 32 * KIB), (0, 16 * KIB)),
    NVLS_TREE: ((4, 128 * KIB), (1, 64 * KIB), (0, 32 * KIB)),
}
"""Bytes of a chunk, where the vector is that many times as long as such chunks of all GPUs and channels together
(NVIDIA/nccl src/enqueue.cc, v2.29.2)."""
SENT_CHUNK = 512 * KIB
"""Bytes of a chunk of a message (NCCL_P2P_NVL_CHUNKSIZE)."""
MANY_DOMAINS = 4
"""From so many domains on a chunk of `NVLS_TREE` is no longer than the second in that list."""
SHARP_US = 31.0
"""Latency of switches that reduce (NVIDIA/nccl src/graph/tuning.cc, CollNetDirect over the network)."""

Figures = Mapping[str, float]


def seconds(way: Way, op: Collective, links: Wires, generation: Generation, figures: Figures) -> float:
    """Of a collective on a way; 0 where there is nobody to send to."""
    if op.ranks <= 1 or not op.size:
        return 0.0
    if way.algorithm == SHARP:
        return sharp_seconds(op, links) + SHARP_US * MICRO
    if way.algorithm == DIRECT:
        return _direct(way, op, links, figures)
    if way.algorithm in (NVLS, NVLS_TREE):
        return _nvls(way, op, links, generation, figures)
    return (_ring if way.algorithm == RING else _tree)(way.protocol, op, links, generation, figures)


def send_seconds(op: Send, links: Wires, figures: Figures) -> float:
    """Of a message to one rank: a copy kernel of `direct`, at the rate of a ring's step."""
    base = figures[f"{DIRECT}.{SIMPLE}.base_us"] * MICRO
    if not op.leaves_node:
        return base + op.size / (nvlink(links, 2) * figures[f"{RING}.{SIMPLE}.part"])
    rate = network(Collective("send", op.size, 1, 1, slower=op.slower), links)
    return base + FAR_US[RING][SIMPLE] * MICRO + (_spine(links) if op.leaves_leaf else 0.0) + op.size / rate


def _ring(protocol: str, op: Collective, links: Wires, generation: Generation, figures: Figures) -> float:
    base, hop, part = (figures[f"{RING}.{protocol}.{name}"] for name in ("base_us", "hop_us", "part"))
    share, inside = op.size / op.ranks, nvlink(links, per_domain(op)) * part
    if op.nodes == 1:
        bytes_s = (steps(op) + figures["own"]) * share / inside
    else:
        bytes_s = steps(op) * share / min(inside if per_domain(op) > 1 else math.inf, _flags(protocol, op, links))
        if protocol == LL:
            bytes_s = max(bytes_s, steps(op) * share / (FAR_LL[op.nodes > 2] * GIGA))
    latency = ring_latency_us(op, protocol, hop) * MICRO + _crossings(op) * _spine(links)
    return base * MICRO + _beside(latency, bytes_s, figures)


def _tree(protocol: str, op: Collective, links: Wires, generation: Generation, figures: Figures) -> float:
    """Nobody measured trees inside a domain: they have the ring's figures times NCCL's ratio of the two."""
    base, hop, part = (figures[f"{RING}.{protocol}.{name}"] for name in ("base_us", "hop_us", "part"))
    hop *= NEAR_US[TREE][protocol] / NEAR_US[RING][protocol]
    ratio = TREE_PART * {LL: TREE_LL / LL_PART, LL128: TREE_LL128[op.nodes > 1] / LL128_PART, SIMPLE: 1.0}[protocol]
    inside = math.inf if per_domain(op) == 1 else nvlink(links, per_domain(op)) * part * ratio
    # every GPU passes the vector up and down; a domain inside the tree sends to its parent and to two children
    rate = inside / 2 if op.nodes == 1 else min(inside / 2, _flags(protocol, op, links) / (1 if op.nodes == 2 else 2))
    latency = tree_latency_us(op, protocol, hop) * MICRO + 2 * math.log2(op.nodes) * _spine(links)
    longest = _beside(latency, op.size / rate, figures)
    if op.nodes > 1:
        longest = max(longest, latency + _far_tree(protocol, op, links, generation))
    return base * MICRO + longest


def _far_tree(protocol: str, op: Collective, links: Wires, generation: Generation) -> float:
    """Seconds of a vector in a tree across domains, beyond its latency: what NCCL's own bandwidths leave it, and with
    LL128 before it its first chunk's way up a domain's ranks, through the tree and down again."""
    channels = tuner.graph(generation, op, links)
    through = late(op.size, protocol) / tree_bytes_s(generation, op, channels, protocol)
    if protocol != LL128:
        return through
    hops = 2 * (per_domain(op) - 1 + math.log2(op.nodes))
    rate = generation.tree_ll128[min(op.nodes, 3) - 1] / 2 * GIGA
    return through + hops * tree_chunk(op, 2 * channels.channels) / rate


def _nvls(way: Way, op: Collective, links: Wires, generation: Generation, figures: Figures) -> float:
    rate = nvlink(links, per_domain(op)) * figures["NVLS.part"]
    levels = 2 * math.log2(op.nodes)  # of the tree of domains, up and down: they fill while the switches do
    first = max(figures["NVLS.fill"], levels) * _loop(way, op, generation) / rate
    if op.nodes > 1:
        deep = op.nodes > 2
        far = generation.nvls_tree[2] / generation.nvls_tree[1] if deep else 1.0
        rate = min(rate * far, network(op, links) / (1 + deep))
    latency = levels * (FAR_US[NVLS_TREE][SIMPLE] * MICRO + _spine(links))
    return figures["NVLS.base_us"] * MICRO + latency + first + op.size / rate


def _loop(way: Way, op: Collective, generation: Generation) -> float:
    """Bytes of a chunk of each GPU on each channel, no more than all."""
    together = per_domain(op) * generation.nvls_channels[op.nodes > 1]
    sizes = CHUNKS[way.algorithm][op.nodes >= MANY_DOMAINS :]
    chunk = next(size for times, size in sizes if op.size >= times * together * size)
    return min(op.size, chunk * together)


def _direct(way: Way, op: Collective, links: Wires, figures: Figures) -> float:
    base, part = (figures[f"{DIRECT}.{way.protocol}.{name}"] for name in ("base_us", "part"))
    share, near, rate = op.size / op.ranks, per_domain(op), nvlink(links, per_domain(op)) * part
    if way.protocol == LL:  # one channel a peer, all peers at once
        return base * MICRO + share / rate
    sent = (near - 1 + figures["own"]) * share if near > 1 else 0.0
    inside = (sent + figures[f"{DIRECT}.{SIMPLE}.fill"] * min(sent, tuner.MOST_CHANNELS * SENT_CHUNK)) / rate
    if op.nodes == 1:
        return base * MICRO + inside
    outside = (op.ranks - near) * share / (network(op, links) / near)
    return (base + FAR_US[RING][SIMPLE]) * MICRO + _spine(links) + max(inside, outside)


def _flags(protocol: str, op: Collective, links: Wires) -> float:
    """Bytes/s of a domain's NICs that are no flags."""
    return network(op, links) * {LL: LL_PART, LL128: LL128_PART, SIMPLE: 1.0}[protocol]


def _beside(latency: float, transfer: float, figures: Figures) -> float:
    power, longer = 1 + figures["bend"], max(latency, transfer)
    return float(longer * (1 + (min(latency, transfer) / longer) ** power) ** (1 / power))


def _crossings(op: Collective) -> int:
    return (op.nodes - 1) * (2 if op.kind == "all_reduce" else 1)


def _spine(links: Wires) -> float:
    """What the spine adds to a step; NCCL's figures have a leaf in them."""
    return max(0.0, links.far_latency_s - links.latency_s)
