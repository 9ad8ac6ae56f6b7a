"""What the links of the fabric carry, and by how much that slows each kind of traffic against a non-blocking fabric.

A set of flows is done when its busiest link is: in a plane where flows share links fairly, the largest load over a
link's bandwidth is the fluid answer for the last one to finish. A non-blocking fabric has no links but the NICs, which
kinds of traffic share elsewhere (`sim.nic`, `sim.sharing`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import Crossing
from sim.network.cabling import Cabling
from sim.network.flows import EXPERT, KINDS, PARAMETERS, Flows
from sim.network.paths import paths
from sim.network.routes import NONE, Numbers
from sim.nic import FAIR

Bytes = npt.NDArray[np.float64]


class Slowdown(NamedTuple):
    """One kind of traffic. flows, size: how many and their bytes. outside: the part of the bytes that leaves its leaf.
    largest: bytes of its busiest link between switches.

    alone: its time over that of a non-blocking fabric, with nothing else under way. crossing: what prices take of it:
    of exchanges beside what else passes while steps run, of other kinds alone and how much of their way exchanges need.
    """

    kind: str
    flows: int
    size: float
    outside: float
    largest: float
    alone: float
    crossing: Crossing


def loads(flows: Flows, ways: Numbers, cabling: Cabling) -> Bytes:
    """Bytes that each link carries [links]; ways [flows, hops] as `sim.network.paths` finds them."""
    on = ways != NONE
    sizes = np.broadcast_to(flows.size[:, None], ways.shape)[on]
    return np.bincount(ways[on], sizes, minlength=cabling.links).astype(np.float64)


def ways_by_kind(flows: Flows, cabling: Cabling, routing: str, seed: int = 0) -> Numbers:
    """Links of each flow [flows, hops] when its kind alone is under way (see `sim.network.paths`).

    Adaptive flows choose by the load that they meet, and kinds mostly meet their own: exchanges, sends and gradients
    are under way at different moments of a step. Static and hashed flows take the same ways always.
    """
    found = paths(flows.where(flows.kind < 0), cabling, routing, seed)
    ways = np.full((len(flows), found.shape[1]), NONE)
    for kind in range(len(KINDS)):
        mine = flows.kind == kind
        ways[mine] = paths(flows.where(mine), cabling, routing, seed)
    return ways


def slowdowns(
    flows: Flows, cabling: Cabling, routing: str, seed: int = 0, ways: Numbers | None = None, busy_s: float = 0.0
) -> tuple[Slowdown, ...]:
    """Of each kind of traffic that there is, in the order of KINDS; `routing` and `seed` as `paths` takes them.

    ways: what `ways_by_kind` says, where it is known already. busy_s: seconds that the steps which cause the traffic
    take at least.
    """
    ways = ways_by_kind(flows, cabling, routing, seed) if ways is None else ways
    nics = 2 * cabling.ports
    own = [loads(flows.where(flows.kind == kind), ways[flows.kind == kind], cabling) for kind in range(len(KINDS))]
    needs = [_Needs(carried[:nics] / cabling.rates.nic, carried[nics:] / cabling.rates.port) for carried in own]
    found = []
    for number, (kind, carried) in enumerate(zip(KINDS, own, strict=True)):
        mine = flows.kind == number
        if mine.any():
            size, outside = flows.size[mine], (ways[mine, 1:-1] != NONE).any(axis=1)
            total = float(size.sum())
            crossing = _beside(needs, busy_s) if number == EXPERT else _under(needs[number], needs[EXPERT])
            found.append(Slowdown(
                kind, len(size), total, float(size[outside].sum()) / total if total else 0.0,
                float(carried[nics:].max(initial=0.0)), needs[number].slower(needs[number].switches), crossing,
            ))  # fmt: skip
    return tuple(found)


class _Needs(NamedTuple):
    """Seconds for which a kind of traffic needs each NIC, and each link between switches."""

    nics: Bytes
    switches: Bytes

    def slower(self, switches: Bytes) -> float:
        """How many times longer it takes than its NICs where links between switches take `switches` seconds."""
        bare = float(self.nics.max(initial=0.0))
        return max(1.0, float(switches.max(initial=0.0)) / bare) if bare else 1.0


def _beside(needs: Sequence[_Needs], busy_s: float) -> Crossing:
    """Exchanges beside messages and gradients, which need a part of each link all the while that steps run: no less
    time than `busy_s` or than the busiest link takes for all. Exchanges get the rest, and no less than a fair part."""
    others = np.sum([each.switches for each in needs[EXPERT + 1 : PARAMETERS]], axis=0)
    own = needs[EXPERT].switches
    lasts = max(busy_s, float((own + others).max(initial=0.0)))
    left = np.maximum(1 - others / lasts, FAIR) if lasts else np.ones_like(own)
    return Crossing(needs[EXPERT].slower(own / left))


def _under(needs: _Needs, exchanges: _Needs) -> Crossing:
    """Another kind of traffic, and what exchanges need of the link that it needs longest, over their NICs."""
    bare, slower = float(exchanges.nics.max(initial=0.0)), needs.slower(needs.switches)
    busiest = needs.switches == needs.switches.max(initial=0.0)
    if not bare or not needs.switches.any():
        return Crossing(slower)
    return Crossing(slower, float(exchanges.switches[busiest].max()) / bare)
