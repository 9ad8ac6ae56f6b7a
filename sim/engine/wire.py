"""The network lane of a rank: messages and gradient reductions, one at a time.

Messages go before reductions, for those are other kernels on other streams, and messages are what other ranks wait for;
otherwise first in, first out. One that is on its way lets them pass at the end of its slice, and goes on behind them.
What joins the lane in the same nanosecond goes forward output, backward output, reductions by stage.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from hwmodels.collectives import Hindrance
from hwmodels.units import MS_NS
from sim.engine.actor import Record
from sim.engine.nic import Nic, Passage

REDUCE, GATHER = 3, 4
"""Kinds of load beside 1, a forward, and 2, a backward output."""
SLICE = MS_NS
"""Of a reduction that is on its way a message waits for so many ns at most. NCCL reduces in chunks (a buffer of 4 MiB,
NCCL_BUFFSIZE in docs.nvidia.com/deeplearning/nccl, which a 400 Gb/s port sends in 0.1 ms) beside the kernels of
messages; both share the NICs, so that a message takes twice as long, not a reduction longer. Those of large models
take 0.5 to 1 ms (8,192 tokens of Llama-3 405B over 8 ranks: 0.7): a slice stands for what sharing costs them."""


class Clock(Protocol):
    """Time in whole nanoseconds, and what is called when."""

    @property
    def now(self) -> int: ...

    def at(self, time: int, call: Callable[..., None], *words: object) -> None:
        """Call with words at a time."""

    def late(self, call: Callable[[Any], None]) -> None:
        """Call when all else that happens in this nanosecond has happened."""


class Load(NamedTuple):
    """Something that waits for the network lane. kind: 1 a forward, 2 a backward output of a step, or REDUCE of the
    stage given as the step. ns: alone, of what is left of it. arrive: called when it is through.

    nics, hindrance: as `sim.engine.nic.Passage` has them.
    """

    kind: int
    step: int
    ns: float
    nics: Sequence[Nic]
    hindrance: Hindrance
    arrive: Callable[[], object]


class Wire:
    """Carries one load after another and writes them down. begun, end: of the one on its way, if no further step starts
    at its ends; timed: how often that was found. cut: when it lets messages pass, where it is a reduction; 0: none
    waits."""

    __slots__ = ("begun", "clock", "cut", "end", "leaving", "passage", "queue", "record", "timed")

    def __init__(self, clock: Clock, record: Record) -> None:
        self.clock, self.record = clock, record
        self.leaving: list[Load] = []
        self.queue: deque[Load] = deque()
        self.begun = self.end = self.cut = self.timed = 0

    def leave(self, load: Load) -> None:
        """Join the lane at the end of this nanosecond, when all that leaves in it is known."""
        if not self.leaving:
            self.clock.late(self._settle)
        self.leaving.append(load)

    def join(self, loads: Sequence[Load]) -> None:
        """Join the lane, for this nanosecond is at its end."""
        self.leaving.extend(loads)
        self._settle(None)

    def _settle(self, event: object) -> None:
        idle, leaving = not self.queue, self.leaving
        if not leaving:  # they have joined with others
            return
        if len(leaving) > 1:
            leaving.sort(key=lambda load: (load.kind == REDUCE, load.step, load.kind))
        if self.queue and any(load.kind != REDUCE for load in leaving):
            self._before_reductions(leaving)
        else:
            self.queue.extend(leaving)
        leaving.clear()
        if idle:
            self._next()

    def _before_reductions(self, leaving: Sequence[Load]) -> None:
        """Join the queue, messages before reductions that wait there; the first of the queue is on its way."""
        begun = [self.queue.popleft()] if self.queue else []
        waiting = [*self.queue, *leaving]
        self.queue.clear()
        self.queue.extend([*begun, *sorted(waiting, key=lambda load: load.kind == REDUCE)])
        if begun and begun[0].kind == REDUCE and not self.cut:
            self.cut = int(cut(self.begun, self.clock.now))
            self.retime()

    def _next(self) -> None:
        """The load at the head of the queue is on its way; it stays there until it is through."""
        _, _, ns, nics, hindrance, _ = self.queue[0]
        self.begun, self.cut = self.clock.now, 0
        self.passage = Passage(nics, hindrance, ns, self.begun)
        for nic in nics:
            nic.users.append(self)
        self.retime()

    def catch_up(self) -> None:
        """See `sim.engine.nic.User`."""
        self.passage.advance(self.clock.now)

    def retime(self) -> None:
        """See `sim.engine.nic.User`."""
        self.end = self.passage.end()
        until = min(self.end, self.cut) if self.cut else self.end
        self.timed += 1
        self.clock.at(until, self.through, self.timed)

    def through(self, timed: int) -> None:
        """The load has arrived, or a slice of it, unless it was timed again since."""
        if timed != self.timed:
            return
        now = self.clock.now
        load = self.queue.popleft()
        for nic in load.nics:
            nic.users.remove(self)
        self.record.network.extend((self.begun, now, -1 - load.step if load.kind == REDUCE else load.step, load.kind))
        if now < self.end:
            self.passage.advance(now)
            messages = sum(waiting.kind != REDUCE for waiting in self.queue)
            self.queue.insert(messages, load._replace(ns=self.passage.left))
        else:
            load.arrive()
        if self.queue:
            self._next()


def cut(begun: Any, now: Any) -> Any:
    """When a reduction that began at `begun` lets what is there at `now` pass (ns, of one or each replica)."""
    return begun + np.maximum(-((begun - now) // SLICE), 1) * SLICE
