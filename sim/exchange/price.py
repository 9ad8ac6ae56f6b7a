"""The price of an exchange for the ladder in hwmodels.price: seconds alone, from the warp-level kernel."""

from dataclasses import dataclass
from functools import lru_cache

from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from sim.exchange import kernel, offload
from sim.exchange.ports import Ports, of_op
from sim.exchange.roles import COPY, FOLLOW, Copy


@dataclass(frozen=True)
class Fidelity:
    """How exchanges are timed alone; called like hwmodels.collectives.exchange_seconds.

    warps: how the kernel gives them to roles, follow or fixed (`sim.exchange.roles`). copy: what one needs for a row.
    """

    warps: str = FOLLOW
    copy: Copy = COPY

    def __call__(self, op: AllToAll, links: Wires, sms: int) -> float:
        """Seconds of one dispatch or combine, its group's barrier included. `sms` 0: copy engines (a what-if).

        Raises ValueError below 0 SMs.
        """
        return _seconds(self, op, links, sms)

    def of_ports(self, ports: Ports, links: Wires, sms: int) -> float:
        """The same for loads that need not be even."""
        if sms == 0:
            return offload.copy_engine_s(ports, links)
        timing = kernel.run(ports, links, sms, self.copy, self.warps)
        return timing.seconds + timing.barrier_s


@lru_cache(maxsize=4096)
def _seconds(fidelity: Fidelity, op: AllToAll, links: Wires, sms: int) -> float:
    return fidelity.of_ports(of_op(op), links, sms)
