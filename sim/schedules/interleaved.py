"""Interleaved 1F1B: each rank holds several stages (`chunks`), so the pipeline fills in smaller pieces.

Stage = chunk * PP + position. Micro-batches go in groups, of PP unless said: a rank runs a group on its first stage,
then on its second, and so on, before it takes the next group; backwards go through the stages in reverse. The last
group may be smaller. One chunk is 1F1B, as in Megatron Core.

Source: Narayanan et al., Megatron-LM (arXiv:2104.04473), section 2.2.2 and figure 4; groups, and what they may be:
`get_schedule_table`, `get_pp_rank_microbatches` and what `forward_backward_pipelining_with_interleaving` refuses, in
megatron/core/pipeline_parallel/schedules.py of NVIDIA/Megatron-LM @d98e8a6.
Bubble: (PP-1)(F+B)/chunks, where PP is ranks, F and B a rank's forward and backward through all its stages.
Activations: min(2(PP-1-position) + (chunks-1) group + 1, M chunks) chunks, each 1/chunks of a rank's layers.

Paired, each backward runs beside the forward before it, and every rank one more forward ahead, for on the last rank
that forward would be of the same chunk (Megatron Core's combined 1F1B, NVIDIA/Megatron-LM @00caa53:
`num_warmup_microbatches + 1` in megatron/core/pipeline_parallel/schedules.py); it holds one more chunk.
Time, with F and B of a stage, F, B <= F&B <= F+B and M a multiple of the group, which is PP:
chunks PP (F+B) + (chunks M - (chunks-1) PP - 1) F&B.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sim.schedules import program
from sim.schedules.program import Misfit, Program, Shape, Step, alternating


def stages(shape: Shape) -> int:
    """`chunks` stages a rank."""
    return shape.pipeline * shape.chunks


def misfits(shape: Shape) -> Iterator[Misfit]:
    """There is a whole group, and every group, the last one too, fills the pipeline."""
    least, count, group = shape.pipeline, shape.micro_batches, _group(shape)
    if shape.chunks == 1:
        return
    if group < least:
        yield Misfit("group", f"{least} (the pipeline) or more", least)
    elif count < group or 0 < count % group < least:
        rest = count % group
        fits = count - rest + (least if 2 * rest >= least else 0)
        many = f"{group} or more, with 0 or {least} or more beyond multiples of {group}"
        yield Misfit("micro_batches", f"multiples of {group}" if group == least else many, max(group, fits))


def build(shape: Shape) -> Program:
    """Of a shape without misfits."""
    if shape.chunks == 1:
        return replace(program.build("1f1b", replace(shape, group=None)), schedule="interleaved")
    rows = [_Row(position, shape) for position in range(shape.pipeline)]
    # a pair that is one step takes all its inputs before it and hands both outputs on after it
    pairs = [(row.position, i) for row in rows for i in row.pairs if not shape.paired]
    late = {(p, i, "F"): i + 2 for p, i in pairs}
    early = {(p, i + 1, "B"): i for p, i in pairs} | rows[0].early("F") | rows[-1].early("BW")
    steps = tuple(row.steps() for row in rows)
    return Program("interleaved", shape.pipeline, stages(shape), shape.micro_batches, steps, 1, early, late)


def _group(shape: Shape) -> int:
    return shape.pipeline if shape.group is None else shape.group


class _Row:
    """What one position does. Its forwards are numbered in order, and so are its backwards; positions share numbers."""

    def __init__(self, position: int, shape: Shape) -> None:
        self.position, self.shape = position, shape
        self.all = shape.chunks * shape.micro_batches
        ahead = 2 * (shape.pipeline - 1 - position) + (shape.chunks - 1) * _group(shape) + shape.paired
        self.warm_up = min(ahead, self.all)

    @property
    def pairs(self) -> range:
        """Indices of forwards that a backward follows. Between two pairs all four messages go in one batch
        (`send_forward_backward_recv_forward_backward` of Megatron-LM's core/pipeline_parallel/schedules.py): the
        gradient is asked for before the forward, and the forward's output handed on after the backward."""
        return range(self.warm_up, 2 * self.all - self.warm_up, 2)

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        forwards, backwards = ([Step(kind, *chunk) for chunk in self._chunks(kind)] for kind in ("F", "BW"))
        return alternating(forwards, backwards, self.warm_up, self.shape.paired)

    def _chunks(self, kind: str) -> Sequence[tuple[int, int]]:
        """Stages and micro-batches of all passes of a kind, group by group."""
        pipeline, count, group = self.shape.pipeline, self.shape.micro_batches, _group(self.shape)
        order = range(self.shape.chunks)[:: 1 if kind == "F" else -1]
        return [
            (chunk * pipeline + self.position, micro_batch)
            for first in range(0, count, group)
            for chunk in order
            for micro_batch in range(first, min(first + group, count))
        ]

    def early(self, kind: str) -> dict[tuple[int, int, str], int]:
        """Inputs that the first position (forward) or the last (backward) takes when the other has made them, PP passes
        on, although groups larger than PP need them later (`recv_tensor_from_previous_stage`, same file)."""
        pipeline, letter = self.shape.pipeline, kind[0]
        if _group(self.shape) == pipeline:
            return {}
        before = pipeline if kind == "F" else -pipeline
        numbers = {chunk: number for number, chunk in enumerate(self._chunks(kind))}
        return {
            (self.position, self._index(letter, number), letter): self._asked(letter, made + pipeline)
            for (stage, micro_batch), number in numbers.items()
            if (made := numbers.get((stage - before, micro_batch), self.all)) < self.all
        }

    def _index(self, letter: str, number: int) -> int:
        """Of the step with a forward or backward of that number."""
        each, steady = 1 if self.shape.paired else 2, self.all - self.warm_up
        if letter == "F":
            return number if number < self.warm_up else self.warm_up + each * (number - self.warm_up)
        inside = self.warm_up + each * number + each - 1
        return inside if number < steady else self.warm_up + (each - 1) * steady + number

    def _asked(self, letter: str, number: int) -> int:
        """The step before which the inputs of that pass are asked for."""
        index = self._index(letter, number)
        return index - 1 if letter == "B" and index - 1 in self.pairs and not self.shape.paired else index
