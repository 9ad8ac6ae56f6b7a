"""What the links of the fabric carry, and by how much those between switches slow what passes them.

A set of flows is done when its busiest link is: in a plane where flows share links fairly, the largest load over a
link's bandwidth is the fluid answer for the last one to finish. A non-blocking fabric has no links but the NICs, which
kinds of traffic share elsewhere (`sim.engine.nic`, `sim.communication.sharing`).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hwmodels.collectives import Hindrance
from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.flows import EXPERT, INSIDE, PIPELINE, Flows
from sim.communication.fabric.paths import paths
from sim.communication.fabric.routes import NONE, Numbers
from sim.engine.nic import FAIR

Floats = npt.NDArray[np.float64]


def loads(flows: Flows, ways: Numbers, cabling: Cabling) -> Floats:
    """Bytes that each link carries [links]; ways [flows, hops] as `sim.communication.fabric.paths` finds them."""
    on = ways != NONE
    sizes = np.broadcast_to(flows.size[:, None], ways.shape)[on]
    return np.bincount(ways[on], sizes, minlength=cabling.links).astype(np.float64)


def ways_by_moment(flows: Flows, cabling: Cabling, routing: str, seed: int = 0) -> Numbers:
    """Links of each flow [flows, hops], with nothing under way but what passes at its moment
    (`sim.communication.fabric.paths`).

    Adaptive flows choose by the load that they meet, which is mostly their own kind's: exchanges, forward and backward
    outputs up and down the pipeline, gradients and parameters pass at different moments. Static and hashed flows take
    the same ways always.
    """
    empty = paths(flows.where(flows.kind < 0), cabling, routing, seed)
    ways, moment = np.full((len(flows), empty.shape[1]), NONE), _moment(flows)
    for number in sorted(set(moment.tolist())):
        chosen = moment == number
        ways[chosen] = paths(flows.where(chosen), cabling, routing, seed)
    return ways


def _moment(flows: Flows) -> Numbers:
    """Kind and moment as one number."""
    return flows.kind * (int(flows.moment.max(initial=0)) + 1) + flows.moment


def hindrances(
    flows: Flows, of: Numbers, ways: Numbers, cabling: Cabling, busy_s: float = 0.0
) -> tuple[Hindrance, ...]:
    """What links between switches do to each part of the flows. of [flows]: number of the part, all of one kind.

    Messages, gradients and parameters: beside what passes at the same moment. Of exchanges, and what else goes inside
    layers, which all go at the pace of the slowest, it says what messages make of it that pass while steps run, for
    `busy_s` seconds at least; see `exchanges_alone`.
    """
    messages = _needs(flows, ways, cabling, PIPELINE).switches
    inside = {kind: _needs(flows, ways, cabling, kind) for kind in INSIDE}
    slower = {
        kind: Hindrance(need.slower(need.switches / _left(need.switches, messages, busy_s)))
        for kind, need in inside.items()
    }
    kinds = np.zeros(int(of.max(initial=-1)) + 1, dtype=np.int64)
    kinds[of] = flows.kind
    others = _hindered(flows, of, ways, cabling, np.max([need.relative for need in inside.values()], axis=0))
    return tuple(slower.get(kind, other) for kind, other in zip(kinds.tolist(), others, strict=True))


def exchanges_alone(flows: Flows, ways: Numbers, cabling: Cabling) -> float:
    """How many times longer exchanges take for links between switches, with nothing else under way."""
    needs = _needs(flows, ways, cabling, EXPERT)
    return needs.slower(needs.switches)


class _Needs(NamedTuple):
    """Seconds for which a kind of traffic needs each NIC, and each link between switches."""

    nics: Floats
    switches: Floats

    @property
    def relative(self) -> Floats:
        """What it needs of links between switches over what it needs of a NIC."""
        bare = float(self.nics.max(initial=0.0))
        return self.switches / bare if bare else self.switches

    def slower(self, switches: Floats) -> float:
        """How many times longer it takes than its NICs where links between switches take `switches` seconds."""
        bare = float(self.nics.max(initial=0.0))
        return max(1.0, float(switches.max(initial=0.0)) / bare) if bare else 1.0


def _needs(flows: Flows, ways: Numbers, cabling: Cabling, kind: int) -> _Needs:
    chosen = flows.kind == kind
    carried, nics = loads(flows.where(chosen), ways[chosen], cabling), 2 * cabling.ports
    return _Needs(carried[:nics] / cabling.rates.nic, carried[nics:] / cabling.rates.port)


def _left(own: Floats, others: Floats, busy_s: float) -> Floats:
    """Part of each link that is left where others need some of it for as long as steps run: no less than `busy_s` nor
    than the busiest link takes for all. No less than a fair part: max-min fairness."""
    lasts = max(busy_s, float((own + others).max(initial=0.0)))
    return np.maximum(1 - others / lasts, FAIR) if lasts else np.ones_like(own)


def _hindered(flows: Flows, of: Numbers, ways: Numbers, cabling: Cabling, exchanges: Floats) -> list[Hindrance]:
    """Each part beside what passes at the same moment. exchanges: what they need of each link, over that of NICs.

    A NIC sends one thing after another: on a link each counts once, with the most that a part sends from there.
    """
    flow, hop = np.nonzero(ways[:, 1:-1] != NONE)
    link, part = ways[flow, hop + 1], of[flow]
    place = _moment(flows)[flow] * cabling.links + link
    sent = place * cabling.ports + ways[flow, 0]
    parts = int(of.max(initial=-1)) + 1
    codes, where = np.unique(sent * parts + part, return_inverse=True)
    passed = np.bincount(where, flows.size[flow])
    nics, first = np.unique(codes // parts, return_index=True)
    most = np.maximum.reduceat(passed, first) if len(first) else passed
    places, first = np.unique(nics // cabling.ports, return_index=True)
    load = np.add.reduceat(most, first) if len(first) else most
    longer = load[np.searchsorted(places, place)] / cabling.rates.port / _nic_seconds(flows, of, ways, cabling)[part]
    need = exchanges[link - 2 * cabling.ports]
    of_part = [Hindrance()] * parts
    for number in sorted(set(part.tolist())):
        chosen = part == number
        worst = int((longer[chosen] / np.maximum(1 - need[chosen], FAIR)).argmax())
        of_part[number] = Hindrance(max(1.0, float(longer[chosen].max())), float(need[chosen][worst]))
    return of_part


def _nic_seconds(flows: Flows, of: Numbers, ways: Numbers, cabling: Cabling) -> Floats:
    """Seconds for which each part needs the NIC that sends most of it [parts]."""
    parts = int(of.max(initial=-1)) + 1
    codes, where = np.unique(ways[:, 0] * parts + of, return_inverse=True)
    largest = np.zeros(parts)
    np.maximum.at(largest, codes % parts, np.bincount(where, flows.size))
    return largest / cabling.rates.nic
