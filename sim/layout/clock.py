"""The clock of a step: what its own kernels leave its cards under the power limit, one for all of it (`hwmodels.pace`).

A step's joules and time are those of its micro-batches, of all stages together, with the exchanges that compute waits
for, and of its updates. Bubbles are no rest: a power limit looks at tens of ms, in which a stage is busy or is not.
What runs beside compute draws besides, and is left out: exchanges in steps that are pairs, but not where a pipeline
fills or drains.
"""

from collections import Counter

from hwmodels import pace
from hwmodels.op import Collective
from hwmodels.price import PACED, Pricer
from hwmodels.units import NS_PER_S
from sim.layout import optimizer
from sim.layout.machine import Machine
from sim.layout.placement import alike
from sim.layout.plan import Plan
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT, Kernel, Part

DIGITS = 3
"""Of a clock: steps that differ in less share prices."""
RESTED = 1.0


def paces(pricer: Pricer) -> bool:
    """Whether joules of what it prices are known: a library's kernels on a metered card, or one that draws alike."""
    own = pricer.published
    known = pace.metered(own) and pricer.device.power_w > 0 if own else pace.known(pricer.device)
    return known and any(tables.library and not tables.sparse for tables in pricer.shelf)


def rested(machine: Machine) -> Machine:
    """The machine of a rested card, which no step is faster on; as it was where no joules are known."""
    return machine.at(RESTED) if paces(machine.pricer) else machine


def paced(plan: Plan, machine: Machine) -> Machine:
    """The machine at the clock that its step leaves; as it was where no joules are known."""
    if not paces(machine.pricer):
        return machine
    own = rested(machine)
    total = _Sum(own, waiting(plan))
    for unit, count in Counter(like for each in own.units for like in alike((each,))).items():
        for direction in "FBW":
            for part in own.parts(unit, direction):
                total.add(part, count * plan.micro_batches)
    if not plan.scenario.optimizer.offloaded:
        total.update(sum(optimizer.tail(plan, own, at).update_ns for at in range(plan.program.positions)))
    least = pace.least_ns(machine.pricer.device, total.joules, machine.cluster.gpus, total.own)
    clock = pace.clock(least, lambda clock: round(total.ns + (clock - RESTED) * total.paced_ns))
    return machine.at(round(clock, DIGITS))


def waiting(plan: Plan) -> float:
    """The part of a step's exchanges that compute waits for: those of forwards and gradients in no pair."""
    alone = Counter("+" in step.kind for steps in plan.program.steps for step in steps if step.kind != "W")
    return alone[False] / (alone[False] + 2 * alone[True])


class _Sum:
    """What kernels come to, in ns and joules at the rested clock; paced_ns: of those that the clock paces. waiting: the
    part of exchanges that run beside no compute of another micro-batch."""

    def __init__(self, machine: Machine, waiting: float) -> None:
        self.machine, self.waiting = machine, waiting
        self.own = machine.pricer.published
        self.slowed = pace.slowed(machine.pricer.device, self.own)
        self.ns = self.paced_ns = self.joules = 0.0

    def add(self, part: Part, times: int) -> None:
        """A part, so many times."""
        price, gap = self.machine.pricer.price, self.machine.pricer.launch_gap_ns
        for kernel in part.kernels:
            if kernel.lane in (COMPUTE, WEIGHT):
                ns = price(kernel.op).ns
                self.ns += times * (ns + gap * kernel.op.kernels)
                paced = isinstance(kernel.op, PACED)
                self.paced_ns += times * ns * paced
                drawn = pace.joules(kernel.op, ns, 1.0, self.machine.pricer.attention, self.own)
                self.joules += times * drawn * (self.slowed if paced else 1.0)
            elif kernel.lane == COMMUNICATION and self.waiting and not (kernel.ahead or kernel.piece):
                waited = self.waiting * price(kernel.op).ns
                self.ns += times * waited
                self.joules += times * pace.joules(kernel.op, waited, self._sms(kernel), own=self.own)

    def update(self, ns: float) -> None:
        """Of updates, so long."""
        self.ns += ns
        self.joules += pace.UPDATE_W * ns / NS_PER_S

    def _sms(self, kernel: Kernel) -> float:
        """The part of a card's SMs that an exchange has."""
        pricer, op = self.machine.pricer, kernel.op
        nccl = pricer.nccl.take(op, pricer.wires).sms if pricer.nccl and isinstance(op, Collective) else 0
        return max(pricer.comm_sms, nccl) / pricer.device.sms
