"""A run whose ranks differ: loads drawn, all replicas carried as arrays, and one replica's records for the traces.

The replica shown is the one that finishes last. Figures are means over all ranks (see `attribution`).
"""

from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from sim.actor import Actor, Outcome, Record
from sim.lower import Lowered
from sim.plan import Machine, Plan
from sim.ranks import crowd
from sim.ranks.crowd import Crowd
from sim.ranks.uneven import Durations
from sim.template import STREAMS
from sim.tokens.loads import Loads


@dataclass(frozen=True)
class Differing:
    """everyone: what all replicas did. shown: the replica that the traces show. outcome: its records, by position.
    loads: what was drawn for them, or None. times: durations by which they ran."""

    everyone: Crowd
    shown: int
    outcome: Outcome
    loads: Loads | None
    times: Durations

    @property
    def rows(self) -> tuple[int, int] | None:
        """Smallest and largest expert rows drawn, or None."""
        return (int(self.loads.rows.min()), int(self.loads.rows.max())) if self.loads else None


def run(plan: Plan, machine: Machine, lowered: Lowered) -> Differing:
    """Simulate every rank. Raises ValueError on a deadlock."""
    from sim.tokens.imbalance import loads_of

    found = loads_of(plan, machine)
    scenario = plan.scenario
    times = Durations(plan, machine, lowered.kits, lowered.first_layer, found, scenario.faults, scenario.jitter)
    group = min(scenario.parallel.expert, plan.data)
    everyone = crowd.run(lowered.jobs, lowered.syncs, plan.data, group, times, times.wire, times.common)
    last = np.max([row[-1].ends for row in everyone.crossings], axis=0)
    shown = int(last.argmax())
    records = tuple(
        _record(lowered, everyone, position, shown) for position in range(plan.program.ranks)
    )
    events = plan.data * sum(len(c.segment_ends) for row in everyone.crossings for c in row)
    return Differing(everyone, shown, Outcome(records, everyone.end, events), found, times)


def alone(lowered: Lowered) -> Lowered:
    """The same positions, each with an actor of its own: what the records of one replica belong to."""
    everywhere = {p: p for p in range(len(lowered.jobs))}
    actors = tuple(
        Actor(f"pipeline position {p}", jobs, -1, lowered.syncs[p], everywhere) for p, jobs in enumerate(lowered.jobs)
    )
    return replace(lowered, actors=actors, actor_of=tuple(everywhere))


def _record(lowered: Lowered, everyone: Crowd, position: int, replica: int) -> Record:
    record = Record()
    for job, crossing in zip(lowered.jobs[position], everyone.crossings[position], strict=True):
        record.starts.append(int(crossing.starts[replica]))
        record.ends.append(int(crossing.ends[replica]))
        record.blame.append(int(crossing.blame[replica]))
        for lane in STREAMS:
            order = list(job.template.order[lane])
            record.phases[lane].extend(crossing.segment_starts[order, replica].tolist())
            record.kernels[lane].extend(crossing.segment_ends[order, replica].tolist())
    norm, updated = everyone.update[position]
    record.update = (norm, int(updated[replica]))
    record.network.extend(_messages(everyone, position, replica))
    return record


def _messages(everyone: Crowd, position: int, replica: int) -> list[int]:
    """Start, end, step and kind of each message and reduction of one replica, in time, flat."""
    rows = [(int(s[replica]), int(e[replica]), step, kind) for step, kind, s, e in everyone.messages[position]]
    return [value for row in sorted(rows, key=itemgetter(0, 1)) for value in row]
