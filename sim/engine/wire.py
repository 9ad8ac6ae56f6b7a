"""The network lane of a rank: messages and gradient reductions, one at a time.

Messages go before reductions that have not begun, for those are other kernels on other streams, and messages are what
other ranks wait for; otherwise first in, first out. What joins it in the same nanosecond goes forward output, backward
output, reductions by stage.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from hwmodels.collectives import Hindrance
from sim.engine.actor import Record
from sim.engine.nic import Nic, Passage

REDUCE, GATHER = 3, 4
"""Kinds of load beside 1, a forward, and 2, a backward output."""


class Clock(Protocol):
    """Time in whole nanoseconds, and what is called when."""

    @property
    def now(self) -> int: ...

    def after(self, ns: int, call: Callable[[Any], None]) -> object:
        """Call in so many ns with what is returned now."""

    def late(self, call: Callable[[Any], None]) -> None:
        """Call when all else that happens in this nanosecond has happened."""


class Load(NamedTuple):
    """Something that waits for the network lane. kind: 1 a forward, 2 a backward output of a step, or REDUCE of the
    stage given as the step. ns: alone. arrive: called when it is through.

    nics, hindrance: as `sim.engine.nic.Passage` has them.
    """

    kind: int
    step: int
    ns: int
    nics: Sequence[Nic]
    hindrance: Hindrance
    arrive: Callable[[], object]


class Wire:
    """Carries one load after another and writes them down."""

    __slots__ = ("begun", "clock", "leaving", "passage", "pending", "queue", "record")

    def __init__(self, clock: Clock, record: Record) -> None:
        self.clock, self.record = clock, record
        self.leaving: list[Load] = []
        self.queue: deque[Load] = deque()
        self.begun = 0
        self.pending: object = None

    def leave(self, load: Load) -> None:
        """Join the lane at the end of this nanosecond, when all that leaves in it is known."""
        if not self.leaving:
            self.clock.late(self._settle)
        self.leaving.append(load)

    def _settle(self, event: object) -> None:
        idle, leaving = not self.queue, self.leaving
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

    def _next(self) -> None:
        """The load at the head of the queue is on its way; it stays there until it is through."""
        _, _, ns, nics, hindrance, _ = self.queue[0]
        self.begun = now = self.clock.now
        self.passage = passage = Passage(nics, hindrance, ns, now)
        for nic in nics:
            nic.users.append(self)
        self.pending = self.clock.after(passage.end() - now, self._through)

    def catch_up(self) -> None:
        """See `sim.engine.nic.User`."""
        self.passage.advance(self.clock.now)

    def retime(self) -> None:
        """See `sim.engine.nic.User`."""
        self.pending = self.clock.after(self.passage.end() - self.clock.now, self._through)

    def _through(self, event: object) -> None:
        """The load has arrived, unless it was timed again since."""
        if event is not self.pending:
            return
        now = self.clock.now
        kind, step, _, nics, _, arrive = self.queue.popleft()
        for nic in nics:
            nic.users.remove(self)
        self.record.network.extend((self.begun, now, -1 - step if kind == REDUCE else step, kind))
        arrive()
        if self.queue:
            self._next()
