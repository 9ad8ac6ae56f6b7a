"""From a plan to what the engine runs: templates for steps, messages between stages, and the gradient tail.

Pure passes over the program: (1) each step gets the kit of its kind and stages, (2) an output whose consumer is on
another rank becomes a message the consumer's step waits for, (3) stages get their gradient reduction, optimizer and
parameter gather.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

from hwmodels.collectives import Hindrance
from hwmodels.units import NS_PER_S
from sim.engine.actor import LOCAL, NOWHERE, Actor, Job, Route, Sync
from sim.engine.actor import Message as Named
from sim.engine.alone import alone
from sim.engine.beside import slowed
from sim.engine.kit import Kit, kit_of
from sim.layout import optimizer
from sim.layout.buckets import Reduction, reductions, traffic
from sim.layout.machine import Machine
from sim.layout.plan import Plan, relative
from sim.layout.shards import moves
from sim.layout.traffic import BACKWARD, FORWARD
from sim.models.layer import Unit
from sim.scenario.values import ChunkTimes
from sim.schedules.program import Step
from sim.step import template
from sim.step.overlap import Moving, compose

Comings = Mapping[Named, Sequence[tuple[int, int]]]
"""Message -> (position, steps that are done there) of all who must have come so far before it can leave: its sender,
and by rendezvous the receiver too."""

KEPT = 256
"""Kits that are kept beside their prices, a fifth of a MB each."""


@dataclass(frozen=True)
class Lowered:
    """What the engine runs of a plan. kits: per position and step. jobs: the same steps with messages, as chunks.
    syncs, tails: per position. first_layer: of each stage. reductions: by their numbers."""

    kits: tuple[tuple[Kit, ...], ...]
    jobs: tuple[tuple[Job, ...], ...]
    syncs: tuple[Sync, ...]
    tails: tuple[optimizer.Tail, ...]
    first_layer: tuple[int, ...]
    reductions: tuple[Reduction, ...] = ()

    @property
    def actors(self) -> tuple[Actor, ...]:
        """One a pipeline position, for ranks that are alike: what they meet in a step is in the kits."""
        everywhere = {p: p for p in range(len(self.jobs))}
        return tuple(
            Actor(f"pipeline position {p}", jobs, {}, self.syncs[p], everywhere) for p, jobs in enumerate(self.jobs)
        )

    @property
    def parts(self) -> tuple[tuple[Job, ...], ...]:
        """`jobs` part by part, for ranks that differ inside a step."""
        rows = zip(self.jobs, self.kits, strict=True)
        return tuple(tuple(job._replace(template=kit.parts) for job, kit in zip(*row, strict=True)) for row in rows)

    @cached_property
    def comings(self) -> Comings:
        """Of all messages."""
        comings: dict[Named, list[tuple[int, int]]] = {}
        for position, (row, sync) in enumerate(zip(self.jobs, self.syncs, strict=True)):
            waits = [(number, job.waits) for number, job in enumerate(row) if job.rendezvous]
            for number, message in ((n, m) for n, batch in (*waits, (len(row), sync.waits)) for m in batch):
                comings.setdefault(message, []).append((position, number))
            for step, job in enumerate(row):
                for kind, _ in () if job.rendezvous else job.sends:
                    comings[position, step, kind] = [(position, step + 1)]
        return comings

    @property
    def known(self) -> tuple[Kit, ...]:
        """Each kit once, in order of first use."""
        return tuple({kit.number: kit for row in self.kits for kit in row}.values())


def kits(plan: Plan, machine: Machine | None) -> list[Kit]:
    """Of each sort of steps of a plan (`sim.layout.passes.Passes.sorts`). Raises hwmodels.refused.Refused."""
    made = _Kits(plan, machine)
    return [made.of(*sort) for sort in plan.passes.sorts[0]]


def lower(plan: Plan, machine: Machine | None) -> Lowered:
    """What the engine runs of a plan. Raises hwmodels.refused.Refused."""
    known = kits(plan, machine)
    table = tuple(tuple([known[sort] for sort in row]) for row in plan.passes.sorts[1])
    tails = tuple(optimizer.tail(plan, machine, p) if machine else optimizer.NO_TAIL for p in range(len(table)))
    reduced = reductions(plan, machine) if machine else ()
    syncs = tuple(_sync(plan, machine, tails[p], p, reduced, row) for p, row in enumerate(table))
    if machine and any(sync.early for sync in syncs):
        table = tuple(slowed(machine, row, sync) for row, sync in zip(table, syncs, strict=True))
        syncs = tuple(_sync(plan, machine, tails[p], p, reduced, row) for p, row in enumerate(table))
    send = cache(partial(_send, plan, machine))
    jobs = tuple(_jobs(plan, p, row, send) for p, row in enumerate(table))
    layers = tuple(relative(stage)[1] for stage in machine.stages) if machine else (0,) * plan.program.stages
    return Lowered(table, jobs, syncs, tails, layers, reduced)


class _Kits:
    """Builds each kit once."""

    def __init__(self, plan: Plan, machine: Machine | None) -> None:
        self.plan, self.machine = plan, machine
        self.known: dict[object, Kit] = {}
        self.kept = machine.known.kits if machine else {}
        self.units = [relative(stage)[0] for stage in machine.stages] if machine else []
        self.moving = cache(partial(traffic, plan, machine)) if machine else lambda stage, first, last: None

    def of(self, step: Step, first: bool = False, last: bool = False) -> Kit:
        """The kit of a step. first, last: whether it has the first forward, or the last backward, of its stage."""
        both = "+" in step.kind
        key = (step.kind, step.stage, step.stage_b if both else step.stage, first, last) if self.machine else step.kind
        if key not in self.known:
            self.known[key] = self._made(step, first, last)
        return self.known[key]

    def _made(self, step: Step, first: bool, last: bool) -> Kit:
        if self.machine is None:
            chunk_times = self.plan.scenario.chunk_times
            assert chunk_times is not None
            return _fixed_kit(step, chunk_times)
        of = step.stage, step.stage_b if "+" in step.kind else step.stage
        forward, backward = (self.units[stage] for stage in of)
        moving = self.moving(of[0], first, False), self.moving(of[1], False, last)
        key = (self.machine.pricer.wires, step.kind, forward, backward, moving)  # stages alike share a kit
        built: Kit = self.kept.get(key) or self.kept.setdefault(key, self._built(step, forward, backward, moving))
        if len(self.kept) > KEPT:
            del self.kept[next(iter(self.kept))]
        return built

    def _built(self, step: Step, forward: Sequence[Unit], backward: Sequence[Unit], moving: Moving) -> Kit:
        assert self.machine is not None
        composition = compose(step.kind, forward, backward, self.machine.parts, moving)
        fine = template.price(step.kind, (step.stage, step.stage_b), composition, self.machine.pricer)
        return kit_of(composition, fine, self.machine.pricer.wires.network)


def _fixed_kit(step: Step, times: ChunkTimes) -> Kit:
    """A kit from chunk times: outputs leave at the end of the step; a W sends nothing."""
    pair = times.overlapped if step.kind == "F+BW" else times.forward + times.backward_input
    full = times.backward_input + times.weight
    ns = {"F": times.forward, "B": times.backward_input, "W": times.weight, "BW": full}.get(step.kind, pair)
    sends = FORWARD * ("F" in step.kind) + BACKWARD * ("B" in step.kind)
    fine = template.fixed(step.kind, (step.stage, step.stage_b), [ns], [sends])
    return Kit(None, fine, alone(fine))


# --- messages ---------------------------------------------------------------------------------------------------------


def _jobs(
    plan: Plan, position: int, kits: Sequence[Kit], send: Callable[[int, int, int], tuple[int, Route]]
) -> tuple[Job, ...]:
    """The steps of a position with the messages that they wait for and send."""

    @cache
    def sent(outputs: tuple[tuple[int, int, int], ...]) -> tuple[tuple[tuple[int, int], ...], Mapping[int, Route]]:
        """Outputs with their ns alone, and their routes."""
        ways = [(output, *send(position, target, end)) for output, target, end in outputs]
        routes = {output: route for output, _, route in ways if route.ends}
        return tuple([(output, ns) for output, ns, _ in ways]), routes or NOWHERE

    leaving, rendezvous = plan.messages.leaving[position], plan.batches is not None
    return tuple([
        Job(kit.chunk, waits, *sent(leaving.get(n, ())), kit.windows, rendezvous)
        for n, (kit, waits) in enumerate(zip(kits, _waits(plan, position), strict=False))
    ])  # fmt: skip


def _waits(plan: Plan, position: int) -> Sequence[tuple[Named, ...]]:
    """Messages that a position waits for before each of its steps, and then when all are done."""
    if plan.batches is not None:
        return plan.passes.waits[position]
    waits = plan.messages.waits.get
    return [waits((position, number), ()) for number in range(len(plan.program.steps[position]) + 1)]


def _send(plan: Plan, machine: Machine | None, source: int, target: int, stage: int) -> tuple[int, Route]:
    """One micro-batch's activations or gradients over the end of a stage to another position: ns alone, its route."""
    if machine is None:
        times = plan.scenario.chunk_times
        return times.p2p if times else 0, LOCAL
    op = machine.message(plan.mesh, source, target, stage)
    route = Route((source, target), machine.hindrances.of_message(source, target)) if op.wire_bytes() else LOCAL
    return machine.pricer.price(op).ns, route


def _sync(
    plan: Plan, machine: Machine | None, tail: optimizer.Tail, position: int, reduced: Sequence[Reduction],
    kits: Sequence[Kit],
) -> Sync:  # fmt: skip
    """Reductions of a position's stages. They may start after its last weight gradient of the stage, or when their part
    of it is there; where nothing says so, after all of its steps."""
    last, own = plan.passes.last[position], moves(plan.scenario)
    if not (own.drains or own.beside):
        last = dict.fromkeys(last, len(kits) - 1)
    mine = {number: each for number, each in enumerate(reduced) if each.stage in plan.holds[position]}
    waits, after = _waits(plan, position)[len(kits)], plan.scenario.optimizer.reduce == "after"
    if machine is None:
        return Sync((), tail.norm_ns + tail.update_ns, tail.gather_ns, {}, waits, after)
    price = machine.pricer.price
    reduces = tuple((last[r.stage], number, sum(price(op).ns for _, op in r.around)) for number, r in mine.items())
    routes = {number: _ring_route(plan, machine, each) for number, each in mine.items()}
    made = {n: _made_ns(machine, kits[last[r.stage]], r) for n, r in mine.items() if r.unit >= 0 and not after}
    return Sync(reduces, tail.norm_ns + tail.update_ns, tail.gather_ns, routes, waits, after, made)


def _made_ns(machine: Machine, kit: Kit, reduction: Reduction) -> int:
    """From the start of a stage's last backward to the gradients of a bucket, in ns, where nothing slows it."""
    assert kit.composition is not None
    unit = relative(machine.stages[reduction.stage])[0][reduction.unit]
    own = {(part.name, part.direction, part.layer) for letter in "BW" for part in machine.parts(unit, letter)}
    times = zip(kit.composition.phases, kit.timing.segments, strict=True)
    return max((end for phase, (_, end) in times if (phase.name, phase.half, phase.layer) in own), default=1)


def _ring_route(plan: Plan, machine: Machine, reduction: Reduction) -> Route:
    """A stage's rings meet exchanges at all positions that hold it; a rank of each stands for all of its replicas."""
    pricer, stage, ops = machine.pricer, reduction.stage, [op for _, op in reduction.around]
    needed = sum(op.wire_bytes() for op in ops) / pricer.wires.network * NS_PER_S
    if not needed:
        return LOCAL
    slower = sum(pricer.price(op).ns for op in ops) / needed  # by NVLink or between switches
    both = [machine.hindrances.of_ring(op.kind, stage, ring.experts).exchanges for ring, op in reduction.around]
    return Route(plan.holders(stage), Hindrance(max(1.0, slower), max(both)))
