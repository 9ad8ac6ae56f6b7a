"""From what the engine recorded to traces: actors unfold to pipeline ranks, recorded times meet their labels."""

from array import array
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hwmodels.price import Price
from sim.actor import Outcome, Record
from sim.lower import Kit, Lowered
from sim.plan import Plan
from sim.program import Step
from sim.template import STREAMS, Template
from sim.trace import LANES, PHASES, Trace
from sim.wire import REDUCE

Column = npt.NDArray[np.int64]

PHASE_OF = {
    "F": "forward", "B": "backward_input", "BW": "backward", "W": "weight", "F+B": "overlapped", "F+BW": "overlapped",
}  # fmt: skip
NETWORK, HOST = LANES.index("network"), LANES.index("host")
OPTIMIZER = PHASES.index("optimizer")
TRAFFIC = {1: "send activations", 2: "send gradients", 3: "reduce-scatter", 4: "all-gather"}


class Names:
    """Texts as small numbers, in order of first use."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.known)


def steps(plan: Plan, lowered: Lowered, outcome: Outcome) -> Trace:
    """One row per schedule step and pipeline rank, and one for the optimizer."""
    names, blocks = Names(), []
    for position, row in enumerate(plan.program.steps):
        record = outcome.records[lowered.actor_of[position]]
        count = len(row)
        start, end = _column(record.starts), _column(record.ends)
        label = np.array([names.of(s.kind) for s in row], dtype=np.int64)
        phase = np.array([PHASES.index(PHASE_OF[s.kind]) for s in row], dtype=np.int64)
        table = np.array([tuple(s[1:]) for s in row], dtype=np.int64)
        block = _block(count, rank=position, phase=phase, start=start, end=end, label=label)
        block |= dict(zip(("stage", "micro_batch", "stage_b", "micro_batch_b"), table.T, strict=True))
        blocks.append(block)
        if record.update[1] > record.update[0]:
            blocks.append(_once(position, OPTIMIZER, names.of("optimizer"), *record.update))
    return _trace(blocks, names.texts, ())


def spans(plan: Plan, lowered: Lowered, outcome: Outcome) -> tuple[Trace, dict[str, str]]:
    """One row per task that ran, of every pipeline rank; and what each price text stands for."""
    names, prices, blocks = Names(), Names(), []
    sources: dict[str, str] = {}
    drawn: dict[tuple[int, int], _Drawn] = {}
    for position, row in enumerate(plan.program.steps):
        record = outcome.records[lowered.actor_of[position]]
        kits = lowered.kits[position]
        for lane in STREAMS:
            blocks.append(_lane(position, row, kits, record, lane, lowered.first_layer, drawn, names, prices, sources))
        blocks.append(_network(position, row, record, names))
        average = lowered.tails[position].average_ns
        if average:  # of the parameters of the step before, while this step runs
            blocks.append(_once(position, OPTIMIZER, names.of("parameter average"), 0, average, HOST))
        if record.update[1] > record.update[0]:
            start = record.update[0]
            end = start + _update_ns(lowered, position)
            blocks.append(_once(position, OPTIMIZER, names.of("optimizer"), start, end))
    return _trace([b for b in blocks if b], names.texts, prices.texts), sources


def _update_ns(lowered: Lowered, position: int) -> int:
    tail = lowered.tails[position]
    return tail.norm_ns + tail.update_ns


class _Drawn:
    """The constant columns of one template on one lane: per kernel label, layer, half, price and SMs."""

    def __init__(self, template: Template, lane: int, names: Names, prices: Names, sources: dict[str, str]) -> None:
        tasks = template.tasks[lane]
        self.count = len(tasks)
        self.label = np.array([names.of(t.label) for t in tasks], dtype=np.int64)
        self.layer = np.array([t.layer for t in tasks], dtype=np.int64)
        self.backward = np.array([t.half != "F" for t in tasks], dtype=bool)
        self.price = np.array([_price(t.price, prices, sources) for t in tasks], dtype=np.int64)
        self.sms = np.array([t.sms for t in tasks], dtype=np.int64)
        self.gap = np.array(template.gap_ns[lane], dtype=np.int64)
        heads = np.zeros(self.count, dtype=bool)
        heads[[template.segments[number].first for number in template.order[lane]]] = True
        self.heads = heads


def _price(price: Price | None, prices: Names, sources: dict[str, str]) -> int:
    if price is None:
        return -1
    text = f"{price.rung}: {price.source}"
    sources.setdefault(text, f"{price.source} (spread {price.spread:.0%})")
    return prices.of(text)


def _lane(
    position: int, row: Sequence[Step], kits: Sequence[Kit], record: Record, lane: int, first_layer: Sequence[int],
    drawn: dict[tuple[int, int], _Drawn], names: Names, prices: Names, sources: dict[str, str],
) -> dict[str, Column]:  # fmt: skip
    ends = _column(record.kernels[lane])
    if not len(ends):
        return {}
    looks = []
    for kit in kits:
        key = (id(kit.run), lane)
        if key not in drawn:
            drawn[key] = _Drawn(kit.run, lane, names, prices, sources)
        looks.append(drawn[key])
    counts = np.array([look.count for look in looks])

    def joined(of: Callable[[_Drawn], Column]) -> Column:
        return np.concatenate([of(look) for look in looks])

    start = np.concatenate([ends[:1], ends[:-1]])
    start[joined(lambda look: look.heads)] = _column(record.phases[lane])
    backward = joined(lambda look: look.backward)
    table = np.repeat(np.array([tuple(s[1:]) for s in row], dtype=np.int64), counts, axis=0)
    phase = np.repeat(np.array([PHASES.index(PHASE_OF[s.kind]) for s in row], dtype=np.int64), counts)
    pair = table[:, 2] >= 0
    own = np.where(pair & backward, table[:, 2], table[:, 0])
    layer = joined(lambda look: look.layer)
    layer = np.where(layer >= 0, layer + np.array(first_layer)[own], -1)
    return _block(
        len(ends), rank=position, lane=lane, phase=phase, start=start + joined(lambda look: look.gap), end=ends,
        label=joined(lambda look: look.label), stage=table[:, 0], micro_batch=table[:, 1], stage_b=table[:, 2],
        micro_batch_b=table[:, 3], layer=layer, price=joined(lambda look: look.price),
        sms=joined(lambda look: look.sms),
    )  # fmt: skip


def _network(position: int, row: Sequence[Step], record: Record, names: Names) -> dict[str, Column]:
    table = _column(record.network).reshape(-1, 4)
    table = table[table[:, 1] > table[:, 0]]
    if not len(table):
        return {}
    label = np.array([names.of(TRAFFIC[int(kind)]) for kind in table[:, 3]], dtype=np.int64)
    stage, micro_batch = np.array([_sent(row, int(step), int(kind)) for step, kind in table[:, 2:]], dtype=np.int64).T
    phase = np.where(table[:, 2] < 0, OPTIMIZER, np.where(table[:, 3] == 1, 0, 1))
    return _block(
        len(table), rank=position, lane=NETWORK, phase=phase, start=table[:, 0], end=table[:, 1], label=label,
        stage=stage, micro_batch=micro_batch,
    )  # fmt: skip


def _sent(row: Sequence[Step], step: int, kind: int) -> tuple[int, int]:
    """Stage and micro-batch whose output a message carries; the stage of a reduction; -1 where there is none."""
    if step < 0:
        return (-1 - step if kind == REDUCE else -1), -1
    s = row[step]
    return (s.stage_b, s.micro_batch_b) if kind == 2 and s.stage_b >= 0 else (s.stage, s.micro_batch)


def pair(kit: Kit, step: Step, first_layer: Sequence[int]) -> tuple[Trace, dict[str, str]]:
    """The op-level run alone of one step's kit, as a trace of rank 0, and what its price texts stand for."""
    names, prices, blocks = Names(), Names(), []
    sources: dict[str, str] = {}
    for lane in STREAMS:
        if not kit.timing.kernels[lane]:
            continue
        look = _Drawn(kit.fine, lane, names, prices, sources)
        start, end = np.array(kit.timing.kernels[lane], dtype=np.int64).T
        own = np.where(look.backward & (step.stage_b >= 0), step.stage_b, step.stage)
        layer = np.where(look.layer >= 0, look.layer + np.array(first_layer)[own], -1)
        phase = np.array([PHASES.index(PHASE_OF[task.half]) for task in kit.fine.tasks[lane]])
        blocks.append(
            _block(
                look.count, rank=0, lane=lane, phase=phase, start=start + look.gap, end=end, label=look.label,
                stage=own, layer=layer, price=look.price, sms=look.sms, micro_batch=0,
            )
        )  # fmt: skip
    return _trace(blocks, names.texts, prices.texts), sources


def _column(values: "array[int]") -> Column:
    return np.frombuffer(values, dtype=np.int8 if values.typecode == "b" else np.int64)


def _block(count: int, **columns: int | Column) -> dict[str, Column]:
    """Columns of `count` rows; what is not given is -1, but for lane, which is compute."""
    given: dict[str, int | Column] = dict.fromkeys(Trace.COLUMNS, -1)
    given |= {"lane": 0, **columns}
    return {
        name: value if isinstance(value, np.ndarray) else np.full(count, value, dtype=np.int64)
        for name, value in given.items()
    }


def _once(rank: int, phase: int, label: int, start: int, end: int, lane: int = 0) -> dict[str, Column]:
    """A single row."""
    return _block(1, rank=rank, lane=lane, phase=phase, label=label, start=start, end=end)


def _trace(blocks: Sequence[dict[str, Column]], labels: tuple[str, ...], prices: tuple[str, ...]) -> Trace:
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in Trace.COLUMNS}
    return Trace(**columns, labels=labels, prices=prices)
