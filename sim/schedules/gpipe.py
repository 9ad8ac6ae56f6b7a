"""GPipe: all forwards, then all backwards in reverse order, so that the newest activations are freed first.

Source: Huang et al., GPipe (arXiv:1811.06965), figure 2c.
Bubble: (PP-1)(F+B), for any F and B. Activations: M chunks on every rank.
"""

from sim.schedules.program import Program, Shape, Step


def stages(shape: Shape) -> int:
    """One stage a rank."""
    return shape.pipeline


def build(shape: Shape) -> Program:
    """Runs with any number of micro-batches."""
    steps = tuple(_steps(position, shape.micro_batches) for position in range(shape.pipeline))
    return Program("gpipe", shape.pipeline, stages(shape), shape.micro_batches, steps)


def _steps(position: int, micro_batches: int) -> tuple[Step, ...]:
    forwards = [Step("F", position, micro_batch) for micro_batch in range(micro_batches)]
    backwards = [Step("BW", position, micro_batch) for micro_batch in reversed(range(micro_batches))]
    return (*forwards, *backwards)
