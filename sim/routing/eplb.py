"""Redundant experts: which experts to copy and where to put the copies so that GPUs are loaded alike.

The Expert Parallelism Load Balancer of DeepSeek (github.com/deepseek-ai/EPLB, README), written from its description:
groups of experts are packed to nodes, the busiest experts are copied within their node, the copies packed to its GPUs
(hierarchical); when groups do not divide over the nodes, all experts are copied and packed at once (global). Packing is
greedy: the heaviest first, each to the lightest pack that has room; equal weights keep their order.
"""

import heapq

import numpy as np
import numpy.typing as npt

from hwmodels.refused import Refused
from sim.routing.hosts import Hosts, in_order

Weights = npt.NDArray[np.float64]
Experts = npt.NDArray[np.int64]


def place(load: npt.ArrayLike, slots: int, groups: int, nodes: int, ranks: int) -> Experts:
    """The expert in each slot [slots], for tokens of each expert [experts]; neighbouring slots share a rank.

    Raises Refused when slots, ranks or groups do not divide, or when there are fewer slots than experts.
    """
    weights = np.asarray(load, dtype=np.float64)
    _check(len(weights), slots, groups, nodes, ranks)
    if groups % nodes:
        groups = nodes = 1
    size = len(weights) // groups
    by_node = packed(weights.reshape(groups, size).sum(axis=1), nodes)
    within = np.arange(size)
    placed = [
        _fill(weights, (group[:, None] * size + within).ravel(), slots // nodes, ranks // nodes) for group in by_node
    ]
    return np.concatenate(placed)


def _check(experts: int, slots: int, groups: int, nodes: int, ranks: int) -> None:
    if slots < experts:
        raise Refused(f"{experts} experts need as many slots; got {slots}")
    for name, value, by, divisor in (
        ("slots", slots, "ranks", ranks), ("ranks", ranks, "nodes", nodes), ("experts", experts, "groups", groups),
    ):  # fmt: skip
        if value % divisor:
            raise Refused(f"{name} {value} cannot be divided by {by} {divisor}")


def _fill(weights: Weights, experts: Experts, slots: int, ranks: int) -> Experts:
    """`experts` and copies of them in the slots of one node."""
    chosen = experts[replicated(weights[experts], slots)]
    copies = np.bincount(chosen, minlength=len(weights))
    return chosen[packed((weights / np.maximum(copies, 1))[chosen], ranks).ravel()]


def replicated(weights: Weights, slots: int) -> Experts:
    """Items 0, 1, ... and then, for each slot left, the item with the largest weight per copy so far."""
    copies = np.ones(len(weights))
    more = []
    for _ in range(slots - len(weights)):
        more.append(int(np.argmax(weights / copies)))
        copies[more[-1]] += 1
    return np.concatenate([np.arange(len(weights)), np.array(more, dtype=np.int64)])


def packed(weights: Weights, packs: int) -> Experts:
    """Items [packs, items of each], as many in every pack. With one item a pack they keep their order."""
    room = len(weights) // packs
    if room == 1:
        return np.arange(packs)[:, None]
    filled: list[list[int]] = [[] for _ in range(packs)]
    open_ = [(0.0, pack) for pack in range(packs)]
    for item in np.argsort(-weights, kind="stable").tolist():
        weight, lightest = open_[0]
        filled[lightest].append(item)
        if len(filled[lightest]) < room:
            heapq.heapreplace(open_, (weight + float(weights[item]), lightest))
        else:
            heapq.heappop(open_)
    return np.array(filled, dtype=np.int64)


def hosts(load: npt.ArrayLike, redundant: int, groups: int, ranks: int, gpus_per_node: int) -> Hosts:
    """Hosts of a layer's experts with `redundant` copies, for the load [experts] it is expected to have.

    Without copies experts stay in order, as they are trained. A group that ends inside a node is packed at once.
    """
    if not redundant:
        return in_order(np.size(load), ranks, gpus_per_node)
    nodes = 1 if ranks % gpus_per_node else ranks // gpus_per_node
    experts = place(load, np.size(load) + redundant, groups, nodes, ranks)
    return Hosts(experts, ranks, gpus_per_node)
