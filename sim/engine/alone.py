"""A step by itself: the segments of a template on the streams of one rank, with nothing else happening.

The rules are those of `sim.engine.events` and `sim.engine.stream`, which run it as SimPy events, and the answer is
theirs to the nanosecond, kernel by kernel (tests hold them equal). Here is no clock: few streams work at a time, so who
is through next is found by looking at them; of two in the same nanosecond, who was timed first. Kernels that nobody
asks for are not written down one by one. A third of the time of the SimPy run.
"""

from bisect import bisect_right
from collections.abc import Sequence

from hwmodels.units import LONGEST_NS, NS_PER_S, too_large
from sim.models.layer import COMMUNICATION, COMPUTE, WEIGHT
from sim.step.template import Stretch, Template, Timing

NEVER = 1 << 63
"""End of a stream that has nothing under way."""


class _Lane:
    """A stream. kernel, stop: under way, the first of which ends at `through` and takes part / whole of its length from
    `timed` on; all of them have ended at `end`. sums: of durations, of `clocks`, alone and beside. turn: in which it
    was timed. stretches: of kernels that have ended."""

    __slots__ = (
        "active", "clocks", "cursor", "end", "kernel", "order", "part", "stop", "stretches", "sums", "through", "timed",
        "turn", "whole",
    )  # fmt: skip

    def __init__(self, order: Sequence[int], clocks: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
        self.order, self.clocks, self.sums = order, clocks, clocks[0]
        self.active, self.end, self.stretches = False, NEVER, list[Stretch]()
        self.cursor = self.kernel = self.stop = self.timed = self.through = self.turn = 0
        self.part = self.whole = 1


class _Step:
    """The streams of a rank and what couples them. now: ns since the step began."""

    def __init__(self, template: Template) -> None:
        self.segments, self.needs = template.segments, [segment.needs for segment in template.segments]
        self.times = [(0, 0)] * len(self.segments)
        self.starts = [0] * len(self.segments)
        self.lanes = [_Lane(*each) for each in zip(template.order, template.clocks, strict=True)]
        self.now = self.turn = 0

    def run(self) -> None:
        """All segments to their end."""
        lanes = self.lanes
        for lane in lanes:
            self.advance(lane)
        used = [lane for lane in lanes if lane.order]
        while used:
            first = used[0]
            for lane in used:
                if lane.end < first.end or (lane.end == first.end and lane.turn < first.turn):
                    first = lane
            if first.end >= LONGEST_NS:
                if first.end == NEVER:
                    break
                raise too_large(f"the step takes more than {LONGEST_NS // NS_PER_S} s")
            self.now = first.end
            self.finish(first)
        assert all(lane.cursor == len(lane.order) for lane in lanes), "what waits for itself is no step"

    def finish(self, lane: _Lane) -> None:
        """A segment is through: who waits for nothing else goes on."""
        cursor, order, needs, segments = lane.cursor, lane.order, self.needs, self.segments
        number, kernel, sums = order[cursor], lane.kernel, lane.sums
        lane.stretches.append((lane.through - sums[kernel + 1], sums, kernel, lane.stop))
        self.times[number] = self.starts[number], self.now
        lane.cursor = cursor = cursor + 1
        lane.end = NEVER
        for follower in segments[number].feeds:
            needs[follower] -= 1
            if not needs[follower]:
                other = self.lanes[segments[follower].lane]
                if other is not lane:
                    self.advance(other)
        if cursor < len(order) and not needs[order[cursor]]:
            self.start(lane, order[cursor])
        else:
            self.switch(lane, False)

    def advance(self, lane: _Lane) -> None:
        """Start the next segment of a stream if there is one, the stream is free and all it needs is done."""
        if lane.end != NEVER or lane.cursor == len(lane.order):
            return
        number = lane.order[lane.cursor]
        if self.needs[number]:
            return
        if not lane.active:
            self.switch(lane, True)
        self.start(lane, number)

    def start(self, lane: _Lane, number: int) -> None:
        """A segment of a stream that is at work, at the rate of now."""
        _, first, stop, *_ = self.segments[number]
        now, turn = self.now, self.turn
        lane.sums = sums = lane.clocks[self.contended(lane)]
        lane.kernel, lane.stop, lane.timed, lane.part, lane.whole = first, stop, now, 1, 1
        before = now - sums[first]
        lane.through, lane.end = before + sums[first + 1], before + sums[stop]
        lane.turn, self.turn, self.starts[number] = turn, turn + 1, now

    def time(self, lane: _Lane) -> None:
        """The end of what is under way, at the rate of now."""
        lane.end = lane.through + lane.sums[lane.stop] - lane.sums[lane.kernel + 1]
        lane.turn, self.turn = self.turn, self.turn + 1

    def contended(self, lane: _Lane) -> bool:
        """Whether the other side of a stream is at work."""
        lanes = self.lanes
        if lane is lanes[COMMUNICATION]:
            return lanes[COMPUTE].active or lanes[WEIGHT].active
        return lanes[COMMUNICATION].active

    def switch(self, lane: _Lane, on: bool) -> None:
        """A stream starts or stops; the other side changes its rate if that is news to it."""
        talk = self.lanes[COMMUNICATION]
        before = self.contended(talk)
        lane.active = on
        if lane is talk:
            self.retime(self.lanes[COMPUTE], on)
            self.retime(self.lanes[WEIGHT], on)
        elif self.contended(talk) != before:
            self.retime(talk, not before)

    def retime(self, lane: _Lane, contended: bool) -> None:
        """What is left of a segment goes on at the other rate; see `sim.engine.stream.Stream.retime`."""
        sums, was, now = lane.clocks[contended], lane.sums, self.now
        if lane.end == NEVER or sums is was:
            return
        if now >= lane.through:
            self.pass_to(lane, min(bisect_right(was, now - lane.through + was[lane.kernel + 1]), lane.stop) - 1)
        kernel = lane.kernel
        old, new = was[kernel + 1] - was[kernel], sums[kernel + 1] - sums[kernel]
        lane.sums = sums
        if old != new:
            if old:
                lane.part = max(lane.part * old - (now - lane.timed) * lane.whole, 0)
                lane.whole *= old
            lane.timed = now
            lane.through = now - -new * lane.part // lane.whole
        self.time(lane)

    def pass_to(self, lane: _Lane, kernel: int) -> None:
        """Kernels before this one have ended, and it has begun."""
        if kernel > lane.kernel:
            sums, before = lane.sums, lane.through - lane.sums[lane.kernel + 1]
            lane.stretches.append((before, sums, lane.kernel, kernel))
            lane.timed, lane.part, lane.whole = before + sums[kernel], 1, 1
            lane.through = lane.timed + sums[kernel + 1] - sums[kernel]
            lane.kernel = kernel


def alone(template: Template) -> Timing:
    """One run of a template on one rank with nothing else happening. Raises Refused when it is too long to count."""
    step = _Step(template)
    step.run()
    begun = tuple({template.segments[i].first: step.times[i][0] for i in order} for order in template.order)
    return Timing(tuple(step.times), tuple(tuple(lane.stretches) for lane in step.lanes), begun)
