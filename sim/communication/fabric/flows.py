"""What ranks send each other over the network, as columns: one row for each NIC pair and kind of traffic.

In a fabric of planes or rails a message for a GPU of another index goes over NVLink to the GPU of that index first, and
then from its NIC to its like (NVLink costs are not counted here); with neither, it leaves from its own NIC.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.routes import Numbers

KINDS = ("expert", "pipeline", "gradients", "parameters", "tensor", "context")
"""All-to-alls of expert groups; activations and their gradients between stages; between replicas, gradients that are
reduced while steps run, and parameters that are gathered when all of them are through; and inside layers, what ranks
that share their products send each other (of experts' products too), and those that share the tokens of a sequence."""

EXPERT, PIPELINE, GRADIENTS, PARAMETERS, TENSOR, CONTEXT = range(6)
INSIDE = (EXPERT, TENSOR, CONTEXT)
"""Kinds that go inside steps, which last as long as these do."""


@dataclass(frozen=True)
class Flows:
    """Columns of equal length. source, target: nodes. nic_out, nic_in: NICs of them. size: bytes, float64.

    kind: index into KINDS. queue: tells flows of one kind between the same NICs apart (ECMP hashes it). moment: flows
    of a kind pass together with those of the same moment.
    """

    source: Numbers
    nic_out: Numbers
    target: Numbers
    nic_in: Numbers
    size: npt.NDArray[np.float64]
    kind: Numbers
    queue: Numbers
    moment: Numbers

    COLUMNS = ("source", "nic_out", "target", "nic_in", "size", "kind", "queue", "moment")

    def __len__(self) -> int:
        return len(self.size)

    def where(self, keep: npt.NDArray[np.bool_]) -> "Flows":
        """The rows for which `keep` is true."""
        return Flows(*(getattr(self, name)[keep] for name in self.COLUMNS))


def joined(parts: Iterable[Flows]) -> Flows:
    """All rows, in order."""
    blocks = list(parts)
    if not blocks:
        none = np.zeros(0, dtype=np.int64)
        return Flows(none, none, none, none, np.zeros(0), none, none, none)
    return Flows(*(np.concatenate([getattr(part, name) for part in blocks]) for name in Flows.COLUMNS))


def between(
    cabling: Cabling, source: Numbers, target: Numbers, size: npt.ArrayLike, kind: int, queue: int = 0, moment: int = 0
) -> Flows:
    """Messages of `size` bytes from rank to rank [flows], those inside a node left out; over all NICs of a GPU."""
    gpus, nics = cabling.gpus, cabling.nics_per_gpu
    leaves = source // gpus != target // gpus
    each = np.broadcast_to(np.asarray(size, dtype=np.float64), source.shape)[leaves] / nics
    source, target = source[leaves], target[leaves]
    index = target % gpus
    out = index if cabling.aligned else source % gpus
    parts = [
        Flows(
            source // gpus, out * nics + nic, target // gpus, index * nics + nic, each,
            *(np.full(len(source), number) for number in (kind, queue, moment)),
        )
        for nic in range(nics)
    ]  # fmt: skip
    return joined(parts)


def exchange(cabling: Cabling, groups: Numbers, node_bytes: npt.ArrayLike, queue: int = 0, kind: int = EXPERT) -> Flows:
    """An all-to-all in each of `groups` [groups, ranks].

    node_bytes [groups, nodes, nodes] or [nodes, nodes]: from node to node of a group, over the group's ranks on the
    sending node; the diagonal stays inside. A number: from each rank to each other node. A token goes to the GPU of the
    same index first (DeepEP).
    """
    sizes, parts, gpus = np.asarray(node_bytes, dtype=np.float64), [], cabling.gpus
    for number, group in enumerate(groups):
        nodes, of, members = np.unique(group // gpus, return_inverse=True, return_counts=True)
        share = (sizes[number] if sizes.ndim == 3 else sizes) / members[:, None]
        if sizes.ndim == 0:
            share = np.full((len(nodes), len(nodes)), float(sizes))
        target = nodes[None, :] * gpus + group[:, None] % gpus
        source = np.broadcast_to(group[:, None], target.shape)
        parts.append(between(cabling, source.ravel(), target.ravel(), share[of].ravel(), kind, queue, queue))
    return joined(parts)


def rings(
    cabling: Cabling, members: Numbers, size: float, kind: int = GRADIENTS, queue: int = 0, moment: int = 0
) -> Flows:
    """Rings over the nodes that the ranks of each row of `members` [rings, ranks] are on, in order.

    Every node passes `size` bytes to the next one in all, an equal part by each of its ranks in the ring.
    """
    ordered = np.sort(members, axis=1)
    node = ordered // cabling.gpus
    fresh = np.diff(node, axis=1, prepend=-1) != 0
    # nodes of all rings are counted through; the last one of a ring passes on to its first
    of, first = np.cumsum(fresh.ravel()) - 1, np.flatnonzero(fresh)
    count, held = np.bincount(of), fresh.sum(axis=1)
    last = np.cumsum(held) - 1
    following = np.arange(len(first)) + 1
    following[last] = last - held + 1
    place, goes = np.arange(ordered.size) - first[of], following[of]
    target = ordered.ravel()[first[goes] + place % count[goes]]
    return between(cabling, ordered.ravel(), target, size / count[of], kind, queue, moment)
