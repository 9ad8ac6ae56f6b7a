"""The inside of a step as arrays: when its segments start and end on many ranks at once.

Streams are first in, first out and every order is fixed by the template, so each start is the largest of what it waits
for: the end of the segment before it on its lane, the segments it needs, and, where it meets a group, the arrival of
the group's last member.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sim.layout.mesh import Columns, Times
from sim.step.template import STREAMS, Template

Array = npt.NDArray[Any]
SegmentTimes = Array | Callable[[int, Array], Array]
"""Durations of segments: [segment, ..., column], or (segment, starts [..., column]) -> duration [..., column]."""
Meet = Callable[[Array, str], Array]
"""(arrivals [..., column], kind of group) -> when the last of each group arrives."""


class Inside(NamedTuple):
    """Times of the segments of one step, ns from its start on each column; a single column stands for all.

    starts, ends: of segments, [segment, column].
    ready: arrivals of members at the segments that meet somebody, [meeting, column].
    """

    starts: Times
    ends: Times
    ready: Times


NEVER = -(1 << 61)
"""No such way: earlier than any start, however much is added to it."""


def cross(template: Template, start: Array, durations: SegmentTimes, meet: Meet) -> tuple[Array, Array, Array]:
    """Starts and ends [segment, ..., column] of one step begun at `start` [..., column], and when members were ready to
    meet [meeting, ..., column]; in the unit and type of `start`."""
    starts, ends = (np.empty((len(template.segments), *start.shape), start.dtype) for _ in range(2))
    ready = np.empty((len(template.meetings), *start.shape), start.dtype)
    free, meeting = [start for _ in STREAMS], 0
    for number, (lane, needed, meets) in enumerate(template.turns):
        at, end = starts[number], ends[number]
        if needed:
            np.maximum(free[lane], ends[needed[0]], out=at)
            for j in needed[1:]:
                np.maximum(at, ends[j], out=at)
        else:
            at[...] = free[lane]
        if meets:
            ready[meeting], meeting = at, meeting + 1
            at[...] = meet(at, meets)
        np.add(at, durations(number, at) if callable(durations) else durations[number], out=end)
        free[lane] = end
    return starts, ends, ready


# --- steps whose segments take every column alike ---------------------------------------------------------------------


class Way(NamedTuple):
    """Longest ways to a segment, in ns: from the column's own start, and from the last start in its group."""

    own: int
    last: int

    def later(self, other: "Way") -> "Way":
        """The later of two at each."""
        return Way(max(self.own, other.own), max(self.last, other.last))

    def after(self, ns: int) -> "Way":
        """So much later."""
        return Way(self.own + ns, self.last + ns)


class Course(NamedTuple):
    """A step whose segments take every column alike and only starts differ: a segment starts at the later of two
    moments, so long after the column's own start, by the longest way on which it meets nobody, and so long after the
    start of the last member of its group, by the longest way from a meeting.

    starts: longest ways to the starts of segments, ns, [segment, 1] each.
    ready: longest ways to where members are ready to meet, ns, [meeting, 1] each.
    durations: of segments, ns, [segment, 1].
    end: longest ways to the end of the step.
    alike: the inside when all members start at once.
    kind: of the groups that meet; empty: nobody waits for anybody.
    """

    starts: tuple[Times, Times]
    ready: tuple[Times, Times]
    durations: Times
    end: Way
    alike: Inside
    kind: str = ""

    def crossed(self, start: Times, columns: Columns) -> tuple[Times, Inside]:
        """When the step ends [column], and its inside."""
        last = columns.latest(start, self.kind)
        if last is start or (start == last).all():  # nobody waits for anybody
            return start + max(self.end), self.alike
        behind = last - start
        starts = np.maximum(self.starts[0], self.starts[1] + behind)
        ready = np.maximum(self.ready[0], self.ready[1] + behind)
        return np.maximum(start + self.end.own, last + self.end.last), Inside(starts, starts + self.durations, ready)


def course(template: Template, durations: Sequence[int], kind: str) -> Course:
    """The course of a template whose segments take `durations` ns. kind: of groups that wait for each other."""
    free = [Way(0, NEVER) for _ in STREAMS]
    ready: list[Way] = []
    starts: list[Way] = []
    ends: list[Way] = []
    for (lane, needed, whom), ns in zip(template.turns, durations, strict=True):
        at = free[lane]
        for j in needed:
            at = at.later(ends[j])
        if whom:
            ready.append(at)
            at = Way(NEVER, max(at)) if whom == kind else at
        starts.append(at)
        ends.append(at.after(ns))
        free[lane] = ends[-1]
    end = Way(0, NEVER)
    for way in ends:
        end = end.later(way)
    column = np.array(durations, dtype=np.int64).reshape(-1, 1)
    begins, arrive = _columns(starts), _columns(ready)
    at_once = np.maximum(*begins)
    return Course(begins, arrive, column, end, Inside(at_once, at_once + column, np.maximum(*arrive)), kind)


def _columns(ways: Sequence[Way]) -> tuple[Times, Times]:
    rows = np.array(ways, dtype=np.int64).reshape(-1, 2, 1)
    return rows[:, 0], rows[:, 1]
