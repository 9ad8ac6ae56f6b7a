"""What pipeline messages and gradient reductions leave of the NICs to exchanges.

Each side of a shared NIC feels the other. Messages and reductions feel the very exchanges that they meet (`sim.nic`).
Exchanges feel messages and reductions as a part of the NICs that is gone for as long as steps run, on average: so what
happens inside a step does not depend on when messages pass, and levels of detail and folded ranks stay exact. Messages
need a few hundredths of a NIC where exchanges need half. Links between switches are shared in `sim.network.links`.
"""

from collections import Counter
from dataclasses import replace
from functools import cache

from hwmodels.units import NS_PER_S
from sim.nic import FAIR
from sim.optimizer import reduce_rings
from sim.plan import Machine, Plan, message, unit_cost_ns


def shared(plan: Plan, machine: Machine) -> Machine:
    """The machine with exchanges that find other traffic on their NICs, as much as at the position with most of it.

    Steps are taken to last as long as their kernels, which is the least they can: so no exchange has less left.
    """
    compute_s = compute_seconds(plan, machine)
    parts = [_others_s(plan, machine, p) / busy for p, busy in enumerate(compute_s) if busy]
    wires = replace(machine.pricer.wires, left=max(FAIR, 1 - max(parts, default=0.0)))
    return replace(machine, pricer=replace(machine.pricer, wires=wires))


def alone(machine: Machine) -> Machine:
    """The machine with exchanges that have their NICs to themselves, as in a benchmark of exchanges."""
    return replace(machine, pricer=replace(machine.pricer, wires=replace(machine.pricer.wires, left=1.0)))


def compute_seconds(plan: Plan, machine: Machine) -> list[float]:
    """Seconds that the kernels of each position's steps take in a training step."""
    cost = cache(lambda unit: unit_cost_ns(unit, machine.parts, machine.pricer))
    stage_s = [sum(map(cost, stage)) / NS_PER_S for stage in machine.stages]
    return [sum(stage_s[s] for step in steps for letter, s, _ in step.passes() if letter == "F")
            for steps in plan.program.steps]  # fmt: skip


def _others_s(plan: Plan, machine: Machine, position: int) -> float:
    """Seconds for which messages and reductions need a position's NICs in a training step."""
    sends = Counter(plan.targets(position).values())
    passed = sum(message(plan, machine, position, to).wire_bytes() * count for to, count in sends.items())
    rings = (ring for stage in plan.holds[position] for ring in reduce_rings(plan, machine, stage))
    return (passed + sum(ring.wire_bytes() for ring in rings)) / machine.pricer.wires.network
