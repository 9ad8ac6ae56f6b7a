"""From a plan to actors for the engine: templates for steps, messages between stages, groups, and the gradient tail.

Pure passes over the program: (1) each step gets the template of its kind and stages, (2) an output whose consumer is
on another rank becomes a message the consumer's step waits for, (3) stages get their gradient reduction, optimizer and
parameter gather, (4) ranks that must behave alike fold into one actor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hwmodels.op import Send
from sim import engine, fold, optimizer
from sim import template as templates
from sim.actor import Actor, Job, Sync
from sim.overlap import Composition, compose
from sim.plan import Machine, Plan, relative
from sim.program import Program, Step
from sim.scenario import ChunkTimes
from sim.template import Template, Timing

FORWARD, BACKWARD = 1, 2


@dataclass(frozen=True)
class Kit:
    """A step kind on given stages: its composition, the op-level template and its run alone, and what is executed."""

    composition: Composition | None
    fine: Template
    timing: Timing
    run: Template

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
    """Actors of a plan. Raises hwmodels.price.RefusedError."""
    kits = _KitShop(plan, machine)
    table = tuple(tuple(kits.of(step) for step in steps) for steps in plan.program.steps)
    where = _places(plan.program)
    jobs = tuple(_jobs(plan, machine, position, table[position], where) for position in range(plan.program.ranks))
    tails = tuple(optimizer.tail(plan, machine, p) if machine else optimizer.NO_TAIL for p in range(len(jobs)))
    syncs = tuple(_sync(plan, tails[p], p) for p in range(len(jobs)))
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
        return Kit(composition, fine, timing, run)


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
    plan: Plan, machine: Machine | None, position: int, kits: Sequence[Kit], where: Mapping[Pass, tuple[int, int]]
) -> tuple[Job, ...]:
    jobs = []
    for step, kit in zip(plan.program.steps[position], kits, strict=True):
        waits, sends = [], []
        for letter, stage, micro_batch in step.passes():
            if letter == "W":
                continue
            kind, ahead = (FORWARD, 1) if letter == "F" else (BACKWARD, -1)
            source = where.get((letter, stage - ahead, micro_batch))
            if source and source[0] != position:
                waits.append((*source, kind))
            target = plan.homes.get((stage + ahead, micro_batch))
            if target is not None and target != position:
                sends.append((kind, _send_ns(plan, machine, position, target)))
        jobs.append(Job(kit.run, tuple(waits), tuple(sends)))
    return tuple(jobs)


def _send_ns(plan: Plan, machine: Machine | None, source: int, target: int) -> int:
    """One micro-batch's activations or gradients to another pipeline position."""
    if machine is None:
        times = plan.scenario.chunk_times
        return times.p2p if times else 0
    return machine.pricer.price(message(plan, machine, source, target)).ns


def message(plan: Plan, machine: Machine, source: int, target: int) -> Send:
    """What one pipeline position sends to another, as the first replica sends it."""
    size = machine.site.tokens * machine.recipe.boundary.row_bytes(machine.site.shape.hidden)
    gpus = machine.cluster.node.gpus
    a, b = (position * plan.data // gpus for position in (source, target))
    fabric = machine.cluster.fabric
    leaf = fabric.nodes_per_leaf if fabric else machine.cluster.nodes
    return Send(size, a != b, a // leaf != b // leaf)


def _sync(plan: Plan, tail: optimizer.Tail, position: int) -> Sync:
    """Each stage's reduction may start after the position's last weight gradient of it."""
    last = {}
    for i, step in enumerate(plan.program.steps[position]):
        for letter, stage, _ in step.passes():
            if letter == "W":
                last[stage] = i
    reduces = tuple((last[stage], stage, ns) for stage, ns in tail.reduce_ns)
    return Sync(reduces, tail.norm_ns + tail.update_ns, tail.gather_ns)


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
        shape = tuple(
            (id(job.template), tuple((mates[s], i, k) for s, i, k in job.waits), job.sends) for job in jobs[p]
        )
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

