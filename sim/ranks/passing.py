"""How long messages and gradient reductions take beside exchanges, where all ranks at a position are alike.

Arrays work through positions step by step, not moment by moment, so they cannot know which exchanges a message meets.
They take for each message and reduction what it takes among alike ranks: one run of those at detail chunk, whose steps
have their exchanges at the very moments at which finer details have them.
"""

from collections.abc import Mapping
from dataclasses import replace

from sim import engine
from sim.actor import Job, Sync
from sim.lower import Lowered
from sim.ranks import differing
from sim.template import by_chunk
from sim.wire import REDUCE

Passed = Mapping[tuple[int, int], int]
"""(kind, step as `sim.actor.Record` has it) -> ns on the network lane of a position."""


def met(lowered: Lowered) -> Lowered:
    """The same with messages and reductions as long as they take among alike ranks; one actor a position."""
    kits = {id(job.template): kit for row, own in zip(lowered.jobs, lowered.kits, strict=True)
            for job, kit in zip(row, own, strict=True)}  # fmt: skip
    coarse = {number: by_chunk(kit.fine, kit.timing) for number, kit in kits.items()}
    actors = [
        replace(actor, jobs=tuple(replace(job, template=coarse[id(job.template)]) for job in actor.jobs))
        for actor in differing.alone(lowered).actors
    ]
    jobs, syncs = [], []
    for record, row, sync in zip(engine.run(actors).records, lowered.jobs, lowered.syncs, strict=True):
        carried = zip(*[iter(record.network)] * 4, strict=True)
        ns = {(kind, step): end - start for start, end, step, kind in carried}
        jobs.append(tuple(_sent(job, step, ns) for step, job in enumerate(row)))
        syncs.append(_reduced(sync, ns))
    return differing.alone(replace(lowered, jobs=tuple(jobs), syncs=tuple(syncs)))


def _sent(job: Job, step: int, ns: Passed) -> Job:
    return replace(job, sends=tuple((kind, ns[kind, step]) for kind, _ in job.sends)) if job.routes else job


def _reduced(sync: Sync, ns: Passed) -> Sync:
    return replace(sync, reduces=tuple((after, stage, ns[REDUCE, -1 - stage]) for after, stage, _ in sync.reduces))
