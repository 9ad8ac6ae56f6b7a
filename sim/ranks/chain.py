"""Whom the step waits for: the ranks on the critical path, and what each takes beyond what an even step takes there.

The chain goes back from the last step to end: a segment follows the one before it on its lane, one it needs, its step's
messages, or, for an exchange, the member of the group that came last. An exchange whose length a slow NIC sets counts
for the rank of that NIC, and so does a message. The time beyond says who is to blame: without it the chain would take
no longer than some path of the even step, so all that the step costs more lies in it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hwmodels.units import NS_PER_S
from sim.actor import Job
from sim.lower import Lowered
from sim.plan import Plan
from sim.ranks.crowd import Crossing, Crowd, segment_ns
from sim.ranks.lane import Times
from sim.ranks.uneven import Durations
from sim.template import Template
from sim.wire import GATHER, REDUCE


class Critical(NamedTuple):
    """A rank on the critical path. seconds: of the path. beyond_s: by how much these are more than in an even step
    without faults (less where its loads are light)."""

    rank: int
    seconds: float
    beyond_s: float


@dataclass
class _Spent:
    """Nanoseconds by rank: on the path, and beyond what is expected there."""

    ns: Counter[int] = field(default_factory=Counter)
    beyond: Counter[int] = field(default_factory=Counter)

    def add(self, rank: int, took: int, expected: int) -> None:
        self.ns[rank] += took
        self.beyond[rank] += took - expected


def critical_ranks(plan: Plan, lowered: Lowered, everyone: Crowd, times: Durations) -> list[Critical]:
    """Ranks on the critical path through the steps, first those that make it longest. times: that everyone ran by."""
    walk = _Walk(plan, lowered, everyone, times)
    walk.back()
    walk.after()
    found = [Critical(r, ns / NS_PER_S, walk.spent.beyond[r] / NS_PER_S) for r, ns in walk.spent.ns.items()]
    return sorted(found, key=lambda each: (-each.beyond_s, -each.seconds))


class _Walk:
    """Back along the critical path."""

    def __init__(self, plan: Plan, lowered: Lowered, everyone: Crowd, times: Durations) -> None:
        self.data, self.replicas = plan.data, everyone.replicas
        self.jobs, self.syncs, self.everyone, self.times = lowered.jobs, lowered.syncs, everyone, times
        self.spent = _Spent()
        self.ways: dict[int, _Ways] = {}

    def back(self) -> None:
        """From the last step to end to the start of the first."""
        crossings = self.everyone.crossings
        position = int(np.argmax([int(row[-1].ends.max()) for row in crossings]))
        step = len(crossings[position]) - 1
        replica = int(crossings[position][step].ends.argmax())
        at = int(crossings[position][step].ends[replica])
        while step >= 0:
            replica = self._through(position, step, replica, at)
            crossing = crossings[position][step]
            cause = int(crossing.blame[replica])
            if cause:
                start = int(crossing.starts[replica])
                wait = next(w for w in self.jobs[position][step].waits if w[2] == cause)
                position, step, kind = wait
                at = self._sent(position, step, replica, kind, start)
                continue
            step -= 1
            at = int(crossings[position][step].ends[replica]) if step >= 0 else 0

    def after(self) -> None:
        """Reductions that end after all steps, and parameters: what slow NICs make of them counts for these, at most
        all that is left when the steps are done. For the rest everybody waits alike."""
        last = max(int(row[-1].ends.max()) for row in self.everyone.crossings)
        position, replica = _latest(self.everyone.reduced)
        alone = sum(ns for _, _, ns in self.syncs[position].reduces)
        left = int(self.everyone.reduced[position][replica]) - last
        self._rings(position, self._carried(position, replica, REDUCE) - alone, left)
        position, replica = _latest([ends for _, ends in self.everyone.update])
        took = self._carried(position, replica, GATHER)
        self._rings(position, took - self.syncs[position].gather_ns, took)

    def _rings(self, position: int, beyond: int, took: int) -> None:
        rank = self.times.links.slow_holder(position)
        if rank is not None and (beyond := min(beyond, took)) > 0:
            self.spent.add(rank, took, took - beyond)

    def _carried(self, position: int, replica: int, kind: int) -> int:
        """Nanoseconds for which a replica's network lane carries loads of a kind."""
        loads = self.everyone.messages[position]
        return sum(int(ends[replica] - starts[replica]) for _, each, starts, ends in loads if each == kind)

    def _through(self, position: int, step: int, replica: int, at: int) -> int:
        """Back through one step from `at`, hopping to the members that exchanges waited for; where it ends."""
        job, crossing = self.jobs[position][step], self.everyone.crossings[position][step]
        ways = self._ways(job)
        starts, ends = _column(crossing, replica)
        while (number := _ending(starts, ends, at)) >= 0:
            start, member = starts[number], replica
            if ways.exchange[number]:
                member = self.times.pacing(position, step, number, start, replica, at - start)
            self.spent.add(position * self.data + int(self.replicas.first[member]), at - start, ways.expected[number])
            if ways.exchange[number] and int(crossing.ready[number, member]) < start:
                mates = self.replicas.mates(member)
                member = mates.start + int(crossing.ready[number, mates].argmax())
            if member != replica:
                replica = member
                starts, ends = _column(crossing, replica)
            at = start
            if all(ends[j] != at for j in ways.causes[number]):
                break
        return replica

    def _sent(self, position: int, step: int, replica: int, kind: int, arrived: int) -> int:
        """When an output of a step was ready on a replica. The time from then to its arrival counts for the slow NIC
        at one of its ends, and for nobody where there is none."""
        job = self.jobs[position][step]
        number = job.template.senders[kind]
        ready = int(self.everyone.crossings[position][step].segment_ends[number, replica])
        rank = self.times.links.slow_end(position, step, kind, replica)
        if rank is not None and arrived - ready > (alone := dict(job.sends)[kind]):
            self.spent.add(rank, arrived - ready, alone)
        return ready

    def _ways(self, job: Job) -> "_Ways":
        if id(job.template) not in self.ways:
            self.ways[id(job.template)] = _ways(job.template)
        return self.ways[id(job.template)]


def _latest(times: Sequence[Times]) -> tuple[int, int]:
    """Position and replica of the largest."""
    position = int(np.argmax([int(row.max()) for row in times]))
    return position, int(times[position].argmax())


class _Ways(NamedTuple):
    """Of each segment of a template: whether it is an exchange, ns expected, and what its start may follow."""

    exchange: Sequence[bool]
    expected: Sequence[int]
    causes: Sequence[Sequence[int]]


def _ways(template: Template) -> _Ways:
    causes = []
    for number, needed in enumerate(template.waits):
        lane = template.order[template.segments[number].lane]
        causes.append((*needed, *lane[: lane.index(number)][-1:]))
    expected = [segment_ns(template, segment) for segment in template.segments]
    return _Ways([segment.exchange for segment in template.segments], expected, causes)


def _column(crossing: Crossing, replica: int) -> tuple[list[int], list[int]]:
    """Starts and ends of the segments of a step on one replica."""
    return crossing.segment_starts[:, replica].tolist(), crossing.segment_ends[:, replica].tolist()


def _ending(starts: Sequence[int], ends: Sequence[int], at: int) -> int:
    """The last segment that took time and ended at `at`; -1 if none did."""
    return next((i for i in range(len(ends) - 1, -1, -1) if ends[i] == at and starts[i] < at), -1)


NAMED = 5
"""Ranks of the critical path that result.json names."""


def named(plan: Plan, gpus_per_node: int, found: Sequence[Critical]) -> list[dict[str, Any]]:
    """Those that make the path longest: where they are, and their part of all that it is longer by. None where nobody
    takes longer than in an even step."""
    late = [each for each in found if each.beyond_s > 0]
    total = sum(each.beyond_s for each in late)
    return [
        described(each.rank, plan, gpus_per_node)
        | {"seconds": each.seconds, "beyond_s": each.beyond_s, "part": each.beyond_s / total}
        for each in late[:NAMED]
    ]


def described(rank: int, plan: Plan, gpus_per_node: int) -> dict[str, Any]:
    """Where a rank is."""
    position, replica = divmod(rank, plan.data)
    return {"rank": rank, "pipeline_position": position, "replica": replica, "node": rank // gpus_per_node}
