"""Ranks that differ as a graph of steps (`sim.replay`): each expert group moves as one.

A step of a group starts when its last member does and ends when its last member does, as it was in the run. What
dearer prices make of it is found by running one step of each kind, position and group again: every segment as long as
it took on its rank, times what dearer prices make of it in the template. A rank that is twice as slow moves twice as
much, another member or lane may take over, and an exchange still waits for its last member. What slows a GPU for a
while keeps its place on the clock: steps that other prices move out of its way are as fast as the others.
"""

from collections.abc import Sequence

import numpy as np

from sim.lower import Kit, Lowered
from sim.ranks.crowd import Crossing, Crowd
from sim.ranks.uneven import Durations
from sim.replay import Floats, Graph, Moved, Paced, Track
from sim.template import STREAMS, Template, part_ns

LATEST = 2
"""Expert groups that are followed: the last to end, and one more that may take over (V3 has two)."""


def graph(lowered: Lowered, everyone: Crowd, times: Durations) -> Graph:
    """Of a run of ranks that differ. times: durations by which they ran."""
    replicas = everyone.replicas
    last = np.maximum.reduceat(np.max([row[-1].ends for row in everyone.crossings], axis=0), replicas.groups)
    latest = np.argsort(-last, kind="stable")[:LATEST]
    tracks = tuple(_track(lowered, everyone, replicas.group(int(g)), times) for g in latest)
    part = replicas.weight / replicas.weight.sum()
    lengths = [[float((c.ends - c.starts) @ part) for c in row] for row in everyone.crossings]
    return Graph(lowered.jobs, tracks, lengths)


def _track(lowered: Lowered, everyone: Crowd, members: slice, times: Durations) -> Track:
    begun = [[int(c.starts[members].max()) for c in row] for row in everyone.crossings]
    offsets = [
        [_offsets(job.template, c, members, at) for job, c, at in zip(*rows, strict=True)]
        for rows in zip(lowered.jobs, everyone.crossings, begun, strict=True)
    ]
    delays = {}
    for position, row in enumerate(everyone.messages):
        for step, kind, _, arrived in row:
            if step >= 0:
                sent = begun[position][step] + offsets[position][step][kind]
                delays[position, step, kind] = int(arrived[members].max()) - sent
    samples, rows_of = _samples(lowered, offsets)

    def slopes(moves: Sequence[Moved]) -> Floats:
        kits = {id(kit): kit for row in lowered.kits for kit in row}
        known = {key: np.array([factors(kit, moved[key]) for moved in moves]) for key, kit in kits.items()}
        return np.array([
            _slope(lowered.jobs[p][s].template, everyone.crossings[p][s], members, known[id(lowered.kits[p][s])])
            for p, s in samples
        ])  # fmt: skip

    return Track(offsets, delays, rows_of, slopes, begun, _paced(len(begun), everyone, members, times))


def _paced(positions: int, everyone: Crowd, members: slice, times: Durations) -> dict[int, Paced]:
    """Positions at which the group is slower at some times than at others."""
    replicas = everyone.replicas.first[members].tolist()
    paces = {position: times.pace(position, replicas) for position in range(positions)}
    return {position: pace.moved for position, pace in paces.items() if pace and not pace.steady}


def _offsets(template: Template, crossing: Crossing, members: slice, begun: int) -> tuple[int, int, int]:
    """From the start of the last member to its end, and to the last forward and backward outputs (0: none)."""
    made = {kind: int(crossing.segment_ends[i, members].max()) - begun for kind, i in template.senders.items()}
    return int(crossing.ends[members].max()) - begun, made.get(1, 0), made.get(2, 0)


def _samples(
    lowered: Lowered, offsets: Sequence[Sequence[tuple[int, int, int]]]
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """(position, step) of the step of median length of each kit at each position, and which of them each step is like.
    """
    samples: list[tuple[int, int]] = []
    rows = []
    for position, kits in enumerate(lowered.kits):
        alike: dict[int, list[int]] = {}
        for step, kit in enumerate(kits):
            alike.setdefault(id(kit), []).append(step)
        row = [0] * len(kits)
        for steps in alike.values():
            middle = sorted(steps, key=lambda s: offsets[position][s])[len(steps) // 2]
            for step in steps:
                row[step] = len(samples)
            samples.append((position, middle))
        rows.append(row)
    return samples, rows


def factors(kit: Kit, moved: Kit) -> Floats:
    """Of each segment that is executed: its time at the moved prices, over its time. The run is at layer detail."""
    if moved is kit:
        return np.ones(len(kit.run.segments))
    assert kit.composition is not None
    phases = kit.composition.phases
    pairs = zip(part_ns(moved.timing, phases), part_ns(kit.timing, phases), strict=True)
    return np.array([now / ns if ns else 1.0 for now, ns in pairs])


def _slope(template: Template, crossing: Crossing, members: slice, factor: Floats) -> Floats:
    """The part by which each offset of a step grows [offset, set of prices]."""
    begun = float(crossing.starts[members].max())
    ends = crossed(template, crossing, members, np.vstack([np.ones_like(factor[:1]), factor])).max(2) - begun
    senders = (template.senders.get(kind) for kind in (1, 2))
    found = [ends.max(0), *(ends[i] if i is not None else np.ones(ends.shape[1]) for i in senders)]
    return np.array([offset[1:] / offset[0] - 1 for offset in found])


def crossed(template: Template, crossing: Crossing, members: slice, factor: Floats) -> Floats:
    """Ends [segment, set, member] of one step of an expert group whose segments take factor [set, segment] times as
    long as they did: the rules of `sim.ranks.crowd`, starts of the step as they were."""
    took = (crossing.segment_ends - crossing.segment_starts)[:, members]
    start = np.broadcast_to(crossing.starts[members], (len(factor), took.shape[1])).astype(np.float64)
    free = [start for _ in STREAMS]
    ends = np.empty((len(took), *start.shape))
    for i, (segment, needed) in enumerate(zip(template.segments, template.waits, strict=True)):
        at = free[segment.lane]
        for j in needed:
            at = np.maximum(at, ends[j])
        if segment.exchange:
            at = at.max(axis=1, keepdims=True)
        ends[i] = free[segment.lane] = at + factor[:, i, None] * took[i]
    return ends
