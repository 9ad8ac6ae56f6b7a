"""The price of an exchange for the ladder in hwmodels.price: seconds alone, at the fidelity that a scenario asks for.

`kernel` and `events` know SMs; `messages` and `closed` know links alone, so that comm.sms only takes SMs from compute.
What is asked again is kept: even exchanges of 64 ranks take `events` 0.06 s of CPU, `messages` 0.015, `kernel` 0.001.
Loads that differ are timed by `kernel` where a scenario asks for `events`: those run a whole group for each of them.
"""

from dataclasses import dataclass
from functools import lru_cache

from hwmodels.collectives import Wires
from hwmodels.nccl.library import Library
from hwmodels.op import HYBRIDEP, AllToAll, Collective
from hwmodels.units import NS_PER_S, ns_to_seconds
from sim.communication.exchange import hybrid, kernel, messages, offload
from sim.communication.exchange.events import cargo, group
from sim.communication.exchange.events.setting import Setting
from sim.communication.exchange.ports import Ports, Rows, even_tokens, of_op
from sim.communication.exchange.roles import COPY, FOLLOW, Copy

EVENTS, KERNEL, MESSAGES, CLOSED = "events", "kernel", "messages", "closed"
"""Words of `comm.exchange`."""


@dataclass(frozen=True)
class Fidelity:
    """How exchanges are timed alone; called like hwmodels.collectives.exchange_seconds.

    model: EVENTS, KERNEL, MESSAGES or CLOSED. warps: how a kernel gives them to roles, FOLLOW or FIXED. copy: what one
    needs for a row. nccl: what times exchanges that it moves. Those and HybridEP's are even: KERNEL is DeepEP's.
    """

    model: str = KERNEL
    warps: str = FOLLOW
    copy: Copy = COPY
    nccl: Library | None = None

    def __call__(self, op: AllToAll, links: Wires, sms: int) -> float:
        """Seconds of one dispatch or combine, its group's barrier included. `sms` 0: copy engines (a what-if).

        Raises Refused below 0 SMs.
        """
        return _seconds(self, op, links, sms)

    def of_ports(self, ports: Ports, links: Wires, sms: int) -> float:
        """Seconds of an exchange with loads that need not be even, by `kernel` where the model is `events`. Messages
        need to know who sends to whom: see `of_tokens`."""
        assert self.model != MESSAGES
        if sms == 0 or self.model == CLOSED:  # engines that cost no time of their own are the closed form
            return offload.copy_engine_s(ports, links)
        timing = kernel.run(ports, links, sms, self.copy, self.warps)
        return timing.seconds + timing.barrier_s


def of_tokens(op: AllToAll, to_nodes: Rows, to_ranks: Rows, links: Wires) -> float:
    """Seconds of an exchange by messages, barrier included; matrices as in `ports.even_tokens`."""
    done = messages.finish_ns(op.direction, op.row_bytes, to_nodes, to_ranks, links)
    return int(done.max()) / NS_PER_S + kernel.barrier_s(of_op(op), links)


@lru_cache(maxsize=4096)
def _seconds(fidelity: Fidelity, op: AllToAll, links: Wires, sms: int) -> float:
    if fidelity.model == KERNEL and op.by == HYBRIDEP and sms:
        return hybrid.seconds(op, links, sms)
    if fidelity.model == KERNEL and op.collective and fidelity.nccl:
        return fidelity.nccl.take(Collective("all_to_all", op.bytes(), op.group, op.group_nodes), links).seconds
    if fidelity.model == MESSAGES:
        return of_tokens(op, *even_tokens(op), links)
    if fidelity.model == EVENTS and sms:
        timing = group.run([cargo.even(op)], Setting(links, sms, fidelity.warps, fidelity.copy))[0]
        return ns_to_seconds(timing.barrier + timing.ns)
    return fidelity.of_ports(of_op(op), links, sms)
