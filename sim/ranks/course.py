"""One step of many replicas at once, where every segment takes all of them alike and only their starts differ.

A segment then starts at the later of two moments: so long after the replica's own start, by the longest way on which it
meets nobody; and so long after the start of the last member of its expert group, by the longest way from an exchange,
which that member begins last of all. Both lengths belong to the template, so a step is a few additions on arrays
[segment, replica] instead of a few for each segment.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.ranks.replicas import Replicas, Times
from sim.template import STREAMS, Template

NEVER = -(1 << 61)
"""No such way: earlier than any start, however much is added to it."""


class Way(NamedTuple):
    """Longest ways to a segment, in ns: from the replica's own start, and from the last start in its group."""

    own: int
    last: int

    def later(self, other: "Way") -> "Way":
        return Way(max(self.own, other.own), max(self.last, other.last))

    def after(self, ns: int) -> "Way":
        return Way(self.own + ns, self.last + ns)


class Course(NamedTuple):
    """Ways to where each segment is ready and where it starts, [segment, 1] each, and its length. meets: segments that
    start later than they are ready."""

    ready: tuple[Times, Times]
    start: tuple[Times, Times]
    took: Times
    meets: npt.NDArray[np.intp]
    end: Way

    def crossed(self, start: Times, replicas: Replicas) -> tuple[Times, Times, Times, Times]:
        """When the step ends [replica], segments start and end, and were ready [segment, replica]."""
        last = replicas.latest(start)
        if last is start or (start == last).all():  # nobody waits for anybody
            starts = start + np.maximum(*self.start)
            return start + max(self.end), starts, starts + self.took, starts
        ready = starts = np.maximum(start + self.start[0], last + self.start[1])
        if len(self.meets):
            ready = starts.copy()
            ready[self.meets] = np.maximum(start + self.ready[0][self.meets], last + self.ready[1][self.meets])
        end = np.maximum(start + self.end.own, last + self.end.last)
        return end, starts, starts + self.took, ready


def course(template: Template, took: Sequence[int], meets: bool) -> Course:
    """The course of a template whose segments take `took` ns. meets: whether an exchange waits for anybody."""
    begun = Way(0, NEVER)
    free = [begun for _ in STREAMS]
    ready: list[Way] = []
    starts: list[Way] = []
    ends: list[Way] = []
    for segment, needed, ns in zip(template.segments, template.waits, took, strict=True):
        at = free[segment.lane]
        for j in needed:
            at = at.later(ends[j])
        ready.append(at)
        if segment.exchange and meets:
            at = Way(NEVER, max(at))
        starts.append(at)
        ends.append(at.after(ns))
        free[segment.lane] = ends[-1]
    end = begun if not ends else ends[0]
    for way in ends:
        end = end.later(way)
    later = np.array([i for i, (a, b) in enumerate(zip(ready, starts, strict=True)) if a != b], dtype=np.intp)
    return Course(_columns(ready), _columns(starts), np.array(took, dtype=np.int64).reshape(-1, 1), later, end)


def _columns(ways: Sequence[Way]) -> tuple[Times, Times]:
    rows = np.array(ways, dtype=np.int64).reshape(-1, 2, 1)
    return rows[:, 0], rows[:, 1]
