"""All ranks at once, as arrays: the engine's rules for ranks that run the same program with different durations.

The ranks at one pipeline position run the same steps; they differ in expert loads, clocks and faults. Times are vectors
over these replicas. Streams are first in, first out and every order is fixed by the program, so each start is the
largest of what it waits for: the end of the segment before it on its lane, the segments it needs, the messages of its
step, and, for an exchange, the arrival of the slowest member of its expert group. The result equals the event
engine's with one actor a rank, span for span (a property test), at a few microseconds a segment for all replicas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.actor import Job, Sync
from sim.template import STREAMS, Segment, Template

Times = npt.NDArray[np.int64]

Duration = Callable[[int, int, int, Times], Times | int]
"""(position, step, segment, starts) -> nanoseconds of that segment for every replica."""

Wire = Callable[[int, Times, int], Times]
"""(position, starts, ns of the message) -> nanoseconds it takes from each replica."""


class Crossing(NamedTuple):
    """One step of all replicas at a position. starts, ends: of the step. segment_starts, segment_ends: [segment,
    replica]. ready: [segment, replica] when a member was there, before it met its group. blame: message that came last
    (0 none, 1 forward, 2 backward).
    """

    starts: Times
    ends: Times
    segment_starts: Times
    segment_ends: Times
    ready: Times
    blame: npt.NDArray[np.int8]


@dataclass
class Crowd:
    """What all replicas did. crossings: per position, per step. messages: per position: step, kind (1, 2 outputs, 3
    reduce-scatter, 4 all-gather), starts, ends. reduced: per position, when its gradients are. update: (start, end)
    of what follows. end: ns when everything is done."""

    crossings: list[list[Crossing]]
    messages: list[list[tuple[int, int, Times, Times]]]
    reduced: list[Times]
    update: list[tuple[int, int]]
    end: int


def run(
    jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], data: int, expert: int, duration: Duration, wire: Wire
) -> Crowd:
    """Run every replica of every pipeline position. jobs, syncs: per position. Raises ValueError on a deadlock."""
    lanes = [_Position(p, row, data, expert, duration, wire) for p, row in enumerate(jobs)]
    mail: dict[tuple[int, int, int], Times] = {}
    moved = True
    while moved:
        moved = False
        for lane in lanes:
            while lane.step < len(lane.jobs) and all(message in mail for message in lane.jobs[lane.step].waits):
                lane.advance(mail)
                moved = True
    stuck = [lane for lane in lanes if lane.step < len(lane.jobs)]
    if stuck:
        first = stuck[0]
        missing = next(m for m in first.jobs[first.step].waits if m not in mail)
        where = f"step {missing[1]} of position {missing[0]}"
        raise ValueError(f"deadlock: pipeline position {first.number} waits for {where}")
    return _finish(lanes, syncs)


class _Position:
    """All replicas of one pipeline position."""

    def __init__(
        self, number: int, jobs: Sequence[Job], data: int, expert: int, duration: Duration, wire: Wire
    ) -> None:
        self.number, self.jobs, self.duration, self.wire = number, jobs, duration, wire
        self.groups = (max(1, data // expert), min(expert, data))
        self.free = np.zeros(data, dtype=np.int64)
        self.network = np.zeros(data, dtype=np.int64)
        self.step = 0
        self.done: list[Crossing] = []
        self.messages: list[tuple[int, int, Times, Times]] = []

    def advance(self, mail: dict[tuple[int, int, int], Times]) -> None:
        """The next step, whose messages are all known."""
        job = self.jobs[self.step]
        start, blame = self.free, np.zeros(len(self.free), dtype=np.int8)
        for message in job.waits:
            arrival = mail[message]
            blame = np.where(arrival > start, np.int8(message[2]), blame)
            start = np.maximum(start, arrival)
        crossing = self._cross(job.template, start, blame)
        self._send(job, crossing, mail)
        self.free = crossing.ends
        self.done.append(crossing)
        self.step += 1

    def _cross(self, template: Template, start: Times, blame: npt.NDArray[np.int8]) -> Crossing:
        count = len(template.segments)
        starts, ends, ready = (np.empty((count, len(start)), dtype=np.int64) for _ in range(3))
        lane_free = [start for _ in STREAMS]
        for i, (segment, needed) in enumerate(zip(template.segments, needs(template), strict=True)):
            at = lane_free[segment.lane]
            for j in needed:
                at = np.maximum(at, ends[j])
            ready[i] = at
            if segment.exchange and self.groups[1] > 1:
                at = at.reshape(self.groups).max(1).repeat(self.groups[1])
            starts[i] = at
            ends[i] = lane_free[segment.lane] = at + self.duration(self.number, self.step, i, at)
        end = ends.max(0) if count else start
        return Crossing(start, end, starts, ends, ready, blame)

    def _send(self, job: Job, crossing: Crossing, mail: dict[tuple[int, int, int], Times]) -> None:
        """Outputs leave in the order they are ready, on one network lane; ties in the order of the segments."""
        leaving = [
            (i, kind, ns)
            for i, segment in enumerate(job.template.segments)
            for kind, ns in job.sends
            if segment.sends & kind
        ]
        ready = [crossing.segment_ends[i] for i, _, _ in leaving]
        if len(leaving) == 2:
            swap = ready[1] < ready[0]
            order = [np.where(swap, 1, 0), np.where(swap, 0, 1)]
        else:
            order = [np.zeros(len(self.network), dtype=np.int64)] * len(leaving)
        arrival = [self.network] * len(leaving)
        begun = list(arrival)
        for turn in order:
            for which, (_, _, ns) in enumerate(leaving):
                mine = turn == which
                start = np.maximum(ready[which], self.network)
                end = start + self.wire(self.number, start, ns)
                self.network = np.where(mine, end, self.network)
                arrival[which] = np.where(mine, end, arrival[which])
                begun[which] = np.where(mine, start, begun[which])
        for (_, kind, _), start, end in zip(leaving, begun, arrival, strict=True):
            mail[self.number, self.step, kind] = end
            self.messages.append((self.step, kind, start, end))


@cache
def needs(template: Template) -> tuple[tuple[int, ...], ...]:
    """Segments that each segment waits for."""
    found: list[list[int]] = [[] for _ in template.segments]
    for i, segment in enumerate(template.segments):
        for follower in segment.feeds:
            found[follower].append(i)
    return tuple(tuple(row) for row in found)


def _finish(lanes: Sequence[_Position], syncs: Sequence[Sync]) -> Crowd:
    """Gradient reductions (slowest holder of a stage decides), the norm that everybody waits for, and parameters."""
    begun: dict[int, int] = {}
    for lane, sync in zip(lanes, syncs, strict=True):
        for after, stage, _ in sync.reduces:
            begun[stage] = max(begun.get(stage, 0), int(lane.done[after].ends.max()))
    reduced, last = [], 0
    for lane, sync in zip(lanes, syncs, strict=True):
        network = lane.network
        for _, stage, ns in sorted(sync.reduces, key=lambda item: begun[item[1]]):
            start = np.maximum(begun[stage], network)
            network = start + ns
            lane.messages.append((-1, 3, start, network))
        done = np.maximum(network, lane.free) if sync.reduces else lane.free
        reduced.append(done)
        last = max(last, int(done.max()))
    update = [(last, last + sync.update_ns + sync.gather_ns) for sync in syncs]
    for lane, sync in zip(lanes, syncs, strict=True):
        if sync.gather_ns:
            start = np.full_like(lane.free, last + sync.update_ns)
            lane.messages.append((-1, 4, start, start + sync.gather_ns))
    messages = [lane.messages for lane in lanes]
    return Crowd([lane.done for lane in lanes], messages, reduced, update, max(end for _, end in update))


def own_duration(jobs: Sequence[Sequence[Job]]) -> Duration:
    """Durations as the templates say: all replicas alike."""

    def duration(position: int, step: int, number: int, starts: Times) -> int:
        template = jobs[position][step].template
        return segment_ns(template, template.segments[number])

    return duration


def own_wire(position: int, starts: Times, ns: int) -> Times:
    """Messages as the jobs say."""
    return np.full(len(starts), ns, dtype=np.int64)


def segment_ns(template: Template, segment: Segment) -> int:
    """Duration of a segment of a coarse template (its kernels run alone and beside alike)."""
    return sum(template.alone[segment.lane][segment.first : segment.stop])
