"""The network lane of all replicas at a pipeline position: messages and gradient reductions, first in, first out.

In the same nanosecond a forward output goes before a backward one, and messages before reductions (`sim.engine.events`
has the same rule). A reduction's turn is known when the last holder of its stage is through; messages that may have to
leave behind one whose turn is not known wait here, untimed.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sim.engine.wire import REDUCE
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


class Lane:
    """The network lane of every replica at a position. free: ns at which the lane of each replica is. carried: messages
    and reductions that are timed on all replicas."""

    def __init__(self, position: int, data: int, reduces: Sequence[tuple[int, int, int]], wire: Wire) -> None:
        self.position, self.wire = position, wire
        self.free = np.zeros(data, dtype=np.int64)
        self.queue: deque[list[Load]] = deque()
        self.carried: list[Load] = []
        self.after = {stage: after for after, stage, _ in reduces}
        self.length = {stage: ns for _, stage, ns in reduces}
        self.reductions: dict[int, Load] = {}
        self.reduced = np.zeros(data, dtype=np.int64)

    def leave(self, step: int, outputs: Sequence[tuple[int, int, Times]]) -> None:
        """Outputs of a step, (kind, ns, when ready), join the queue."""
        if outputs:
            self.queue.append([Load(step, *output) for output in sorted(outputs, key=lambda output: output[0])])

    def settle(self, gathered: Mapping[int, int], bound: int = UNKNOWN) -> Iterator[Load]:
        """Time what can be timed; yields the messages whose arrival is known now.

        gathered: stage -> when its last holder was through. bound: no other stage is through before.
        """
        while self.queue:
            outputs = self.queue[0]
            certain = all(stage in gathered for stage, after in self.after.items() if after < outputs[0].step)
            limit = FOREVER if certain else bound
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

    def pending(self) -> int:
        """No message that waits here leaves all replicas before; FOREVER when none waits."""
        return min((int(o.ready.max()) for o in (self.queue[0] if self.queue else ()) if not o.timed), default=FOREVER)

    def drain(self, gathered: Mapping[int, int]) -> None:
        """Reductions that no message waited for."""
        everybody = np.ones(len(self.free), dtype=np.bool_)
        self._reduce(gathered, np.full_like(self.free, FOREVER), everybody)
        self.carried += self.reductions.values()
        for load in self.reductions.values():
            self.reduced = np.maximum(self.reduced, load.ends)

    def _reduce(self, gathered: Mapping[int, int], until: Times, replicas: npt.NDArray[np.bool_]) -> None:
        """The reductions that are ready before `until`, in that order, ties by stage."""
        for begun, stage in sorted((gathered[stage], stage) for stage in self.after if stage in gathered):
            if stage not in self.reductions:
                ready = np.full_like(self.free, begun)
                self.reductions[stage] = Load(stage, REDUCE, self.length[stage], ready)
            load = self.reductions[stage]
            due = replicas & (load.starts < 0) & (begun < until)
            if due.any():
                self._carry(load, due)

    def _carry(self, load: Load, replicas: npt.NDArray[np.bool_]) -> None:
        start = np.maximum(load.ready, self.free)
        end = start + self.wire(self.position, load.step, load.kind, start, load.ns)
        load.begun = True
        load.starts = np.where(replicas, start, load.starts)
        load.ends = np.where(replicas, end, load.ends)
        self.free = np.where(replicas, end, self.free)


def _turns(outputs: Sequence[Load]) -> Sequence[Sequence[npt.NDArray[np.bool_]]]:
    """Which of one or two outputs has the first turn on each replica, and which the second."""
    if len(outputs) == 1:
        return ((np.ones(len(outputs[0].ready), dtype=np.bool_),),)
    ahead = outputs[0].ready <= outputs[1].ready
    return (ahead, ~ahead), (~ahead, ahead)
