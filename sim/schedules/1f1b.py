# ruff: noqa: N999 - the file's name is the schedule's name
"""1F1B: each rank warms up with as many forwards as there are ranks after it, then alternates forward and backward.

Source: Harlap et al., PipeDream (arXiv:1806.03377); in the flushing form used here, Narayanan et al., Megatron-LM
(arXiv:2104.04473), section 2.2.1.
Bubble: (PP-1)(F+B), for any F and B. Activations: PP - position chunks (no more than M), so PP at position 0.
"""

from sim.schedules.program import Program, Shape, Step


def stages(shape: Shape) -> int:
    """One stage a rank."""
    return shape.pipeline


def build(shape: Shape) -> Program:
    """Runs with any number of micro-batches."""
    steps = tuple(_steps(position, shape) for position in range(shape.pipeline))
    return Program("1f1b", shape.pipeline, stages(shape), shape.micro_batches, steps)


def _steps(position: int, shape: Shape) -> tuple[Step, ...]:
    forwards = [Step("F", position, micro_batch) for micro_batch in range(shape.micro_batches)]
    backwards = [Step("BW", position, micro_batch) for micro_batch in range(shape.micro_batches)]
    warm_up = min(shape.pipeline - 1 - position, shape.micro_batches)
    steady = [step for pair in zip(forwards[warm_up:], backwards, strict=False) for step in pair]
    return (*forwards[:warm_up], *steady, *backwards[shape.micro_batches - warm_up :])
