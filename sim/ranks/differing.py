"""A run whose ranks differ: loads drawn, all replicas carried as arrays, and one replica's records for the traces.

The replica shown is the one that finishes last. Figures are means over all ranks (see `attribution`).
"""

from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np

from sim.actor import Actor, Outcome, Record
from sim.lower import Lowered
from sim.plan import Machine, Plan
from sim.ranks import crowd, faults, replicas
from sim.ranks.crowd import Crowd
from sim.ranks.replicas import Replicas
from sim.ranks.uneven import COMPUTING, Durations
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
    times = Durations(
        plan, machine, lowered.kits, lowered.first_layer, found, scenario.faults, scenario.jitter,
        _columns(plan, machine, found),
    )  # fmt: skip
    everyone = crowd.run(lowered.jobs, lowered.syncs, times.replicas, times, times.wire, times.common)
    column = int(np.max([row[-1].ends for row in everyone.crossings], axis=0).argmax())
    shown = int(times.replicas.first[column])
    records = tuple(_record(lowered, everyone, position, column) for position in range(plan.program.ranks))
    events = plan.data * sum(len(c.segment_ends) for row in everyone.crossings for c in row)
    return Differing(everyone, shown, Outcome(records, everyone.end, events), found, times)


def _columns(plan: Plan, machine: Machine, loads: Loads | None) -> Replicas:
    """Replicas that nothing tells apart as one, where the scenario folds and only faults of GPUs tell some apart."""
    scenario, group = plan.scenario, min(plan.scenario.parallel.expert, plan.data)
    others = any(fault.kind not in COMPUTING for fault in scenario.faults)
    if not scenario.fold or loads is not None or scenario.jitter or others:
        return replicas.apart(plan.data, group)
    slow = faults.of_ranks(scenario.faults, COMPUTING, machine.cluster.node.gpus)
    first = range(0, plan.program.ranks * plan.data, plan.data)
    return replicas.alike([tuple(slow.get(rank + d) for rank in first) for d in range(plan.data)], group)


def alone(lowered: Lowered) -> Lowered:
    """The same positions, each with an actor of its own: what the records of one replica belong to."""
    everywhere = {p: p for p in range(len(lowered.jobs))}
    actors = tuple(
        Actor(f"pipeline position {p}", jobs, -1, lowered.syncs[p], everywhere) for p, jobs in enumerate(lowered.jobs)
    )
    return replace(lowered, actors=actors, actor_of=tuple(everywhere))


def _record(lowered: Lowered, everyone: Crowd, position: int, column: int) -> Record:
    record = Record()
    for job, crossing in zip(lowered.jobs[position], everyone.crossings[position], strict=True):
        record.starts.append(int(crossing.starts[column]))
        record.ends.append(int(crossing.ends[column]))
        record.blame.append(int(crossing.blame[column]))
        starts, ends = (times[:, column].tolist() for times in (crossing.segment_starts, crossing.segment_ends))
        for lane in STREAMS:
            record.phases[lane].extend([starts[i] for i in job.template.order[lane]])
            record.kernels[lane].extend([ends[i] for i in job.template.order[lane]])
    norm, updated = everyone.update[position]
    record.update = (norm, int(updated[column]))
    record.network.extend(_messages(everyone, position, column))
    return record


def _messages(everyone: Crowd, position: int, column: int) -> list[int]:
    """Start, end, step and kind of each message and reduction of one replica, in time, flat."""
    rows = [(int(s[column]), int(e[column]), step, kind) for step, kind, s, e in everyone.messages[position]]
    return [value for row in sorted(rows, key=itemgetter(0, 1)) for value in row]
