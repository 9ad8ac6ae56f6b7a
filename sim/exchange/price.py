"""The price of an exchange for the ladder in hwmodels.price: seconds alone, from the warp-level kernel."""

from functools import lru_cache

from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from sim.exchange import kernel, offload
from sim.exchange.ports import Ports, of_op
from sim.exchange.roles import COPY, Copy

SOURCE = "warp-specialised kernel in channels of two SMs (sim.exchange)"


@lru_cache(maxsize=4096)
def seconds(op: AllToAll, links: Wires, sms: int, copy: Copy = COPY) -> float:
    """One dispatch or combine alone, its group's barrier included. `sms` 0: copy engines (a what-if).

    Called like hwmodels.collectives.exchange_seconds. Raises ValueError below 0 SMs.
    """
    return of_ports(of_op(op), links, sms, copy)


def of_ports(ports: Ports, links: Wires, sms: int, copy: Copy = COPY) -> float:
    """The same for loads that need not be even."""
    if sms == 0:
        return offload.copy_engine_s(ports, links)
    timing = kernel.run(ports, links, sms, copy)
    return timing.seconds + timing.barrier_s
