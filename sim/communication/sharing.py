"""NIC bandwidth that pipeline messages leave for expert exchanges.

Each side of a shared NIC feels the other. Messages and reductions feel the very exchanges that they meet
(`sim.engine.nic`).
Exchanges feel messages as a part of the NICs that is gone for as long as steps run, on average: so what happens inside
a step does not depend on when messages pass, and levels of detail and folded ranks stay exact. Reductions meet few
exchanges (they begin when a position is nearly through), so exchanges are not slowed by them. Links between switches
are shared by the same rules in `sim.communication.fabric.links`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from hwmodels.op import AllToAll, Collective, Send
from hwmodels.units import NS_PER_S
from sim.engine.nic import FAIR
from sim.layout.machine import Machine
from sim.layout.plan import Plan, relative
from sim.models.layer import Unit

DIGITS = 12
"""Digits of the part of NICs that is left: longer or shorter steps of the same kinds leave the same but for
rounding."""


def shared(plan: Plan, machine: Machine) -> Machine:
    """`machine` with the exchanges' NIC bandwidth reduced by pipeline messages, as at the busiest position.

    Assumes steps as short as they can be, the longer of kernels and NICs, so the reduction is an upper bound. Ranks
    that wait for their messages have none beside their exchanges.
    """
    if plan.batches is not None:
        return machine
    left, exchanged = [1.0], cache(partial(_exchanged_bytes, machine))
    for position, compute_s in enumerate(compute_seconds(plan, machine)):
        messages_s, exchanges_s = _needed_s(plan, machine, position, exchanged)
        lasts = max(compute_s, messages_s + exchanges_s)
        left.append(1 - messages_s / lasts if lasts else 1.0)
    free = round(max(FAIR, min(left)), DIGITS)
    return machine.over(replace(machine.pricer.wires, left=free))


def compute_seconds(plan: Plan, machine: Machine) -> list[float]:
    """Seconds that the kernels of each position's steps take in a training step."""
    stage_s = [sum(map(machine.unit_ns, stage)) / NS_PER_S for stage in machine.stages]
    return [sum([stage_s[stage] for stage in row]) for row in plan.passes.forwards]


def _needed_s(
    plan: Plan, machine: Machine, position: int, exchanged_bytes: Callable[[Unit, str], float]
) -> tuple[float, float]:
    """Seconds for which messages, and what goes inside layers, need a position's NICs in a training step."""
    sends = plan.messages.over[position]
    sent = sum(machine.message(plan.mesh, position, *to).wire_bytes() * count for to, count in sends.items())
    exchanged = sum(
        count * exchanged_bytes(unit, letter)
        for (letter, stage), count in plan.passes.counts[position].items()
        for unit in relative(machine.stages[stage])[0]
    )
    return sent / machine.pricer.wires.network, exchanged / machine.pricer.wires.network


def _exchanged_bytes(machine: Machine, unit: Unit, direction: str) -> float:
    """What a rank's NICs send inside a unit."""
    kernels = (kernel for part in machine.parts(unit, direction) for kernel in part.kernels)
    return sum(k.op.wire_bytes() for k in kernels if isinstance(k.op, AllToAll | Collective | Send))
