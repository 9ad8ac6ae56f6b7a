"""A step by itself as SimPy events: one actor with one job, and when its segments and kernels began and ended."""

from sim.engine import alone as lean
from sim.engine.actor import Actor, Job
from sim.engine.events import run
from sim.step.template import STREAMS, Template, Timing

Spans = tuple[tuple[int, int], ...]


def by_simpy(template: Template) -> tuple[Spans, tuple[Spans, ...]]:
    """Start and end of each segment, and of each kernel by lane."""
    record = run([Actor("template", (Job(template),))]).records[0]
    segments: list[tuple[int, int]] = [(0, 0)] * len(template.segments)
    kernels: list[Spans] = []
    for lane in STREAMS:
        ends = record.kernels[lane].tolist()
        starts = [0, *ends][: len(ends)]  # a kernel starts when the one before it ends, but for the first of a segment
        for number, start in zip(template.order[lane], record.phases[lane], strict=True):
            segment = template.segments[number]
            starts[segment.first] = start
            segments[number] = (start, ends[segment.stop - 1])
        kernels.append(tuple(zip(starts, ends, strict=True)))
    return tuple(segments), tuple(kernels)


def alone(template: Template) -> Timing:
    """The run of `sim.engine.alone`, which must be that of SimPy."""
    timing = lean.alone(template)
    assert (timing.segments, timing.kernels) == by_simpy(template)
    return timing
