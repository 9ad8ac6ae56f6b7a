"""A step of the schedule, priced and ready to run: kernels by lane with their durations, and what waits for what.

A template is built once for each kind of step and pair of stages and shared by every rank and micro-batch that runs
it. `detail` op holds every kernel; layer holds one task a part; chunk holds one task between outputs. The coarse ones
are made from one run of the fine one, so all three take the same time when nothing from outside interferes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import accumulate, groupby
from operator import add, or_
from typing import Any, NamedTuple

from hwmodels.price import OVER_LINKS, Price, Pricer
from sim.layout.traffic import BACKWARD, FORWARD
from sim.models.layer import COMMUNICATION, COMPUTE, HOST, WEIGHT, Launches
from sim.step import host
from sim.step.overlap import Composition, Phase

STREAMS = (COMPUTE, COMMUNICATION, WEIGHT, HOST)


class Segment(NamedTuple):
    """Consecutive kernels of one lane that the engine runs without a choice between them.

    lane: index into LANES.  first, stop: its kernels in the lane, [first, stop).
    needs: number of segments it waits for.  feeds: segments that wait for it.
    meets: kind of the group of ranks that must have arrived before it begins; empty: none.
    sends: outputs that leave at its end, FORWARD and BACKWARD as flags.
    """

    lane: int
    first: int
    stop: int
    needs: int
    feeds: tuple[int, ...]
    meets: str
    sends: int


class Task(NamedTuple):
    """One row of a trace: what a kernel (or a coarse task) is called and where its duration comes from."""

    label: str
    layer: int
    half: str
    price: Price | None
    sms: int


@dataclass(frozen=True, eq=False)
class Template:
    """kind and stages name it. alone, beside: nanoseconds of each kernel by lane, while the other side is idle or busy
    (launch gaps included). order: segment indices by lane. tasks: by lane, parallel to the durations.
    gap_ns: the launch gap at the head of every duration, by lane and kernel, with what it waits for the host.
    """

    kind: str
    stage: int
    stage_b: int
    segments: tuple[Segment, ...]
    order: tuple[tuple[int, ...], ...]
    alone: tuple[tuple[int, ...], ...]
    beside: tuple[tuple[int, ...], ...]
    gap_ns: tuple[tuple[int, ...], ...]
    tasks: tuple[Sequence[Task], ...]

    @cached_property
    def clocks(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """By lane, alone and beside: nanoseconds of all kernels before each, and of all."""
        known: dict[tuple[int, ...], tuple[int, ...]] = {}  # one where both rates are the same
        for row in (*self.alone, *self.beside):
            known.setdefault(row, tuple(accumulate(row, initial=0)))
        return tuple((known[alone], known[beside]) for alone, beside in zip(self.alone, self.beside, strict=True))

    @cached_property
    def waits(self) -> tuple[tuple[int, ...], ...]:
        """Segments that each segment waits for."""
        waits: list[list[int]] = [[] for _ in self.segments]
        for i, segment in enumerate(self.segments):
            for follower in segment.feeds:
                waits[follower].append(i)
        return tuple(tuple(row) for row in waits)

    @cached_property
    def turns(self) -> tuple[tuple[int, tuple[int, ...], str], ...]:
        """Turn of each segment: its lane, the segments on other lanes that it waits for (the last of each), and whom it
        meets. Those before it on its own lane are through anyway."""
        lanes = [segment.lane for segment in self.segments]
        turns = []
        for number, needed in enumerate(self.waits):
            last = {lanes[j]: j for j in sorted(needed) if lanes[j] != lanes[number]}
            turns.append((lanes[number], tuple(last.values()), self.segments[number].meets))
        return tuple(turns)

    @cached_property
    def meetings(self) -> tuple[int, ...]:
        """Segments that meet somebody."""
        return tuple(number for number, (_, _, whom) in enumerate(self.turns) if whom)

    @cached_property
    def idle(self) -> tuple[tuple[int, int], ...]:
        """Gaps of compute, numbered by the segment of its order that comes next (or none), each with a segment of
        communication that may run in it or wait: one that need not be through when the gap begins, nor waits for what
        ends it."""
        through: list[int] = []  # of each segment, those that are through when it begins, as bits
        on_lane: dict[int, int] = {}
        for number, needed in enumerate(self.waits):
            lane = self.segments[number].lane
            on_lane[lane] = before = reduce(or_, (through[j] | 1 << j for j in needed), on_lane.get(lane, 0))
            through.append(before)
            on_lane[lane] |= 1 << number
        order = self.order[COMPUTE]
        done, next_up = [0, *(through[i] for i in order)], [*(1 << i for i in order), 0]
        return tuple([
            (gap, talk) for gap in range(len(done)) for talk in self.order[COMMUNICATION]
            if not (done[gap] >> talk & 1 or through[talk] & next_up[gap])
        ])  # fmt: skip

    @cached_property
    def lasts(self) -> tuple[int, ...]:
        """Nanoseconds of each segment while the other side is idle."""
        return tuple(sum(self.alone[s.lane][s.first : s.stop]) for s in self.segments)

    @cached_property
    def outputs(self) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Of segments that follow each other: when the last ends, and ends and outputs of those that send."""
        ends = tuple(accumulate(self.lasts))
        sent = tuple((end, segment.sends) for end, segment in zip(ends, self.segments, strict=True) if segment.sends)
        return max(ends, default=0), sent

    @cached_property
    def senders(self) -> dict[int, int]:
        """Output (1 forward, 2 backward) -> the segment that makes it."""
        kinds = (FORWARD, BACKWARD)
        return {kind: i for i, segment in enumerate(self.segments) for kind in kinds if segment.sends & kind}

    @cached_property
    def rests(self) -> dict[tuple[str, str], tuple[list[int], ...]]:
        """Family and rung of prices -> numbers of the kernels that rest on them, by lane."""
        rests: dict[tuple[str, str], tuple[list[int], ...]] = {}
        for lane, tasks in enumerate(self.tasks):
            for number, task in enumerate(tasks):
                if task.price is not None:
                    of = task.price.family, task.price.rung
                    if of not in rests:
                        rests[of] = tuple([] for _ in STREAMS)
                    rests[of][lane].append(number)
        return rests


class Row(NamedTuple):
    """Kernels that follow each other on a lane: ns of each alone and beside the other side, both with the launch gap
    before it; that gap; and prices."""

    alone: tuple[int, ...]
    beside: tuple[int, ...]
    gaps: tuple[int, ...]
    prices: tuple[Price, ...]


def _row(pricer: Pricer, kernels: Launches, lane: int) -> Row:
    """The row of a phase, kept with the prices: layers of a kind repeat it. Raises Refused."""
    key = (kernels, lane == COMMUNICATION)
    row: Row | None = pricer.still.get(key) or pricer.rows.get(key)
    if row is None:
        prices = tuple(pricer.price(kernel.op, key[1]) for kernel in kernels)
        gaps = tuple(pricer.launch_gap_ns * kernel.op.kernels for kernel in kernels)
        alone = tuple(gap + price.ns for gap, price in zip(gaps, prices, strict=True))
        beside = tuple(gap + price.beside_ns for gap, price in zip(gaps, prices, strict=True))
        row = Row(alone, beside, gaps, prices)
        linked = any(isinstance(kernel.op, OVER_LINKS) for kernel in kernels)
        (pricer.rows if linked else pricer.still)[key] = row
    return row


class Tasks(Sequence[Task]):
    """Tasks of a lane's kernels, made when they are asked for: most templates are only timed."""

    def __init__(self, sms: int) -> None:
        self.sms, self.phases = sms, list[tuple[Phase, Row]]()

    @cached_property
    def _all(self) -> tuple[Task, ...]:
        return tuple([
            Task(kernel.name, phase.layer, phase.half, price, self.sms)
            for phase, row in self.phases for kernel, price in zip(phase.kernels, row.prices, strict=True)
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: Any) -> Any:
        return self._all[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._all)


def price(kind: str, stages: tuple[int, int], composition: Composition, pricer: Pricer) -> Template:
    """The op-level template of a composition. Raises hwmodels.refused.Refused."""
    alone: list[list[int]] = [[] for _ in STREAMS]
    beside: list[list[int]] = [[] for _ in STREAMS]
    gaps: list[list[int]] = [[] for _ in STREAMS]
    sms = {COMMUNICATION: pricer.comm_sms, HOST: 0}
    tasks = [Tasks(sms.get(lane, pricer.free.compute_sms)) for lane in STREAMS]
    segments = []
    feeds = _feeds(composition.phases)
    rows = [_row(pricer, phase.kernels, phase.lane) for phase in composition.phases]
    for i, (phase, row) in enumerate(zip(composition.phases, _launched(composition.phases, rows, pricer), strict=True)):
        lane, first = phase.lane, len(alone[phase.lane])
        alone[lane] += row.alone
        beside[lane] += row.beside
        gaps[lane] += row.gaps
        tasks[lane].phases.append((phase, row))
        sends = FORWARD if i == composition.forward_out else 0
        sends |= BACKWARD if i == composition.backward_out else 0
        stop = len(alone[lane])
        segments.append(Segment(lane, first, stop, len(phase.needs), feeds[i], phase.meets, sends))
    order = tuple(tuple(i for i, s in enumerate(segments) if s.lane == lane) for lane in STREAMS)
    return Template(
        kind, *stages, tuple(segments), order, _frozen(alone), _frozen(beside), _frozen(gaps), tuple(tasks),
    )  # fmt: skip


def _launched(phases: Sequence[Phase], rows: Sequence[Row], pricer: Pricer) -> Sequence[Row]:
    """The rows with what their kernels wait for the host as a part of the gaps before them."""
    if pricer.host is None:
        return rows
    waited = host.waits(phases, [row.alone for row in rows], [row.gaps for row in rows], pricer.host)
    return [
        row._replace(**{name: tuple(map(add, getattr(row, name), waits)) for name in ("alone", "beside", "gaps")})
        for row, waits in zip(rows, waited, strict=True)
    ]


def _feeds(phases: Sequence[Phase]) -> list[tuple[int, ...]]:
    feeds: list[list[int]] = [[] for _ in phases]
    for i, phase in enumerate(phases):
        for needed in phase.needs:
            feeds[needed].append(i)
    return [tuple(row) for row in feeds]


def _frozen(rows: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in rows)


Stretch = tuple[int, tuple[int, ...], int, int]
"""(before, sums, first, stop): kernels [first, stop) of a lane that followed each other at one rate. sums: of durations
up to each kernel of the lane, at that rate; before: what these lack to when it ended, ns."""


@dataclass(frozen=True)
class Timing:
    """One run of a template alone, in ns from its start. segments: start and end of each. stretches: kernels of each
    lane, in order. begun: by lane, the start of the first kernel of each segment."""

    segments: tuple[tuple[int, int], ...]
    stretches: tuple[tuple[Stretch, ...], ...]
    begun: tuple[dict[int, int], ...]

    @cached_property
    def kernels(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Start and end of each kernel by lane. One starts when the one before it ends, but for the first of a
        segment."""
        lanes = []
        for stretches, begun in zip(self.stretches, self.begun, strict=True):
            ends = [before + ns for before, sums, first, stop in stretches for ns in sums[first + 1 : stop + 1]]
            starts = [0, *ends][: len(ends)]
            for kernel, start in begun.items():
                starts[kernel] = start
            lanes.append(tuple(zip(starts, ends, strict=True)))
        return tuple(lanes)

    @cached_property
    def total(self) -> int:
        """When the last segment ends."""
        return max((end for _, end in self.segments), default=0)


def pieces(phases: Sequence[Phase]) -> list[list[int]]:
    """Phases of each part of a layer, consecutive ones; cut where one meets somebody or waits for others than the one
    before it, and so that each piece ends on the lane that it begins on: whoever comes next on a lane finds it free
    when the piece is through with it."""
    pieces: list[list[int]] = []
    for _, run in groupby(enumerate(phases), key=lambda item: item[1].part):
        rest = [i for i, _ in run]
        while rest:
            stop = next((n for n, i in enumerate(rest) if n and _cuts(phases, i)), len(rest))
            same = [n for n in range(stop) if phases[rest[n]].lane == phases[rest[0]].lane]
            count = 1 if phases[rest[0]].meets else same[-1] + 1
            pieces.append(rest[:count])
            rest = rest[count:]
    return pieces


def _cuts(phases: Sequence[Phase], number: int) -> bool:
    """Whether a phase inside a part begins when something else than the one before it says."""
    return bool(phases[number].meets) or phases[number].needs != (number - 1,)


def by_layer(
    fine: Template, timing: Timing, phases: Sequence[Phase], groups: Sequence[Sequence[int]] | None = None
) -> Template:
    """One segment a part, as long as it took in the fine run. phases: of the fine template. groups: their `pieces`."""
    groups = pieces(phases) if groups is None else groups
    owner = {i: g for g, group in enumerate(groups) for i in group}
    tasks: list[list[Task]] = [[] for _ in STREAMS]
    holds: list[list[int]] = [[] for _ in STREAMS]
    segments = []
    for group in groups:
        head = fine.segments[group[0]]
        inside = set(group)
        needed = {owner[j] for i in group for j in fine.waits[i] if j not in inside}
        feeds = sorted({owner[k] for i in group for k in fine.segments[i].feeds if k not in inside})
        first = len(holds[head.lane])
        holds[head.lane].append(timing.segments[group[-1]][1] - timing.segments[group[0]][0])
        tasks[head.lane].append(_part_task(fine, head, phases[group[0]]))
        sends = max(fine.segments[i].sends for i in group)
        segments.append(Segment(head.lane, first, first + 1, len(needed), tuple(feeds), head.meets, sends))
    return _coarse(fine, segments, holds, tasks)


def _part_task(fine: Template, segment: Segment, phase: Phase) -> Task:
    """The task of a part: priced like its longest kernel."""
    lane = segment.lane
    longest = max(range(segment.first, segment.stop), key=lambda i: fine.alone[lane][i])
    return fine.tasks[lane][longest]._replace(label=phase.label)


def by_chunk(fine: Template, timing: Timing) -> Template:
    """The whole step on the compute lane, cut where an output can be sent."""
    cuts = sorted({(timing.segments[i][1], s.sends) for i, s in enumerate(fine.segments) if s.sends})
    ends = [*cuts, (timing.total, 0)] if timing.total > max((end for end, _ in cuts), default=0) else cuts
    label = Task(fine.kind, -1, fine.kind[0], None, fine.tasks[COMPUTE][0].sms if fine.tasks[COMPUTE] else -1)
    holds, segments, before = [], [], 0
    for i, (end, sends) in enumerate(ends):
        holds.append(end - before)
        segments.append(Segment(COMPUTE, i, i + 1, 0, (), "", sends))
        before = end
    rest: list[Any] = [[] for _ in STREAMS[1:]]
    return _coarse(fine, segments, [holds, *rest], [[label] * len(holds), *rest])


def _coarse(fine: Template, segments: list[Segment], holds: list[list[int]], tasks: list[list[Task]]) -> Template:
    order = tuple(tuple(i for i, s in enumerate(segments) if s.lane == lane) for lane in STREAMS)
    durations = _frozen(holds)
    zeros = tuple(tuple(0 for _ in lane) for lane in holds)
    return replace(
        fine, segments=tuple(segments), order=order, alone=durations, beside=durations, gap_ns=zeros,
        tasks=tuple(tuple(t) for t in tasks),
    )  # fmt: skip


def fixed(kind: str, stages: tuple[int, int], holds: Sequence[int], sends: Sequence[int]) -> Template:
    """A template from given chunk times: tasks of `holds` ns on the compute lane, each followed by what it sends."""
    segments = tuple(Segment(COMPUTE, i, i + 1, 0, (), "", s) for i, s in enumerate(sends))
    task = Task(kind, -1, kind[0], None, -1)
    empty: tuple[Any, ...] = tuple(() for _ in STREAMS[1:])
    durations = (tuple(holds), *empty)
    return Template(
        kind, *stages, segments, (tuple(range(len(holds))), *empty), durations, durations,
        (tuple(0 for _ in holds), *empty), (tuple(task for _ in holds), *empty),
    )  # fmt: skip
