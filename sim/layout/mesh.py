"""The mesh of ranks: which rank is where on each axis, who meets whom, and which ranks nothing tells apart.

This is the only file that does arithmetic on rank numbers. A *position* is a coordinate on the pipeline axis, a
*replica* numbers the ranks of one position. The replicas of a position are divided twice: all but routed experts by
tensor, context and data parallelism, routed experts by expert-tensor and expert parallelism and what is left
(Liu et al., MoE Parallel Folding, arXiv:2504.14960). Data parallelism is shards of one copy and, beside them, replicas
of all those (hybrid sharding). Neighbours lie on one node; an order says which axis goes first.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from sim.scenario.values import ORDER

Times = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int64]
N = TypeVar("N", int, Numbers)

DENSE = {"tp": ("tensor",), "cp": ("context",), "dp": ("replica", "shard")}
"""Word of an order -> axes of what is no routed expert, but for the pipeline; the slowest first."""
ROUTED = {"tp": ("expert_tensor",), "ep": ("expert",), "dp": ("expert_replica", "expert_shard")}
"""Word of an order -> axes of routed experts: expert-tensor groups are where tensor groups are."""
MEETS = {
    "tensor": ("tensor",), "context": ("context",), "expert": ("expert",), "expert_tensor": ("expert_tensor",),
    "data": ("replica", "shard", "context"), "shard": ("shard", "context"), "replica": ("replica",),
    "expert_data": ("expert_replica", "expert_shard"), "expert_shard": ("expert_shard",),
    "expert_replica": ("expert_replica",), "model": ("tensor", "context"),
}  # fmt: skip
"""Kind of group -> axes that its members differ in. Parameters are alike over data and context, so ranks of a context
group share shards of them too."""
MEETING = ("expert", "tensor", "context", "expert_tensor")
"""Kinds of groups whose members meet inside layers."""
SHARING = ("shard", "expert_shard", "replica", "expert_replica")
"""Kinds of groups whose members meet inside steps where parameters and gradients move in these."""


@dataclass(frozen=True)
class Mesh:
    """Ranks of a cluster by pipeline position and replica. pipeline: positions. replicas: ranks at each of them.
    expert, context, tensor, expert_tensor: ranks of a group of that kind. gpus_per_node: neighbouring ranks that share
    a node. order: as ORDER says it. shard: data-parallel ranks that share one copy of what is sharded; 0: all."""

    pipeline: int
    replicas: int
    expert: int = 1
    context: int = 1
    tensor: int = 1
    gpus_per_node: int = 1
    expert_tensor: int = 1
    order: str = ORDER
    shard: int = 0

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.pipeline * self.replicas

    @property
    def data(self) -> int:
        """Groups of tensor and context parallelism at a position: each works on sequences of its own."""
        return self.replicas // (self.context * self.tensor) or 1

    @cached_property
    def axes(self) -> tuple[dict[str, int], dict[str, int]]:
        """Size of each axis of a position, the slowest first: of what is no routed expert, and of those."""
        expert, shard = min(self.expert, self.replicas), self.shard or self.data
        copies, alike = self.data // shard, self.replicas // (expert * self.expert_tensor) or 1
        sizes = {
            "tensor": self.tensor, "context": self.context, "replica": copies, "shard": shard, "expert": expert,
            "expert_tensor": self.expert_tensor, "expert_replica": copies, "expert_shard": alike // copies,
        }  # fmt: skip
        words = self.order.split("-")[::-1]
        dense, routed = ([axis for word in words for axis in own.get(word, ())] for own in (DENSE, ROUTED))
        return {axis: sizes[axis] for axis in dense}, {axis: sizes[axis] for axis in routed}

    @cached_property
    def inner(self) -> int:
        """Replicas that are neighbours; then comes the next position."""
        words = self.order.split("-")
        faster = [axis for word in words[: words.index("pp")] for axis in DENSE.get(word, ())]
        return prod(self.axes[0][axis] for axis in faster)

    def rank(self, position: int, replica: int) -> int:
        """The rank of a replica at a position."""
        block, place = divmod(replica, self.inner)
        return (block * self.pipeline + position) * self.inner + place

    def place(self, rank: int) -> tuple[int, int]:
        """Position and replica of a rank."""
        block, place = divmod(rank, self.inner)
        block, position = divmod(block, self.pipeline)
        return position, block * self.inner + place

    def of_position(self, position: int) -> Numbers:
        """Ranks at a position [replica]."""
        return self._ranks(position, np.arange(self.replicas))

    def _ranks(self, position: int, replicas: Numbers) -> Numbers:
        """`rank` of many."""
        block, place = np.divmod(replicas, self.inner)
        ranks: Numbers = (block * self.pipeline + position) * self.inner + place
        return ranks

    def node(self, rank: N) -> N:
        """The node that a rank, or each of many, is on."""
        return rank // self.gpus_per_node

    def on_node(self, node: int) -> range:
        """Ranks on a node."""
        return range(node * self.gpus_per_node, (node + 1) * self.gpus_per_node)

    def groups(self, kind: str) -> Numbers:
        """Replicas that meet in groups of a kind [group, member]: tensor or context; expert or expert_tensor; data
        (those that hold the same of what is no routed expert); expert_data (those that hold the same experts); shard,
        expert_shard (those of them that share a copy); replica, expert_replica (that have the same shard of copies);
        model (those that share sequences)."""
        return _groups(self, kind)

    def member(self, kind: str) -> Numbers:
        """Place of each replica in its group of a kind [replica]."""
        groups = self.groups(kind)
        members = np.empty(self.replicas, dtype=np.int64)
        members[groups] = np.arange(groups.shape[1])
        return members

    def group(self, kind: str, replica: int) -> tuple[int, ...]:
        """Replicas of the group of a kind that a replica is in."""
        groups = self.groups(kind)
        return tuple(groups[(groups == replica).any(axis=1)][0].tolist())

    def across(self, positions: Sequence[int], kind: str) -> Numbers:
        """Ranks of groups of a kind (data, expert_data) that span positions [group, member]."""
        groups = self.groups(kind)
        return np.concatenate([self._ranks(position, groups) for position in positions], axis=1)

    def nodes_of(self, kind: str, positions: Sequence[int] = (0,)) -> int:
        """Nodes that a group of a kind lies on, which may span positions; the most of any group."""
        return _nodes(self, kind, tuple(positions))

    def columns(self, kinds: Sequence[Hashable] | None = None, meeting: Sequence[str] = MEETING) -> "Columns":
        """Replicas of equal kinds in the same groups as one column; without kinds each in a column of its own. meeting:
        kinds of groups that meet inside steps."""
        numbers = {kind: self.number(kind) for kind in meeting if self.groups(kind).shape[1] > 1}
        together, settled = self.number("expert"), False
        while not settled:  # the least number of anybody that they meet, by others too
            before = together
            for own in numbers.values():
                least = np.full(self.replicas, self.replicas)
                np.minimum.at(least, own, together)
                together = least[own]
            settled = np.array_equal(together, before)
        return joined(range(self.replicas) if kinds is None else kinds, numbers, together)

    def number(self, kind: str) -> Numbers:
        """Number of the group of a kind that each replica is in [replica]."""
        groups = self.groups(kind)
        number = np.empty(self.replicas, dtype=np.int64)
        number[groups] = np.arange(len(groups))[:, None]
        return number


@cache
def _groups(mesh: Mesh, kind: str) -> Numbers:
    axes = next(axes for axes in mesh.axes if MEETS[kind][0] in axes)
    numbers, along = np.arange(mesh.replicas).reshape(tuple(axes.values())), list(axes)
    kept = [i for i, axis in enumerate(along) if axis not in MEETS[kind]]
    members = [i for i, axis in enumerate(along) if axis in MEETS[kind]]
    return numbers.transpose(*kept, *members).reshape(-1, prod(numbers.shape[i] for i in members))


@cache
def _nodes(mesh: Mesh, kind: str, positions: tuple[int, ...]) -> int:
    nodes = np.sort(mesh.across(positions, kind) // mesh.gpus_per_node, axis=1)
    return int(1 + (np.diff(nodes, axis=1) > 0).sum(axis=1).max())


class Group(NamedTuple):
    """Groups of columns. of: number of that of each column. order: columns by their groups, None where they are so
    anyway; place: of each in it. first: place that each group begins with. sizes: columns it has. [group] each."""

    of: Times
    first: Times
    sizes: Times
    order: Times | None = None
    place: Times | None = None

    def latest(self, times: Times) -> Times:
        """The largest of the group of each column [..., column]."""
        if self.order is None:
            return np.maximum.reduceat(times, self.first, axis=-1).repeat(self.sizes, axis=-1)
        ordered = np.maximum.reduceat(times[..., self.order], self.first, axis=-1).repeat(self.sizes, axis=-1)
        last: Times = ordered[..., self.place]
        return last


def grouped(numbers: Times) -> Group:
    """Columns by the number of their group."""
    order = np.argsort(numbers, kind="stable")
    _, begins, sizes = np.unique(numbers[order], return_index=True, return_counts=True)
    if (order[1:] > order[:-1]).all():
        return Group(numbers, begins, sizes)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Group(numbers, begins, sizes, order, place)


class Columns(NamedTuple):
    """Replicas of a pipeline, those that must behave alike carried as one column.

    Replicas run the same program. Those of the same groups that nothing tells apart do the same at the same time, for
    they meet the same ranks and get their messages from their likes. A column stands for them, and counts as many where
    a mean is taken. of: [replica] its column. first: [column] the first replica it stands for. weight: [column] how
    many it stands for. together: neighbours who meet, by others too; of models with experts alone these are expert
    groups. groups: kind of group -> its columns, of kinds that have more than one member.
    """

    of: Times
    first: Times
    weight: Times
    together: Group
    groups: Mapping[str, Group]

    @property
    def columns(self) -> int:
        return len(self.first)

    def latest(self, times: Times, kind: str) -> Times:
        """The largest of the group of each column [..., column]; `times` where nobody meets anybody."""
        group = self.groups.get(kind)
        return times if group is None else group.latest(times)

    def group(self, number: int) -> slice:
        """Columns that meet, by others too."""
        first = int(self.together.first[number])
        return slice(first, first + int(self.together.sizes[number]))

    def within(self, members: slice) -> Mapping[str, Group]:
        """`groups` of some columns that meet nobody else."""
        return {kind: grouped(group.of[members]) for kind, group in self.groups.items()}

    def mates(self, column: int, kind: str) -> Numbers:
        """Columns of the group of a kind that a column is in; itself where it meets nobody."""
        group = self.groups.get(kind)
        return np.array([column]) if group is None else np.flatnonzero(group.of == group.of[column])


def alike(kinds: Sequence[Hashable], groups: Sequence[int], meets: bool) -> Columns:
    """Replicas of equal kinds in an expert group as one column, group by group. groups: number of that of each replica.
    meets: whether groups have more than one member."""
    numbers = np.asarray(groups, dtype=np.int64)
    return joined(kinds, {"expert": numbers} if meets else {}, numbers)


def joined(kinds: Sequence[Hashable], numbers: Mapping[str, Numbers], together: Numbers) -> Columns:
    """Replicas of equal kinds in the same groups as one column. numbers: kind of group -> that of each replica.
    together: number of those that meet at all, of each replica."""
    columns: dict[tuple[Hashable, ...], int] = {}
    of = np.empty(len(kinds), dtype=np.int64)
    rows = np.stack([together, *numbers.values()], axis=1).tolist()
    for replica in np.argsort(together, kind="stable").tolist():
        of[replica] = columns.setdefault((*rows[replica], kinds[replica]), len(columns))
    _, first, weight = np.unique(of, return_index=True, return_counts=True)
    groups = {kind: grouped(own[first]) for kind, own in numbers.items()}
    return Columns(of, first, weight, grouped(together[first]), groups)


def one() -> Columns:
    """All replicas in one column: nothing tells any of them apart."""
    none = np.zeros(1, dtype=np.int64)
    return Columns(none, none, none + 1, grouped(none), {})
