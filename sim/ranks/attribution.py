"""Where the time of ranks that differ goes: ledgers as means over replicas.

Inside a step a gap in compute belongs to the exchange that ends it: first to its bytes (exposed communication), then to
its barrier (waiting for slower peers of the expert group).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hwmodels.units import NS_PER_S
from sim.lower import Lowered
from sim.metrics import Idle, Ledger
from sim.models.layer import COMMUNICATION, COMPUTE
from sim.ranks.crowd import Crossing, Crowd
from sim.ranks.lane import Times
from sim.template import Template


def ledgers(lowered: Lowered, everyone: Crowd, expected: Sequence[Ledger]) -> list[Ledger]:
    """Means over the replicas of each position. expected: ledgers of balanced templates, for what only they know."""
    return [_ledger(lowered, everyone, position, base) for position, base in enumerate(expected)]


def _ledger(lowered: Lowered, everyone: Crowd, position: int, base: Ledger) -> Ledger:
    from sim.metrics import phase_name

    rows, jobs = everyone.crossings[position], lowered.jobs[position]
    phases = dict.fromkeys(base.phases, 0.0)
    waits = np.zeros(3)
    inside = dict.fromkeys(("compute", "communication", "exposed", "peers", "total"), 0.0)
    before: Times | None = None
    for job, crossing in zip(jobs, rows, strict=True):
        length = float((crossing.ends - crossing.starts).mean())
        phases[phase_name(job.template.kind)] += length
        inside["total"] += length
        for name, ns in _inside(job.template, crossing).items():
            inside[name] += ns
        if before is not None:
            gap = crossing.starts - before
            for cause in (0, 1, 2):
                waits[cause] += float((gap * (crossing.blame == cause)).mean())
        before = crossing.ends
    assert before is not None
    norm, updated = everyone.update[position]
    phases["optimizer"] = float((updated - norm).mean())
    drain = float((everyone.end - (updated - norm) - before).mean())
    fill = float(rows[0].starts.mean())
    idle = Idle(*(float(ns) / NS_PER_S for ns in (fill, waits[1], waits[2], drain)))
    seconds = {name: ns / NS_PER_S for name, ns in phases.items()} | {"bubble": idle.total}
    known = {name: base.inside[name] for name in ("ideal", "products", "memory", "gaps")}
    return replace(base, phases=seconds, idle=idle, inside=known | {k: ns / NS_PER_S for k, ns in inside.items()})


def _inside(template: Template, crossing: Crossing) -> dict[str, float]:
    """Mean ns over replicas of one step: compute, exchanges, and gaps in compute by what they wait for."""
    talk = list(template.order[COMMUNICATION])
    compute = list(template.order[COMPUTE])
    found = {"compute": 0.0, "communication": 0.0, "exposed": 0.0, "peers": 0.0}
    if talk:
        found["communication"] = float((crossing.segment_ends[talk] - crossing.segment_starts[talk]).sum(0).mean())
    found["compute"] = float((crossing.segment_ends[compute] - crossing.segment_starts[compute]).sum(0).mean())
    if talk:
        found |= _gaps(crossing, talk, compute)
    return found


def _gaps(crossing: Crossing, talk: Sequence[int], compute: Sequence[int]) -> dict[str, float]:
    """Gaps in compute laid to the exchanges that run in them, and to the barriers before these."""
    begin = np.concatenate([crossing.starts[None], crossing.segment_ends[compute]])
    end = np.concatenate([crossing.segment_starts[compute], crossing.ends[None]])
    some = (end > begin).any(1)
    if not some.any():
        return {}
    begin, end = begin[some, None], end[some, None]
    starts, ends, ready = (a[talk] for a in (crossing.segment_starts, crossing.segment_ends, crossing.ready))
    data = np.maximum(np.minimum(ends, end) - np.maximum(starts, begin), 0).sum((0, 1))
    peers = np.maximum(np.minimum(starts, end) - np.maximum(ready, begin), 0).sum((0, 1))
    return {"exposed": float(data.mean()), "peers": float(peers.mean())}
