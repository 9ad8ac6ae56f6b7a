"""Interleaved 1F1B: each rank holds several stages (`chunks`), so the pipeline fills in smaller pieces.

Stage = chunk * PP + position. Micro-batches go in groups of PP: a rank runs a group on its first stage, then on its
second, and so on, before it takes the next group; backwards go through the stages in reverse.

Source: Narayanan et al., Megatron-LM (arXiv:2104.04473), section 2.2.2 and figure 4.
Bubble: (PP-1)(F+B)/chunks, where PP is ranks, F and B a rank's forward and backward through all its stages.
Activations: min(2(PP-1-position) + (chunks-1) PP + 1, M chunks) chunks, each 1/chunks of a rank's layers.

Paired, each backward runs beside the forward before it, and every rank one more forward ahead, for on the last rank
that forward would be of the same chunk (Megatron Core's combined 1F1B, NVIDIA/Megatron-LM @00caa53:
`num_warmup_microbatches + 1` in megatron/core/pipeline_parallel/schedules.py); it holds one more chunk.
Time, with F and B of a stage and F, B <= F&B <= F+B: chunks PP (F+B) + (chunks M - (chunks-1) PP - 1) F&B.
"""

from collections.abc import Iterator

from sim.schedules.program import Misfit, Program, Shape, Step, alternating


def stages(shape: Shape) -> int:
    """`chunks` stages a rank."""
    return shape.pipeline * shape.chunks


def misfits(shape: Shape) -> Iterator[Misfit]:
    """Groups are whole, and 1f1b is for one stage a rank."""
    if shape.chunks < 2:
        yield Misfit("chunks", "2 or more (1f1b is for 1)", 2)
    if shape.micro_batches % shape.pipeline:
        groups = (shape.micro_batches + shape.pipeline // 2) // shape.pipeline
        yield Misfit("micro_batches", f"multiples of {shape.pipeline}", max(1, groups) * shape.pipeline)


def build(shape: Shape) -> Program:
    """At least 2 chunks and a multiple of `pipeline` micro-batches."""
    steps = tuple(_steps(position, shape) for position in range(shape.pipeline))
    # a pair that is one step takes all its inputs before it and hands both outputs on after it
    pairs = [(p, i) for p in range(shape.pipeline) for i in _pairs(p, shape) if not shape.paired]
    early, late = {(p, i + 1, "B"): i for p, i in pairs}, {(p, i, "F"): i + 2 for p, i in pairs}
    return Program("interleaved", shape.pipeline, stages(shape), shape.micro_batches, steps, 1, early, late)


def _pairs(position: int, shape: Shape) -> range:
    """Indices of forwards that a backward follows. Between two pairs all four messages go in one batch
    (`send_forward_backward_recv_forward_backward` of Megatron-LM's core/pipeline_parallel/schedules.py): the gradient
    is asked for before the forward, and the forward's output handed on after the backward."""
    warm_up, forwards = _warm_up(position, shape), shape.chunks * shape.micro_batches
    return range(warm_up, 2 * forwards - warm_up, 2)


def _steps(position: int, shape: Shape) -> tuple[Step, ...]:
    order = range(shape.chunks)
    forwards = _through(position, shape, "F", order)
    backwards = _through(position, shape, "BW", order[::-1])
    return alternating(forwards, backwards, _warm_up(position, shape), shape.paired)


def _warm_up(position: int, shape: Shape) -> int:
    """Forwards before the first backward."""
    most = shape.chunks * shape.micro_batches
    return min(2 * (shape.pipeline - 1 - position) + (shape.chunks - 1) * shape.pipeline + shape.paired, most)


def _through(position: int, shape: Shape, kind: str, chunks: range) -> list[Step]:
    """All passes of one kind, group by group, `chunks` in the order given."""
    return [
        Step(kind, chunk * shape.pipeline + position, micro_batch)
        for first in range(0, shape.micro_batches, shape.pipeline)
        for chunk in chunks
        for micro_batch in range(first, first + shape.pipeline)
    ]
