"""Sets of time intervals: unions, their length, and how much of other intervals they cover. Times are integers."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def union(starts: Ints, ends: Ints) -> Ints:
    """Disjoint intervals [n, 2], in order, that cover the same times; ones of no length vanish, touching ones join."""
    keep = ends > starts
    starts, ends = starts[keep], ends[keep]
    if not len(starts):
        return np.empty((0, 2), np.int64)
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[1:] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([starts[first], reach[last]], 1).astype(np.int64)


def length(intervals: Ints) -> int:
    """Time covered by disjoint intervals [n, 2]."""
    return int((intervals[:, 1] - intervals[:, 0]).sum())


def covered(intervals: Ints, starts: Ints, ends: Ints) -> Ints:
    """How much of each [start, end) lies inside the disjoint `intervals` [n, 2]."""
    return _before(intervals, ends) - _before(intervals, starts)


def _before(intervals: Ints, times: Ints) -> Ints:
    """Covered time before each of `times`."""
    total = np.concatenate([[0], np.cumsum(intervals[:, 1] - intervals[:, 0])])
    index = np.searchsorted(intervals[:, 0], times, side="right")
    past = np.concatenate([[0], intervals[:, 1]])[index]  # end of the interval that began last
    return np.asarray(total[index] - np.where(index > 0, np.maximum(past - times, 0), 0), np.int64)


def common(a: Ints, b: Ints) -> int:
    """Time in both of two sets of disjoint intervals."""
    return int(covered(a, b[:, 0], b[:, 1]).sum())


def gaps(intervals: Ints, begin: int) -> Ints:
    """Idle times before and between the disjoint intervals, from `begin` on, as [length, start] [n, 2]."""
    starts = intervals[:, 0]
    previous = np.concatenate([[begin], intervals[:-1, 1]])[: len(starts)]
    idle = np.stack([starts - previous, previous], 1)
    return np.asarray(idle[idle[:, 0] > 0], np.int64)


def innermost(starts: Ints, ends: Ints, times: Ints) -> Ints:
    """For each time the index of the interval begun last among those that contain it (ends included), or -1."""
    out = np.full(len(times), -1, np.int64)
    opened = np.lexsort((-ends, starts))
    stack: list[int] = []
    upcoming = 0
    for query in np.argsort(times, kind="stable"):
        time = times[query]
        while upcoming < len(opened) and starts[opened[upcoming]] <= time:
            stack.append(int(opened[upcoming]))
            upcoming += 1
        while stack and ends[stack[-1]] < time:
            stack.pop()
        if stack:
            out[query] = stack[-1]
    return out
