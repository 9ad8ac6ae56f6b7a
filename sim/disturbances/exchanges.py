"""How much longer an exchange takes a rank whose experts or whose node are more popular than expected.

A token crosses the network once for each node it reaches, to the GPU with its source's index, and goes on over NVLink
to its experts' ranks. So what a NIC carries follows the popularity of its node, and what a rank receives loads its own
NVLink port and warps, which have slack where the NIC binds. Both lengths come from the model that times exchanges
(`sim.communication.exchange`), run with one of the two loads raised; the longer one counts. For messages one rank or
one node of the group is more popular, and the last of the group counts: 0.015 s of CPU a length, 0.9 s for V3's
exchanges.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.op import AllToAll
from hwmodels.price import Pricer
from sim.communication.exchange.ports import even_tokens, of_op
from sim.communication.exchange.price import MESSAGES, Fidelity, of_tokens
from sim.layout.machine import Machine

Array = npt.NDArray[np.float64]
RATIOS = (1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Loads over the expected one that are timed; times between are interpolated, beyond in proportion."""


@dataclass(frozen=True)
class LoadedExchange:
    """Slow-down of one exchange under load: time / expected time, at RATIOS.

    received: by what a rank receives, [ratio].  reached: by what reaches its node, [ratio].
    """

    received: Array
    reached: Array

    def by_received(self, ratio: Array) -> Array:
        """By what ranks receive. Never less than expected: the senders have as many tokens as ever."""
        return np.maximum(1.0, _at(ratio, self.received))

    def by_reached(self, ratio: Array) -> Array:
        """By what reaches their nodes, likewise; the larger of both counts."""
        return np.maximum(1.0, _at(ratio, self.reached))


def _at(ratio: Array, factor: Array) -> Array:
    return np.where(ratio > RATIOS[-1], factor[-1] * ratio / RATIOS[-1], np.interp(ratio, RATIOS, factor))


def loaded_exchanges(machine: Machine) -> dict[str, LoadedExchange]:
    """Label of each exchange of a layer -> its slow-down under load."""
    parts = (part for unit in machine.routed_sorts for direction in "FB" for part in machine.parts(unit, direction))
    return {
        part.label: _loaded_exchange(machine.pricer, kernel.op)
        for part in parts for kernel in part.kernels if isinstance(kernel.op, AllToAll)
    }  # fmt: skip


def _loaded_exchange(pricer: Pricer, op: AllToAll) -> LoadedExchange:
    links, timed = pricer.wires.alone, pricer.exchange
    assert isinstance(timed, Fidelity)

    def seconds(load: str, ratio: float) -> float:
        if timed.model == MESSAGES:
            return of_tokens(op, *_popular(op, load, ratio), links)
        return timed.of_ports(of_op(op).raised(**{load: ratio}), links, pricer.comm_sms)

    by_load = {load: np.array([seconds(load, ratio) for ratio in RATIOS]) for load in LoadedExchange.__annotations__}
    return LoadedExchange(**{load: times / (times[0] or 1.0) for load, times in by_load.items()})


def _popular(op: AllToAll, load: str, ratio: float) -> tuple[Array, Array]:
    """to_nodes [ranks, nodes] and to_ranks [ranks, ranks] of an exchange whose first rank receives, or whose first node
    is reached by, `ratio` times as many tokens as the others."""
    to_nodes, to_ranks = even_tokens(op)
    if load == "received":
        to_ranks[:, 0] *= ratio
    else:
        to_nodes[:, 0] *= ratio
        to_ranks[:, : op.group // op.group_nodes] *= ratio
    return to_nodes, to_ranks
