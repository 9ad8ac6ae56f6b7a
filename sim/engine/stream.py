"""One stream of a rank as SimPy events: the segments of its steps, a timeout each; its kernels are sums.

While the other side of the rank is at work kernels run at their slower rate; when that changes mid-way the rest of the
segment is timed again.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

from sim.engine.actor import Record
from sim.engine.clock import Clock, Event
from sim.step.template import Template

WHOLE = 1, 1
"""Part of a kernel that is left when it starts, as a fraction of whole numbers."""


class Streams(Protocol):
    """The rank that a stream is of. needs: how many segments each of the step's waits for."""

    template: Template
    needs: list[int]

    def contended(self, lane: int) -> bool:
        """Whether the other side of a stream is at work."""

    def busy(self, lane: int) -> None:
        """A stream works."""

    def arrive(self, segment: int, lane: Stream) -> bool:
        """Whether the group that a segment meets is complete; if not, the stream is started when it is."""

    def finish(self, lane: Stream) -> None:
        """A segment is through."""


class Stream:
    """One stream of a rank: the segments of its current step, one timeout each.

    kernel: ends at `through` and takes what `left` says of it from `timed` on; the others up to `stop` follow it, as
    long as `sums` says (sums of durations up to each kernel). clocks: sums alone and beside.
    """

    __slots__ = (
        "clocks", "cursor", "ends", "env", "index", "kernel", "left", "order", "pending", "rank", "starts", "stop",
        "sums", "through", "timed",
    )  # fmt: skip

    def __init__(self, env: Clock, rank: Streams, index: int, record: Record) -> None:
        self.env, self.rank, self.index = env, rank, index
        self.ends, self.starts = record.kernels[index], record.phases[index]
        self.order: tuple[int, ...] = ()
        self.sums: tuple[int, ...] = ()
        self.clocks: tuple[tuple[int, ...], ...] = ((), ())
        self.cursor = self.kernel = self.stop = self.timed = self.through = 0
        self.left = WHOLE
        self.pending: Event | None = None

    def load(self, template: Template) -> None:
        """Take the segments of a step that begins."""
        self.order = template.order[self.index]
        self.clocks = template.clocks[self.index]
        self.cursor = 0

    def advance(self) -> None:
        """Start the next segment if there is one and all it needs is done."""
        rank = self.rank
        while self.pending is None and self.cursor < len(self.order):
            number = self.order[self.cursor]
            if rank.needs[number]:
                return
            segment = rank.template.segments[number]
            if segment.meets and not rank.arrive(number, self):
                return
            self.begin(segment.first, segment.stop)

    def begin(self, first: int, stop: int) -> None:
        """Start the kernels of a segment."""
        now = self.env.now
        self.starts.append(now)
        self.rank.busy(self.index)
        self.sums = sums = self.clocks[self.rank.contended(self.index)]
        self.kernel, self.stop, self.timed, self.left = first, stop, now, WHOLE
        self.through = now + sums[first + 1] - sums[first]
        self.time()

    def time(self) -> None:
        """Wait until the last kernel of the segment is through."""
        last = self.through + self.sums[self.stop] - self.sums[self.kernel + 1]
        self.pending = self.env.after(last - self.env.now, self.tick)

    def tick(self, event: Event) -> None:
        """The segment has ended, unless it was timed again since."""
        if event is self.pending:
            self.record(self.stop)
            self.pending = None
            self.rank.finish(self)

    def record(self, stop: int) -> None:
        """Kernels up to `stop` have ended."""
        before = self.through - self.sums[self.kernel + 1]
        self.ends.extend([before + ns for ns in self.sums[self.kernel + 1 : stop + 1]])

    def retime(self, contended: bool) -> None:
        """The other side has started or stopped: what is left of the segment goes on at the other rate."""
        sums, was = self.clocks[contended], self.sums
        if self.pending is None or sums is was:
            return
        now = self.env.now
        if now >= self.through:
            self.pass_to(min(bisect_right(was, now - self.through + was[self.kernel + 1]), self.stop) - 1)
        old, new = (each[self.kernel + 1] - each[self.kernel] for each in (was, sums))
        self.sums = sums
        if old != new:
            part, whole = self.left
            if old:  # exact: no rounding may remember how often a kernel was timed
                part, whole = max(part * old - (now - self.timed) * whole, 0), whole * old
                self.left = part, whole
            self.timed = now
            self.through = now - -new * part // whole
        self.time()

    def pass_to(self, kernel: int) -> None:
        """Kernels before this one have ended, and it has begun."""
        if kernel > self.kernel:
            self.record(kernel)
            self.timed = self.ends[-1]
            self.through, self.left = self.timed + self.sums[kernel + 1] - self.sums[kernel], WHOLE
            self.kernel = kernel
