"""All ranks at once, as arrays: the engine's rules for ranks that run the same program with different durations.

The ranks at one pipeline position run the same steps; they differ in expert loads, clocks and faults. Times are vectors
over these replicas, or over columns that stand for several (`sim.ranks.replicas`). Streams are first in, first out and
every order is fixed by the program, so each start is the largest of what it waits for: the end of the segment before it
on its lane, the segments it needs, the messages of its step, and, for an exchange, the arrival of the slowest member of
its expert group. The result equals the event engine's with one actor a rank, span for span (a property test), at a few
microseconds a segment for all replicas. A step whose segments take every replica alike is done at once
(`sim.ranks.course`).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.actor import Job, Message, Sync
from sim.ranks.course import Course, course
from sim.ranks.lane import UNKNOWN, Lane, Times, Wire
from sim.ranks.replicas import Replicas
from sim.scenario import FOREVER
from sim.template import STREAMS, Segment, Template
from sim.wire import GATHER, REDUCE

Duration = Callable[[int, int, int, Times], Times | int]
"""(position, step, segment, starts) -> nanoseconds of that segment for every replica."""
Common = Callable[[int, int], tuple[int, ...] | None]
"""(position, step) -> nanoseconds of each segment, where they are the same for every replica whenever it starts."""


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
    """What all replicas did, by column. crossings: per position, per step. messages: per position: step, kind (1, 2
    outputs, 3 reduce-scatter, 4 all-gather), starts, ends. reduced: per position, when its gradients are. update:
    (start, ends) of what follows. end: ns when everything is done."""

    replicas: Replicas
    crossings: list[list[Crossing]]
    messages: list[list[tuple[int, int, Times, Times]]]
    reduced: list[Times]
    update: list[tuple[int, Times]]
    end: int


def run(
    jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], replicas: Replicas, duration: Duration, wire: Wire,
    common: Common = lambda position, step: None,
) -> Crowd:  # fmt: skip
    """Run every replica of every pipeline position. jobs, syncs: per position. common: what `duration` would say of all
    segments of a step, where it may say it at once. Raises ValueError on a deadlock."""
    gradients = _Gradients(syncs)
    lanes = [Lane(p, replicas.columns, sync.reduces, wire) for p, sync in enumerate(syncs)]
    ranks = [_Position(p, row, replicas, duration, common, lanes[p], gradients) for p, row in enumerate(jobs)]
    mail: dict[Message, Times] = {}
    while True:
        if sum(position.proceed(mail) for position in ranks):
            continue
        # All that is not known yet hangs on a message that still waits for its turn, so it comes no earlier than the
        # first of those: what is ready by then has its turn now.
        bound = min(lane.pending() for lane in lanes)
        if bound == FOREVER:
            break
        for position in ranks:
            position.post(mail, bound)
    stuck = [position for position in ranks if position.step < len(position.jobs)]
    if stuck:
        first = stuck[0]
        missing = next(m for m in first.jobs[first.step].waits if m not in mail)
        where = f"step {missing[1]} of position {missing[0]}"
        raise ValueError(f"deadlock: pipeline position {first.number} waits for {where}")
    return _finish(replicas, ranks, lanes, syncs, gradients.gathered)


class _Gradients:
    """gathered: stage -> when all its holders were through with it, for those that are."""

    def __init__(self, syncs: Sequence[Sync]) -> None:
        self.gathered: dict[int, int] = {}
        self.missing = Counter(stage for sync in syncs for _, stage, _ in sync.reduces)
        self.latest: Counter[int] = Counter()
        self.due = [{after: [s for a, s, _ in sync.reduces if a == after] for after, _, _ in sync.reduces}
                    for sync in syncs]  # fmt: skip

    def through(self, position: int, step: int, ends: Times) -> None:
        """A position has done a step on all replicas."""
        for stage in self.due[position].get(step, ()):
            self.latest[stage] = max(self.latest[stage], int(ends.max()))
            self.missing[stage] -= 1
            if not self.missing[stage]:
                self.gathered[stage] = self.latest[stage]


class _Position:
    """All replicas of one pipeline position."""

    def __init__(
        self, number: int, jobs: Sequence[Job], replicas: Replicas, duration: Duration, common: Common, lane: Lane,
        gradients: _Gradients,
    ) -> None:  # fmt: skip
        self.number, self.jobs, self.lane, self.gradients = number, jobs, lane, gradients
        self.duration, self.common = duration, common
        self.courses: dict[tuple[int, tuple[int, ...]], Course] = {}
        self.replicas = replicas
        self.free = np.zeros(replicas.columns, dtype=np.int64)
        self.step = 0
        self.done: list[Crossing] = []

    def proceed(self, mail: dict[Message, Times]) -> bool:
        """Do all steps whose messages are known, and send what can be sent; whether there was any."""
        before, moved = self.step, self.post(mail)
        while self.step < len(self.jobs) and all(message in mail for message in self.jobs[self.step].waits):
            self._advance(mail)
            self.post(mail)
        return moved or self.step > before

    def post(self, mail: dict[Message, Times], bound: int = UNKNOWN) -> bool:
        """Messages whose arrival is known now; whether there was any."""
        sent = list(self.lane.settle(self.gradients.gathered, bound))
        for load in sent:
            mail[self.number, load.step, load.kind] = load.ends
        return bool(sent)

    def _advance(self, mail: dict[Message, Times]) -> None:
        """The next step, whose messages are all known."""
        job = self.jobs[self.step]
        start, blame = self.free, np.zeros(len(self.free), dtype=np.int8)
        for message in job.waits:
            arrival = mail[message]
            blame = np.where(arrival > start, np.int8(message[2]), blame)
            start = np.maximum(start, arrival)
        crossing = self._cross(job.template, start, blame)
        made = job.template.senders
        outputs = [(kind, ns, crossing.segment_ends[made[kind]]) for kind, ns in job.sends if kind in made]
        self.lane.leave(self.step, outputs)
        self.gradients.through(self.number, self.step, crossing.ends)
        self.free = crossing.ends
        self.done.append(crossing)
        self.step += 1

    def _cross(self, template: Template, start: Times, blame: npt.NDArray[np.int8]) -> Crossing:
        if (took := self.common(self.number, self.step)) is not None:
            key = (id(template), took)
            if key not in self.courses:
                self.courses[key] = course(template, took, self.replicas.meets)
            return Crossing(start, *self.courses[key].crossed(start, self.replicas), blame)
        count = len(template.segments)
        starts, ends, ready = (np.empty((count, len(start)), dtype=np.int64) for _ in range(3))
        lane_free = [start for _ in STREAMS]
        for i, (segment, needed) in enumerate(zip(template.segments, template.waits, strict=True)):
            at = lane_free[segment.lane]
            for j in needed:
                at = np.maximum(at, ends[j])
            ready[i] = at
            if segment.exchange:
                at = self.replicas.latest(at)
            starts[i] = at
            ends[i] = lane_free[segment.lane] = at + self.duration(self.number, self.step, i, at)
        end = ends.max(0) if count else start
        return Crossing(start, end, starts, ends, ready, blame)


def _finish(
    replicas: Replicas, ranks: Sequence[_Position], lanes: Sequence[Lane], syncs: Sequence[Sync],
    gathered: dict[int, int],
) -> Crowd:  # fmt: skip
    """Reductions that are left, the norm that everybody waits for, the update, and parameters."""
    for lane in lanes:
        lane.drain(gathered)
    reduced = [np.maximum(lane.reduced, position.free) for lane, position in zip(lanes, ranks, strict=True)]
    norm = max(int(done.max()) for done in reduced)
    messages = [
        [(-1 - load.step if load.kind == REDUCE else load.step, load.kind, load.starts, load.ends)
         for load in lane.carried]
        for lane in lanes
    ]  # fmt: skip
    update = []
    for p, sync in enumerate(syncs):
        ends = starts = np.full_like(reduced[p], norm + sync.update_ns)
        if sync.gather_ns:
            ends = starts + lanes[p].wire(p, -1, GATHER, starts, sync.gather_ns)
            messages[p].append((-1, GATHER, starts, ends))
        update.append((norm, ends))
    end = max(int(np.maximum(ends, lane.free).max()) for (_, ends), lane in zip(update, lanes, strict=True))
    return Crowd(replicas, [position.done for position in ranks], messages, reduced, update, end)


def own_duration(jobs: Sequence[Sequence[Job]]) -> Duration:
    """Durations as the templates say: all replicas alike."""

    def duration(position: int, step: int, number: int, starts: Times) -> int:
        template = jobs[position][step].template
        return segment_ns(template, template.segments[number])

    return duration


def own_wire(position: int, step: int, kind: int, starts: Times, ns: int) -> Times:
    """Messages and gradient traffic as jobs and syncs say."""
    return np.full(len(starts), ns, dtype=np.int64)


def segment_ns(template: Template, segment: Segment) -> int:
    """Duration of a segment of a coarse template (its kernels run alone and beside alike)."""
    return sum(template.alone[segment.lane][segment.first : segment.stop])
