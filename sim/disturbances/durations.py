"""Durations that differ from rank to rank: expert loads, documents, faults and jitter on top of a template's own times.

A part whose kernels work on expert rows takes as long as its kernels are priced at the rank's own rows, in proportion
to the time it has in the balanced template (contention included). For exchanges see `sim.disturbances.exchanges`. A
slow GPU slows all it computes; a clock that heat has lowered slows products and attention, not what memory binds. For
slow NICs see `sim.disturbances.nics`. The optimizer's kernels, a few ms of a step, feel no fault.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.op import AllToAll, Attention, Collective, Gemm, GroupedGemm, Send
from sim.disturbances import exchanges
from sim.disturbances.attention import Attending
from sim.disturbances.faults import Pace, SlowDown, Slowed, of_ranks
from sim.disturbances.nics import Links, Sending
from sim.engine.kit import Kit
from sim.layout.machine import Machine
from sim.layout.mesh import Columns, Times
from sim.layout.plan import Plan
from sim.models.layer import COMMUNICATION, HOST, Site
from sim.models.shape import ModelShape
from sim.routing.balanced import PADDING
from sim.routing.keyed import generator
from sim.routing.loads import Loads
from sim.scenario.values import Fault
from sim.schedules.program import Step
from sim.step.inside import SegmentTimes

NEAR, FAR = (0.6, 1.6), 3.0
"""Every padded row count inside NEAR times the expected one is priced; outside, up to FAR times, a few are and times
between them are interpolated; beyond, the last slope is held."""
FEW = 16
Factors = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int32]
COMPUTING = ("gpu", "node", "thermal")
"""Faults that slow what a rank computes."""
CLOCKED = (Gemm, GroupedGemm, Attention)
"""Kernels that the clock of the SMs paces; the others wait for memory."""


@dataclass(frozen=True)
class Curve:
    """Time of one part against its expected time, by expert rows."""

    rows: npt.NDArray[np.float64]
    factor: npt.NDArray[np.float64]

    def at(self, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        inside = np.interp(rows, self.rows, self.factor)
        beyond = self.factor[-1] * rows / self.rows[-1]
        return np.where(rows > self.rows[-1], beyond, inside)


def curves(machine: Machine, counts: npt.NDArray[np.int32] | None = None) -> dict[str, Curve]:
    """Label of each part whose kernels work on expert rows -> its curve: whole, or as far as these counts feel it."""
    site = machine.site
    low, high = (int(part * site.rows) // PADDING * PADDING for part in NEAR)
    outside = np.linspace(0, FAR * site.rows, FEW) // PADDING * PADDING
    grid = np.unique([*np.arange(low, high + PADDING, PADDING), *outside, site.rows]).astype(float)
    if counts is not None:
        grid = _around(grid, np.flatnonzero(np.bincount(counts.ravel())))
    sites = [site._replace(rows=max(1, int(r)), received=max(1, int(_scaled(site, r)))) for r in (*grid, site.rows)]
    by_label = {}
    for unit, direction in product(machine.routed_sorts, "FBW"):
        for same in zip(*(machine.lowering.parts(each, unit, direction) for each in sites), strict=True):
            if not same[0].meets and same[0] != same[-1]:
                times = [machine.part_ns(part) for part in same]
                by_label[same[0].label] = Curve(grid, np.array(times[:-1]) / times[-1])
    return by_label


def _around(grid: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The ends of a grid, and those of its points that counts are on or lie between."""
    after = np.searchsorted(grid, counts).clip(max=len(grid) - 1)
    before = after - (grid[after] > counts)
    needed = np.zeros(len(grid), dtype=np.bool_)
    needed[[0, *before, *after, -1]] = True
    return grid[needed]


def _scaled(site: Site[ModelShape], rows: float) -> float:
    """Tokens received by a rank whose experts have `rows` rows."""
    return float(site.received * rows / site.rows)


class Content(NamedTuple):
    """A segment of a layer-level template. clocked: part of its time, alone, in products and attention. sent: the
    exchange in it, or else its collectives and messages; rest: other kernels of the segment, as a part of those."""

    clocked: float
    sent: tuple[AllToAll | Collective | Send, ...]
    rest: float


def contents(kit: Kit) -> list[Content]:
    """Content of each segment of `kit.parts`."""
    assert kit.composition is not None
    phases, segments = kit.composition.phases, []
    for piece in kit.pieces:
        timed = [
            (kernel.op, kit.fine.alone[phases[i].lane][kit.fine.segments[i].first + k])
            for i in piece for k, kernel in enumerate(phases[i].kernels)
        ]  # fmt: skip
        total = sum(ns for _, ns in timed)
        clocked = sum(ns for op, ns in timed if isinstance(op, CLOCKED))
        sent = [(op, ns) for op, ns in timed if isinstance(op, AllToAll | Collective | Send)]
        sent = [pair for pair in sent if isinstance(pair[0], AllToAll)][:1] or sent
        lasts = sum(ns for _, ns in sent) or total
        segments.append(Content(clocked / total, tuple(op for op, _ in sent), (total - lasts) / lasts))
    return segments


def columns(plan: Plan, loads: Loads | None, documents: bool = False) -> Columns:
    """Replicas that nothing tells apart as one, where the scenario folds and only faults of GPUs tell some apart.
    documents: whether those of each replica do."""
    scenario, mesh = plan.scenario, plan.mesh
    others = any(fault.kind not in COMPUTING for fault in scenario.faults)
    if not scenario.fold or loads is not None or documents or scenario.jitter or others:
        return mesh.columns(meeting=plan.meeting)
    slow = of_ranks(scenario.faults, COMPUTING, mesh)
    rows = [mesh.of_position(p).tolist() for p in range(mesh.pipeline)]
    kinds = [tuple(slow.get(rank) for rank in replica) for replica in zip(*rows, strict=True)]
    return mesh.columns(kinds, plan.meeting)


class Durations:
    """A `sim.engine.arrays.Duration`: nanoseconds of each segment of a step, for every column at a position."""

    def __init__(
        self, plan: Plan, machine: Machine, kits: Sequence[Sequence[Kit]], first_layer: Sequence[int],
        loads: Loads | None, faults: Sequence[Fault], jitter: float, columns: Columns | None = None,
        attending: Attending | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.site, self.kits, self.first_layer = plan, machine.site, kits, first_layer
        self.loads, self.jitter, self.attending = loads, jitter, attending
        self.kinds = {unit.layer: unit.kind for unit in machine.units if unit.block}
        self.index = {unit.layer: index for index, unit in enumerate(machine.routed)}
        self.curves = curves(machine, loads.rows) if loads else {}
        self.loaded = exchanges.loaded_exchanges(machine) if loads else {}
        self.slow = of_ranks(faults, COMPUTING, plan.mesh)
        self.at = {plan.mesh.place(rank)[0] for rank in self.slow}
        self.hot = {plan.mesh.place(r)[0] for r, own in self.slow.items() if any(f.kind == "thermal" for f in own)}
        self.columns = columns or plan.mesh.columns(meeting=plan.meeting)
        self.links = Links(plan, machine, faults, self.columns)
        self.wire = self.links.wire
        self.computing, self.contents = cache(self._computing), cache(contents)
        self.routed, self.lasts, self.attends = cache(self._routed), cache(self._lasts), cache(self._attends)

    @cached_property
    def factors(self) -> Factors:
        """How many times as long expert parts and exchanges take [label, layer, micro-batch, column]; labels in the
        order of `labels`."""
        assert self.loads is not None
        rows, received = (counts[..., self.columns.first] for counts in (self.loads.rows, self.loads.received))
        factors = np.empty((len(self.labels), *rows.shape))
        for label, own in zip(self.labels, factors, strict=True):
            self._slow_down(label, rows, received, own)
        return factors

    @cached_property
    def labels(self) -> dict[str, int]:
        """Labels of segments that feel loads, numbered."""
        return {label: number for number, label in enumerate((*self.curves, *self.loaded))}

    def __call__(self, position: int, step: int) -> tuple[int, ...] | SegmentTimes:
        kit = self.kits[position][step]
        moving = bool(self.jitter or self.links.slow or position in self.at)
        if not moving and self.loads is None and self.attending is None:
            return kit.parts.lasts
        work = self._work(position, step)
        if not moving:
            return work
        return partial(self._disturbed, position, step, kit, work)

    def _work(self, position: int, step: int) -> Times:
        """Nanoseconds of each segment by the loads and documents of each column alone [segment, column]."""
        kit, at = self.kits[position][step], self.plan.program.steps[position][step]
        work = self.lasts(kit).repeat(self.columns.columns, axis=1)
        if self.loads is not None:
            numbers, labels, layers, backward = self.routed(kit, at.stage, at.stage_b)
            if len(numbers):
                micro_batch = np.where(backward, at.micro_batch_b, at.micro_batch)
                work[numbers] = _longer(self.lasts(kit)[numbers], self.factors[labels, layers, micro_batch])
        if self.attending is not None:
            numbers, rows, backward = self.attends(kit, at.stage, at.stage_b)
            if len(numbers):
                micro_batch = np.where(backward, at.micro_batch_b, at.micro_batch)
                work[numbers] = np.ceil(work[numbers] * self._attended(self.attending.factors[rows, micro_batch]))
        return work

    def _attended(self, factors: Factors) -> Factors:
        """Factors of columns [.., column] of those of documents [.., ranks that share them], or of one for all."""
        if factors.shape[-1] == 1:
            return factors
        return np.asarray(factors[..., self.plan.mesh.number("model")[self.columns.first]])

    def _lasts(self, kit: Kit) -> Times:
        """Nanoseconds of each segment where loads are as expected [segment, 1]."""
        return np.array(kit.parts.lasts, dtype=np.int64)[:, None]

    def _tasks(self, kit: Kit, stage: int, stage_b: int) -> Iterator[tuple[int, str, int, bool]]:
        """Segments of layers, in a step on these stages: number, label, layer of the model, and whether it is of the
        second micro-batch."""
        for number, (lane, first) in enumerate((s.lane, s.first) for s in kit.parts.segments):
            task = kit.parts.tasks[lane][first]
            second = task.half != "F" and stage_b >= 0
            if task.layer >= 0:
                yield number, task.label, task.layer + self.first_layer[stage_b if second else stage], second

    def _routed(self, kit: Kit, stage: int, stage_b: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Segments that feel loads: number, label, layer among those with experts (others have none), and whether it is
        of the second micro-batch."""
        rows = [
            (number, self.labels[label], self.index[layer], second)
            for number, label, layer, second in self._tasks(kit, stage, stage_b)
            if label in self.labels and layer in self.index
        ]
        return tuple(np.array(rows, dtype=np.int64).reshape(-1, 4).T)

    def _attends(self, kit: Kit, stage: int, stage_b: int) -> tuple[npt.NDArray[np.int64], ...]:
        """Segments that feel documents: number, row of factors, and whether it is of the second micro-batch."""
        assert self.attending is not None
        known = self.attending.rows
        rows = [
            (number, known[self.kinds[layer], label], second)
            for number, label, layer, second in self._tasks(kit, stage, stage_b)
            if (self.kinds.get(layer, ""), label) in known
        ]
        return tuple(np.array(rows, dtype=np.int64).reshape(-1, 3).T)

    def _disturbed(self, position: int, step: int, kit: Kit, work: Times, number: int, starts: Times) -> Times:
        """Nanoseconds of a segment begun at `starts` [column] that takes `work` where nothing is slow."""
        own: Times = work[number]
        lane = kit.parts.segments[number].lane
        if lane == HOST:
            return own
        if lane == COMMUNICATION:
            if not self.links.slow:
                return own
            return self.links.sent(position, starts, own, self._sending(kit, number))
        if self.jitter:
            own = self._jittered(own, self.plan.program.steps[position][step], number)
        if position not in self.at:
            return own
        clocked = self.contents(kit)[number].clocked if position in self.hot else 1.0
        return self.computing(position, clocked).durations(starts, own)

    def _sending(self, kit: Kit, number: int) -> Sending:
        """What a segment sends, and to whom."""
        content = self.contents(kit)[number]
        return Sending(kit.parts.segments[number].meets, content.sent, content.rest, kit.parts.lasts[number])

    def pacing(self, position: int, step: int, number: int, start: int, column: int, duration: int) -> int:
        """Member of a column's group whose NIC sets the `duration` (ns) of what is sent from `start` on; the column
        itself where none does."""
        kit = self.kits[position][step]
        slow = self.links.slow_members(position, column, kit.parts.segments[number].meets)
        if slow in ((), (column,)) or duration <= kit.parts.lasts[number]:
            return column
        if self.loads is not None and duration <= self._work(position, step)[number, column]:
            return column
        if len(slow) == 1:
            return slow[0]
        return self.links.pacing(position, column, start, duration, self._sending(kit, number))

    def _computing(self, position: int, clocked: float) -> Slowed:
        """Replicas that compute slowly at a position, in segments of which the clock paces a part `clocked`."""
        ranks = self.plan.mesh.of_position(position)[self.columns.first].tolist()
        return Slowed([self.slow.get(rank, ()) for rank in ranks], _clock_slow_down(clocked))

    def pace(self, position: int, replicas: Sequence[int]) -> Pace | None:
        """Pace of an expert group of these replicas at a position, when members compute slowly: that of its slowest,
        all of its time taken to be computing."""
        ranks = (self.plan.mesh.rank(position, replica) for replica in replicas)
        own = [self.slow[rank] for rank in ranks if rank in self.slow]
        if not own:
            return None
        clocked = self._clocked(position) if position in self.hot else 1.0
        return Pace([fault for faults in own for fault in faults], _clock_slow_down(clocked), worst=len(own) > 1)

    def _clocked(self, position: int) -> float:
        """The part of what a position computes that the clock of the SMs paces."""
        parts = [
            (ns, ns * self.contents(kit)[number].clocked)
            for kit in self.kits[position]
            for number, (ns, segment) in enumerate(zip(kit.parts.lasts, kit.parts.segments, strict=True))
            if segment.lane != COMMUNICATION
        ]  # fmt: skip
        return sum(clocked for _, clocked in parts) / sum(ns for ns, _ in parts)

    def _slow_down(self, label: str, rows: Counts, received: Counts, out: Factors) -> None:
        """Factors [layer, micro-batch, column] of an expert part, or of an exchange, by rows and tokens received."""
        assert self.loads is not None
        if label in self.curves:
            tabulated(self.curves[label].at, rows, out)
            return
        reached, member = self.loads.reached, self.plan.mesh.member("expert")[self.columns.first]
        node = member * reached.shape[1] // self.site.group
        here, expected = self.loaded[label], self.site.received
        tabulated(lambda tokens: here.by_received(tokens / expected), received, out)
        np.maximum(out, here.by_reached(reached)[:, None, node], out=out)

    def _jittered(self, work: Times, step: Step, number: int) -> Times:
        """Drawn by chunk and segment, so that another schedule meets the same luck."""
        pair = (step.stage_b + 1) * self.plan.program.stages
        random = generator(self.plan.scenario.seed, "jitter", step.stage + pair, step.micro_batch, number)
        factor = np.exp(self.jitter * random.standard_normal(len(work)))
        return _whole(np.asarray(work * factor))


def _longer(ns: Times, factors: Factors) -> Factors:
    """Times [segment, 1] by their factors [segment, column], which are overwritten, in whole ns."""
    factors *= ns
    return np.ceil(factors, out=factors)


def tabulated(function: Callable[[npt.NDArray[Any]], Factors], counts: Counts, out: Factors) -> None:
    """A function at whole numbers from 0 on, called once for each number up to the largest where those are fewer."""
    numbers = int(counts.max(initial=0)) + 1
    if numbers > counts.size:
        out[...] = function(counts)
    else:
        np.take(function(np.arange(numbers)), counts, out=out, mode="clip")


def _clock_slow_down(clocked: float) -> SlowDown:
    """Slow-down of work of which the clock paces a part."""
    return lambda fault, factor: 1 + clocked * (factor - 1) if fault.kind == "thermal" else factor


def _whole(ns: npt.NDArray[np.float64]) -> Times:
    return np.asarray(np.ceil(ns), dtype=np.int64)
