"""What the step waits for: the chain of steps and messages of which none could have ended later for free.

Walks back from the rank that finishes last. A step that started when its own rank was free follows that rank's step
before it; one that started when a message came follows the step that sent it, up to the moment the output was ready.
"""

from typing import NamedTuple

from sim.actor import Outcome
from sim.lower import Lowered


class Link(NamedTuple):
    """One stretch of the chain, in ns. position: pipeline rank. step: index into its program. until: 0 to the end of
    the step, else up to its forward (1) or backward (2) output. message_ns: time on the wire that follows."""

    position: int
    step: int
    until: int
    start: int
    end: int
    message_ns: int


def chain(lowered: Lowered, outcome: Outcome) -> list[Link]:
    """The critical path through the steps of all ranks, first to last."""
    position_of = {actor: position for position, actor in reversed(list(enumerate(lowered.actor_of)))}
    ends = [record.ends[-1] if record.ends else 0 for record in outcome.records]
    actor = max(range(len(ends)), key=lambda a: ends[a])
    step, until, wire, cut = len(outcome.records[actor].ends) - 1, 0, 0, ends[actor]
    links: list[Link] = []
    while step >= 0:
        record = outcome.records[actor]
        start = record.starts[step]
        links.append(Link(position_of[actor], step, until, start, cut, wire))
        cause = record.blame[step]
        if not cause:
            step, until, wire = step - 1, 0, 0
            cut = record.ends[step] if step >= 0 else 0
            continue
        sender, index = _sender(lowered, actor, step, cause)
        sent = outcome.records[sender]
        ready = sent.starts[index] + lowered.kits[position_of[sender]][index].outputs[cause]
        actor, step, until, wire, cut = sender, index, cause, start - ready, ready
    return links[::-1]


def _sender(lowered: Lowered, actor: int, step: int, cause: int) -> tuple[int, int]:
    job = lowered.actors[actor].jobs[step]
    position, index, _ = next(wait for wait in job.waits if wait[2] == cause)
    return lowered.actors[actor].peers[position], index
