"""The step at other prices: its steps and messages as a graph, gone through once for many sets of prices.

A step of the schedule starts when its rank is free and its messages are there; each output leaves so long after the
start as it did in the run, times what other prices make of it. A message that both of its ends wait for leaves when the
later of them has come, and takes as long as in the run. Whichever path is then the longest counts, so another
rank may take over. What happens inside a step is linear in the prices, with the slope of prices one spread dearer.

Each expert group moves as one: a step of a group starts when its last member does and ends when its last member does,
as it was in the run. What dearer prices make of it is found by crossing one step of each kind, position and group
again: every segment as long as it took on its rank, times what dearer prices make of it in the kit. A rank that is
twice as slow moves twice as much, another member or lane may take over, and an exchange still waits for its last
member. What slows a GPU for a while keeps its place on the clock: steps that other prices move out of its way are as
fast as the others.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sim.engine.actor import Job, Message
from sim.engine.kit import Kit
from sim.engine.lowering import Comings, Lowered
from sim.engine.timeline import Steps, Timeline, Transfer
from sim.layout.mesh import Group, Times
from sim.step.inside import cross
from sim.step.template import Template

Floats = npt.NDArray[np.float64]
Moved = Mapping[int, Kit]
"""Number of a kit -> the same kit at other prices."""
LEAST = 0.5
"""Lower clamp of a drawn duration, as a fraction of the nominal one."""
ALIKE = 256
"""Offsets whose draws are kept: many steps have the same, and a vector of 4,096 draws takes 32 kB, of which
more than a core's cache holds help no further."""
LATEST = 2
"""Expert groups that are followed: the last to end, and one more that may take over (V3 has two)."""

Paced = Callable[[int, Floats, int, Floats], Floats]
"""(begun, start, offset, scale) -> ns that an offset of a step begun at `begun` in the run takes when it begins at
`start` [draw] with `scale` [draw] times the work."""

Later = Callable[[int, int, int, int], Floats]
"""(row, kind, offset, delay) -> ns from the start of a step until an output of it arrives [draw]."""


class Pace(Protocol):
    """How slowly an expert group computes, over time (`sim.disturbances.faults.Pace`)."""

    @property
    def steady(self) -> bool:
        """Whether that never changes."""

    @property
    def moved(self) -> Paced:
        """What moves with the clock and what does not."""


Pacing = Callable[[int, Sequence[int]], Pace | None]
"""(position, replicas of an expert group) -> its pace, where members compute slowly."""


Turn = tuple[int, int]
"""Position and number of a step of the schedule, in its turn."""


class Leg(NamedTuple):
    """A turn as a track has it. waits: messages that it waits for. row: of `slopes`. length: ns from its start to its
    end. outputs: those that leave by themselves when they are there (by rendezvous none does), with ns from its start
    until then, and from there until they arrive."""

    position: int
    step: int
    waits: Sequence[Message]
    row: int
    length: int
    outputs: Sequence[tuple[Message, int, int]]


class Track(NamedTuple):
    """Ranks that move together, one at each position. legs: of all turns. delays: ns from an output (by rendezvous:
    from the later of its ends) until it arrives. rows: by position and step, the row of `slopes` (of sets of prices)
    [row, offset, set]: the part by which an offset grows. begun: by position and step, ns of the run. paced: of
    positions whose pace changes with time, whatever prices are."""

    legs: Sequence[Leg]
    delays: Mapping[Message, int]
    rows: Sequence[Sequence[int]]
    slopes: Callable[[Sequence[Moved]], Floats]
    begun: Sequence[Sequence[int]] = ()
    paced: Mapping[int, Paced] = MappingProxyType({})


class Graph(NamedTuple):
    """Steps and their times as a graph to be followed at other prices. comings: of their messages. tracks: of which the
    last to end counts. lengths: by position and step, mean ns of ranks."""

    comings: Comings
    tracks: Sequence[Track]
    lengths: Sequence[Sequence[float]]


def graph(lowered: Lowered, timeline: Timeline, pacing: Pacing = lambda position, replicas: None) -> Graph:
    """The graph of a run. pacing: by which its ranks ran."""
    columns = timeline.columns
    last = np.maximum.reduceat(timeline.last(), columns.together.first)
    latest = np.argsort(-last, kind="stable")[:LATEST]
    turns, comings = order(lowered.jobs, lowered.comings), lowered.comings
    made = [_made(kits, steps) for kits, steps in zip(lowered.kits, timeline.positions, strict=True)]
    arrived = [_arrived(carried, columns.columns) for carried in timeline.network]
    tracks = tuple(_track(lowered, timeline, turns, made, arrived, columns.group(int(g)), pacing) for g in latest)
    part = columns.weight / columns.weight.sum()
    lengths = [((steps.ends - steps.starts) @ part).tolist() for steps in timeline.positions]
    return Graph(comings, tracks, lengths)


def _made(kits: Sequence[Kit], steps: Steps) -> Times:
    """ns at which each step ends, and at which its forward and backward outputs are there (those it has not: at its
    start) [3, step, column]."""
    alike = {id(inside): (kit.parts.senders, inside.ends) for kit, inside in zip(kits, steps.insides, strict=True)}
    outputs = np.zeros((3, len(alike), steps.starts.shape[1]), dtype=np.int64)
    for number, (senders, ends) in enumerate(alike.values()):
        for kind, sender in senders.items():
            outputs[kind, number] = ends[sender]
    numbers = {inside: number for number, inside in enumerate(alike)}
    made: Times = steps.starts + outputs[:, [numbers[id(inside)] for inside in steps.insides]]
    made[0] = steps.ends
    return made


def _arrived(carried: Sequence[Transfer], columns: int) -> tuple[Sequence[tuple[int, int]], Times]:
    """Step and kind of each message of a position, and ns at which it arrives [message, column]."""
    messages = [(step, kind, ends) for step, kind, _, ends in carried if step >= 0]
    ends = np.concatenate([np.empty(0, dtype=np.int64), *(ends for _, _, ends in messages)]).reshape(-1, columns)
    return [(step, kind) for step, kind, _ in messages], ends


def _track(
    lowered: Lowered, timeline: Timeline, turns: Sequence[Turn], made: Sequence[Times],
    arrived: Sequence[tuple[Sequence[tuple[int, int]], Times]], members: slice, pacing: Pacing,
) -> Track:  # fmt: skip
    begun = [steps.starts[:, members].max(axis=1) for steps in timeline.positions]
    ready = [times[..., members].max(axis=2) for times in made]
    offsets = [(times - start).T.tolist() for times, start in zip(ready, begun, strict=True)]
    delays = _delays(lowered, [times.T.tolist() for times in ready], arrived, members)
    samples, rows_of = _samples(lowered, timeline, offsets)
    legs = []
    for p, s in turns:
        job, own = lowered.jobs[p][s], offsets[p][s]
        outputs = [((p, s, kind), own[kind], delays[p, s, kind]) for kind, _ in job.sends if not job.rendezvous]
        legs.append(Leg(p, s, job.waits, rows_of[p][s], own[0], outputs))
    groups = timeline.columns.within(members)

    def slopes(moves: Sequence[Moved]) -> Floats:
        known = {kit.number: np.array([factors(kit, moved[kit.number]) for moved in moves]) for kit in lowered.known}
        return np.array([
            _slope(lowered.kits[p][s], timeline.positions[p], s, members, known[lowered.kits[p][s].number], groups)
            for p, s in samples
        ])  # fmt: skip

    replicas = timeline.columns.first[members].tolist()
    paces = {position: pacing(position, replicas) for position in range(len(begun))}
    paced = {position: pace.moved for position, pace in paces.items() if pace and not pace.steady}
    return Track(legs, delays, rows_of, slopes, [start.tolist() for start in begun], paced)


def _delays(
    lowered: Lowered, ready: Sequence[Sequence[Sequence[int]]],
    arrived: Sequence[tuple[Sequence[tuple[int, int]], Times]], members: slice,
) -> dict[Message, int]:  # fmt: skip
    """ns from an output (by rendezvous: from the later of its ends) until it arrives at the last member. ready: when
    each step ends and its outputs are there, by position and step."""
    delays = {}
    for position, (messages, times) in enumerate(arrived):
        for (step, kind), at in zip(messages, times[:, members].max(axis=1).tolist(), strict=True):
            sent = ready[position][step][kind]
            if lowered.jobs[position][step].rendezvous:
                sent = max(ready[p][n - 1][0] for p, n in lowered.comings[position, step, kind] if n)
            delays[position, step, kind] = at - sent
    return delays


def _samples(
    lowered: Lowered, timeline: Timeline, offsets: Sequence[Sequence[list[int]]]
) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """(position, step) of the step of median length of each kit at each position, and which of them each step is like.
    Steps whose inside is one and the same need one sample at all positions."""
    samples: list[tuple[int, int]] = []
    rows, known = [], dict[int, int]()
    for position, kits in enumerate(lowered.kits):
        alike: dict[int, list[int]] = {}
        for step, kit in enumerate(kits):
            alike.setdefault(kit.number, []).append(step)
        row = [0] * len(kits)
        for steps in alike.values():
            middle = sorted(steps, key=offsets[position].__getitem__)[len(steps) // 2]
            inside = timeline.positions[position].insides[middle]
            number = known.get(id(inside), len(samples))
            if number == len(samples):
                samples.append((position, middle))
                known |= {id(inside): number} if inside.starts.shape[1] == 1 else {}
            for step in steps:
                row[step] = number
        rows.append(row)
    return samples, rows


def factors(kit: Kit, moved: Kit) -> Floats:
    """Time of each segment of `kit.parts` at the moved prices, over its time [segment]."""
    if moved is kit:
        return np.ones(len(kit.part_times))
    now, then = (np.diff(np.array(each.part_times, dtype=np.int64))[:, 0] for each in (moved, kit))
    return np.where(then > 0, now / np.maximum(then, 1), 1.0)


def _slope(kit: Kit, steps: Steps, step: int, members: slice, factor: Floats, groups: Mapping[str, Group]) -> Floats:
    """The part by which each offset of a step grows [offset, set of prices]."""
    ends = crossed(kit.parts, steps, step, members, np.vstack([np.ones_like(factor[:1]), factor]), groups).max(2)
    senders = (kit.parts.senders.get(kind) for kind in (1, 2))
    offsets = [ends.max(0), *(ends[i] if i is not None else np.ones(ends.shape[1]) for i in senders)]
    return np.array([offset[1:] / offset[0] - 1 if offset[0] else offset[1:] * 0 for offset in offsets])


def crossed(
    template: Template, steps: Steps, step: int, members: slice, factor: Floats, groups: Mapping[str, Group]
) -> Floats:
    """Ends [segment, set, member] of one step of ranks that meet whose segments take factor [set, segment] times as
    long as they did, from the start of its last member; starts of the step as they were. groups: of those ranks."""
    inside, start = steps.insides[step], steps.starts[step, members]
    durations = np.broadcast_to(_of(inside.ends - inside.starts, members), (len(inside.starts), len(start)))
    begun = np.broadcast_to((start - start.max()).astype(np.float64), (len(factor), len(start)))
    ends: Floats = cross(
        template, begun, lambda number, _: factor[:, number, None] * durations[number],
        lambda at, kind: groups[kind].latest(at) if kind in groups else at,
    )[1]  # fmt: skip
    return ends


def _of(times: Times, members: slice) -> Times:
    """Times of members [..., member] among those of all columns, or of one that stands for all [..., 1]."""
    return times[..., members] if times.shape[-1] > 1 else times


def order(jobs: Sequence[Sequence[Job]], comings: Comings) -> list[Turn]:
    """All steps, each after those that the messages it waits for come from."""
    done = [0] * len(jobs)
    turns: list[Turn] = []
    steps = sum(map(len, jobs))
    while len(turns) < steps:
        before = len(turns)
        for p, row in enumerate(jobs):
            while done[p] < len(row) and _came(row[done[p]].waits, comings, done):
                turns.append((p, done[p]))
                done[p] += 1
        assert len(turns) > before, "a run that ended has no deadlock"
    return turns


def _came(waits: Sequence[Message], comings: Comings, done: Sequence[int]) -> bool:
    """Whether all who must have come for these messages to leave have done as many steps."""
    for message in waits:
        for position, number in comings[message]:
            if done[position] < number:
                return False
    return True


def ends(graph: Graph, slopes: Sequence[Floats], draws: Sequence[Floats], wires: Floats) -> Floats:
    """When the last step ends, in ns [draw]. slopes: of each track. draws [set, draw] each: how much of each set of
    prices counts, set by set of draws, for what a product is to the last bit hangs on what is beside it. wires [draw]:
    factor of the time on the wire."""
    last = [_ends(graph, track, _scale(slope, draws), wires) for track, slope in zip(graph.tracks, slopes, strict=True)]
    return np.asarray(np.maximum.reduce(last))


def _scale(slope: Floats, draws: Sequence[Floats]) -> Floats:
    """What each draw makes of offsets [row, offset, draw]."""
    scale: Floats = np.concatenate([slope @ each for each in draws], axis=-1)
    scale += 1
    np.maximum(scale, LEAST, out=scale)
    return scale


def _ends(graph: Graph, track: Track, scale: Floats, wires: Floats) -> Floats:
    """End of the step, ns [draw]. scale: [row, offset, draw]."""
    free = np.zeros((len(track.rows), len(wires)))
    mail = _Mail(graph.comings, track.delays, wires)
    for position, own in enumerate(free):
        mail.come(position, 0, own)

    @lru_cache(maxsize=ALIKE)
    def longer(row: int, kind: int, offset: int) -> Floats:
        """What a draw makes of an offset: most steps are alike."""
        return np.asarray(scale[row, kind] * offset)

    def later(row: int, kind: int, offset: int, delay: int) -> Floats:
        """The same with the wire behind it."""
        if not delay:
            return longer(row, kind, offset)
        at: Floats = wires * delay
        at += longer(row, kind, offset)
        return at

    for position, step, waits, row, length, outputs in track.legs:
        own = free[position]
        after: Later = later
        for message in waits:
            np.maximum(own, mail.take(message), out=own)
        if position in track.paced:
            after = partial(_slowed, track.paced[position], track.begun[position][step], own, scale, wires)
        for message, offset, delay in outputs:
            mail.arrived[message] = own + after(row, message[2], offset, delay)
        own += after(row, 0, length, 0)
        if mail.batches:
            mail.come(position, step + 1, own)
    return np.asarray(free.max(axis=0))


def _slowed(
    paced: Paced, begun: int, start: Floats, scale: Floats, wires: Floats, row: int, kind: int, offset: int, delay: int
) -> Floats:
    """What a draw makes of an offset, and of the wire behind it, of a step that begins at `start` [draw]."""
    return paced(begun, start, offset, scale[row, kind]) + delay * wires


class _Mail:
    """Arrivals of messages [draw], one for each who waits for them, until these take them."""

    def __init__(self, comings: Comings, delays: Mapping[Message, int], wires: Floats) -> None:
        self.delays, self.wires = delays, wires
        self.arrived: dict[Message, Floats] = {}
        self.alone: dict[Message, Floats] = {}
        self.batches: dict[tuple[int, int], list[Message]] = {}
        self.twice: set[Message] = set()
        for message, ends in comings.items():
            for end in ends if len(ends) > 1 else ():
                self.batches.setdefault(end, []).append(message)

    def come(self, position: int, number: int, at: Floats) -> None:
        """A position has done so many steps: messages that both ends wait for leave when the other end has come too."""
        for message in self.batches.get((position, number), ()):
            if message in self.alone:
                sent = np.maximum(self.alone.pop(message), at)
                self.arrived[message] = np.asarray(sent + self.delays[message] * self.wires)
                self.twice.add(message)
            else:
                self.alone[message] = at.copy()

    def take(self, message: Message) -> Floats:
        """The arrival of a message, for one who waits for it."""
        if message in self.twice:
            self.twice.remove(message)
            return self.arrived[message]
        return self.arrived.pop(message)
