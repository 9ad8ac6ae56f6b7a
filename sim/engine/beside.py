"""Compute beside reductions: what the network lane carries of gradients while steps run slows their kernels.

Kernels of a collective hold SMs and memory bandwidth wherever they run, so compute beside them goes at its rate beside
communication (`hwmodels.price.Price.beside_ns`; measured beside NCCL on four H200s, DECISIONS.md, 115). When exactly a
reduction runs is known only when everything has run, and a step takes as long inside whatever passes: so each step is
slowed for the part of its time that reductions would take where nobody waits, each from when its gradients are made,
one after another. Reductions that begin behind a stage's last backward slow nothing: those are DeepSeek's, whose few
steps behind that are left alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from sim.engine.actor import Sync
from sim.engine.kit import Kit, kit_of
from sim.layout.machine import Machine
from sim.models.layer import COMMUNICATION
from sim.step.template import STREAMS

PARTS = 8
"""Parts of a step's time are rounded to eighths, so that few kits differ by them."""


def slowed(machine: Machine, kits: Sequence[Kit], sync: Sync) -> tuple[Kit, ...]:
    """The kits of a position, those of steps beside reductions slower."""
    parts = covered([kit.timing.total for kit in kits], sync)
    return tuple(
        _slower(machine, kit, round(part * PARTS)) if part else kit for kit, part in zip(kits, parts, strict=True)
    )


def covered(lengths: Sequence[int], sync: Sync) -> list[float]:
    """Part of each step in which early reductions would be on their way. lengths: of steps, ns."""
    starts = list(accumulate(lengths, initial=0))
    begun, ends = np.array([*_spans(starts, sync)], dtype=np.int64).reshape(-1, 2).T
    edges = np.array(starts, dtype=np.int64)[:, None]
    both = np.minimum(ends, edges[1:]) - np.maximum(begun, edges[:-1])
    spent = np.maximum(both, 0).sum(axis=1).tolist()
    return [ns / length if length else 0.0 for ns, length in zip(spent, lengths, strict=True)]


def _spans(starts: Sequence[int], sync: Sync) -> Iterator[tuple[int, int]]:
    """Start and end of each, in ns from the first step's start, steps behind one another."""
    free = 0
    for made, ns in sorted(
        (starts[after] + sync.early[key], ns) for after, key, ns in sync.reduces if key in sync.early
    ):
        begun = max(free, made)
        free = begun + ns
        yield begun, free


def _slower(machine: Machine, kit: Kit, eighths: int) -> Kit:
    """A kit whose compute goes so many eighths of its time as beside communication."""
    if not eighths or kit.composition is None:
        return kit
    known = machine.known.kits
    key = (kit.number, eighths)
    if key not in known:
        alone = tuple(
            row if lane == COMMUNICATION
            else tuple(a + (b - a) * eighths // PARTS for a, b in zip(row, beside, strict=True))
            for lane, row, beside in zip(STREAMS, kit.fine.alone, kit.fine.beside, strict=True)
        )  # fmt: skip
        known[key] = kit_of(kit.composition, replace(kit.fine, alone=alone), machine.pricer.wires.network)
    slower: Kit = known[key]
    return slower
