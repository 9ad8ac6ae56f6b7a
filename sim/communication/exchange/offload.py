"""What-ifs that hold no SM: copy engines that forward, and switches that copy and reduce.

The DeepSeek-V3 report (arXiv 2412.19437, sec 3.5.1) asks for such hardware. Nothing here is measured: links keep their
effective bandwidth and latency, engines cost no time of their own, and so these are bounds, not predictions.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hwmodels.collectives import Wires
from hwmodels.op import AllToAll
from sim.communication.exchange import closed, kernel
from sim.communication.exchange.ports import Ports, of_op
from sim.communication.exchange.roles import COPY, FOLLOW


class Offload(NamedTuple):
    """An exchange alone, in seconds, barriers included: the kernel's on `sms` SMs, and both what-ifs on none."""

    name: str
    sms: int
    kernel_s: float
    copy_engine_s: float
    in_network_s: float


def beside(op: AllToAll, links: Wires, sms: int, roles: str = FOLLOW) -> Offload:
    """The what-ifs of one exchange beside the kernel on `sms` SMs. roles: see `sim.communication.exchange.roles`."""
    ports = of_op(op)
    timing = kernel.run(ports, links, sms, COPY, roles)
    total = timing.seconds + timing.barrier_s
    return Offload(op.beside, sms, total, copy_engine_s(ports, links), in_network_s(ports, links))


def copy_engine_s(ports: Ports, links: Wires) -> float:
    """Engines move the same rows over the same links: the bound, the latencies and the group's barrier."""
    return closed.seconds(ports, links) + kernel.barrier_s(ports, links)


def in_network_s(ports: Ports, links: Wires) -> float:
    """Switches copy a dispatched row to its nodes and reduce a combined one: the source's NIC carries each token once.

    The other end of the journey carries what it did, so an even exchange gains nothing unless that end is faster too.
    """
    once = np.minimum(ports.nic_out, ports.tokens)
    return copy_engine_s(replace(ports, nic_out=once), links)
