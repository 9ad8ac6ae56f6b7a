"""The network of a scenario in one value: its cabling, the traffic of a step, the way each flow takes."""

from dataclasses import dataclass

import numpy as np

from hwmodels.collectives import Hindrance
from sim.communication.fabric import links
from sim.communication.fabric.bursts import Burst, bursts
from sim.communication.fabric.cabling import Cabling, cabling
from sim.communication.fabric.flows import Flows, joined
from sim.communication.fabric.routes import Numbers
from sim.layout.machine import Hindrances, Machine
from sim.layout.plan import Plan
from sim.models.layer import EXPERT


@dataclass(frozen=True)
class Network:
    """The cabling of a cluster with the traffic of a step on it. bursts: that traffic. flows: theirs, in order. ways
    [flows, hops]: links by number, each kind of traffic for itself. routing, seed: how they were chosen (see
    `sim.communication.fabric.paths`)."""

    cabling: Cabling
    routing: str
    seed: int
    bursts: tuple[Burst, ...]
    flows: Flows
    ways: Numbers

    def hindrances(self, busy_s: float = 0.0) -> Hindrances:
        """What links between switches do to the traffic of the step. busy_s: that its steps take at least."""
        of = np.repeat(np.arange(len(self.bursts)), [len(burst.flows) for burst in self.bursts])
        of_burst = links.hindrances(self.flows, of, self.ways, self.cabling, busy_s)
        messages: dict[tuple[int, int], Hindrance] = {}
        for burst, each in zip(self.bursts, of_burst, strict=True):
            if burst.target >= 0:
                ends = burst.position, burst.target
                messages[ends] = max(each, messages.get(ends, each))
        rings = {burst.ring: each for burst, each in zip(self.bursts, of_burst, strict=True) if burst.ring}
        groups = {b.group: each.slower for b, each in zip(self.bursts, of_burst, strict=True) if b.group}
        alone = links.exchanges_alone(self.flows, self.ways, self.cabling)
        return Hindrances(alone, groups.get(EXPERT, alone), messages, rings, groups)


def network(
    plan: Plan, machine: Machine, placement: str | tuple[int, ...] = "packed", routing: str = "adaptive"
) -> Network:
    """The network of a planned scenario; its seed draws placement and hashes. Raises Refused with one line."""
    seed = plan.scenario.seed
    cables = cabling(machine.cluster, placement, seed)
    traffic = bursts(plan, machine, cables)
    flows = joined(burst.flows for burst in traffic)
    return Network(cables, routing, seed, traffic, flows, links.ways_by_moment(flows, cables, routing, seed))
