"""When nothing can happen any more: who waits for what."""

from collections.abc import Sequence
from typing import NamedTuple

from sim.engine.actor import Actor, Message

MOST = 8
"""Actors that are named."""


class DeadlockError(RuntimeError):
    """Nothing can happen any more and somebody still waits; the text says who waits for what."""


class Stuck(NamedTuple):
    """An actor that waits. number: of the actor. done: its steps that ended. waiting: for a message or, in words,
    something else; None: for its group."""

    number: int
    done: int
    waiting: Message | str | None


def deadlock(actors: Sequence[Actor], stuck: Sequence[Stuck]) -> DeadlockError:
    """The error that names the first of those that are stuck."""
    lines = []
    for number, done, waiting in stuck[:MOST]:
        actor = actors[number]
        if isinstance(waiting, tuple):
            sender, step, kind = waiting
            what = f"{'forward' if kind == 1 else 'backward'} output of step {step}"
            waiting = f"its own {what}" if sender == number else f"the {what} of {actors[sender].name}"
        group = f"its {' or '.join(actor.groups)} group"
        lines.append(f"{actor.name} at step {done} of {len(actor.jobs)} waits for {waiting or group}")
    more = f"; and {len(stuck) - MOST} more" if len(stuck) > MOST else ""
    return DeadlockError("deadlock: " + "; ".join(lines) + more)
