"""Replicas of a pipeline, those that must behave alike carried as one column.

Replicas run the same program. Without drawn loads, jitter and slow NICs only faults of GPUs tell them apart: those of
an expert group that have the same faults at every position do the same at the same time, for they meet the same group
and get their messages from their likes. A column stands for them, and counts as many where a mean is taken.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]


class Replicas(NamedTuple):
    """of: [replica] its column. first: [column] the first replica it stands for. weight: [column] how many it stands
    for. groups, sizes: [group] first column of each expert group, and how many it has. meets: whether a group has more
    than one member."""

    of: Times
    first: Times
    weight: Times
    groups: Times
    sizes: Times
    meets: bool

    @property
    def columns(self) -> int:
        return len(self.first)

    def latest(self, times: Times) -> Times:
        """[column] -> the largest of its expert group, [column]."""
        if not self.meets:
            return times
        return np.maximum.reduceat(times, self.groups).repeat(self.sizes)

    def group(self, number: int) -> slice:
        """Columns of an expert group."""
        first = int(self.groups[number])
        return slice(first, first + int(self.sizes[number]))

    def mates(self, column: int) -> slice:
        """Columns of the expert group of a column."""
        return self.group(int(np.searchsorted(self.groups, column, "right")) - 1)


def alike(kinds: Sequence[Hashable], group: int) -> Replicas:
    """Replicas of equal kinds in an expert group (so many neighbours) as one column."""
    columns: dict[tuple[int, Hashable], int] = {}
    of = np.array([columns.setdefault((d // group, kind), len(columns)) for d, kind in enumerate(kinds)])
    _, first, weight = np.unique(of, return_index=True, return_counts=True)
    _, groups, sizes = np.unique(first // group, return_index=True, return_counts=True)
    return Replicas(of, first, weight, groups, sizes, group > 1)


def apart(data: int, expert: int) -> Replicas:
    """Every replica in a column of its own."""
    return alike(range(data), min(expert, data))
