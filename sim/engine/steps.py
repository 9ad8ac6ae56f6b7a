"""Steps and messages of ranks that are alike, one rank a pipeline position, as SimPy events; and as a timeline.

Steps run as chunks that leave their outputs when the run of their inside says; exchanges inside them are windows in
which the NICs are taken. So messages meet exchanges at the very moments at which finer runs would have them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sim.engine import events
from sim.engine.actor import Actor, Job, Record, Sync
from sim.engine.kit import Kit
from sim.engine.timeline import Steps, Timeline, Transfer
from sim.engine.wire import REDUCE
from sim.layout import mesh
from sim.layout.mesh import Times
from sim.step.inside import Inside


def run(actors: Sequence[Actor], kits: Sequence[Sequence[Kit]]) -> Timeline:
    """The timeline of actors, one a position, whose steps are chunks of kits. Raises deadlock.DeadlockError."""
    outcome = events.run(actors, chunks=True)
    rows = zip(outcome.records, kits, strict=True)
    positions = [_steps(record, [kit.inside for kit in row]) for record, row in rows]
    network = [_network(record) for record in outcome.records]
    reduced = [np.array([_reduced(record, actor.sync)]) for actor, record in zip(actors, outcome.records, strict=True)]
    update = [(record.update[0], np.array([record.update[1]])) for record in outcome.records]
    return Timeline(mesh.one(), positions, network, reduced, update, outcome.end, outcome.events)


def _reduced(record: Record, sync: Sync) -> int:
    """When all is through that the norm waits for: steps, reductions, and own outputs that the end waits for."""
    (_, ends, steps, kinds), waits = _table(record).T, [(step, kind) for _, step, kind in sync.waits]
    waited = (kinds == REDUCE) | np.any([(steps == step) & (kinds == kind) for step, kind in waits], axis=0)
    return max(record.ends[-1], int(ends[waited].max(initial=0)))


def _steps(record: Record, insides: list[Inside]) -> Steps:
    starts, ends = (np.array(times, dtype=np.int64).reshape(-1, 1) for times in (record.starts, record.ends))
    return Steps(starts, ends, np.array(record.blame, dtype=np.int8).reshape(-1, 1), insides)


def _table(record: Record) -> Times:
    """Start, end, step and kind of all that the network lane carried [transfer, 4]."""
    return np.array(record.network, dtype=np.int64).reshape(-1, 4)


def _network(record: Record) -> list[Transfer]:
    table = _table(record)
    rows = zip(table[:, 2:].tolist(), table[:, :1], table[:, 1:2], strict=True)
    return [Transfer(step, kind, start, end) for (step, kind), start, end in rows]


def with_network_times(jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], timeline: Timeline) -> tuple[
    list[tuple[Job, ...]], list[Sync]
]:  # fmt: skip
    """`jobs` and `syncs` whose messages and reductions last as long as among alike ranks, of `timeline`. Arrays work
    through positions step by step, not moment by moment, so they cannot know which exchanges a message meets."""
    rows, tails = [], []
    for row, sync, carried in zip(jobs, syncs, timeline.network, strict=True):
        ns = Counter[tuple[int, int]]()
        for t in carried:  # a reduction may have several
            ns[t.kind, t.step] += int(t.ends[0] - t.starts[0])
        rows.append(tuple(
            job._replace(sends=tuple((kind, ns[kind, step]) for kind, _ in job.sends)) if job.routes else job
            for step, job in enumerate(row)
        ))  # fmt: skip
        reduces = tuple((after, stage, ns[REDUCE, -1 - stage]) for after, stage, _ in sync.reduces)
        tails.append(replace(sync, reduces=reduces))
    return rows, tails
