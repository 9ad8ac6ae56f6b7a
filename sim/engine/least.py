"""The least that steps of alike ranks can take: the longest way through steps and messages, each as long as alone.

In a run messages wait for each other on their lane and share NICs with exchanges, so that none comes earlier than here;
positions run their steps in a given order, so that nothing begins earlier either. It takes a tenth of a run.
"""

from collections.abc import Sequence

from sim.engine.actor import Actor, Message, Sync


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
