"""The two engines on one input: all replicas as arrays, and one SimPy actor a rank with templates of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from sim import assembly
from sim.engine import arrays, events
from sim.engine.actor import Actor, Job, Outcome, Sync
from sim.engine.arrays import Duration
from sim.engine.lane import Wire
from sim.engine.lowering import Lowered, lower
from sim.engine.timeline import Timeline
from sim.engine.wire import REDUCE
from sim.layout import plan
from sim.layout.machine import Machine
from sim.layout.mesh import Times
from sim.layout.plan import Plan
from sim.scenario import from_mapping
from sim.step.template import STREAMS, Template
from tests.oracles.timelines import apart, crossings, took

TINY = {
    "name": "tiny",
    "cluster": {"node": "h800x8", "nodes": 1},
    "model": {"base": "deepseek_v2_lite", "layers": 8, "mtp_depth": 1, "q_rank": 128, "vocabulary": 1024},
    "precision": "fp8",
    "parallel": {"pipeline": 2, "expert": 2},
    "schedule": "dualpipe",
    "batch": {"micro_batches": 8, "sequence_length": 512},
    "placement": "even",
    "detail": "layer",
    "outputs": ["result"],
}
"""8 layers of V2-Lite: enough for 4 positions with two stages each."""


@cache
def lowered(*overrides: str) -> tuple[Plan, Machine, Lowered]:
    """The tiny scenario, laid out and lowered."""
    laid = plan.lay_out(from_mapping(TINY, overrides))
    machine = assembly.machine(laid)
    return laid, machine, lower(laid, machine)


def with_durations(template: Template, ns: Sequence[int]) -> Template:
    """A coarse template whose segments last `ns` (one kernel a segment, not slowed by anything)."""
    rows: list[list[int]] = [[0] * len(lane) for lane in template.alone]
    for segment, value in zip(template.segments, ns, strict=True):
        assert segment.stop == segment.first + 1
        rows[segment.lane][segment.first] = int(value)
    frozen = tuple(tuple(row) for row in rows)
    return replace(template, alone=frozen, beside=frozen)


def actors(
    jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], data: int, expert: int, duration: Duration, wire: Wire
) -> list[Actor]:
    """One actor for each rank; durations that do not depend on when they start."""
    at = np.zeros(data, dtype=np.int64)
    found = []
    for position, row in enumerate(jobs):
        times = [
            [took(duration, position, k, i, at) for i in range(len(job.template.segments))] for k, job in enumerate(row)
        ]
        wires = [[(kind, wire(position, k, kind, at, ns)) for kind, ns in job.sends] for k, job in enumerate(row)]
        reduces = [(after, stage, wire(position, stage, 3, at, ns)) for after, stage, ns in syncs[position].reduces]
        gather = wire(position, -1, 4, at, syncs[position].gather_ns) if syncs[position].gather_ns else at
        for replica in range(data):
            own = tuple(
                Job(
                    with_durations(job.template, [t[replica] for t in times[k]]), job.waits,
                    tuple((kind, int(ns[replica])) for kind, ns in wires[k]), rendezvous=job.rendezvous,
                )
                for k, job in enumerate(row)
            )  # fmt: skip
            sync = replace(
                syncs[position], reduces=tuple((after, stage, int(ns[replica])) for after, stage, ns in reduces),
                gather_ns=int(gather[replica]) if syncs[position].gather_ns else 0, routes={},
            )  # fmt: skip
            rank = position * data + replica
            peers = {p: p * data + replica for p in range(len(jobs))}
            found.append(Actor(f"rank {rank}", own, {"expert": rank // expert}, sync, peers))
    return found


def as_found(many: Timeline) -> tuple[Duration, Wire]:
    """The durations that a run of the arrays came to, whatever they depended on."""
    known: dict[tuple[int, int, int], Times] = {}
    for p, row in enumerate(many.network):
        for each in row:
            key = p, -1 - each.step if each.kind == REDUCE else each.step, each.kind
            known[key] = known.get(key, 0) + each.ends - each.starts

    def duration(position: int, step: int) -> arrays.SegmentTimes:
        inside = many.positions[position].insides[step]
        return lambda number, starts: np.broadcast_to(inside.ends[number] - inside.starts[number], starts.shape)

    def wire(position: int, step: int, kind: int, starts: Times, ns: int) -> Times:
        return known[position, step, kind]

    return duration, wire


def same(many: Timeline, one: Outcome, jobs: Sequence[Sequence[Job]], data: int) -> None:
    """Every span of every rank is equal: steps, segments, messages, reductions, optimizer."""
    assert many.end == one.end
    for position, (row, rows) in enumerate(zip(jobs, crossings(many), strict=True)):
        for replica in range(data):
            record = one.records[position * data + replica]
            where = f"position {position} replica {replica}"
            assert list(record.starts) == [int(c.starts[replica]) for c in rows], where
            assert list(record.ends) == [int(c.ends[replica]) for c in rows], where
            assert list(record.blame) == [int(c.blame[replica]) for c in rows], where
            for lane in STREAMS:
                begun = [int(c.segment_starts[i, replica]) for j, c in zip(row, rows, strict=True)
                         for i in j.template.order[lane]]  # fmt: skip
                done = [int(c.segment_ends[i, replica]) for j, c in zip(row, rows, strict=True)
                        for i in j.template.order[lane]]  # fmt: skip
                assert (list(record.phases[lane]), list(record.kernels[lane])) == (begun, done), where
            spans = ((int(t.starts[replica]), int(t.ends[replica]), t.step, t.kind) for t in many.network[position])
            own = zip(*[iter(record.network)] * 4, strict=True)
            assert _stretches(own) == _stretches(spans), where
            norm, updated = many.update[position]
            assert record.update == (norm, int(updated[replica])), where


def _stretches(spans: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Spans of a network lane; without those of no length of reductions, which other replicas may have longer."""
    return sorted(span for span in spans if span[3] != REDUCE or span[0] < span[1])


def both(
    jobs: Sequence[Sequence[Job]], syncs: Sequence[Sync], data: int, expert: int, duration: Duration, wire: Wire
) -> tuple[Timeline, Outcome]:
    """What the arrays say, and what the events say."""
    many = arrays.run(jobs, syncs, apart(data, expert), duration, wire)
    return many, events.run(actors(jobs, syncs, data, expert, duration, wire))
