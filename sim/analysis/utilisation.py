"""How busy the links of the fabric are while a step runs: curves by class of link, and figures of every link."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S
from sim.communication.fabric.bursts import Burst
from sim.communication.fabric.cabling import Cabling
from sim.communication.fabric.flows import KINDS
from sim.communication.fabric.network import Network
from sim.communication.fabric.routes import NONE, Numbers
from sim.result import Utilisation
from sim.result.trace import Trace

BINS = 400
"""Bins of a curve: what a chart of a report can show."""

BLOCK = 32
"""Links whose curves are worked out at once: neighbours carry the same few of all bursts."""

Shares = npt.NDArray[np.float64]


def of_network(network: Network, trace: Trace, bins: int = BINS, end_ns: int = 0) -> Utilisation:
    """The use of the links of a network over the step whose spans are given."""
    stops = np.cumsum([len(burst.flows) for burst in network.bursts], dtype=np.int64)
    paths = [network.ways[stop - len(b.flows) : stop] for stop, b in zip(stops.tolist(), network.bursts, strict=True)]
    return utilisation(trace, network.bursts, paths, network.cabling, bins, end_ns)


def utilisation(
    trace: Trace, bursts: Sequence[Burst], paths: Sequence[Numbers], cabling: Cabling, bins: int = BINS, end_ns: int = 0
) -> Utilisation:
    """The use of links over a step. trace: all spans. paths: of each burst's flows. end_ns: of the step, where it ends
    after the spans that are shown.

    A span carries its share of its burst's bytes at an even rate from start to end. A burst without spans (expert
    exchanges at detail chunk are inside compute spans) spreads its bytes evenly over the step.
    """
    end = max(end_ns, int(trace.end.max(initial=1)))
    edges = np.linspace(0, end, bins + 1).round().astype(np.int64)
    spans = _by_position(trace, bursts)
    moved = np.array([activity(spans[b.position], b, edges) for b in bursts]).reshape(len(bursts), bins)
    links, of, carried = _carried(bursts, paths, cabling)
    names, capacity = tuple(name for name, _ in cabling.classes), cabling.capacity(links)
    busy, rate = carried / capacity, moved / (np.diff(edges) / NS_PER_S)
    busiest, peak = _highest(busy, of, rate, len(names))
    kind = np.array([burst.flows.kind[0] for burst in bursts], dtype=np.int64)
    size = np.stack([carried[kind == number].sum(axis=0) for number in range(len(KINDS))], axis=1)
    even = {b.flows.kind[0] for b in bursts if not _carries(spans[b.position], b).any()}
    return Utilisation(
        edges, names, KINDS, _mean(busy, of, rate, kind, len(names)), busiest, tuple(KINDS[k] for k in sorted(even)),
        cabling.ends(links), of, size, size.sum(axis=1) / (capacity * (end / NS_PER_S)), peak,
    )  # fmt: skip


def _by_position(trace: Trace, bursts: Sequence[Burst]) -> Mapping[int, Trace]:
    """The spans of each position that bursts have, those on lanes that carry none of them left out."""
    carrying = trace.where(np.isin(trace.lane, sorted({burst.lane for burst in bursts})))
    return {position: carrying.of_position(position) for position in {burst.position for burst in bursts}}


def _shares(trace: Trace, burst: Burst) -> Shares:
    """Relative bytes of each span if it carried some of a burst: by its label."""
    share = np.array([burst.shares.get(label, 0.0) for label in trace.labels] or [0.0])
    shares: Shares = share[trace.label]
    return shares


def _carries(trace: Trace, burst: Burst) -> npt.NDArray[np.bool_]:
    """Which spans carry some of a burst."""
    rows: npt.NDArray[np.bool_] = (trace.position == burst.position) & (trace.lane == burst.lane)
    rows &= _shares(trace, burst) > 0
    if burst.stage >= 0:
        rows &= trace.stage == burst.stage
    return rows


def activity(trace: Trace, burst: Burst, edges: npt.NDArray[np.int64]) -> Shares:
    """Which part of a burst's bytes moves in each bin [bins]; they sum to 1."""
    rows = _carries(trace, burst)
    start, end, part = trace.start[rows], trace.end[rows], _shares(trace, burst)[rows]
    if not len(start):
        even: Shares = np.diff(edges) / (edges[-1] - edges[0])
        return even
    if burst.lasting:
        label, lasted = trace.label[rows], np.maximum(end - start, 1).astype(np.float64)
        part = part * lasted * (np.bincount(label) / np.maximum(np.bincount(label, lasted), 1))[label]
    return _binned(start, end, part / part.sum(), edges)


def _binned(start: Numbers, end: Numbers, part: Shares, edges: npt.NDArray[np.int64]) -> Shares:
    """`part` of each span spread evenly from its start to its end, summed by bin [bins]."""
    bins = len(edges) - 1
    first = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, bins - 1)
    last = np.clip(np.searchsorted(edges, end, side="left") - 1, first, bins - 1)
    rate = part / np.maximum(end - start, 1)
    head = np.where(first == last, part, rate * (edges[first + 1] - start))
    tail = np.where(first == last, 0.0, rate * (end - edges[last]))
    ends = np.bincount(first, head, bins) + np.bincount(last, tail, bins)
    # rates of the whole bins between, as steps up and down; those of short spans are large and would leave rounding
    rate = np.where(last > first + 1, rate, 0.0)
    steps = np.bincount(np.minimum(first + 1, last), rate, bins) - np.bincount(last, rate, bins)
    moved: Shares = np.asarray(ends + np.cumsum(steps) * np.diff(edges), dtype=np.float64)
    return moved


def _carried(bursts: Sequence[Burst], paths: Sequence[Numbers], cabling: Cabling) -> tuple[Numbers, Numbers, Shares]:
    """Links in use by class, then number; their classes; and the bytes of each burst on each of them [bursts, used]."""
    flags = np.zeros(cabling.links, dtype=bool)
    for path in paths:
        flags[path[path != NONE]] = True
    links = np.flatnonzero(flags)
    of = cabling.class_of(links)
    order = np.argsort(of, kind="stable")
    links, of = links[order], of[order]
    place = np.zeros(cabling.links, dtype=np.int64)
    place[links] = np.arange(len(links))
    carried = np.zeros((len(bursts), len(links)))
    for row, burst, path in zip(carried, bursts, paths, strict=True):
        on = path != NONE
        sizes = np.broadcast_to(burst.flows.size[:, None], path.shape)[on]
        row += np.bincount(place[path[on]], sizes, minlength=len(links))
    return links, of, carried


def _mean(busy: Shares, of: Numbers, rate: Shares, kind: Numbers, classes: int) -> Shares:
    """Over the links in use of each class, by kind of traffic [classes, kinds, bins]; see `_highest`. kind [bursts]."""
    mean = np.zeros((classes, len(KINDS), rate.shape[1]))
    for number in range(classes):
        mine = busy[:, of == number]
        each = mine.sum(axis=1) / max(mine.shape[1], 1)
        for k in range(len(KINDS)):
            mean[number, k] = np.einsum("b,bt->t", each[kind == k], rate[kind == k])
    return mean


def _highest(busy: Shares, of: Numbers, rate: Shares, classes: int) -> tuple[Shares, Shares]:
    """Utilisation of the busiest link of each class in each bin [classes, bins], and of each link in its busiest bin
    [used].

    busy [bursts, used]: seconds that links need for bursts. rate [bursts, bins]: parts of bursts in a second.
    """
    busiest, peak = np.zeros((classes, rate.shape[1])), np.zeros(len(of))
    for first in range(0, len(of), BLOCK):
        rows = slice(first, first + BLOCK)
        some = busy[:, rows].any(axis=1)
        # not `@`: BLAS starts threads for products of this size, which cost more than they save
        used = np.einsum("bl,bt->lt", busy[some, rows], rate[some])
        peak[rows] = used.max(axis=1)
        stops = np.searchsorted(of[rows], np.arange(classes + 1)).tolist()
        for number, (start, stop) in enumerate(pairwise(stops)):
            busiest[number] = np.maximum(busiest[number], used[start:stop].max(axis=0, initial=0.0))
    return busiest, peak
