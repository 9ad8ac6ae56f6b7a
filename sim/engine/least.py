"""The least that a training step of alike ranks can take, known sooner than by a run.

By what it computes: no position begins before the first forward has come through the stages before its own, none ends
before its last gradient has gone back through them, and kernels of a stream follow each other. By its order: the
longest way through steps and messages, each as long as alone; in a run messages wait for each other on their lane and
share NICs with exchanges, so none comes earlier than here. The one takes a hundredth, the other a tenth of a run.
"""

from collections.abc import Sequence
from itertools import accumulate

from sim.engine.actor import Actor, Message, Sync
from sim.layout.machine import Machine
from sim.layout.plan import Plan, relative
from sim.models.layer import COMPUTE


def computed_ns(plan: Plan, machine: Machine) -> int:
    """No more ns than a step takes, by what each position computes of its stages and others before and behind it."""
    stages = [relative(stage)[0] for stage in machine.stages]
    each = {units: {d: sum(machine.unit_ns(u, d, (COMPUTE,)) for u in units) for d in "FBW"} for units in set(stages)}
    ns = [each[units] for units in stages]
    ahead = {letter: [0, *accumulate(stage[letter] for stage in ns)] for letter in "FB"}
    apart, most = "W" in plan.passes.kinds[0], 0
    for counts, held in zip(plan.passes.counts, plan.holds, strict=True):
        busy = sum(ns[stage][letter] * count for (letter, stage), count in counts.items())
        last = sum(ns[s]["W"] * counts["W", s] for s in held) if apart else max(ns[s]["W"] for s in held)
        first, back = (min(ahead[letter][stage] for stage in held) for letter in "FB")
        most = max(most, first + busy + max(0, back - last))
    return most


def least_ns(actors: Sequence[Actor]) -> int:
    """No more ns than `sim.engine.steps.run` takes for the same actors, one a position."""
    starts, ends, through = _steps(actors)
    drained, holders = max(through, default=0), dict[int, int]()
    for position, actor in enumerate(actors):
        for after, number, _ in actor.sync.reduces:
            early = actor.sync.early.get(number)
            there = ends[position][after] if early is None else starts[position][after] + early
            holders[number] = max(holders.get(number, 0), drained if actor.sync.after else there)
    norm = max([drained, *(_reduced(actor.sync, holders) for actor in actors)])
    return norm + max((actor.sync.update_ns + actor.sync.gather_ns for actor in actors), default=0)


def _reduced(sync: Sync, holders: dict[int, int]) -> int:
    """When all reductions of a position are through, one at a time. holders: when all who take part are there."""
    at = 0
    for there, ns in sorted((holders[number], ns) for _, number, ns in sync.reduces):
        at = max(at, there) + ns
    return at


def _steps(actors: Sequence[Actor]) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Starts and ends of steps, and when a position has all that it waits for after the last."""
    starts, ends = [list[int]() for _ in actors], [list[int]() for _ in actors]
    through, arrived, awaited = [0] * len(actors), dict[Message, int](), dict[Message, int]()
    ready = [*range(len(actors))]
    while ready:
        position = ready.pop()
        jobs, sync, now = actors[position].jobs, actors[position].sync, through[position]
        for number in range(len(ends[position]), len(jobs) + 1):
            job = jobs[number] if number < len(jobs) else None
            for message in job.waits if job else sync.waits:
                if message not in arrived:
                    awaited[message] = position
                    break
                now = max(now, arrived[message])
            else:
                if job is None:
                    break
                total, outputs = job.template.outputs
                starts[position].append(now)
                for at, kinds in ((total, ~0),) if job.rendezvous else outputs:
                    for kind, ns in job.sends:
                        if kinds & kind:
                            message = position, number, kind
                            arrived[message] = now + at + ns
                            if message in awaited:
                                ready.append(awaited.pop(message))
                now += total
                ends[position].append(now)
                continue
            break
        through[position] = now
    return starts, ends, through
