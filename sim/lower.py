"""From a plan to actors for the engine: templates for steps, messages between stages, groups, and the gradient tail.

Pure passes over the program: (1) each step gets the template of its kind and stages, (2) an output whose consumer is
on another rank becomes a message the consumer's step waits for, (3) stages get their gradient reduction, optimizer and
parameter gather, (4) ranks that must behave alike fold into one actor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial

from hwmodels.collectives import Hindrance
from hwmodels.op import AllToAll
from hwmodels.units import NS_PER_S
from sim import engine, fold, optimizer
from sim import template as templates
from sim.actor import LOCAL, Actor, Job, Route, Sync
from sim.nic import Window
from sim.overlap import Composition, compose
from sim.plan import Machine, Plan, message, relative
from sim.program import Program, Step
from sim.scenario import ChunkTimes
from sim.template import Template, Timing

FORWARD, BACKWARD = 1, 2


@dataclass(frozen=True)
class Kit:
    """A step kind on given stages: its composition, the op-level template and its run alone, and what is executed.
    windows: its exchanges over the NICs."""

    composition: Composition | None
    fine: Template
    timing: Timing
    run: Template
    windows: tuple[Window, ...] = ()

    @cached_property
    def outputs(self) -> tuple[int, int, int]:
        """Nanoseconds from its start to its end, its forward output and its backward output (0: none)."""
        return outputs(self.fine, self.timing)


def outputs(fine: Template, timing: Timing) -> tuple[int, int, int]:
    """See `Kit.outputs`."""
    ready = [timing.total, 0, 0]
    for segment, (_, end) in zip(fine.segments, timing.segments, strict=True):
        for kind in (FORWARD, BACKWARD):
            if segment.sends & kind:
                ready[kind] = end
    return ready[0], ready[1], ready[2]


@dataclass(frozen=True)
class Lowered:
    """actors: what to simulate. actor_of: pipeline position -> actor that stands for it (replica 0). kits: per position
    and step. first_layer: of each stage. tails, jobs, syncs: per position. weights: ranks each actor stands for."""

    actors: tuple[Actor, ...]
    actor_of: tuple[int, ...]
    kits: tuple[tuple[Kit, ...], ...]
    first_layer: tuple[int, ...]
    tails: tuple[optimizer.Tail, ...]
    weights: tuple[int, ...]
    jobs: tuple[tuple[Job, ...], ...]
    syncs: tuple[Sync, ...]


def lower(plan: Plan, machine: Machine | None) -> Lowered:
    """Actors of a plan. Raises hwmodels.refused.Refused."""
    kits = _KitShop(plan, machine)
    table = tuple(tuple(kits.of(step) for step in steps) for steps in plan.program.steps)
    where = _places(plan.program)
    send = cache(partial(_send, plan, machine))
    jobs = tuple(_jobs(plan, p, table[p], where, send) for p in range(plan.program.ranks))
    tails = tuple(optimizer.tail(plan, machine, p) if machine else optimizer.NO_TAIL for p in range(len(jobs)))
    syncs = tuple(_sync(plan, machine, tails[p], p) for p in range(len(jobs)))
    first = tuple(relative(stage)[1] for stage in machine.stages) if machine else (0,) * plan.program.stages
    actors, actor_of, weights = _fold(plan, jobs, syncs)
    return Lowered(actors, actor_of, table, first, tails, weights, jobs, syncs)


class _KitShop:
    """Builds each kit once."""

    def __init__(self, plan: Plan, machine: Machine | None) -> None:
        self.plan, self.machine = plan, machine
        self.known: dict[object, Kit] = {}
        self.units = [relative(stage)[0] for stage in machine.stages] if machine else []

    def of(self, step: Step) -> Kit:
        if self.machine is None:
            chunk_times = self.plan.scenario.chunk_times
            assert chunk_times is not None
            key: object = step.kind
            return self.known.get(key) or self.known.setdefault(key, _fixed_kit(step, chunk_times))
        both = "+" in step.kind
        forward = self.units[step.stage]
        backward = self.units[step.stage_b if both else step.stage]
        key = (step.kind, forward, backward)
        if key not in self.known:
            self.known[key] = self._build(step, forward, backward)
        return self.known[key]

    def _build(self, step: Step, forward: Sequence, backward: Sequence) -> Kit:  # type: ignore[type-arg]
        assert self.machine is not None
        composition = compose(step.kind, forward, backward, self.machine.parts)
        fine = templates.price(step.kind, (step.stage, step.stage_b), composition, self.machine.pricer)
        timing = engine.alone(fine)
        detail = self.plan.scenario.detail
        if detail == "op":
            run = fine
        elif detail == "layer":
            run = templates.by_layer(fine, timing, composition.phases)
        else:
            run = templates.by_chunk(fine, timing)
        rate = self.machine.pricer.wires.network
        return Kit(composition, fine, timing, run, windows(composition, fine, timing, rate))


def windows(composition: Composition, fine: Template, timing: Timing, rate: float) -> tuple[Window, ...]:
    """Exchanges of a step that need the NICs, in time. rate: of a rank's NICs, bytes/s each way."""
    found = []
    for segment, phase in zip(fine.segments, composition.phases, strict=True):
        for i, kernel in enumerate(phase.kernels, segment.first):
            if isinstance(kernel.op, AllToAll) and (size := kernel.op.wire_bytes()):
                start, end = timing.kernels[segment.lane][i]
                found.append(Window(start, end, min(1.0, size / rate * NS_PER_S / (end - start))))
    return tuple(sorted(found))


def _fixed_kit(step: Step, times: ChunkTimes) -> Kit:
    """A kit from chunk times: outputs leave at the end of the step; a W sends nothing."""
    pair = times.overlapped if step.kind == "F+BW" else times.forward + times.backward_input
    full = times.backward_input + times.weight
    ns = {"F": times.forward, "B": times.backward_input, "W": times.weight, "BW": full}.get(step.kind, pair)
    sends = FORWARD * ("F" in step.kind) + BACKWARD * ("B" in step.kind)
    fine = templates.fixed(step.kind, (step.stage, step.stage_b), [ns], [sends])
    return Kit(None, fine, engine.alone(fine), fine)


# --- messages ---------------------------------------------------------------------------------------------------------


Pass = tuple[str, int, int]
"""F, B or W; stage; micro-batch."""


def _places(program: Program) -> dict[Pass, tuple[int, int]]:
    """Pipeline position and step of every pass."""
    rows = enumerate(program.steps)
    return {done: (rank, i) for rank, row in rows for i, step in enumerate(row) for done in step.passes()}


def _jobs(
    plan: Plan, position: int, kits: Sequence[Kit], where: Mapping[Pass, tuple[int, int]],
    send: Callable[[int, int], tuple[int, Route]],
) -> tuple[Job, ...]:  # fmt: skip
    jobs = []
    for step, kit in zip(plan.program.steps[position], kits, strict=True):
        waits, sends = [], []
        routes: dict[int, Route] = {}
        for letter, stage, micro_batch in step.passes():
            if letter == "W":
                continue
            kind, ahead = (FORWARD, 1) if letter == "F" else (BACKWARD, -1)
            source = where.get((letter, stage - ahead, micro_batch))
            if source and source[0] != position:
                waits.append((*source, kind))
            target = plan.homes.get((stage + ahead, micro_batch))
            if target is not None and target != position:
                ns, route = send(position, target)
                sends.append((kind, ns))
                routes |= {kind: route} if route.ends else {}
        jobs.append(Job(kit.run, tuple(waits), tuple(sends), routes, kit.windows))
    return tuple(jobs)


def _send(plan: Plan, machine: Machine | None, source: int, target: int) -> tuple[int, Route]:
    """One micro-batch's activations or gradients to another pipeline position: ns alone, and where it passes."""
    if machine is None:
        times = plan.scenario.chunk_times
        return times.p2p if times else 0, LOCAL
    op = message(plan, machine, source, target)
    route = Route((source, target), machine.hindrances.of_message(source, target)) if op.wire_bytes() else LOCAL
    return machine.pricer.price(op).ns, route


def _sync(plan: Plan, machine: Machine | None, tail: optimizer.Tail, position: int) -> Sync:
    """Each stage's reduction may start after the position's last weight gradient of it."""
    last = {}
    for i, step in enumerate(plan.program.steps[position]):
        for letter, stage, _ in step.passes():
            if letter == "W":
                last[stage] = i
    reduces = tuple((last[stage], stage, ns) for stage, ns in tail.reduce_ns)
    routes = {stage: _ring_route(plan, machine, stage) for _, stage, _ in reduces} if machine else {}
    return Sync(reduces, tail.norm_ns + tail.update_ns, tail.gather_ns, routes)


def _ring_route(plan: Plan, machine: Machine, stage: int) -> Route:
    """A stage's rings meet exchanges at all positions that hold it; a rank of each stands for all of its replicas."""
    pricer, rings = machine.pricer, optimizer.reduce_rings(plan, machine, stage)
    needed = sum(ring.wire_bytes() for ring in rings) / pricer.wires.network * NS_PER_S
    if not needed:
        return LOCAL
    slower = sum(pricer.price(ring).ns for ring in rings) / needed  # by NVLink or between switches
    holders = tuple(p for p, held in enumerate(plan.holds) if stage in held)
    both = [machine.hindrances.of_ring("reduce_scatter", stage, which).exchanges for which in (0, 1)]
    return Route(holders, Hindrance(max(1.0, slower), max(both)))


# --- folding ----------------------------------------------------------------------------------------------------------


def _fold(
    plan: Plan, jobs: Sequence[tuple[Job, ...]], syncs: Sequence[Sync]
) -> tuple[tuple[Actor, ...], tuple[int, ...], tuple[int, ...]]:
    """Actors for all ranks, or for one of each class of alike ranks."""
    positions, data = plan.program.ranks, plan.data
    expert = plan.scenario.parallel.expert
    classes = _classes(plan, jobs, syncs) if plan.scenario.fold else list(range(positions * data))
    representative: dict[int, int] = {}
    for rank, c in enumerate(classes):
        representative.setdefault(c, rank)
    order = {c: i for i, c in enumerate(representative)}
    actors = []
    for rank in representative.values():
        position, replica = divmod(rank, data)
        peers = {p: order[classes[p * data + replica]] for p in range(positions)}
        actors.append(
            Actor(f"rank {rank} (pipeline position {position})", jobs[position], rank // expert, syncs[position], peers)
        )
    weights = [0] * len(actors)
    for c in classes:
        weights[order[c]] += 1
    return tuple(actors), tuple(order[classes[p * data]] for p in range(positions)), tuple(weights)


def _classes(plan: Plan, jobs: Sequence[tuple[Job, ...]], syncs: Sequence[Sync]) -> list[int]:
    positions, data, expert = plan.program.ranks, plan.data, plan.scenario.parallel.expert
    own, partners = [], []
    for p in range(positions):
        mates: dict[int, int] = {}
        for job in jobs[p]:
            for sender, _, _ in job.waits:
                mates.setdefault(sender, len(mates))
            for route in job.routes.values():
                for end in set(route.ends) - {p}:
                    mates.setdefault(end, len(mates))
        shape = tuple(_shape(job, mates) for job in jobs[p])
        sync = syncs[p]
        own.append((shape, tuple((after, ns) for after, _, ns in sync.reduces), sync.update_ns, sync.gather_ns))
        partners.append(list(mates))
    number: dict[object, int] = {}
    kinds = [number.setdefault(o, len(number)) for o in own]
    ranks = [(p, d) for p in range(positions) for d in range(data)]
    peers = [[q * data + d for q in partners[p]] for p, d in ranks]
    first = range(0, positions * data, expert) if expert > 1 else range(0)
    groups = [list(range(g, g + expert)) for g in first]
    stages: dict[int, list[int]] = {}
    for p in range(positions):
        for _, stage, _ in syncs[p].reduces:
            stages.setdefault(stage, []).append(p)
    for holders in stages.values():
        if len(holders) > 1:
            groups.append([p * data + d for p in holders for d in range(data)])
    return fold.classes([kinds[p] for p, _ in ranks], peers, groups)


def _shape(job: Job, mates: Mapping[int, int]) -> tuple[object, ...]:
    """A step as any rank with such mates has it; windows are its template's."""
    waits = tuple((mates[sender], step, kind) for sender, step, kind in job.waits)
    ways = ((kind, *(mates.get(end) for end in route.ends), route.hindrance) for kind, route in job.routes.items())
    return id(job.template), waits, job.sends, tuple(ways)

