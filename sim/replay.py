"""The step at other prices: its steps and messages as a graph, gone through once for many sets of prices.

A step of the schedule starts when its rank is free and its messages are there; each output leaves so long after the
start as it did in the run, times what other prices make of it. Whichever path is then the longest counts, so another
rank may take over. What happens inside a step is linear in the prices, with the slope of prices one spread dearer.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.actor import Job, Message, Outcome
from sim.lower import Kit, Lowered

Floats = npt.NDArray[np.float64]
Moved = Mapping[int, Kit]
"""id of a kit -> the same kit at other prices."""
LEAST = 0.5
"""Prices that are drawn far too low make no output earlier than this part of its time."""


ALIKE = 512
"""Offsets whose draws are kept: many steps have the same, and a vector of 4,096 draws takes 32 kB."""


Paced = Callable[[int, Floats, int, Floats], Floats]
"""(begun, start, offset, scale) -> ns that an offset of a step begun at `begun` in the run takes when it begins at
`start` [draw] with `scale` [draw] times the work."""


class Track(NamedTuple):
    """Ranks that move together, one at each position. offsets: by position and step, ns from its start to its end, its
    forward and its backward output. delays: ns from an output until it arrives. rows: by position and step, the row of
    `slopes` (of sets of prices) [row, offset, set]: the part by which an offset grows. begun: by position and step, ns
    of the run. paced: of positions whose pace changes with time, whatever prices are."""

    offsets: Sequence[Sequence[tuple[int, int, int]]]
    delays: Mapping[Message, int]
    rows: Sequence[Sequence[int]]
    slopes: Callable[[Sequence[Moved]], Floats]
    begun: Sequence[Sequence[int]] = ()
    paced: Mapping[int, Paced] = MappingProxyType({})


class Graph(NamedTuple):
    """jobs: per position. tracks: of which the last to end counts. lengths: by position and step, mean ns of ranks."""

    jobs: Sequence[Sequence[Job]]
    tracks: Sequence[Track]
    lengths: Sequence[Sequence[float]]


def alike(lowered: Lowered, outcome: Outcome) -> Graph:
    """Of a run in which the ranks at a position are alike."""
    records = [outcome.records[actor] for actor in lowered.actor_of]
    delays = {}
    for position, (record, row) in enumerate(zip(records, lowered.kits, strict=True)):
        for _, end, step, kind in zip(*[iter(record.network)] * 4, strict=True):
            if kind in (1, 2):
                delays[position, step, kind] = end - record.starts[step] - row[step].outputs[kind]
    kits = list({id(kit): kit for row in lowered.kits for kit in row}.values())
    number = {id(kit): i for i, kit in enumerate(kits)}
    offsets = [[kit.outputs for kit in row] for row in lowered.kits]
    rows = [[number[id(kit)] for kit in row] for row in lowered.kits]

    def slopes(moves: Sequence[Moved]) -> Floats:
        return np.array([[[_part(moved[id(kit)].outputs[i], kit.outputs[i]) for moved in moves] for i in range(3)]
                         for kit in kits])  # fmt: skip

    lengths = [[float(kit.outputs[0]) for kit in row] for row in lowered.kits]
    return Graph(lowered.jobs, (Track(offsets, delays, rows, slopes),), lengths)


def _part(now: int, was: int) -> float:
    return now / was - 1 if was else 0.0


def order(jobs: Sequence[Sequence[Job]]) -> list[tuple[int, int]]:
    """(position, step) of all steps, each after those whose messages it waits for."""
    done = [0] * len(jobs)
    found: list[tuple[int, int]] = []
    while len(found) < sum(map(len, jobs)):
        before = len(found)
        for p, row in enumerate(jobs):
            while done[p] < len(row) and all(done[sender] > step for sender, step, _ in row[done[p]].waits):
                found.append((p, done[p]))
                done[p] += 1
        assert len(found) > before, "a run that ended has no deadlock"
    return found


def ends(graph: Graph, slopes: Sequence[Floats], draws: Floats, wires: Floats) -> Floats:
    """When the last step ends, in ns. slopes: of each track. draws [set, draw]: how much of each set of prices counts.
    wires [draw]: factor of the time on the wire."""
    turns = order(graph.jobs)
    last = [
        _ends(graph, track, turns, np.maximum(1 + slope @ draws, LEAST), wires)
        for track, slope in zip(graph.tracks, slopes, strict=True)
    ]
    return np.asarray(np.maximum.reduce(last))


def _ends(graph: Graph, track: Track, turns: Sequence[tuple[int, int]], scale: Floats, wires: Floats) -> Floats:
    """scale: [row, offset, draw]."""
    free = [np.zeros(len(wires)) for _ in graph.jobs]
    mail: dict[Message, Floats] = {}

    @lru_cache(maxsize=ALIKE)
    def later(row: int, kind: int, offset: int, delay: int) -> Floats:
        """What a draw makes of an offset and of the wire behind it: most steps are alike."""
        return np.asarray(offset * scale[row, kind] + delay * wires)

    def left(position: int, step: int, kind: int, start: Floats, delay: int) -> Floats:
        """When an output of a step begun at `start` has come where it goes."""
        offset, row = track.offsets[position][step][kind], track.rows[position][step]
        if position not in track.paced:
            return np.asarray(start + later(row, kind, offset, delay))
        took = track.paced[position](track.begun[position][step], start, offset, scale[row, kind])
        return np.asarray(start + (took + delay * wires))

    for position, step in turns:
        job = graph.jobs[position][step]
        start = free[position]
        for message in job.waits:
            start = np.maximum(start, mail.pop(message))
        for kind, _ in job.sends:
            mail[position, step, kind] = left(position, step, kind, start, track.delays[position, step, kind])
        free[position] = left(position, step, 0, start, 0)
    return np.asarray(np.maximum.reduce(free))
