"""DualPipeV: DualPipe cut in half. Each rank holds two stages of one V-shaped pipeline, r and 2P-1-r on P ranks.

A micro-batch goes down the ranks through the first half of the stages and back up through the second. To a rank, the
way down looks like the side of its own end and the way up like the other side, so the eight parts of DualPipe fit
unchanged, and no stage is held twice.

Source: github.com/deepseek-ai/DualPipe (README, DualPipeV); the cut in half: Qi et al., "DualPipe could be better
without the Dual" (2025).
Bubble: (PP/2-1)(F&B+B-3W) with PP = 2P stages, for W <= F = B-W and F&B = F+B. Activations: PP+1 chunks of PP = 2P.
"""

from collections.abc import Iterator

from sim.schedules.dualpipe import eight_parts, shifted, unroll
from sim.schedules.program import Misfit, Program, Shape, Step


def stages(shape: Shape) -> int:
    """Two stages a rank."""
    return 2 * shape.pipeline


def misfits(shape: Shape) -> Iterator[Misfit]:
    """Micro-batches fill the way down and the way up."""
    if shape.micro_batches < 2 * shape.pipeline:
        yield Misfit("micro_batches", f"{2 * shape.pipeline} or more", 2 * shape.pipeline)


def build(shape: Shape) -> Program:
    """At least 2 P micro-batches."""
    positions, micro_batches = shape.pipeline, shape.micro_batches
    steps = tuple(_steps(position, positions, micro_batches) for position in range(positions))
    early, late = shifted(range(positions), positions)
    return Program("dualpipev", positions, stages(shape), micro_batches, steps, 1, early, late)


def _steps(position: int, positions: int, micro_batches: int) -> tuple[Step, ...]:
    parts = eight_parts(position, positions, micro_batches)
    return tuple(unroll(parts, ((position, 0), (2 * positions - 1 - position, 0))))
