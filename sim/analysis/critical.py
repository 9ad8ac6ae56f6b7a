"""Critical path through the steps: which ranks are on it, and how much longer each takes than in an even step.

The chain goes back from the last step to end: a segment follows the one before it on its lane, one it needs, its step's
messages (one that both ends wait for follows the end that came last), or, for an exchange, the member of the group that
came last. An exchange whose length a slow NIC sets counts
for the rank of that NIC, and so does a message. The time beyond says who is to blame: without it the chain would take
no longer than some path of the even step, so all that the step costs more lies in it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from hwmodels.units import NS_PER_S
from sim.disturbances.durations import Durations
from sim.engine.actor import OWN, Message
from sim.engine.kit import Kit
from sim.engine.lowering import Lowered
from sim.engine.timeline import Timeline
from sim.engine.wire import GATHER, REDUCE
from sim.layout.mesh import Mesh, Times
from sim.layout.plan import Plan


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

    def add(self, rank: int, duration: int, expected: int) -> None:
        self.ns[rank] += duration
        self.beyond[rank] += duration - expected


def critical_ranks(plan: Plan, lowered: Lowered, timeline: Timeline, times: Durations) -> list[Critical]:
    """Ranks on the critical path through the steps, first those that make it longest. times: that everyone ran by."""
    walk = _Walk(plan, lowered, timeline, times)
    walk.back()
    walk.after()
    ranks = [Critical(r, ns / NS_PER_S, walk.spent.beyond[r] / NS_PER_S) for r, ns in walk.spent.ns.items()]
    return sorted(ranks, key=lambda each: (-each.beyond_s, -each.seconds))


class _Walk:
    """Back along the critical path; ranks are columns on the way."""

    def __init__(self, plan: Plan, lowered: Lowered, timeline: Timeline, times: Durations) -> None:
        self.mesh, self.columns, self.timeline, self.times = plan.mesh, timeline.columns, timeline, times
        self.kits, self.jobs, self.syncs, self.comings = lowered.kits, lowered.jobs, lowered.syncs, lowered.comings
        self.arrived = {(p, t.step, t.kind): t.ends for p, row in enumerate(timeline.network) for t in row}
        self.spent = _Spent()
        self.ways = cache(_ways)

    def back(self) -> None:
        """From the last step to end to the start of the first."""
        steps = self.timeline.positions
        position = int(np.argmax([int(row.ends[-1].max()) for row in steps]))
        step = len(steps[position].ends) - 1
        column = int(steps[position].ends[step].argmax())
        at = int(steps[position].ends[step, column])
        while step >= 0:
            column = self._through(position, step, column, at)
            if steps[position].blame[step, column]:
                message, start = self._blamed(position, step, column), int(steps[position].starts[step, column])
                if self.jobs[message[0]][message[1]].rendezvous:
                    position, step, at = self._last_end(message, column, start)
                else:
                    position, step, kind = message
                    at = self._sent(position, step, column, kind, start)
                continue
            step -= 1
            at = int(steps[position].ends[step, column]) if step >= 0 else 0

    def _blamed(self, position: int, step: int, column: int) -> Message:
        """The message that came last of those that a step waited for on a column."""
        steps, cause = self.timeline.positions[position], int(self.timeline.positions[position].blame[step, column])
        alike = [m for m in self.jobs[position][step].waits if m[2] + OWN * (m[0] == position) == cause]
        start = int(steps.starts[step, column])
        return next(m for m in alike if len(alike) == 1 or int(self.arrived[m][column]) == start)

    def _last_end(self, message: Message, column: int, arrived: int) -> tuple[int, int, int]:
        """Position, step and end of that step of the one who came last to a message that both of its ends wait for. The
        time from then on counts for a slow NIC, as in `_sent`."""
        ends = [(int(self.timeline.positions[p].ends[n - 1, column]) if n else 0, p, n - 1)
                for p, n in self.comings[message]]  # fmt: skip
        at, last, number = max(ends)
        self._on_the_way(message, column, at, arrived)
        return last, number, at

    def after(self) -> None:
        """Reductions that end after all steps, and parameters: what slow NICs make of them counts for these, at most
        all that is left when the steps are done. For the rest everybody waits alike."""
        last = int(self.timeline.last().max())
        position, column = _latest(self.timeline.reduced)
        alone = sum(ns for _, _, ns in self.syncs[position].reduces)
        left = int(self.timeline.reduced[position][column]) - last
        self._rings(position, self._carried(position, column, REDUCE) - alone, left)
        position, column = _latest([ends for _, ends in self.timeline.update])
        duration = self._carried(position, column, GATHER)
        self._rings(position, duration - self.syncs[position].gather_ns, duration)

    def _rings(self, position: int, beyond: int, duration: int) -> None:
        rank = self.times.links.slow_holder(position)
        if rank is not None and (beyond := min(beyond, duration)) > 0:
            self.spent.add(rank, duration, duration - beyond)

    def _carried(self, position: int, column: int, kind: int) -> int:
        """Nanoseconds for which a column's network lane carries loads of a kind."""
        carried = self.timeline.network[position]
        return sum(int(t.ends[column] - t.starts[column]) for t in carried if t.kind == kind)

    def _through(self, position: int, step: int, column: int, at: int) -> int:
        """Back through one step from `at`, hopping to the members that exchanges waited for; where it ends."""
        ways = self.ways(self.kits[position][step])
        starts, ends = self._segments(position, step, column)
        while (number := _ending(starts, ends, at)) >= 0:
            start, member = starts[number], column
            if number in ways.meetings:
                member = self.times.pacing(position, step, number, start, column, at - start)
            rank = self.mesh.rank(position, int(self.columns.first[member]))
            self.spent.add(rank, at - start, ways.expected[number])
            if number in ways.meetings:
                member = self._last_to_come(position, step, number, member, start)
            if member != column:
                column = member
                starts, ends = self._segments(position, step, column)
            at = start
            if all(ends[j] != at for j in ways.causes[number]):
                break
        return column

    def _last_to_come(self, position: int, step: int, segment: int, column: int, start: int) -> int:
        """The member of a column's group that a segment waited for; itself where it waited for none."""
        steps, kit = self.timeline.positions[position], self.kits[position][step]
        ready: Times = steps.insides[step].ready[self.ways(kit).meetings[segment]] + steps.starts[step]
        if int(ready[column]) >= start:
            return column
        mates = self.columns.mates(column, kit.parts.segments[segment].meets)
        return int(mates[ready[mates].argmax()])

    def _segments(self, position: int, step: int, column: int) -> tuple[list[int], list[int]]:
        """Starts and ends of the segments of a step on one column, ns."""
        steps = self.timeline.positions[position]
        inside, begun = steps.insides[step], int(steps.starts[step, column])
        own = column if inside.starts.shape[1] > 1 else 0
        return (inside.starts[:, own] + begun).tolist(), (inside.ends[:, own] + begun).tolist()

    def _sent(self, position: int, step: int, column: int, kind: int, arrived: int) -> int:
        """When an output of a step was ready on a column. The time from then to its arrival counts for the slow NIC
        at one of its ends, and for nobody where there is none."""
        ready = self._segments(position, step, column)[1][self.kits[position][step].parts.senders[kind]]
        self._on_the_way((position, step, kind), column, ready, arrived)
        return ready

    def _on_the_way(self, message: Message, column: int, ready: int, arrived: int) -> None:
        position, step, kind = message
        rank = self.times.links.slow_end(position, step, kind, int(self.columns.first[column]))
        if rank is not None and arrived - ready > (alone := dict(self.jobs[position][step].sends)[kind]):
            self.spent.add(rank, arrived - ready, alone)


def _latest(times: Sequence[Times]) -> tuple[int, int]:
    """Position and column of the largest."""
    position = int(np.argmax([int(row.max()) for row in times]))
    return position, int(times[position].argmax())


class _Ways(NamedTuple):
    """Segments of a kit: ns expected, what the start of each may follow, and the number of each meeting."""

    expected: Sequence[int]
    causes: Sequence[Sequence[int]]
    meetings: dict[int, int]


def _ways(kit: Kit) -> _Ways:
    template, causes = kit.parts, []
    for number, needed in enumerate(template.waits):
        lane = template.order[template.segments[number].lane]
        causes.append((*needed, *lane[: lane.index(number)][-1:]))
    return _Ways(template.lasts, causes, {number: i for i, number in enumerate(template.meetings)})


def _ending(starts: Sequence[int], ends: Sequence[int], at: int) -> int:
    """The last segment that took time and ended at `at`; -1 if none did."""
    return next((i for i in range(len(ends) - 1, -1, -1) if ends[i] == at and starts[i] < at), -1)


NAMED = 5
"""Ranks of the critical path that result.json names."""


def named(mesh: Mesh, ranks: Sequence[Critical]) -> list[dict[str, Any]]:
    """Those that make the path longest: where they are, and their part of all that it is longer by. None where nobody
    takes longer than in an even step."""
    late = [each for each in ranks if each.beyond_s > 0]
    total = sum(each.beyond_s for each in late)
    return [
        described(each.rank, mesh) | {"seconds": each.seconds, "beyond_s": each.beyond_s, "part": each.beyond_s / total}
        for each in late[:NAMED]
    ]


def described(rank: int, mesh: Mesh) -> dict[str, Any]:
    """Place of a rank, in words."""
    position, replica = mesh.place(rank)
    return {"rank": rank, "pipeline_position": position, "replica": replica, "node": mesh.node(rank)}
