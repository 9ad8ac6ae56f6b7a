"""How much longer an exchange takes a rank whose experts or whose node are more popular than expected.

A token crosses the network once for each node it reaches, to the GPU with its source's index, and goes on over NVLink
to its experts' ranks. So what a NIC carries follows the popularity of its node, and what a rank receives loads its own
NVLink port and warps, which have slack where the NIC binds. Both lengths come from the warp-level kernel
(`sim.exchange`), run with one of the two loads raised; the longer one counts.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwmodels.op import AllToAll
from sim.exchange.ports import Ports, of_op
from sim.exchange.price import Fidelity
from sim.models.layer import Unit
from sim.plan import Machine, family_of

Array = npt.NDArray[np.float64]
RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Of what is expected; times between are interpolated, beyond in proportion."""


@dataclass(frozen=True)
class Crowded:
    """Times of one exchange over the expected one, at RATIOS of what a rank receives and of what reaches its node."""

    received: Array
    reached: Array

    def at(self, received: Array, reached: Array) -> Array:
        """Never less than expected: the senders have as many tokens as ever."""
        return np.maximum(1.0, np.maximum(_at(received, self.received), _at(reached, self.reached)))


def _at(ratio: Array, factor: Array) -> Array:
    return np.where(ratio > RATIOS[-1], factor[-1] * ratio / RATIOS[-1], np.interp(ratio, RATIOS, factor))


def crowded(machine: Machine) -> dict[str, Crowded]:
    """Name of each exchange of a layer -> how it feels loads."""
    family, found = family_of(machine.site.shape.family), {}
    for direction in "FB":
        for part in family.parts(machine.site, Unit("moe", 0), direction):
            for kernel in part.kernels:
                if isinstance(kernel.op, AllToAll):
                    found[part.name] = _crowded(machine, of_op(kernel.op))
    return found


def _crowded(machine: Machine, ports: Ports) -> Crowded:
    links, sms, timed = machine.pricer.wires.carrying("expert"), machine.pricer.comm_sms, machine.pricer.exchange
    assert isinstance(timed, Fidelity)

    def times(*names: str) -> Array:
        raised = (replace(ports, **{name: getattr(ports, name) * ratio for name in names}) for ratio in RATIOS)
        ns = np.array([timed.of_ports(each, links, sms) for each in raised])
        return np.asarray(ns / ns[0])

    return Crowded(times("received", "nvlink_in"), times("nic_in", "forwarded", "nvlink_out"))
