"""From the timeline to traces: steps, and what ran inside them at the detail that is asked for, on one column of ranks.

`detail` is what is drawn, whatever was run: kernels, parts of layers, or whole chunks. Where a part took longer on a
rank than in the run of its kit, its kernels are drawn as much longer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.price import Price
from sim.engine.kit import Kit
from sim.engine.lowering import Lowered
from sim.engine.timeline import Steps, Timeline, Transfer
from sim.engine.wire import REDUCE
from sim.layout.buckets import Reduction
from sim.layout.plan import Plan
from sim.layout.traffic import SPANS
from sim.result.trace import LANES, PHASES, Trace
from sim.schedules.program import Step
from sim.step.inside import Inside
from sim.step.template import STREAMS, Template

Column = npt.NDArray[np.int64]

PHASE_OF = {
    "F": "forward", "B": "backward_input", "BW": "backward", "W": "weight", "F+B": "overlapped", "F+BW": "overlapped",
}  # fmt: skip
NETWORK, HOST = LANES.index("network"), LANES.index("host")
DRAWN = (*range(len(STREAMS) - 1), HOST)
"""Stream -> the lane that it is drawn on."""
OPTIMIZER = PHASES.index("optimizer")
HALVES = "stage", "micro_batch", "stage_b", "micro_batch_b"
TRAFFIC = {1: "send activations", 2: "send gradients", 4: "all-gather"}
"""Loads of the network lane by kind, but for reductions."""


class Names:
    """Texts as small numbers, in order of first use."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.known)


class Prices:
    """Prices as small numbers, in order of first use: those with one rung and source are one.

    rungs: rung of each text.  sources: text -> its source and spread.
    """

    def __init__(self) -> None:
        self.names, self.rungs = Names(), list[str]()
        self.sources: dict[str, str] = {}

    def of(self, price: Price | None) -> int:
        """Number of a price, -1 for none."""
        if price is None:
            return -1
        number = self.names.of(text := f"{price.rung}: {price.source}")
        if number == len(self.rungs):
            self.rungs.append(price.rung)
            self.sources[text] = f"{price.source} (spread {price.spread:.0%})"
        return number


def steps(plan: Plan, timeline: Timeline, column: int) -> Trace:
    """One row per schedule step and pipeline position, and one for the optimizer, of one column of ranks."""
    names, blocks = Names(), []
    kinds, rows = plan.passes.kinds
    phases = np.array([PHASES.index(PHASE_OF[kind]) for kind in kinds], dtype=np.int64)
    for position, row in enumerate(rows):
        done, (norm, updated) = timeline.positions[position], timeline.update[position]
        for number in dict.fromkeys(row.tolist()):
            names.of(kinds[number])
        label = np.array([names.known.get(kind, -1) for kind in kinds], dtype=np.int64)[row]
        start, end = done.starts[:, column], done.ends[:, column]
        block = _block(len(row), position=position, phase=phases[row], start=start, end=end, label=label)
        block |= dict(zip(HALVES, plan.passes.halves[position].T, strict=True))
        blocks.append(block)
        if updated[column] > norm:
            blocks.append(_once(position, OPTIMIZER, names.of("optimizer"), norm, int(updated[column])))
    return _trace(blocks, names, Prices())


def spans(plan: Plan, lowered: Lowered, timeline: Timeline, column: int, detail: str) -> tuple[Trace, dict[str, str]]:
    """One row per task of one column of ranks, at every pipeline position; and what each price text stands for.
    detail: op, layer or chunk."""
    names, prices, blocks = Names(), Prices(), []
    drawings: dict[tuple[int, int], _Drawing] = {}
    for position, row in enumerate(plan.program.steps):
        done, kits = timeline.positions[position], lowered.kits[position]
        for lane in STREAMS:
            looks = []
            for kit in kits:
                if (kit.number, lane) not in drawings:
                    drawings[kit.number, lane] = _Drawing(_drawn(kit, detail), lane, names, prices)
                looks.append(drawings[kit.number, lane])
            blocks.append(_lane(position, row, plan.passes.halves[position], looks, done, column, lowered.first_layer))
        blocks.append(_network(position, row, timeline.network[position], column, names, lowered.reductions))
        tail, norm = lowered.tails[position], timeline.norm
        if tail.average_ns:  # of the parameters of the step before, while this step runs
            blocks.append(_once(position, OPTIMIZER, names.of("parameter average"), 0, tail.average_ns, HOST))
        if timeline.update[position][1][column] > norm:
            end = norm + tail.norm_ns + tail.update_ns
            blocks.append(_once(position, OPTIMIZER, names.of("optimizer"), norm, end))
    return _trace([b for b in blocks if b], names, prices), prices.sources


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A kit at some detail. template: its tasks. times: by lane, starts (after launch gaps) and ends of tasks in its
    run. pieces: by lane, the segment of `kit.parts` that each task is in (-1: none, so that it ends with the step)."""

    kit: Kit
    template: Template
    times: tuple[tuple[Column, Column], ...]
    pieces: tuple[Column, ...]

    def moved(self, lane: int, inside: Inside, column: int) -> tuple[Column, Column]:
        """Starts and ends of the tasks of a lane where parts took as long as they did on a column, ns from the start
        of the step."""
        column = column if inside.starts.shape[1] > 1 else 0
        starts, ends = inside.starts[:, column], inside.ends[:, column]
        was = np.array(self.kit.part_times, dtype=np.int64).reshape(-1, 2)
        if (starts == was[:, 0]).all() and (ends == was[:, 1]).all():
            return self.times[lane]
        owner = self.pieces[lane]
        if (owner < 0).any():  # a chunk: its tasks follow each other, the last one ends with the step
            cuts = np.maximum.accumulate(np.where(owner < 0, ends.max(initial=0), ends[owner]))
            return np.concatenate([[0], cuts[:-1]]), cuts
        begun, done = was[owner].T
        longer, length = (ends - starts)[owner], np.maximum(done - begun, 1)
        return tuple(starts[owner] + (at - begun) * longer // length for at in self.times[lane])


def _drawn(kit: Kit, detail: str) -> _Drawn:
    if kit.composition is None or detail == "chunk":
        return _as_chunk(kit)
    if detail == "layer":
        times = np.array(kit.part_times, dtype=np.int64).reshape(-1, 2)
        order = [np.array(row, dtype=np.int64) for row in kit.parts.order]
        return _Drawn(kit, kit.parts, tuple((times[row, 0], times[row, 1]) for row in order), tuple(order))
    owner = {i: g for g, piece in enumerate(kit.pieces) for i in piece}
    times_of, pieces = [], []
    for lane in STREAMS:
        table = np.array(kit.timing.kernels[lane], dtype=np.int64).reshape(-1, 2)
        times_of.append((table[:, 0] + np.array(kit.fine.gap_ns[lane], dtype=np.int64), table[:, 1]))
        segments = [(owner[i], kit.fine.segments[i]) for i in kit.fine.order[lane]]
        pieces.append(np.array([g for g, s in segments for _ in range(s.first, s.stop)], dtype=np.int64))
    return _Drawn(kit, kit.fine, tuple(times_of), tuple(pieces))


def _as_chunk(kit: Kit) -> _Drawn:
    """One task between outputs."""
    ends = np.cumsum(np.array(kit.chunk.lasts, dtype=np.int64))
    nothing = np.zeros(0, dtype=np.int64)
    made = kit.parts.senders
    cuts = [made.get(s.sends & 2 or s.sends, -1) if s.sends else -1 for s in kit.chunk.segments]
    owner = np.array([*cuts[:-1], -1] if cuts else [], dtype=np.int64)
    times = (np.concatenate([[0], ends[:-1]])[: len(ends)], ends)
    return _Drawn(kit, kit.chunk, (times, (nothing, nothing), (nothing, nothing)), (owner, nothing, nothing))


class _Drawing:
    """The constant columns of a kit on one lane: per task label, layer, half, price and SMs."""

    def __init__(self, drawn: _Drawn, lane: int, names: Names, prices: Prices) -> None:
        self.drawn, self.lane, tasks = drawn, lane, drawn.template.tasks[lane]
        self.count = len(tasks)
        self.label = np.array([names.of(t.label) for t in tasks], dtype=np.int64)
        self.layer = np.array([t.layer for t in tasks], dtype=np.int64)
        self.backward = np.array([t.half != "F" for t in tasks], dtype=bool)
        self.price = np.array([prices.of(t.price) for t in tasks], dtype=np.int64)
        self.sms = np.array([t.sms for t in tasks], dtype=np.int64)


def _lane(
    position: int, row: Sequence[Step], halves: Column, looks: Sequence[_Drawing], done: Steps, column: int,
    first_layer: Sequence[int],
) -> dict[str, Column]:  # fmt: skip
    counts = np.array([look.count for look in looks])
    if not counts.sum():
        return {}

    def joined(of: Callable[[_Drawing], Column]) -> Column:
        return np.concatenate([of(look) for look in looks])

    lane = looks[0].lane
    keys, known = list[tuple[int, int]](), dict[tuple[int, int], tuple[Column, Column]]()
    for look, inside in zip(looks, done.insides, strict=True):
        keys.append(key := (id(inside), look.drawn.kit.number))
        if key not in known:
            known[key] = look.drawn.moved(lane, inside, column)
    begun = np.repeat(done.starts[:, column], counts)
    start, end = (begun + np.concatenate([known[key][i] for key in keys]) for i in (0, 1))
    backward = joined(lambda look: look.backward)
    table = np.repeat(halves, counts, axis=0)
    phase = np.repeat(np.array([PHASES.index(PHASE_OF[s.kind]) for s in row], dtype=np.int64), counts)
    pair = table[:, 2] >= 0
    own = np.where(pair & backward, table[:, 2], table[:, 0])
    layer = joined(lambda look: look.layer)
    layer = np.where(layer >= 0, layer + np.array(first_layer)[own], -1)
    return _block(
        len(end), position=position, lane=DRAWN[lane], phase=phase, start=start, end=end,
        label=joined(lambda look: look.label), stage=table[:, 0], micro_batch=table[:, 1], stage_b=table[:, 2],
        micro_batch_b=table[:, 3], layer=layer, price=joined(lambda look: look.price),
        sms=joined(lambda look: look.sms),
    )  # fmt: skip


def _network(
    position: int, row: Sequence[Step], carried: Sequence[Transfer], column: int, names: Names,
    reduced: Sequence[Reduction],
) -> dict[str, Column]:  # fmt: skip
    rows = sorted((int(t.starts[column]), int(t.ends[column]), t.step, t.kind) for t in carried)
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    table = table[table[:, 1] > table[:, 0]]
    if not len(table):
        return {}
    label = np.array([names.of(_called(int(step), int(kind), reduced)) for step, kind in table[:, 2:]], dtype=np.int64)
    stage, micro_batch = np.array(
        [_sent(row, int(step), int(kind), reduced) for step, kind in table[:, 2:]], dtype=np.int64
    ).T
    phase = np.where(table[:, 2] < 0, OPTIMIZER, np.where(table[:, 3] == 1, 0, 1))
    return _block(
        len(table), position=position, lane=NETWORK, phase=phase, start=table[:, 0], end=table[:, 1], label=label,
        stage=stage, micro_batch=micro_batch,
    )  # fmt: skip


def _called(step: int, kind: int, reduced: Sequence[Reduction]) -> str:
    """What a load of the network lane is called."""
    return SPANS[reduced[-1 - step].around[0][1].kind] if kind == REDUCE else TRAFFIC[kind]


def _sent(row: Sequence[Step], step: int, kind: int, reduced: Sequence[Reduction]) -> tuple[int, int]:
    """Stage and micro-batch whose output a message carries; the stage of a reduction; -1 where there is none."""
    if step < 0:
        return (reduced[-1 - step].stage if kind == REDUCE else -1), -1
    s = row[step]
    return (s.stage_b, s.micro_batch_b) if kind == 2 and s.stage_b >= 0 else (s.stage, s.micro_batch)


def pair(kit: Kit, step: Step, first_layer: Sequence[int]) -> tuple[Trace, dict[str, str]]:
    """The op-level run alone of one step's kit, as a trace of position 0, and what its price texts stand for."""
    names, prices, blocks = Names(), Prices(), []
    drawn = _drawn(kit, "op")
    for lane in STREAMS:
        look = _Drawing(drawn, lane, names, prices)
        if not look.count:
            continue
        start, end = drawn.times[lane]
        own = np.where(look.backward & (step.stage_b >= 0), step.stage_b, step.stage)
        layer = np.where(look.layer >= 0, look.layer + np.array(first_layer)[own], -1)
        phase = np.array([PHASES.index(PHASE_OF[task.half]) for task in kit.fine.tasks[lane]])
        blocks.append(
            _block(
                look.count, position=0, lane=DRAWN[lane], phase=phase, start=start, end=end, label=look.label,
                stage=own, layer=layer, price=look.price, sms=look.sms, micro_batch=0,
            )
        )  # fmt: skip
    return _trace(blocks, names, prices), prices.sources


def _block(count: int, **columns: int | Column) -> dict[str, Column]:
    """Columns of `count` rows; what is not given is -1, but for lane, which is compute."""
    given: dict[str, int | Column] = dict.fromkeys(Trace.COLUMNS, -1)
    given |= {"lane": 0, **columns}
    return {
        name: value if isinstance(value, np.ndarray) else np.full(count, value, dtype=np.int64)
        for name, value in given.items()
    }


def _once(position: int, phase: int, label: int, start: int, end: int, lane: int = 0) -> dict[str, Column]:
    """A single row."""
    return _block(1, position=position, lane=lane, phase=phase, label=label, start=start, end=end)


def _trace(blocks: Sequence[dict[str, Column]], names: Names, prices: Prices) -> Trace:
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in Trace.COLUMNS}
    return Trace(**columns, labels=names.texts, prices=prices.names.texts, rungs=tuple(prices.rungs))
