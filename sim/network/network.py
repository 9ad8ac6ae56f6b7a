"""The network of a scenario in one value: its cabling, the traffic of a step, the way each flow takes."""

from dataclasses import dataclass

import numpy as np

from sim.network import links, utilisation
from sim.network.bursts import Burst, bursts
from sim.network.cabling import Cabling, cabling
from sim.network.flows import Flows, joined
from sim.network.links import Slowdown
from sim.network.routes import Numbers
from sim.plan import Machine, Plan
from sim.result import Utilisation
from sim.trace import Trace


@dataclass(frozen=True)
class Network:
    """bursts: the traffic of a step. flows: theirs, in order. ways [flows, hops]: links by number, each kind of traffic
    for itself. routing, seed: how they were chosen (see `sim.network.paths`).
    """

    cabling: Cabling
    routing: str
    seed: int
    bursts: tuple[Burst, ...]
    flows: Flows
    ways: Numbers

    def slowdowns(self, busy_s: float = 0.0) -> tuple[Slowdown, ...]:
        """Of each kind of traffic, against a non-blocking fabric. busy_s: that steps take at least."""
        return links.slowdowns(self.flows, self.cabling, self.routing, self.seed, self.ways, busy_s)

    def utilisation(self, trace: Trace, bins: int = utilisation.BINS, end_ns: int = 0) -> Utilisation:
        """How busy links are over the step whose spans are given."""
        stops = np.cumsum([len(burst.flows) for burst in self.bursts])[:-1]
        return utilisation.utilisation(trace, self.bursts, np.split(self.ways, stops), self.cabling, bins, end_ns)


def network(
    plan: Plan, machine: Machine, placement: str | tuple[int, ...] = "packed", routing: str = "adaptive"
) -> Network:
    """The network of a planned scenario; its seed draws placement and hashes. Raises ValueError with one line."""
    seed = plan.scenario.seed
    wired = cabling(machine.cluster, placement, seed)
    found = bursts(plan, machine, wired)
    flows = joined(burst.flows for burst in found)
    return Network(wired, routing, seed, found, flows, links.ways_by_kind(flows, wired, routing, seed))
