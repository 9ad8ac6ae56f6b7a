"""What the links of the fabric carry, and by how much that slows each kind of traffic against a non-blocking fabric.

A set of flows is done when its busiest link is: in a plane where flows share links fairly, the largest load over a
link's bandwidth is the fluid answer for the last one to finish. A non-blocking fabric has no links but the NICs.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.network.cabling import Cabling
from sim.network.flows import KINDS, Flows
from sim.network.paths import paths
from sim.network.routes import NONE, Numbers

Bytes = npt.NDArray[np.float64]


class Slowdown(NamedTuple):
    """One kind of traffic. flows, size: how many and their bytes. crossing: the part of the bytes that leaves its leaf.
    largest: bytes of its busiest link between switches.

    alone: its time over that of a non-blocking fabric, with nothing else under way. together: the same with all kinds
    under way at once, in both fabrics. stretched: its time with all kinds at once over its time alone in a non-blocking
    fabric, so that sharing NICs counts too. All are 1 or more.
    """

    kind: str
    flows: int
    size: float
    crossing: float
    largest: float
    alone: float
    together: float
    stretched: float


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
    flows: Flows, cabling: Cabling, routing: str, seed: int = 0, ways: Numbers | None = None
) -> tuple[Slowdown, ...]:
    """Of each kind of traffic that there is, in the order of KINDS; `routing` and `seed` as `paths` takes them.

    ways: what `ways_by_kind` says, where it is known already.
    """
    ways = ways_by_kind(flows, cabling, routing, seed) if ways is None else ways
    together = paths(flows, cabling, routing, seed) if routing == "adaptive" else ways
    seconds = np.where(np.arange(cabling.links) < 2 * cabling.ports, 1 / cabling.rates.nic, 1 / cabling.rates.port)
    every = loads(flows, together, cabling)
    found = []
    for number, kind in enumerate(KINDS):
        mine = flows.kind == number
        if mine.any():
            crossing = float(flows.size[mine & (ways[:, 1:-1] != NONE).any(axis=1)].sum())
            own = loads(flows.where(mine), ways[mine], cabling)
            found.append(_slowdown(kind, int(mine.sum()), crossing, own, every, seconds, 2 * cabling.ports))
    return tuple(found)


def _slowdown(
    kind: str, flows: int, crossing: float, own: Bytes, every: Bytes, seconds: Bytes, nics: int
) -> Slowdown:
    """nics: links that are NICs, the first ones. Rates are shared in proportion to bytes on the links that it uses."""
    used, size = own > 0, float(own[: nics // 2].sum())
    mine, all_of = own * seconds, np.where(used, every * seconds, 0.0)
    bare, bare_all = float(mine[:nics].max()), float(all_of[:nics].max())
    if not bare:
        return Slowdown(kind, flows, size, 0.0, 0.0, 1.0, 1.0, 1.0)
    busiest = float(own[nics:].max(initial=0.0))
    alone, together = float(mine.max()) / bare, float(all_of.max()) / bare_all
    return Slowdown(kind, flows, size, crossing / size, busiest, alone, together, float(all_of.max()) / bare)
