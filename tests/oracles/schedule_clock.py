"""When each step of a schedule runs: longest paths over program order and dependencies, and nothing else.

An independent evaluator to hold schedules and engine against: no queues, no events, floats or integers alike. It reads
a program only through its steps' fields. Durations: f, b (input gradient), w, fb (an overlapped F+BW pair; an F+B pair
takes fb - w); p2p is added where a dependency crosses ranks.
"""

from collections import namedtuple

Clock = namedtuple("Clock", "makespan idle start end")  # start, end: per rank, per step


def halves(step):
    """[(kind, stage, micro-batch)] of one or two halves."""
    kinds = step.kind.split("+")
    return [*zip(kinds, (step.stage, step.stage_b), (step.micro_batch, step.micro_batch_b), strict=False)]


def clock(program, f=1, b=1, w=1, fb=None, p2p=0):
    """Makespan, and per rank the idle time and each step's start and end. AssertionError on deadlock."""
    fb = f + b + w if fb is None else fb
    length = {"F": f, "B": b, "W": w, "BW": b + w, "F+BW": fb, "F+B": fb - w}
    ended = {}  # (F or B, stage, micro-batch) -> (time, rank)
    start, end = ([[] for _ in program.steps] for _ in range(2))
    left = sum(map(len, program.steps))
    while left:
        before = left
        for rank, steps in enumerate(program.steps):
            for step in steps[len(end[rank]) :]:
                needed = []
                for kind, stage, micro_batch in halves(step):
                    if kind == "F" and stage:
                        needed.append(("F", stage - 1, micro_batch))
                    if kind in ("B", "BW"):
                        needed.append(("F", stage, micro_batch))
                    if kind in ("B", "BW") and stage < program.stages - 1:
                        needed.append(("B", stage + 1, micro_batch))
                if not all(key in ended for key in needed):
                    break
                ready = [time + p2p * (where != rank) for time, where in map(ended.get, needed)]
                start[rank].append(max([0, *end[rank][-1:], *ready]))
                end[rank].append(start[rank][-1] + length[step.kind])
                ended |= {(k[0], s, m): (end[rank][-1], rank) for k, s, m in halves(step) if k != "W"}
                left -= 1
        assert left < before, "deadlock"
    makespan = max(times[-1] for times in end)
    busy = [sum(length[step.kind] for step in steps) for steps in program.steps]
    return Clock(makespan, [makespan - each for each in busy], start, end)
