"""Timelines as tests read them: steps and segments at absolute times, on every column or every replica."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sim.engine.actor import Actor, Job
from sim.engine.arrays import Duration
from sim.engine.lowering import Lowered
from sim.engine.timeline import Causes, Timeline
from sim.layout.machine import Machine
from sim.layout.mesh import Columns, Mesh, Times
from sim.layout.plan import Plan
from sim.simulation import Run, simulated


class Crossing(NamedTuple):
    """One step. starts, ends: ns [column]. segment_starts, segment_ends: [segment, column]. ready: [meeting, column].
    blame: output whose message came last [column]."""

    starts: Times
    ends: Times
    segment_starts: Times
    segment_ends: Times
    ready: Times
    blame: Causes


def crossings(timeline: Timeline, everyone: bool = False) -> list[list[Crossing]]:
    """Per position, per step. everyone: a column for each replica."""
    of = timeline.columns.of if everyone else np.arange(timeline.columns.columns)
    found = []
    for steps in timeline.positions:
        row = []
        for start, end, inside, blame in zip(steps.starts, steps.ends, steps.insides, steps.blame, strict=True):
            own = (np.broadcast_to(times + start, (len(times), len(start)))[:, of] for times in inside)
            row.append(Crossing(start[of], end[of], *own, blame[of]))
        found.append(row)
    return found


def apart(data: int, expert: int) -> Columns:
    """Each replica in a column of its own."""
    return Mesh(1, data, expert).columns()


def last_end(timeline: Timeline) -> int:
    """When the last step ends."""
    return int(timeline.last().max())


def own_duration(jobs: Sequence[Sequence[Job]]) -> Duration:
    """Durations as the templates say: all replicas alike."""
    return lambda position, step: jobs[position][step].template.lasts


def own_wire(position: int, step: int, kind: int, starts: Times, ns: int) -> Times:
    """Messages and gradient traffic as jobs and syncs say."""
    return np.full(len(starts), ns, dtype=np.int64)


def took(duration: Duration, position: int, step: int, number: int, starts: Times) -> Times:
    """Nanoseconds of a segment begun at `starts` [column]."""
    found = duration(position, step)
    return np.broadcast_to(found(number, starts) if callable(found) else found[number], starts.shape)


def run(laid: Plan, machine: Machine, *faults: Any, **changed: Any) -> Run:
    """The plan simulated with these faults, and whatever else is changed of its scenario."""
    return simulated(replace(laid, scenario=replace(laid.scenario, faults=faults, **changed)), machine)


def part_by_part(low: Lowered) -> list[Actor]:
    """Ranks that are alike, one a position, with a task a part in place of chunks."""
    return [replace(actor, jobs=jobs) for actor, jobs in zip(low.actors, low.parts, strict=True)]


def kernel_by_kernel(low: Lowered) -> list[Actor]:
    """Ranks that are alike, one a position, with all kernels in place of chunks."""
    return [
        replace(actor, jobs=tuple(job._replace(template=kit.fine) for job, kit in zip(actor.jobs, kits, strict=True)))
        for actor, kits in zip(low.actors, low.kits, strict=True)
    ]


def of_every_rank(low: Lowered, mesh: Mesh) -> list[Actor]:
    """One actor for each rank, with all kernels in place of chunks; expert groups meet."""
    found = []
    for position, actor in enumerate(kernel_by_kernel(low)):
        for replica in range(mesh.replicas):
            rank = mesh.rank(position, replica)
            peers = {p: mesh.rank(p, replica) for p in range(mesh.pipeline)}
            found.append(replace(actor, name=f"rank {rank}", groups={"expert": rank // mesh.expert}, peers=peers))
    return found
