"""Where the time of ranks that differ goes: ledgers as means over replicas.

Inside a step a gap in compute belongs to the exchange that ends it: first to its bytes (exposed communication), then to
its barrier (waiting for slower peers of the expert group).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from hwmodels.units import NS_PER_S
from sim.actor import Job
from sim.lower import Lowered
from sim.metrics import Idle, Ledger, phase_name
from sim.models.layer import COMMUNICATION, COMPUTE
from sim.ranks.crowd import Crossing, Crowd
from sim.ranks.lane import Times
from sim.template import Template

CELLS = 800
"""Steps times columns that are worked on at a time, so that their arrays stay in a cache."""


def ledgers(lowered: Lowered, everyone: Crowd, expected: Sequence[Ledger]) -> list[Ledger]:
    """Means over the replicas of each position. expected: ledgers of balanced templates, for what only they know."""
    return [_ledger(lowered, everyone, position, base) for position, base in enumerate(expected)]


def _ledger(lowered: Lowered, everyone: Crowd, position: int, base: Ledger) -> Ledger:
    rows, jobs, weight = everyone.crossings[position], lowered.jobs[position], everyone.replicas.weight
    phases: Counter[str] = Counter(dict.fromkeys(base.phases, 0))
    inside = Counter(dict.fromkeys(("compute", "communication", "exposed", "peers"), 0))
    for template, run in _runs(jobs, rows, max(1, CELLS // len(weight))):
        phases[phase_name(template.kind)] += sum(int((crossing.ends - crossing.starts) @ weight) for crossing in run)
        inside.update(_inside(template, run, weight))
    inside["total"] = sum(phases.values())
    norm, updated = everyone.update[position]
    phases["optimizer"] = int((updated - norm) @ weight)
    fill, drain = rows[0].starts, everyone.end - (updated - norm) - rows[-1].ends
    ns = [int(fill @ weight), *_waits(rows, weight), int(drain @ weight)]
    to_s = 1 / (int(weight.sum()) * NS_PER_S)
    idle = Idle(*(each * to_s for each in ns))
    seconds = {name: ns * to_s for name, ns in phases.items()} | {"bubble": idle.total}
    known = {name: base.inside[name] for name in ("ideal", "products", "memory", "gaps")}
    return replace(base, phases=seconds, idle=idle, inside=known | {name: ns * to_s for name, ns in inside.items()})


def _runs(jobs: Sequence[Job], rows: Sequence[Crossing], most: int) -> Iterator[tuple[Template, list[Crossing]]]:
    """Neighbouring steps of one template."""
    for _, alike in groupby(zip(jobs, rows, strict=True), key=lambda item: id(item[0].template)):
        found = list(alike)
        for i in range(0, len(found), most):
            yield found[0][0].template, [crossing for _, crossing in found[i : i + most]]


def _waits(rows: Sequence[Crossing], weight: Times) -> tuple[int, int]:
    """ns between steps that went to waiting for a forward and for a backward output, all replicas together."""
    found = [0, 0, 0]
    for before, after in pairwise(rows):
        gap = after.starts - before.ends
        if gap.any():
            for cause in (1, 2):
                found[cause] += int(gap @ (weight * (after.blame == cause)))
    return found[1], found[2]


def _inside(template: Template, run: Sequence[Crossing], weight: Times) -> dict[str, int]:
    """ns of some steps, all replicas together: compute, exchanges, and gaps in compute by what they wait for."""
    talk, compute = list(template.order[COMMUNICATION]), list(template.order[COMPUTE])
    names = ("segment_starts", "segment_ends", "ready")
    starts, ends, ready = (np.stack([getattr(crossing, name) for crossing in run]) for name in names)
    begun, ended = (np.stack([getattr(crossing, name) for crossing in run])[:, None] for name in ("starts", "ends"))
    took = (ends - starts).sum(0) @ weight
    found = {"compute": int(took[compute].sum()), "communication": int(took[talk].sum()), "exposed": 0, "peers": 0}
    gap_begins = np.concatenate([begun, ends[:, compute]], axis=1)
    gap_ends = np.concatenate([starts[:, compute], ended], axis=1)
    some = (gap_ends > gap_begins).any((0, 2))
    if not talk or not some.any():
        return found
    begin, end = gap_begins[:, some, None], gap_ends[:, some, None]
    data = np.minimum(ends[:, None, talk], end) - np.maximum(starts[:, None, talk], begin)
    peers = np.minimum(starts[:, None, talk], end) - np.maximum(ready[:, None, talk], begin)
    totals = (int(np.maximum(ns, 0).sum((0, 1, 2)) @ weight) for ns in (data, peers))
    return found | dict(zip(("exposed", "peers"), totals, strict=True))

