"""All ranks at once, as arrays: the engine's rules for ranks that run the same program with different durations.

The ranks at one pipeline position run the same steps; they differ in expert loads, clocks and faults. Times are vectors
over columns (`sim.layout.mesh.Columns`). A step starts when its column is free and its messages are there; inside it
`sim.step.inside` rules. The result equals the event engine's with one actor a rank, span for span (a property test),
at a few microseconds a segment for all ranks.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from sim.engine.actor import OWN, Job, Message, Sync
from sim.engine.lane import NO_BOUND, Bound, Lane, Wire
from sim.engine.timeline import Steps, Timeline, Transfer
from sim.engine.wire import GATHER, REDUCE
from sim.layout.mesh import Columns, Times
from sim.step.inside import Course, Inside, SegmentTimes, course, cross
from sim.step.template import Template

Duration = Callable[[int, int], SegmentTimes | tuple[int, ...]]
"""(position, step) -> nanoseconds of each of its segments, where they are the same for every column whenever they
start, or else what says for each segment how long it takes from given starts on."""


def run(
    jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], columns: Columns, duration: Duration, wire: Wire
) -> Timeline:
    """Run every column of every pipeline position. jobs, syncs: per position; templates have a kernel a segment. Raises
    AssertionError on a deadlock, which a checked program has not."""
    gradients = _Gradients(syncs)
    lanes = [Lane(p, columns.columns, _reductions(sync, len(jobs[p])), wire) for p, sync in enumerate(syncs)]
    mail = _Mail(jobs, syncs, lanes)
    ranks = [_Position(p, row, columns, duration, syncs[p], lanes[p], gradients) for p, row in enumerate(jobs)]
    for position in ranks:
        position.come(mail)
    while True:
        moved = [position.post(mail) for position in ranks]
        if ready := [position for position in ranks if position.ready(mail)]:
            _advance(ready, mail)
            continue
        if any(moved):
            continue
        # All that is not known yet hangs on a message that still waits for its turn, so it comes no earlier than the
        # first of those: what is ready by then has its turn now.
        pending = [ready for lane in lanes for ready in lane.pending]
        if not pending:
            break
        bound = Bound(min(int(ready.max()) for ready in pending), np.minimum.reduce(pending))
        for position in ranks:
            position.post(mail, bound)
    assert all(position.step == len(position.jobs) for position in ranks), "a checked program has no deadlock"
    through = [position.through(mail) for position in ranks]
    return _finished(columns, ranks, through, syncs, gradients.gathered)


def _reductions(sync: Sync, steps: int) -> list[tuple[int, int, int]]:
    """Reductions of a position with the step that they follow: none, where all are done after all steps; the one before
    that in which they may start."""
    return [(steps if sync.after else after - (key in sync.early), key, ns) for after, key, ns in sync.reduces]


class _Mail:
    """arrived: messages -> when they did [column]. alone: when the first of two ends came that wait for a message.
    batches: of messages by rendezvous, what their senders wait in. left: of batches, messages yet to leave."""

    def __init__(self, jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], lanes: Sequence[Lane]) -> None:
        self.jobs, self.lanes = jobs, lanes
        self.arrived: dict[Message, Times] = {}
        self.alone: dict[Message, Times] = {}
        waits = [[*(job.waits if job.rendezvous else () for job in row), sync.waits]
                 for row, sync in zip(jobs, syncs, strict=True)]  # fmt: skip
        self.batches = {m: (p, k) for p, row in enumerate(waits) for k, batch in enumerate(row)
                        for m in batch if m[0] == p}  # fmt: skip
        self.left = Counter(self.batches.values())

    def come(self, message: Message, at: Times) -> None:
        """An end of a message has come to wait for it; when both have, it leaves."""
        if message not in self.alone:
            self.alone[message] = at
            return
        sender, step, kind = message
        batch = self.batches[message]
        self.left[batch] -= 1
        output = step, kind, dict(self.jobs[sender][step].sends)[kind], np.maximum(self.alone.pop(message), at)
        self.lanes[sender].leave(batch[1], [output], self.left[batch])


class _Gradients:
    """Gradients that are ready to be reduced. gathered: reduction -> when all holders of its stage were through with
    it, for those that are; none where all are reduced after all steps."""

    def __init__(self, syncs: Sequence[Sync]) -> None:
        self.gathered: dict[int, int] = {}
        self.missing = Counter(stage for sync in syncs for _, stage, _ in sync.reduces)
        self.latest: Counter[int] = Counter()
        self.due = [{after: [s for a, s, _ in sync.reduces if a == after] for after, _, _ in sync.reduces}
                    if not sync.after else {} for sync in syncs]  # fmt: skip
        self.early = [sync.early for sync in syncs]

    def through(self, position: int, step: int, starts: Times, ends: Times) -> None:
        """A position has done a step on all columns."""
        for stage in self.due[position].get(step, ()):
            early = self.early[position].get(stage)
            there = int(ends.max()) if early is None else int(starts.max()) + early
            self.latest[stage] = max(self.latest[stage], there)
            self.missing[stage] -= 1
            if not self.missing[stage]:
                self.gathered[stage] = self.latest[stage]


class _Position:
    """All columns of one pipeline position."""

    def __init__(
        self, number: int, jobs: Sequence[Job], columns: Columns, duration: Duration, sync: Sync, lane: Lane,
        gradients: _Gradients,
    ) -> None:  # fmt: skip
        self.number, self.jobs, self.sync, self.lane, self.gradients = number, jobs, sync, lane, gradients
        self.duration, self.columns = duration, columns
        self.courses: dict[tuple[Template, tuple[int, ...]], Course] = {}
        self.free = np.zeros(columns.columns, dtype=np.int64)
        self.step = 0
        shape = (len(jobs), columns.columns)
        starts, ends, blame = (np.zeros(shape, dtype=kind) for kind in (np.int64, np.int64, np.int8))
        self.insides: list[Inside] = []
        self.done = Steps(starts, ends, blame, self.insides)

    def ready(self, mail: _Mail) -> bool:
        """Whether all messages of the next step are known."""
        return self.step < len(self.jobs) and all(message in mail.arrived for message in self.jobs[self.step].waits)

    def post(self, mail: _Mail, bound: Bound = NO_BOUND) -> bool:
        """Messages whose arrival is known now; whether there was any."""
        sent = list(self.lane.settle(self.gradients.gathered, bound))
        for load in sent:
            mail.arrived[self.number, load.step, load.kind] = load.ends
        return bool(sent)

    def come(self, mail: _Mail) -> None:
        """The position is free and waits for the messages of its next step, or after the last; some leave then."""
        last = self.step == len(self.jobs)
        if last or self.jobs[self.step].rendezvous:
            for message in self.sync.waits if last else self.jobs[self.step].waits:
                mail.come(message, self.free)

    def through(self, mail: _Mail) -> Times:
        """When all is done and what was made is taken [column]."""
        return np.asarray(np.maximum.reduce([self.free, *(mail.arrived[message] for message in self.sync.waits)]))

    def begin(self, mail: _Mail) -> Times:
        """When the next step begins, whose messages are all known."""
        start = self.free
        for message in self.jobs[self.step].waits:
            arrival = mail.arrived[message]
            late = arrival > start
            if late.any():
                self.done.blame[self.step, late] = message[2] + OWN * (message[0] == self.number)
                start = np.maximum(start, arrival)
        self.done.starts[self.step] = start
        return start

    def end(self, mail: _Mail, start: Times, end: Times, inside: Inside) -> None:
        """The step that began at `start` is through."""
        job, step = self.jobs[self.step], self.step
        self.done.ends[step] = self.free = end
        self.insides.append(inside)
        if job.sends and not job.rendezvous:
            made = job.template.senders
            outputs = [(step, kind, ns, start + inside.ends[made[kind]]) for kind, ns in job.sends if kind in made]
            self.lane.leave(step, outputs)
        self.gradients.through(self.number, step, start, end)
        self.step += 1
        self.come(mail)

    def crossed(self, start: Times, lasts: tuple[int, ...], kind: str) -> tuple[Times, Inside]:
        """When a step begun at `start` ends, and its inside, where segments take as long for all columns whenever they
        start. kind: of groups that wait for each other in it."""
        key = self.jobs[self.step].template, lasts
        if key not in self.courses:
            self.courses[key] = course(*key, kind)
        return self.courses[key].crossed(start, self.columns)


def _advance(ready: Sequence[_Position], mail: _Mail) -> None:
    """The next step of these positions: where one template takes each column its own time, all of them at once."""
    alike: dict[Template, list[tuple[_Position, Times, Times]]] = {}
    for position in ready:
        start, durations = position.begin(mail), position.duration(position.number, position.step)
        template, columns = position.jobs[position.step].template, position.columns
        kinds = {meets for _, _, meets in template.turns if meets in columns.groups}
        if isinstance(durations, tuple) and len(kinds) <= 1:
            position.end(mail, start, *position.crossed(start, durations, "".join(kinds)))
        elif callable(durations):
            position.end(mail, start, *_crossed(template, start, durations, columns))
        else:  # of several kinds, longest ways say too little
            own = np.array(durations, dtype=np.int64).reshape(len(template.segments), -1)
            alike.setdefault(template, []).append((position, start, np.broadcast_to(own, (len(own), len(start)))))
    for template, rows in alike.items():
        starts = np.stack([start for _, start, _ in rows])
        durations = np.stack([own for _, _, own in rows], axis=1)
        ends, inside = _crossed(template, starts, durations, rows[0][0].columns)
        for i, (position, start, _) in enumerate(rows):
            position.end(mail, start, ends[i], Inside(*(times[:, i] for times in inside)))


def _crossed(template: Template, start: Times, durations: SegmentTimes, columns: Columns) -> tuple[Times, Inside]:
    """When steps begun at `start` [..., column] end, and their insides."""
    starts, ends, ready = cross(template, start, durations, columns.latest)
    end = ends.max(0) if len(ends) else start
    for times in (starts, ends, ready):
        times -= start
    return end, Inside(starts, ends, ready)


def _finished(
    columns: Columns, ranks: Sequence[_Position], through: Sequence[Times], syncs: Sequence[Sync],
    gathered: dict[int, int],
) -> Timeline:  # fmt: skip
    """Reductions that are left, the norm that everybody waits for, the update, and parameters. through: when each
    position is with its steps."""
    lanes, after = [position.lane for position in ranks], any(sync.after for sync in syncs)
    drained = max(int(done.max()) for done in through)
    for lane in lanes:
        lane.drain(dict.fromkeys(lane.after, drained) if after else gathered)
    reduced = [np.maximum(lane.reduced, done) for lane, done in zip(lanes, through, strict=True)]
    norm = max(int(done.max()) for done in reduced)
    network = [
        [Transfer(-1 - load.step if load.kind == REDUCE else load.step, load.kind, load.starts, load.ends)
         for load in lane.carried]
        for lane in lanes
    ]  # fmt: skip
    update = []
    for p, sync in enumerate(syncs):
        ends = starts = np.full_like(reduced[p], norm + sync.update_ns)
        if sync.gather_ns:
            ends = starts + lanes[p].wire(p, -1, GATHER, starts, sync.gather_ns)
            network[p].append(Transfer(-1, GATHER, starts, ends))
        update.append((drained if after else norm, ends))
    end = max(int(np.maximum(ends, lane.free).max()) for (_, ends), lane in zip(update, lanes, strict=True))
    return Timeline(columns, [position.done for position in ranks], network, reduced, update, end)
