"""The network lane of all replicas at a pipeline position: messages, and gradient reductions where none waits.

In the same nanosecond a forward output goes before a backward one, and messages before reductions; a reduction that is
on its way lets them pass at the end of a slice (`sim.engine.wire` has the same rules). A reduction's turn is known when
the last holder of its stage is through; messages that may have to leave behind one whose turn is not known wait here,
untimed. So do messages by rendezvous while it is not known when others of their batch can leave.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.engine.wire import REDUCE, cut
from sim.scenario.values import FOREVER

Times = npt.NDArray[np.int64]

Wire = Callable[[int, int, int, Times, int], Times]
"""(position, step, kind, starts, ns alone) -> nanoseconds on each replica's lane. kind: 1 forward, 2 backward output of
a step, 3 reduce-scatter of a stage (given as the step), 4 all-gather of the position's parameters (step -1)."""

UNKNOWN = -1


class Load:
    """Something a lane carries. starts, ends: of each replica, UNKNOWN until they are timed. begun: on any."""

    def __init__(self, step: int, kind: int, ns: int, ready: Times) -> None:
        self.step, self.kind, self.ns, self.ready = step, kind, ns, ready
        self.starts = self.ends = np.full_like(ready, UNKNOWN)
        self.begun = False

    @property
    def timed(self) -> bool:
        return bool((self.starts >= 0).all())


class Reducing:
    """A reduction, whose stretches follow each other with messages between. left: ns alone, UNKNOWN before the first
    [replica]. stretches: starts and ends of each, UNKNOWN on replicas that have fewer. number: that each has."""

    def __init__(self, stage: int, ns: int, ready: Times) -> None:
        self.stage, self.ns, self.ready = stage, ns, ready
        self.left, self.number = np.full_like(ready, UNKNOWN), np.zeros_like(ready)
        self.stretches: list[tuple[Times, Times]] = []

    def carried(self, replicas: npt.NDArray[np.bool_], start: Times, end: Times) -> None:
        """On these replicas a stretch is through."""
        self.left = np.where(replicas, self.left - (end - start), self.left)
        for number in np.unique(self.number[replicas]).tolist():
            if number == len(self.stretches):
                self.stretches.append((np.full_like(start, UNKNOWN), np.full_like(start, UNKNOWN)))
            own = replicas & (self.number == number)
            for kept, new in zip(self.stretches[number], (start, end), strict=True):
                kept[own] = new[own]
        self.number = self.number + replicas

    def loads(self) -> Iterator[Load]:
        """What the lane has carried of it when all is through; stretches that a replica has not are of no length."""
        end = np.maximum.reduce([ends for _, ends in self.stretches])
        for starts, ends in self.stretches:
            load = Load(self.stage, REDUCE, self.ns, self.ready)
            load.starts, load.ends = (np.where(times < 0, end, times) for times in (starts, ends))
            yield load


class Bound(NamedTuple):
    """Of what is not known yet: no stage is through, and no output can leave [replica], before."""

    stages: int
    outputs: Times | int


NO_BOUND = Bound(UNKNOWN, UNKNOWN)


class Lane:
    """The network lane of every replica at a position. free: ns at which the lane of each replica is. carried: messages
    and reductions that are timed on all replicas. incomplete: batches of which outputs are here, and others are not."""

    def __init__(self, position: int, data: int, reduces: Sequence[tuple[int, int, int]], wire: Wire) -> None:
        self.position, self.wire = position, wire
        self.free = np.zeros(data, dtype=np.int64)
        self.queue: deque[tuple[int, list[Load]]] = deque()
        self.incomplete: set[int] = set()
        self.carried: list[Load] = []
        self.after = {stage: after for after, stage, _ in reduces}
        self.length = {stage: ns for _, stage, ns in reduces}
        self.reductions: dict[int, Reducing] = {}
        self.reduced = np.zeros(data, dtype=np.int64)

    def leave(self, batch: int, outputs: Sequence[tuple[int, int, int, Times]], others: int = 0) -> None:
        """Outputs, (step, kind, ns, when ready), join the queue. batch: the step before which all of its messages are
        through, or the step that makes them where nobody waits for that. others: of the batch, that are still to
        join."""
        loads = [Load(*output) for output in outputs]
        if self.queue and self.queue[-1][0] == batch:
            loads += self.queue.pop()[1]
        if loads:
            self.queue.append((batch, sorted(loads, key=lambda load: (load.step, load.kind))))
        (self.incomplete.add if others else self.incomplete.discard)(batch)

    def settle(self, gathered: Mapping[int, int], bound: Bound = NO_BOUND) -> Iterator[Load]:
        """Time what can be timed; yields the messages whose arrival is known now.

        gathered: stage -> when its last holder was through. bound: of what is not known yet.
        """
        while self.queue:
            batch, outputs = self.queue[0]
            alone = batch in self.incomplete
            reduced = all(stage in gathered for stage, after in self.after.items() if after < batch)
            limit = np.minimum(FOREVER if reduced else bound.stages, bound.outputs if alone else FOREVER)
            certain = reduced and not alone
            if certain and len(outputs) == 1 and not outputs[0].begun and not any(s in gathered for s in self.after):
                yield self._next(outputs[0])
                continue
            waiting = [output for output in outputs if not output.timed]
            for which in _turns(outputs):
                for output, replicas in zip(outputs, which, strict=True):
                    due = replicas & (output.starts < 0) & (output.ready <= limit)
                    if due.any():
                        self._reduce(gathered, output.ready, due)
                        self._carry(output, due)
            yield from (output for output in waiting if output.timed)
            if not all(output.timed for output in outputs):
                return
            self.carried += outputs
            self.queue.popleft()

    def _next(self, output: Load) -> Load:
        """The only output of a step, with no reduction about: it goes next on every replica."""
        output.starts = start = np.maximum(output.ready, self.free)
        output.ends = self.free = start + self.wire(self.position, output.step, output.kind, start, output.ns)
        self.carried.append(output)
        self.queue.popleft()
        return output

    @property
    def pending(self) -> list[Times]:
        """When the messages that wait here for their turn are ready: nothing that hangs on them comes before."""
        return [output.ready for output in (self.queue[0][1] if self.queue else ()) if not output.timed]

    def drain(self, gathered: Mapping[int, int]) -> None:
        """Reductions that no message waited for."""
        everybody = np.ones(len(self.free), dtype=np.bool_)
        self._reduce(gathered, np.full_like(self.free, FOREVER), everybody)
        loads = [load for reducing in self.reductions.values() for load in reducing.loads()]
        self.carried += loads
        for load in loads:
            self.reduced = np.maximum(self.reduced, load.ends)

    def _reduce(self, gathered: Mapping[int, int], until: Times, replicas: npt.NDArray[np.bool_]) -> None:
        """The reductions that can begin before `until`, in the order in which they are ready, ties by stage; the one
        that is on its way then goes on to the end of its slice."""
        for begun, stage in sorted((gathered[stage], stage) for stage in self.after if stage in gathered):
            if stage not in self.reductions:
                self.reductions[stage] = Reducing(stage, self.length[stage], np.full_like(self.free, begun))
            reducing = self.reductions[stage]
            due = replicas & (reducing.left != 0) & (begun < until) & (self.free <= until)
            if due.any():
                replicas = replicas & ~self._stretch(reducing, until, due)

    def _stretch(self, reducing: Reducing, until: Times, due: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """A reduction goes on until it is through, or lets pass what comes at `until`; on which replicas it does."""
        start = np.maximum(reducing.ready, self.free)
        alone = self.wire(self.position, reducing.stage, REDUCE, start, reducing.ns)
        reducing.left = np.where(due & (reducing.left < 0), alone, reducing.left)
        end = np.minimum(start + reducing.left, cut(start, np.maximum(start, until)))
        reducing.carried(due, start, end)
        self.free = np.where(due, end, self.free)
        waits: npt.NDArray[np.bool_] = due & (reducing.left > 0)
        return waits

    def _carry(self, load: Load, replicas: npt.NDArray[np.bool_]) -> None:
        start = np.maximum(load.ready, self.free)
        end = start + self.wire(self.position, load.step, load.kind, start, load.ns)
        load.begun = True
        load.starts = np.where(replicas, start, load.starts)
        load.ends = np.where(replicas, end, load.ends)
        self.free = np.where(replicas, end, self.free)


def _turns(outputs: Sequence[Load]) -> Sequence[Sequence[npt.NDArray[np.bool_]]]:
    """Of each turn, on which replicas it is that of each output: the first that is ready, ties in their order."""
    if len(outputs) == 1:
        return ((np.ones(len(outputs[0].ready), dtype=np.bool_),),)
    order = np.stack([output.ready for output in outputs]).argsort(axis=0, kind="stable")
    return [[turn == number for number in range(len(outputs))] for turn in order]
