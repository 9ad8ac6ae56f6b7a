"""What the engine runs and what it records: ranks with their steps, messages and gradient tail."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hwmodels.collectives import UNHINDERED, Hindrance
from sim.engine.nic import Window
from sim.step.template import STREAMS, Template

Message = tuple[int, int, int]
"""(sender, its step, 1 forward or 2 backward output)."""
OWN = 2
"""Added to the output of a message that its own sender waits for, where a wait says what came last."""


class Route(NamedTuple):
    """Places where traffic meets exchanges: on the NICs of ranks at these pipeline positions, of the same replica, and
    between switches."""

    ends: tuple[int, ...] = ()
    hindrance: Hindrance = UNHINDERED


LOCAL = Route()
NOWHERE: Mapping[int, Route] = {}


class Job(NamedTuple):
    """One step. waits: messages it needs before it starts, (pipeline position of the sender, its step, output). sends:
    output and ns alone on the network lane, for outputs that leave the rank. routes: of outputs that pass
    NICs. windows: its exchanges that do.

    rendezvous: an output leaves when its sender has come to wait for it as its receiver has, each between two steps, so
    `waits` names own outputs of the step before as well. Otherwise it leaves when it is there."""

    template: Template
    waits: tuple[Message, ...] = ()
    sends: tuple[tuple[int, int], ...] = ()
    routes: Mapping[int, Route] = NOWHERE
    windows: tuple[Window, ...] = ()
    rendezvous: bool = False


@dataclass(frozen=True)
class Sync:
    """Work after the last backward. reduces: (step after which it may start, number of the reduction, ns alone on the
    network lane), of those of stages held; it starts when all holders are there. routes: of those that leave the node.
    update_ns: gradient norm and optimizer; gather_ns: the parameters' all-gather; both after every actor has come.

    waits: own outputs of the last step, where they leave by rendezvous. after: reductions start when every actor is
    through with its steps, and count with the update. early: of reductions that may start while the step runs after
    which the others may, ns from its start, where nothing slows it."""

    reduces: tuple[tuple[int, int, int], ...] = ()
    update_ns: int = 0
    gather_ns: int = 0
    routes: Mapping[int, Route] = field(default_factory=dict)
    waits: tuple[Message, ...] = ()
    after: bool = False
    early: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Actor:
    """One simulated rank (it may stand for many). groups: kind of group -> key of its own; actors with
    the same key meet.
    peers: pipeline position -> the actor that stands for the rank there."""

    name: str
    jobs: tuple[Job, ...]
    groups: Mapping[str, int] = field(default_factory=dict)
    sync: Sync = field(default_factory=Sync)
    peers: Mapping[int, int] = field(default_factory=dict)


@dataclass
class Record:
    """What one actor did, in ns. starts, ends: of each step. phases: start of each segment by lane, in the order run;
    kernels: end of each kernel by lane. blame: per step, 0 no wait, else the output (1, 2; own: 3, 4) that came last.
    network: (start, end, step, kind) flat, kind 1 or 2 a send, 3 a reduction (step -1 - its number), 4
    all-gather (step -1). update: (start, end).
    """

    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    phases: tuple[array[int], ...] = field(default_factory=lambda: tuple(array("q") for _ in STREAMS))
    kernels: tuple[array[int], ...] = field(default_factory=lambda: tuple(array("q") for _ in STREAMS))
    blame: array[int] = field(default_factory=lambda: array("b"))
    network: array[int] = field(default_factory=lambda: array("q"))
    update: tuple[int, int] = (0, 0)

    @property
    def end(self) -> int:
        """When its last work was done. An engine's clock may go on to timeouts that nobody waits for any more."""
        return max(self.update[1], *self.ends[-1:], *self.network[1::4])


@dataclass(frozen=True)
class Outcome:
    """Everything that the engine ran. records: one an actor. end: ns when all is done. events: SimPy events
    processed."""

    records: tuple[Record, ...]
    end: int
    events: int
