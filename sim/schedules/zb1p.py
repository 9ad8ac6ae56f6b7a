"""ZB1P (ZB-H1): 1F1B with the backward split; the input gradient hurries on, the weight gradient fills the tail.

Rank r puts off each weight gradient by r micro-batches. Later ranks have fewer forwards in flight, by just as many, so
all ranks hold the same number of chunks, and the weight gradients put off fill the wait of the last backwards.

Source: Qi et al., Zero Bubble Pipeline Parallelism (arXiv:2401.10241), section 2.1 and figure 3; called ZB1P in the
DeepSeek-V3 report (arXiv:2412.19437), table 2.
Bubble: (PP-1)(F+B-2W), for W <= F, W <= B-W and M >= PP (fewer micro-batches run, with a larger bubble).
Activations: PP chunks on every rank (no more than M).

A weight gradient that waits may hold more than a forward did, with both operands of each product. Where a limit is
given, ranks put off no more than so many, as the paper's own scheduler runs them sooner where memory is short (section
3.1); the bubble grows by W for each that does not wait.
"""

from collections.abc import Iterator

from sim.schedules.program import Program, Shape, Step


def stages(shape: Shape) -> int:
    """One stage a rank."""
    return shape.pipeline


def build(shape: Shape) -> Program:
    """Runs with any number of micro-batches."""
    steps = tuple(tuple(_steps(position, shape)) for position in range(shape.pipeline))
    early = {(p, i, "F"): i - 1 for p, row in enumerate(steps) for i, step in enumerate(row)
             if step.kind == "F" and i and row[i - 1].kind == "W"}  # fmt: skip
    return Program("zb1p", shape.pipeline, stages(shape), shape.micro_batches, steps, 1, early)


def _steps(position: int, shape: Shape) -> Iterator[Step]:
    ahead = min(shape.pipeline - 1 - position, shape.micro_batches)
    late = position if shape.waiting is None else min(position, shape.waiting)
    for micro_batch in range(ahead):
        yield Step("F", position, micro_batch)
    for micro_batch in range(shape.micro_batches):
        if micro_batch + ahead < shape.micro_batches:
            yield Step("F", position, micro_batch + ahead)
        yield Step("B", position, micro_batch)
        if micro_batch >= late:
            yield Step("W", position, micro_batch - late)
    for micro_batch in range(max(shape.micro_batches - late, 0), shape.micro_batches):
        yield Step("W", position, micro_batch)
