"""An exchange message by message: rows pass four kinds of ports, each first in, first out, by `free_at` arithmetic.

Every rank sends to the nodes in turn, starting beside its own, so that in each round a port has one partner; a message
holds the sender's and the receiver's port together. What has arrived is forwarded over NVLink in the same fashion.
Each port serves its messages in the order in which they were issued. Times are whole nanoseconds.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import Wires
from hwmodels.units import NS_PER_S, seconds_to_ns

PIECES = 8
"""Messages that the rows of a (rank, node) pair travel in; more pipeline better and cost more to simulate."""

Times = npt.NDArray[np.int64]


class Hop(NamedTuple):
    """A network: bytes/s of a port each way, and nanoseconds from a message's last byte to its arrival."""

    rate: float
    latency_ns: int


@dataclass
class Side:
    """Both directions of one kind of port at every rank: when each is free next, ns [ranks]."""

    hop: Hop
    out: Times
    into: Times

    def carry(self, source: Times, target: Times, size: npt.NDArray[np.float64], ready: Times) -> Times:
        """Messages of `size` bytes from ranks `source` to ranks `target`; when they arrive. Empty ones take no port."""
        seconds_to_ns(float(size.sum()) / self.hop.rate)  # refused where it is too long
        ns = np.ceil(size * (NS_PER_S / self.hop.rate)).astype(np.int64)
        start = np.maximum(ready, np.maximum(self.out[source], self.into[target]))
        used = ns > 0
        self.out[source[used]] = self.into[target[used]] = (start + ns)[used]
        return np.where(used, start + ns + self.hop.latency_ns, ready)


@dataclass(frozen=True)
class Cargo:
    """to_nodes [nodes, gpus, nodes], to_ranks [nodes, gpus, nodes, gpus]: bytes of one piece of each pair."""

    to_nodes: npt.NDArray[np.float64]
    to_ranks: npt.NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, int]:
        return self.to_nodes.shape[0], self.to_nodes.shape[1]


def finish_ns(
    direction: str, row_bytes: float, to_nodes: npt.NDArray[np.number], to_ranks: npt.NDArray[np.number],
    links: Wires, pieces: int = PIECES,
) -> Times:  # fmt: skip
    """When each rank has its last row, ns [ranks]. Matrices as in `ports.even_tokens`."""
    ranks, nodes = to_nodes.shape
    gpus = ranks // nodes
    scale = row_bytes / pieces
    cargo = Cargo(
        to_nodes.astype(float).reshape(nodes, gpus, nodes) * scale,
        to_ranks.astype(float).reshape(nodes, gpus, nodes, gpus) * scale,
    )
    network = _side(links.network, links.latency_s, ranks)
    nvlink = _side(links.nvlink.between(gpus), links.nvlink.latency_s, ranks)
    done = np.zeros(ranks, np.int64)
    step = _combine if direction == "combine" else _dispatch
    for _ in range(pieces):
        for turn in range(nodes):
            step(cargo, turn, network, nvlink, done)
    return done


def _side(rate: float, latency_s: float, ranks: int) -> Side:
    return Side(Hop(rate, seconds_to_ns(latency_s)), np.zeros(ranks, np.int64), np.zeros(ranks, np.int64))


def _places(cargo: Cargo, turn: int) -> tuple[Times, Times, Times, Times]:
    """For every rank, as the source: its node and index, the node whose turn it is, and the partner rank there."""
    nodes, gpus = cargo.shape
    node, index = np.divmod(np.arange(nodes * gpus), gpus)
    other = (node + turn) % nodes
    return node, index, other, other * gpus + index


def _dispatch(cargo: Cargo, turn: int, network: Side, nvlink: Side, done: Times) -> None:
    """One piece from every rank to its partner `turn` nodes on, and from there to the GPUs of that node."""
    node, index, other, partner = _places(cargo, turn)
    gpus = cargo.shape[1]
    source, ready = np.arange(len(node)), np.zeros(len(node), np.int64)
    if turn:
        ready = network.carry(source, partner, cargo.to_nodes[node, index, other], ready)
    np.maximum.at(done, partner, ready)
    for shift in range(1, gpus):
        target = (index + shift) % gpus
        size = cargo.to_ranks[node, index, other, target]
        arrived = nvlink.carry(partner, other * gpus + target, size, ready)
        np.maximum.at(done, other * gpus + target, np.where(size > 0, arrived, 0))


def _combine(cargo: Cargo, turn: int, network: Side, nvlink: Side, done: Times) -> None:
    """One piece to every rank from its partner `turn` nodes on, once that has what its node contributes."""
    node, index, other, partner = _places(cargo, turn)
    gpus = cargo.shape[1]
    ready = np.zeros(len(node), np.int64)
    for shift in range(1, gpus):
        giver = (index + shift) % gpus
        arrived = nvlink.carry(
            other * gpus + giver, partner, cargo.to_ranks[node, index, other, giver], np.zeros_like(ready)
        )
        ready = np.maximum(ready, arrived)
    if turn:
        ready = network.carry(partner, np.arange(len(node)), cargo.to_nodes[node, index, other], ready)
    np.maximum(done, ready, out=done)
