"""The mesh of ranks: which rank is where on each axis, who meets whom, and which ranks nothing tells apart.

This is the only file that does arithmetic on rank numbers. Axes, from the slowest to the fastest: pipeline, data,
expert, context, tensor; axes that a layout does not use have size 1. A *position* is a coordinate on the pipeline axis,
a *replica* numbers the ranks of one position (the other axes together), so rank = position * replicas + replica. Expert
groups are runs of neighbouring replicas: they fill neighbouring GPUs, and stay under one leaf switch where they fit.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64]

AXES = ("pipeline", "data", "expert", "context", "tensor")
"""Axes of a mesh, the slowest first."""


@dataclass(frozen=True)
class Mesh:
    """Ranks of a cluster by pipeline position and replica. pipeline: positions. replicas: ranks at each of them.
    expert, context, tensor: ranks of a group of that kind. gpus_per_node: neighbouring ranks that share a node."""

    pipeline: int
    replicas: int
    expert: int = 1
    context: int = 1
    tensor: int = 1
    gpus_per_node: int = 1

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.pipeline * self.replicas

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Size of each of AXES; expert groups lie inside the ranks that data parallelism spans."""
        inner = self.context * self.tensor
        return self.pipeline, self.replicas // (self.expert * inner) or 1, self.expert, self.context, self.tensor

    def rank(self, position: int, replica: int) -> int:
        """The rank of a replica at a position."""
        return position * self.replicas + replica

    def place(self, rank: int) -> tuple[int, int]:
        """Position and replica of a rank."""
        return divmod(rank, self.replicas)

    def of_position(self, position: int) -> Numbers:
        """Ranks at a position [replica]."""
        return np.arange(self.replicas) + position * self.replicas

    def node(self, rank: int) -> int:
        """The node that a rank is on."""
        return rank // self.gpus_per_node

    def on_node(self, node: int) -> range:
        """Ranks on a node."""
        return range(node * self.gpus_per_node, (node + 1) * self.gpus_per_node)

    def member(self, kind: str) -> Numbers:
        """Place of each replica in its group of a kind [replica]."""
        return np.arange(self.replicas) % self._size(kind)

    def groups(self, kind: str) -> Numbers:
        """Replicas that meet in groups of a kind [group, member]: expert, context or tensor (neighbours), data (all
        replicas) or expert_data (those that hold the same experts)."""
        replicas = np.arange(self.replicas)
        if kind == "data":
            return replicas[None]
        if kind == "expert_data":
            return replicas.reshape(-1, self._size("expert")).T
        return replicas.reshape(-1, self._size(kind))

    def across(self, positions: Sequence[int], kind: str) -> Numbers:
        """Ranks of groups of a kind (data, expert_data) that span positions [group, member]."""
        groups = self.groups(kind)
        return np.concatenate([groups + position * self.replicas for position in positions], axis=1)

    def group(self, kind: str, replica: int) -> range:
        """Replicas of the group of neighbours that a replica is in."""
        size = self._size(kind)
        first = replica // size * size
        return range(first, first + size)

    def nodes_of(self, ranks: int) -> int:
        """Nodes that so many neighbours lie on, at least."""
        return -(-ranks // self.gpus_per_node)

    def _size(self, kind: str) -> int:
        return min(int(getattr(self, kind)), self.replicas)

    def columns(self, kinds: Sequence[Hashable] | None = None) -> "Columns":
        """Replicas of equal kinds in one expert group as one column; without kinds each in a column of its own."""
        return alike(range(self.replicas) if kinds is None else kinds, self._size("expert"))


class Group(NamedTuple):
    """Groups of neighbouring columns. first: column each begins with. sizes: columns it has. [group] each."""

    first: Times
    sizes: Times


class Columns(NamedTuple):
    """Replicas of a pipeline, those that must behave alike carried as one column.

    Replicas run the same program. Those of an expert group that nothing tells apart do the same at the same time, for
    they meet the same group and get their messages from their likes. A column stands for them, and counts as many where
    a mean is taken. of: [replica] its column. first: [column] the first replica it stands for. weight: [column] how
    many it stands for. groups: kind of group -> its columns, of kinds that have more than one member.
    """

    of: Times
    first: Times
    weight: Times
    expert: Group
    groups: Mapping[str, Group]

    @property
    def columns(self) -> int:
        return len(self.first)

    def latest(self, times: Times, kind: str) -> Times:
        """The largest of the group of each column [..., column]; `times` where nobody meets anybody."""
        group = self.groups.get(kind)
        if group is None:
            return times
        return np.maximum.reduceat(times, group.first, axis=-1).repeat(group.sizes, axis=-1)

    def group(self, number: int) -> slice:
        """Columns of an expert group."""
        first = int(self.expert.first[number])
        return slice(first, first + int(self.expert.sizes[number]))

    def mates(self, column: int) -> slice:
        """Columns of the expert group of a column."""
        return self.group(int(np.searchsorted(self.expert.first, column, "right")) - 1)


def alike(kinds: Sequence[Hashable], group: int) -> Columns:
    """Replicas of equal kinds in an expert group (so many neighbours) as one column."""
    columns: dict[tuple[int, Hashable], int] = {}
    of = np.array([columns.setdefault((d // group, kind), len(columns)) for d, kind in enumerate(kinds)])
    _, first, weight = np.unique(of, return_index=True, return_counts=True)
    _, begins, sizes = np.unique(first // group, return_index=True, return_counts=True)
    expert = Group(begins, sizes)
    return Columns(of, first, weight, expert, {"expert": expert} if group > 1 else {})


def one() -> Columns:
    """All replicas in one column: nothing tells any of them apart."""
    none = np.zeros(1, dtype=np.int64)
    group = Group(none, none + 1)
    return Columns(none, none, none + 1, group, {})
