"""The least that a scenario can take, each bound below what its run says, from the cheapest to the dearest:

* a step by its prices (`least_s`): compute of all layers, or their exchanges, over the positions that share them, or
  what the ends of the model cost those that hold them. No rank ends before its own kernels, the slowest position has at
  least the mean of all, and nothing takes less beside others than alone. Where no step overlaps a forward with a
  backward, a forward's parts follow each other, exchanges among them, as do those of an input gradient.
* bytes wherever layers go (`least_bytes`): what all positions hold through the step and at the moments at which each
  holds most, over their number; the fullest has at least the mean.
* what is computed once layers are placed (`computed_s`): no position begins before the first forward has come through
  the stages before its own, and none ends before its last gradient has gone back through them.
* a step laid out (`least_laid_out_s`): the longest way through its steps and messages, each as long as alone, and the
  update behind them. The engine's clock adds only what they wait for on links.
"""

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, chain

from hwmodels.units import NS_PER_S
from sim import assembly
from sim.analysis import memory
from sim.engine.lowering import kits
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.passes import Numbers
from sim.layout.placement import alike
from sim.layout.plan import Plan, relative
from sim.layout.traffic import BACKWARD, FORWARD
from sim.models.layer import COMMUNICATION, COMPUTE, Part, Unit
from sim.step.overlap import compose

SURE = 0.99
"""Part of the mean of constant bytes that the fullest position surely has: shards are rounded up to whole parameters by
unit, a thousandth at most."""
KEPT = 64
"""Models whose kinds of units are kept."""


def least_s(plan: Plan, machine: Machine) -> float:
    """Seconds that a step takes at least, by prices alone. machine: without stages."""
    kinds = _kinds(machine.units)

    def total(directions: str, lane: int) -> int:
        return sum(machine.unit_ns(unit, directions, (lane,)) * count for unit, count in kinds.items())

    moved = plan.overlapped and machine.site.groups.tensor > 1  # some collectives to the stream of computing
    work = max(total("FBW", lane) for lane in ((COMPUTE,) if moved else (COMPUTE, COMMUNICATION)))
    if not plan.overlapped:
        ahead, behind = (sum(_chain_ns(machine, unit, d) * n for unit, n in kinds.items()) for d in "FB")
        work = max(work, ahead + max(behind, total("BW", COMPUTE)))
    return max(work * plan.micro_batches / plan.program.positions, _ends_ns(plan, machine)) / NS_PER_S


def _ends_ns(plan: Plan, machine: Machine) -> int:
    """What the position that has most of the ends of the model computes of them: the embedding and the first layer,
    and all behind the last layer, which no rule of placement moves; 0 where letters say where each unit goes."""
    body = [at for at, unit in enumerate(machine.units) if unit.block and not unit.beside]
    if not isinstance(plan.scenario.placement, str) or len(body) < plan.program.stages:
        return 0
    ends = {0: machine.units[: body[0] + 1]} if plan.program.stages > 1 else {}
    ends[plan.program.stages - 1] = machine.units[body[-1] + 1 :]
    lanes, most = (COMPUTE,), 0
    for counts in plan.passes.counts:
        held = ((letter, ends[stage], count) for (letter, stage), count in counts.items() if stage in ends)
        most = max(most, sum(machine.unit_ns(u, letter, lanes) * n for letter, units, n in held for u in units))
    return most


@lru_cache(maxsize=KEPT)
def _kinds(units: tuple[Unit, ...]) -> Counter[Unit]:
    """Units of a kind, and how many there are."""
    return Counter(like for unit in units for like in alike((unit,)))


def _chain_ns(machine: Machine, unit: Unit, direction: str) -> int:
    """From the start of a unit's forward (F) or input gradient (B) to its output, in ns, each kernel as fast as
    alone and no host in its way."""
    known = machine.known.chains
    if (unit, direction) not in known:
        known[unit, direction] = _chained_ns(machine, unit, direction)
    return known[unit, direction]


def _chained_ns(machine: Machine, unit: Unit, direction: str) -> int:
    def chained(unit: Unit, direction: str) -> tuple[Part, ...]:
        return tuple(part for part in machine.parts(unit, direction) if part.chained)

    composition = compose(direction, (unit,), (unit,), chained)
    gap, ends, free = machine.pricer.launch_gap_ns, list[int](), dict[int, int]()
    for phase in composition.phases:
        here = phase.lane == COMMUNICATION
        length = sum(machine.pricer.price(each.op, here).ns + gap * each.op.kernels for each in phase.kernels)
        ends.append(max([free.get(phase.lane, 0), *(ends[needed] for needed in phase.needs)]) + length)
        free[phase.lane] = ends[-1]
    last = composition.forward_out if direction == "F" else composition.backward_out
    return ends[last] if last >= 0 else 0


def least_bytes(plan: Plan, machine: Machine) -> int:
    """Bytes that the fullest rank needs at least, wherever layers go. Placed by number, which takes no prices of
    pairs. machine: without stages."""
    by_number = replace(plan, scenario=replace(plan.scenario, placement="even"))
    machine = assembly.staged(by_number, machine)
    flat = [memory.constant(by_number, machine, position) for position in range(plan.program.positions)]
    freed = sum(parts["gradients"] for parts in flat) if machine.site.stack.frees_gradients else 0
    total = sum(sum(parts.values()) for parts in flat) - freed + _kept(plan, machine)
    return round(SURE * total / len(flat))


def _kept(plan: Plan, machine: Machine) -> float:
    """Bytes of activations that positions hold at the moments at which each holds most, summed, every layer on the
    stage that holds the fewest; 0 where layers keep more or less by where they lie in a stage."""
    units = tuple(chain.from_iterable(machine.stages))
    if plan.scenario.offload or len({unit.checkpoint for unit in units if unit.block}) > 1:
        return 0.0
    held = plan.passes.fullest
    return sum(_least_kept(machine, unit, held) * count for unit, count in _kinds(units).items())


def _least_kept(machine: Machine, unit: Unit, held: Numbers) -> float:
    each = (machine.holds(what, unit).at(machine.site) for what in ("kept", "kept_for_weight"))
    return float(sum(size * row for size, row in zip(each, held, strict=True)).min())


def computed_s(plan: Plan, machine: Machine) -> float:
    """Seconds that a step takes at least once layers are placed, by what each position computes of its stages, and
    others before and behind it."""
    stages = [relative(stage)[0] for stage in machine.stages]
    each = {units: {d: sum(machine.unit_ns(u, d, (COMPUTE,)) for u in units) for d in "FBW"} for units in set(stages)}
    ns = [each[units] for units in stages]
    ahead = {letter: [0, *accumulate(stage[letter] for stage in ns)] for letter in "FB"}
    apart, most = "W" in plan.passes.kinds[0], 0
    for counts, held in zip(plan.passes.counts, plan.holds, strict=True):
        busy = sum(ns[stage][letter] * count for (letter, stage), count in counts.items())
        last = sum(ns[s]["W"] * counts["W", s] for s in held) if apart else max(ns[s]["W"] for s in held)
        first, back = (min(ahead[letter][stage] for stage in held) for letter in "FB")
        most = max(most, first + busy + max(0, back - last))
    return most / NS_PER_S


def least_laid_out_s(plan: Plan, machine: Machine) -> float:
    """Seconds that a step takes at least once layers are placed. machine: with all that its traffic shares, so that
    kits are those of a run."""
    ready = [kit.chunk.outputs for kit in kits(plan, machine)]
    leaving = [[next((at for at, sent in sends if sent & output), total) for total, sends in ready]
               for output in (FORWARD, BACKWARD)]  # fmt: skip
    ways = [machine.pricer.price(machine.message(plan.mesh, *way)).ns for way in plan.passes.ways]
    starts, ends = list[int](), [0]
    for before, sort, waits in plan.passes.order:
        begins = ends[before]
        for step, sent, output, way in waits:
            begins = max(begins, starts[step] + leaving[output][sent] + ways[way])
        starts.append(begins)
        ends.append(begins + ready[sort][0])
    tails = (optimizer.tail(plan, machine, position) for position in range(plan.program.positions))
    return (max(ends) + max(tail.norm_ns + tail.update_ns for tail in tails)) / NS_PER_S
