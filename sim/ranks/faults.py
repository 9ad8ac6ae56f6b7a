"""Ranks that are slower than they should be, and when: a GPU, a node, a link, a clock; and jitter of every kernel.

A fault names what is slow, by how much, and optionally from when until when. Ranks are numbered as in `sim.plan`:
rank = pipeline position * data + replica; nodes hold neighbouring ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.scenario import FOREVER, Fault

Times = npt.NDArray[np.int64]
Factors = npt.NDArray[np.float64]

@dataclass(frozen=True)
class Slow:
    """A fault on one pipeline position. factor: of each replica."""

    factor: Factors
    start_ns: int
    end_ns: int


def ranks(fault: Fault, gpus_per_node: int) -> range:
    """Ranks a fault touches."""
    if fault.kind == "node":
        return range(fault.at * gpus_per_node, (fault.at + 1) * gpus_per_node)
    return range(fault.at, fault.at + 1)


def on_compute(faults: Sequence[Fault], position: int, data: int, gpus_per_node: int) -> list[Slow]:
    """Slow compute among the replicas of a position."""
    return _on([f for f in faults if f.kind in ("gpu", "node")], position, data, gpus_per_node)


def on_links(faults: Sequence[Fault], position: int, data: int, gpus_per_node: int) -> list[Slow]:
    """Slow NICs among the replicas of a position."""
    return _on([f for f in faults if f.kind == "link"], position, data, gpus_per_node)


def _on(faults: Sequence[Fault], position: int, data: int, gpus_per_node: int) -> list[Slow]:
    found = []
    for fault in faults:
        here = [r - position * data for r in ranks(fault, gpus_per_node) if 0 <= r - position * data < data]
        if here:
            factor = np.ones(data)
            factor[here] = fault.slower
            found.append(Slow(factor, fault.start_ns, fault.end_ns))
    return found


def of_group(slow: Slow, group: int) -> Slow:
    """The same fault as every member of its group feels it: each waits for the bytes of the slowest."""
    worst = slow.factor.reshape(-1, group).max(1).repeat(group)
    return Slow(worst, slow.start_ns, slow.end_ns)


def stretched(starts: Times, work: Times, slow: Sequence[Slow], worst: bool = False) -> Times:
    """Durations of `work` ns begun at `starts`. Inside a window a replica is `factor` times slower; where windows meet,
    factors multiply, or with `worst` the largest counts."""
    if not slow:
        return work
    edges = sorted({edge for fault in slow for edge in (fault.start_ns, fault.end_ns)})
    at, left, taken = starts, work.astype(np.float64), np.zeros(len(starts))
    for begin, end in zip([0, *edges], [*edges, FOREVER], strict=True):
        factor = np.ones(len(starts))
        for fault in slow:
            if fault.start_ns <= begin < fault.end_ns:
                factor = np.maximum(factor, fault.factor) if worst else factor * fault.factor
        room = np.clip(end - np.maximum(at, begin), 0, None)
        here = np.minimum(left * factor, room)
        left = left - here / factor
        taken = taken + here
        at = np.asarray(starts + taken)
    return np.asarray(np.ceil(np.round(taken, 6)), dtype=np.int64)
