"""The way that each flow takes: static by destination, by hash (ECMP), or away from the load (adaptive)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hwmodels.document import did_you_mean
from hwmodels.refused import Refused
from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.flows import Flows
from sim.communication.fabric.routes import NONE, Numbers, Routes, detour, links
from sim.scenario.hashes import Hashes, hashes

WORDS = ("static", "ecmp", "adaptive")

SHORTEST = 32
"""Shortest ways an adaptive flow looks at in one sweep, neighbours from a place that its hash gives: in a fat tree of
64-port switches one over every uplink of its leaf, with few of the cores behind it (assumed: switches see their own
queues, not those of the next layer)."""

DETOURS = 4
"""Roundabout ways an adaptive flow looks at beside the shortest ones, where these are few (assumed; UGAL of Kim et al.,
ISCA 2008, looks at one for each packet, and there are many packets in a flow)."""

SWEEPS = 3
"""Times that adaptive flows look for a better way; after the first, those on links busier than any NIC (assumed)."""

TIE = 2.0**-30
"""Part of a flow's size below which a difference of loads is rounding."""

BLOCK = 1 << 18
"""Link numbers of candidate paths that are worked out at once."""


@dataclass(frozen=True)
class Ways:
    """What the flows between leaves have to choose from. plane, source, target: leaf to leaf; key: the flow's hash."""

    routes: Routes
    switches: int
    base: Numbers
    source: Numbers
    target: Numbers
    key: Hashes

    def of(self, rows: slice, choice: Numbers) -> Numbers:
        """Links of the chosen shortest paths [flows, hops]."""
        path = self.routes.paths(self.source[rows], self.target[rows], choice)
        return np.where(path == NONE, NONE, path + self.base[rows, None])

    def around(self, rows: slice, number: int) -> Numbers:
        """Links of the `number`-th roundabout path [flows, 2 hops]."""
        key = (hashes(number, self.key[rows].astype(np.int64)) >> np.uint64(1)).astype(np.int64)
        path = detour(self.routes, self.source[rows], key % self.switches, self.target[rows], key)
        return np.where(path == NONE, NONE, path + self.base[rows, None])


def paths(flows: Flows, cabling: Cabling, routing: str, seed: int = 0) -> Numbers:
    """Links of each flow [flows, hops]: its NIC out, links between switches, its NIC in; filled up with NONE.

    static: the way is decided by the destination alone, so that flows to the hosts of a leaf keep apart. ecmp: by a
    hash of the flow's ends and `seed`. adaptive: from there, flows in order move to their least loaded way when that
    is less loaded than their own; the largest load can only fall. Raises Refused with one line.
    """
    if routing not in WORDS:
        near = did_you_mean(routing, WORDS)
        raise Refused(f"unknown routing {routing!r}{near or ';'} legal: {', '.join(WORDS)}")
    ways = _ways(flows, cabling, seed)
    count = ways.routes.choices(ways.source, ways.target)
    if routing == "static":
        choice = cabling.endpoint(flows.target, flows.nic_in) % count
    else:
        choice = (ways.key % count.astype(np.uint64)).astype(np.int64)
    inner = ways.of(slice(None), choice)
    if routing == "adaptive":
        inner = _spread(flows, cabling, ways, count, inner)
    out, into = flows.source * cabling.nics + flows.nic_out, flows.target * cabling.nics + flows.nic_in
    return np.concatenate([out[:, None], inner, cabling.ports + into[:, None]], axis=1)


def _ways(flows: Flows, cabling: Cabling, seed: int) -> Ways:
    """A flow stays in the plane of its sending NIC."""
    slot = np.asarray(cabling.slots)
    ends = (slot[flows.source], flows.nic_out, slot[flows.target], flows.nic_in)
    base = 2 * cabling.ports + flows.nic_out % cabling.fabric.planes * links(cabling.routes)
    return Ways(
        cabling.routes, cabling.fabric.topology.switches, base, cabling.leaf(flows.source, flows.nic_out),
        cabling.leaf(flows.target, flows.nic_in), hashes(seed, *ends, flows.kind, flows.queue),
    )  # fmt: skip


def _spread(flows: Flows, cabling: Cabling, ways: Ways, count: Numbers, start: Numbers) -> Numbers:
    """Paths after the flows have looked for better ones, SWEEPS times or until none moves."""
    total = cabling.links
    width = start.shape[1] * (1 if ways.routes.hierarchical else 2)
    now = np.full((len(flows), width), total)
    now[:, : start.shape[1]] = np.where(start == NONE, total, start)
    load = np.bincount(now.ravel(), np.repeat(flows.size, width), minlength=total + 1) / cabling.rates.port
    load[total] = 0.0
    weight = flows.size / cabling.rates.port
    moving = np.flatnonzero(ways.source != ways.target)
    direct = min(int(count[moving].max(initial=1)), SHORTEST)
    shape = (direct, direct + (0 if ways.routes.hierarchical else DETOURS), width)
    step = max(1, BLOCK // (shape[1] * width))
    for sweep in range(SWEEPS):
        for first in range(0, len(moving), step):
            rows = moving[first : first + step]
            _look(rows, _candidates(ways, rows, sweep, shape, total), now, load, weight)
        moving = moving[load[now[moving]].max(axis=1, initial=0.0) > _nic_seconds(flows, cabling)]
    return np.where(now == total, NONE, now)


def _nic_seconds(flows: Flows, cabling: Cabling) -> float:
    """How long the busiest NIC takes: no way needs to be better than that."""
    out, into = flows.source * cabling.nics + flows.nic_out, flows.target * cabling.nics + flows.nic_in
    busiest = max(np.bincount(nic, flows.size, minlength=1).max() for nic in (out, into))
    return float(busiest) / cabling.rates.nic


def _candidates(ways: Ways, rows: Numbers, sweep: int, shape: tuple[int, int, int], total: int) -> Numbers:
    """Ways open to the flows of `rows` in a sweep [rows, ways, hops]; `total` stands for no link.

    shape: shortest ways, ways in all, hops.
    """
    few = Ways(ways.routes, ways.switches, ways.base[rows], ways.source[rows], ways.target[rows], ways.key[rows])
    every = slice(None)
    count = few.routes.choices(few.source, few.target)
    direct, most, width = shape
    start = (hashes(sweep, few.key.astype(np.int64)) % count.astype(np.uint64)).astype(np.int64)
    candidates = np.full((len(rows), most, width), NONE)
    for choice in range(direct):
        path = few.of(every, (start + choice) % count)
        candidates[:, choice, : path.shape[1]] = path
    for number in range(most - direct):
        candidates[:, direct + number] = few.around(every, sweep * DETOURS + number)
    return np.where(candidates == NONE, total, candidates)


def _look(
    rows: Numbers, candidates: Numbers, now: Numbers, load: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> None:
    """Move each flow, in order, to its least loaded way when its own is more loaded.

    A way's load is its busiest link's without the flow itself. The new way's load with the flow is below the old
    one's, so the largest load of all links cannot rise. Changes `now` and `load`.
    """
    for row, ways in zip(rows.tolist(), candidates, strict=True):
        own, size = now[row], weight[row]
        load[own] -= size
        load[-1] = 0.0
        busiest = np.maximum.reduce(load[ways], axis=1)
        best = int(busiest.argmin())
        if busiest[best] < np.maximum.reduce(load[own]) - size * TIE:
            now[row] = own = ways[best]
        load[own] += size
        load[-1] = 0.0
