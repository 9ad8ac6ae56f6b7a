"""Where the time of ranks that differ goes: ledgers as means over replicas, and whom the step waits for.

Inside a step a gap in compute belongs to the exchange that ends it: first to its bytes (exposed communication), then to
its barrier (waiting for slower peers of the expert group).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwmodels.units import NS_PER_S
from sim.lower import Lowered
from sim.metrics import Idle, Ledger
from sim.models.layer import COMMUNICATION, COMPUTE
from sim.plan import Plan
from sim.ranks.crowd import Crossing, Crowd, needs
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


# --- whom the step waits for ------------------------------------------------------------------------------------------


def critical_ranks(plan: Plan, lowered: Lowered, everyone: Crowd) -> list[tuple[int, float]]:
    """Ranks on the critical path with the seconds it spends on each, largest first.

    Walks back from the last step to end: a segment follows the one before it on its lane, one it needs, its step's
    messages, or, for an exchange, the member of the group that came last.
    """
    group = min(plan.scenario.parallel.expert, plan.data)
    ends = [int(row[-1].ends.max()) for row in everyone.crossings]
    position = int(np.argmax(ends))
    replica = int(everyone.crossings[position][-1].ends.argmax())
    spent: Counter[int] = Counter()
    step, at = len(everyone.crossings[position]) - 1, ends[position]
    while step >= 0:
        crossing = everyone.crossings[position][step]
        template = lowered.jobs[position][step].template
        replica, at = _through(template, crossing, replica, at, position * plan.data, group, spent)
        start = int(crossing.starts[replica])
        cause = int(crossing.blame[replica])
        if not cause:
            step -= 1
            at = int(everyone.crossings[position][step].ends[replica]) if step >= 0 else 0
            continue
        wait = next(w for w in lowered.jobs[position][step].waits if w[2] == cause)
        position, step, kind = wait
        at = _output(lowered.jobs[position][step].template, everyone.crossings[position][step], replica, kind)
        assert at <= start
    total = [(rank, ns / NS_PER_S) for rank, ns in spent.items()]
    return sorted(total, key=lambda item: -item[1])


def _output(template: Template, crossing: Crossing, replica: int, kind: int) -> int:
    """When an output of a step was ready on a replica."""
    number = next(i for i, segment in enumerate(template.segments) if segment.sends & kind)
    return int(crossing.segment_ends[number, replica])


def _through(
    template: Template, crossing: Crossing, replica: int, at: int, first_rank: int, group: int, spent: Counter[int]
) -> tuple[int, int]:
    """Back through one step from `at` to its start, hopping to the members that exchanges waited for."""
    waited = needs(template)
    while True:
        ending = [i for i in range(len(template.segments)) if int(crossing.segment_ends[i, replica]) == at]
        ending = [i for i in ending if int(crossing.segment_starts[i, replica]) < at]
        if not ending:
            return replica, at
        number = ending[-1]
        start = int(crossing.segment_starts[number, replica])
        spent[first_rank + replica] += at - start
        if int(crossing.ready[number, replica]) < start:
            first = replica // group * group
            replica = first + int(crossing.ready[number, first : first + group].argmax())
        at = start
        lane = template.order[template.segments[number].lane]
        before = lane[: lane.index(number)]
        causes = [*waited[number], *before[-1:]]
        if not any(int(crossing.segment_ends[j, replica]) == at for j in causes):
            return replica, at


def described(rank: int, plan: Plan, gpus_per_node: int) -> dict[str, Any]:
    """Where a rank is."""
    position, replica = divmod(rank, plan.data)
    return {"rank": rank, "pipeline_position": position, "replica": replica, "node": rank // gpus_per_node}
