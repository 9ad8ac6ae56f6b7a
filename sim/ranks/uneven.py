"""Durations that differ from rank to rank: expert loads, faults and jitter on top of a template's own times.

A part whose kernels work on expert rows takes as long as its kernels are priced at the rank's own rows, in proportion
to the time it has in the balanced template (contention included). For exchanges see `sim.ranks.exchanges`. A slow GPU
slows all it computes; a clock that heat has lowered slows products and attention, not what memory binds. For slow NICs
see `sim.ranks.links`. The optimizer's kernels, a few ms of a step, feel no fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.op import AllToAll, Attention, Gemm, GroupedGemm
from hwmodels.price import Pricer
from sim.lower import Kit
from sim.models.layer import COMMUNICATION, Part, Site
from sim.models.shape import ModelShape
from sim.plan import Machine, Plan
from sim.program import Step
from sim.ranks import exchanges, replicas
from sim.ranks import faults as broken
from sim.ranks.crowd import segment_ns
from sim.ranks.lane import Times
from sim.ranks.links import Links
from sim.ranks.replicas import Replicas
from sim.routing import PADDING
from sim.scenario import Fault
from sim.template import Task, Template
from sim.tokens.keyed import generator
from sim.tokens.loads import Loads

NEAR, FAR = (0.6, 1.6), 3.0
"""Every padded row count inside NEAR times the expected one is priced; outside, up to FAR times, a few are and times
between them are interpolated; beyond, the last slope is held."""
FEW = 16
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


def curves(machine: Machine) -> dict[str, Curve]:
    """Label of each part whose kernels work on expert rows -> its curve."""
    site, pricer, unit = machine.site, machine.pricer, machine.routed[0]
    low, high = (int(part * site.rows) // PADDING * PADDING for part in NEAR)
    outside = np.linspace(0, FAR * site.rows, FEW) // PADDING * PADDING
    grid = np.unique([*np.arange(low, high + PADDING, PADDING), *outside, site.rows]).astype(float)
    sites = [site._replace(rows=max(1, int(r)), received=max(1, int(_scaled(site, r)))) for r in (*grid, site.rows)]
    found = {}
    for direction in "FBW":
        for same in zip(*(machine.family.parts(each, unit, direction) for each in sites), strict=True):
            if not same[0].meets and same[0] != same[-1]:
                times = [_compute_ns(part, pricer) for part in same]
                found[same[0].label] = Curve(grid, np.array(times[:-1]) / times[-1])
    return found


def _scaled(site: Site[ModelShape], rows: float) -> float:
    """Tokens received by a rank whose experts have `rows` rows."""
    return float(site.received * rows / site.rows)


def _compute_ns(part: Part, pricer: Pricer) -> int:
    """Of a part alone."""
    gap = pricer.launch_gap_ns
    return sum(pricer.price(k.op).ns + gap * k.op.kernels for k in part.kernels)


class Content(NamedTuple):
    """A segment of a layer-level template. clocked: part of its time, alone, in products and attention. exchange: the
    all-to-all in it; rest: other kernels of the segment, as a part of the exchange."""

    clocked: float
    exchange: AllToAll | None
    rest: float


def contents(kit: Kit) -> list[Content]:
    """Of each segment, which is a part of a layer: consecutive phases of the fine template."""
    assert kit.composition is not None
    found = []
    for _, run in groupby(enumerate(kit.composition.phases), key=lambda item: item[1].part):
        timed = [
            (kernel.op, kit.fine.alone[phase.lane][kit.fine.segments[i].first + k])
            for i, phase in run for k, kernel in enumerate(phase.kernels)
        ]  # fmt: skip
        total = sum(ns for _, ns in timed)
        clocked = sum(ns for op, ns in timed if isinstance(op, CLOCKED))
        exchange = next(((op, ns) for op, ns in timed if isinstance(op, AllToAll)), (None, total))
        found.append(Content(clocked / total, exchange[0], (total - exchange[1]) / exchange[1]))
    assert len(found) == len(kit.run.segments)
    return found


class Durations:
    """A `sim.ranks.crowd.Duration`: nanoseconds of a segment for every column of `replicas` at a position."""

    def __init__(
        self, plan: Plan, machine: Machine, kits: Sequence[Sequence[Kit]], first_layer: Sequence[int],
        loads: Loads | None, faults: Sequence[Fault], jitter: float, columns: Replicas | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.site, self.kits, self.first_layer = plan, machine.site, kits, first_layer
        self.loads, self.jitter = loads, jitter
        self.index = {unit.layer: index for index, unit in enumerate(machine.routed)}
        self.curves = curves(machine) if loads else {}
        self.crowded = exchanges.crowded(machine) if loads else {}
        self.slow = broken.of_ranks(faults, COMPUTING, machine.cluster.node.gpus)
        self.at = {rank // plan.data for rank in self.slow}
        self.hot = {rank // plan.data for rank, own in self.slow.items() if any(f.kind == "thermal" for f in own)}
        self.links = Links(plan, machine, faults)
        self.replicas = columns or replicas.apart(plan.data, plan.scenario.parallel.expert)
        self.wire = self.links.wire
        self.computing, self.felt = cache(self._computing), cache(self._felt)
        self.segments: dict[int, Sequence[Content]] = {}
        self.facts: dict[int, list[tuple[int, int, Task]]] = {}
        self.even: dict[int, tuple[int, ...]] = {}

    def __call__(self, position: int, step: int, number: int, starts: Times) -> Times | int:
        kit = self.kits[position][step]
        base, lane, task = self._facts(kit.run)[number]
        steady = not (self.links.slow if lane == COMMUNICATION else self.jitter or position in self.at)
        factor = None
        if self.loads is not None:
            factor = self._factor(self.plan.program.steps[position][step], task.label, task.layer, task.half)
        if steady and factor is None:
            return base
        work = np.full(len(starts), base, dtype=np.int64) if factor is None else _whole(base * factor)
        if steady:
            return work
        if lane == COMMUNICATION:
            content = self._content(kit, number)
            assert content.exchange is not None
            return self.links.exchange(position, starts, work, base, content.exchange, content.rest)
        if self.jitter:
            work = self._jittered(work, self.plan.program.steps[position][step], number)
        clocked = self._content(kit, number).clocked if position in self.hot else 1.0
        return self.computing(position, clocked).durations(starts, work)

    def common(self, position: int, step: int) -> tuple[int, ...] | None:
        """A `sim.ranks.crowd.Common`: of positions at which nothing differs."""
        if self.loads is not None or self.jitter or self.links.slow or position in self.at:
            return None
        template = self.kits[position][step].run
        if id(template) not in self.even:
            self.even[id(template)] = tuple(ns for ns, _, _ in self._facts(template))
        return self.even[id(template)]

    def _facts(self, template: Template) -> list[tuple[int, int, Task]]:
        """Of each segment: nanoseconds, lane, and the task that says what it is."""
        if id(template) not in self.facts:
            self.facts[id(template)] = [
                (segment_ns(template, s), s.lane, template.tasks[s.lane][s.first]) for s in template.segments
            ]
        return self.facts[id(template)]

    def pacing(self, position: int, step: int, number: int, start: int, replica: int, took: int) -> int:
        """Member of its group whose NIC sets how long an exchange, begun at `start`, took a replica; itself where none
        does."""
        slow = self.links.slow_members(position, replica)
        kit = self.kits[position][step]
        base = segment_ns(kit.run, kit.run.segments[number])
        if slow in ((), (replica,)) or took <= base:
            return replica
        if self.loads is not None and took <= self._own(kit, position, step, number, replica):
            return replica
        if len(slow) == 1:
            return slow[0]
        content = self._content(kit, number)
        assert content.exchange is not None
        return self.links.pacing(position, replica, start, base, took, content.exchange, content.rest)

    def _own(self, kit: Kit, position: int, step: int, number: int, replica: int) -> int:
        """Nanoseconds of a segment by the loads of one replica alone."""
        base, _, task = self._facts(kit.run)[number]
        factor = self._factor(self.plan.program.steps[position][step], task.label, task.layer, task.half)
        return base if factor is None else int(_whole(base * factor[replica : replica + 1])[0])

    def _content(self, kit: Kit, number: int) -> Content:
        """What a segment is made of."""
        if id(kit) not in self.segments:
            self.segments[id(kit)] = contents(kit)
        return self.segments[id(kit)][number]

    def _computing(self, position: int, clocked: float) -> broken.Slowed:
        """Who computes slowly at a position, in segments of which the clock paces a part `clocked`."""
        first = position * self.plan.data
        return broken.Slowed([self.slow.get(first + int(d), ()) for d in self.replicas.first], _felt_by(clocked))

    def pace(self, position: int, replicas: Sequence[int]) -> broken.Pace | None:
        """Of an expert group of these replicas at a position, when members compute slowly: that of its slowest, all of
        its time taken to be computing."""
        ranks = (position * self.plan.data + replica for replica in replicas)
        own = [self.slow[rank] for rank in ranks if rank in self.slow]
        if not own:
            return None
        clocked = self._clocked(position) if position in self.hot else 1.0
        return broken.Pace([fault for faults in own for fault in faults], _felt_by(clocked), worst=len(own) > 1)

    def _clocked(self, position: int) -> float:
        """The part of what a position computes that the clock of the SMs paces."""
        parts = [
            (ns, ns * self._content(kit, number).clocked)
            for kit in self.kits[position]
            for number, (ns, lane, _) in enumerate(self._facts(kit.run)) if lane != COMMUNICATION
        ]  # fmt: skip
        return sum(clocked for _, clocked in parts) / sum(ns for ns, _ in parts)

    def _factor(self, step: Step, label: str, layer: int, half: str) -> npt.NDArray[np.float64] | None:
        """Of expert parts by the rank's rows, of exchanges by what it receives; None of all else."""
        if layer < 0 or not (label in self.curves or label in self.crowded):
            return None
        stage, micro_batch = (step.stage, step.micro_batch)
        if half != "F" and step.stage_b >= 0:
            stage, micro_batch = step.stage_b, step.micro_batch_b
        index = self.index.get(layer + self.first_layer[stage])
        return None if index is None else self.felt(label)[index, micro_batch]  # a dense layer has none

    def _felt(self, label: str) -> npt.NDArray[np.float64]:
        """Factors [layer, micro-batch, replica] of an expert part, or of an exchange."""
        assert self.loads is not None
        if label in self.curves:
            return self.curves[label].at(self.loads.rows)
        reached, member = self.loads.reached, np.arange(self.plan.data) % self.site.group
        node = member * reached.shape[1] // self.site.group
        return self.crowded[label].at(self.loads.received / self.site.received, reached[:, None, node])

    def _jittered(self, work: Times, step: Step, number: int) -> Times:
        """Drawn by chunk and segment, so that another schedule meets the same luck."""
        pair = (step.stage_b + 1) * self.plan.program.stages
        random = generator(self.plan.scenario.seed, "jitter", step.stage + pair, step.micro_batch, number)
        factor = np.exp(self.jitter * random.standard_normal(len(work)))
        return _whole(np.asarray(work * factor))


def _felt_by(clocked: float) -> broken.Felt:
    """Of work of which the clock paces a part."""
    return lambda fault, factor: 1 + clocked * (factor - 1) if fault.kind == "thermal" else factor


def _whole(ns: npt.NDArray[np.float64]) -> Times:
    return np.asarray(np.ceil(ns), dtype=np.int64)
