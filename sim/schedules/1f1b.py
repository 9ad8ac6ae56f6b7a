# ruff: noqa: N999 - the file's name is the schedule's name
"""1F1B: each rank warms up with as many forwards as there are ranks after it, then alternates forward and backward.

Source: Harlap et al., PipeDream (arXiv:1806.03377); in the flushing form used here, Narayanan et al., Megatron-LM
(arXiv:2104.04473), section 2.2.1. Without a pipeline the backward of each micro-batch follows its forward.
Bubble: (PP-1)(F+B), for any F and B. Activations: PP - position chunks (no more than M), so PP at position 0.

Paired, a backward runs beside the forward of a later micro-batch, whose expert exchanges it hides and which hides its
own: Megatron Core's combined 1F1B (NVIDIA/Megatron-LM @00caa53, megatron/core/pipeline_parallel/combined_1f1b.py). The
last rank then runs one forward ahead, for no pass can be beside its own. Megatron has it without a pipeline and with
interleaved stages; in a plain pipeline, which it refuses, each rank must be two forwards further ahead than the next
(as interleaved ranks are): with one, of two neighbours one would wait while the other works.
Time, for F, B <= F&B <= F+B and M >= 2 PP: PP (F+B) + (M-1) F&B. Activations: 2 (PP - position) chunks.
"""

from sim.schedules.program import Program, Shape, Step, alternating


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
    behind = shape.pipeline - 1 - position
    return alternating(forwards, backwards, 2 * behind + 1 if shape.paired else behind, shape.paired)
