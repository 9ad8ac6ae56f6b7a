"""How busy the links of the fabric are while a step runs: curves by class of link, and figures of every link."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hwmodels.units import NS_PER_S
from sim.network.bursts import Burst
from sim.network.cabling import Cabling
from sim.network.routes import NONE, Numbers
from sim.trace import Trace

BINS = 400
"""Bins of a curve: what a chart of a report can show."""

BLOCK = 8192
"""Links whose curves are worked out at once."""

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Utilisation:
    """Links that carry anything in a step, and how busy they are; 1 is the effective bandwidth.

    edges: ns, int64 [bins + 1].  classes: names of the classes of links.
    mean, busiest [classes, bins]: of the links in use of a class, all of them and the busiest one at the time.
    links [used]: their numbers.  of [used]: index into `classes`.  size [used]: bytes in the step.
    average, peak [used]: over the step, and in the busiest bin.
    """

    edges: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    mean: Shares
    busiest: Shares
    links: Numbers
    of: Numbers
    size: Shares
    average: Shares
    peak: Shares


def utilisation(
    trace: Trace, bursts: Sequence[Burst], paths: Sequence[Numbers], cabling: Cabling, bins: int = BINS
) -> Utilisation:
    """The use of links over a step. trace: all spans. paths: of each burst's flows.

    A span carries its share of its burst's bytes at an even rate from start to end. A burst without spans (expert
    exchanges at detail chunk are inside compute spans) spreads its bytes evenly over the step.
    """
    end = int(trace.end.max(initial=1))
    edges = np.linspace(0, end, bins + 1).round().astype(np.int64)
    moved = np.stack([activity(trace, burst, edges) for burst in bursts]) if bursts else np.zeros((0, bins))
    links, carried = _carried(bursts, paths, cabling)
    of, capacity = cabling.class_of(links), cabling.capacity(links)
    names = tuple(name for name, _ in cabling.classes)
    mean, busiest = np.zeros((len(names), bins)), np.zeros((len(names), bins))
    peak = np.zeros(len(links))
    room = np.diff(edges) / NS_PER_S
    for first in range(0, len(links), BLOCK):
        rows = slice(first, first + BLOCK)
        used = carried[:, rows].T @ moved / (capacity[rows, None] * room)
        peak[rows] = used.max(axis=1)
        np.add.at(mean, of[rows], used)
        np.maximum.at(busiest, of[rows], used)
    mean /= np.maximum(np.bincount(of, minlength=len(names)), 1)[:, None]
    size = carried.sum(axis=0)
    average = size / (capacity * (end / NS_PER_S))
    return Utilisation(edges, names, mean, busiest, links, of, size, average, peak)


def activity(trace: Trace, burst: Burst, edges: npt.NDArray[np.int64]) -> Shares:
    """Which part of a burst's bytes moves in each bin [bins]; they sum to 1."""
    share = np.array([burst.shares.get(label, 0.0) for label in trace.labels] or [0.0])
    mine = (trace.rank == burst.position) & (trace.lane == burst.lane) & (share[trace.label] > 0)
    if burst.stage >= 0:
        mine &= trace.stage == burst.stage
    start, end, part = trace.start[mine], trace.end[mine], share[trace.label[mine]]
    if not len(start):
        even: Shares = np.diff(edges) / (edges[-1] - edges[0])
        return even
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
    # rates of the whole bins between, as steps up and down
    steps = np.bincount(np.minimum(first + 1, last), rate, bins) - np.bincount(last, rate, bins)
    moved: Shares = np.asarray(ends + np.cumsum(steps) * np.diff(edges), dtype=np.float64)
    return moved


def _carried(bursts: Sequence[Burst], paths: Sequence[Numbers], cabling: Cabling) -> tuple[Numbers, Shares]:
    """Links in use, and the bytes of each burst on each of them [bursts, used]."""
    none = np.zeros(0, dtype=np.int64)
    links = np.unique(np.concatenate([none, *(path[path != NONE] for path in paths)]))
    carried = np.zeros((len(bursts), len(links)))
    for row, burst, path in zip(carried, bursts, paths, strict=True):
        on = path != NONE
        sizes = np.broadcast_to(burst.flows.size[:, None], path.shape)[on]
        row += np.bincount(np.searchsorted(links, path[on]), sizes, minlength=len(links))
    return links, carried


def write_links(path: Path, found: Utilisation, cabling: Cabling) -> None:
    """A CSV file with one row for each link in use, busiest first within its class."""
    order = np.lexsort((found.links, -found.size, found.of))
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("class", "from", "to", "bytes", "mean_utilisation", "peak_utilisation"))
        for i in order.tolist():
            ends = cabling.ends(int(found.links[i]))
            figures = f"{found.average[i]:.6f}", f"{found.peak[i]:.6f}"
            out.writerow((found.classes[found.of[i]], *ends, round(float(found.size[i])), *figures))
