"""The update of torch's AdamW. Fused: launches over many tensors at once, as many chunks each as its arguments hold.

Foreach and loop go through the operations of the rule one after the other (torch/optim/adamw.py, _multi_tensor_adamw,
v2.6; mosaicml/composer @28cc4caf6, composer/optim/decoupled_weight_decay.py, a loop over parameters that reads each
one's count of steps off the card, after all have been counted up). A gradient's norm reads all gradients, and limiting
it writes them, whatever it is.

Metrics that are computed behind each step are gathered by torchmetrics (src/torchmetrics/utilities/distributed.py,
gather_all_tensors and _simple_gather_all_tensors; so each batch in mosaicml/composer v0.17.2 composer/trainer/
trainer.py, _compute_and_log_metrics, of two metrics with two states each: composer/metrics/nlp.py): a barrier, for
which the host waits, a tensor of zeros for each rank, and an all-gather that copies what it gathered into each.

Limits: aten/src/ATen/native/cuda/MultiTensorApply.cuh. A tensor's chunks may go to several launches; a launch ends when
it has 320 chunks, or all chunks of its last tensor.
"""

import math
from collections.abc import Iterator, Sequence

from hwmodels.formats import FP32
from hwmodels.op import Memory
from sim.models.blocks.made import EMBEDDING, Made
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.stack import FOREACH, LOOP
from sim.models.stacks.torch.kernels import BARE, WIDE, WIDTH, tiny
from sim.models.stacks.torch.tensors import tensors

CHUNK, BLOCKS = 65536, 320
"""Elements of a chunk; chunks of a launch at most."""
TENSORS = {1: 110, 4: 36}
"""Tensor lists that a kernel walks (steps alone; or parameters, gradients and two moments) -> tensors of a launch."""

CALL, EACH = 3.5, 0.25
"""The host's work for a step of the optimizer, and for each tensor, in elementwise operations backward: 172, 601 and
1,631 us for 20, 100 and 300 tensors."""


def launches(sizes: Sequence[int], lists: int) -> Iterator[int]:
    """Elements that each launch works on. sizes: of tensors."""
    tensors = blocks = elements = 0
    for number, size in enumerate(sizes):
        tensors, left = tensors + 1, size
        while left >= 0:
            taken = min(left, (BLOCKS - blocks) * CHUNK)
            blocks, elements, left = blocks + max(1, -(-taken // CHUNK)), elements + taken, left - taken
            last = left == 0
            if blocks == BLOCKS or (last and (tensors == TENSORS[lists] or number == len(sizes) - 1)):
                yield elements
                tensors, blocks, elements = (0 if last else 1), 0, 0
            if last:
                break


PLAIN = 0.72
"""The host's work for an operation that Python asks for where no gradients are recorded: 14.9 of 20.6 us, one forward,
which records them (a bound)."""
FOREACH_PASSES = ((1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (1, 1), (1, 1), (3, 1))
"""Tensors that each operation of foreach reads and writes: weight decay, the first moment, the second in two, its root,
that over its bias and plus epsilon, and the step."""
LOOP_PASSES = ((1, 1), (2, 1), *FOREACH_PASSES[2:])
"""Of the loop, whose first moment has two, and which decays no weights (weight_decay 0.0 of llm-foundry's yamls, for
which it asks no operation)."""
NORM_PASSES = ((1, 0), (1, 1))
"""Of gradients' norm, and of limiting it."""


def update(site: Shared, made: Sequence[Made], part: float = 1.0) -> list[Kernel]:
    """Steps of all tensors counted up; parameters updated by their gradients and two moments, which are updated too.
    part: of each tensor, that a rank has as its shard."""
    sizes = [math.ceil(size * part) for unit in made for size in tensors(site, unit)]
    clipped = _passes(site, "clip", sizes, NORM_PASSES) if site.stack.clips else []
    if site.stack.update == LOOP:
        counted = [tiny("adam_steps", "optimizer", PLAIN)] * len(sizes)
        return clipped + counted + [kernel for size in sizes for kernel in _looped(site, size)]
    own, gradient, moments = _parameter(site), site.recipe.gradient.bits / 8, 2 * site.recipe.moment.row_bytes(1)
    walk = CALL + EACH * len(sizes)
    steps = [tiny("adam_steps", "optimizer", walk * (not n)) for n, _ in enumerate(launches([1] * len(sizes), 1))]
    if site.stack.update == FOREACH:
        return clipped + steps + _passes(site, "adam", sizes, FOREACH_PASSES)
    updated = list(launches(sizes, 4))
    zeros = part * _without_history(site, made)
    kinds = ["adam_unseen" if zeros - sum(updated[:n]) > count / 2 else "adam" for n, count in enumerate(updated)]
    fused = [
        Kernel("adam", Memory(kind, count, own + gradient + moments, own + moments), host=BARE)
        for kind, count in zip(kinds, updated, strict=True)
    ]
    return [*clipped, *steps, *fused]


def _parameter(site: Shared) -> float:
    """Bytes of a parameter: FP32 where master weights are, which then are what is sharded and updated."""
    return float(WIDE if site.recipe.master == FP32 else WIDTH)


def _passes(site: Shared, name: str, sizes: Sequence[int], passes: Sequence[tuple[int, int]]) -> list[Kernel]:
    """Operations over all tensors at once, at the rate of the fused kernel, which is launched alike."""
    one = _parameter(site)
    return [
        Kernel(name, Memory("adam", count, reads * one, writes * one), host=BARE)
        for reads, writes in passes for count in launches(sizes, 1)
    ]  # fmt: skip


def _looped(site: Shared, size: int) -> list[Kernel]:
    """A parameter's operations, behind its count of steps, for which the host waits."""
    one = _parameter(site)
    own = [Kernel("adam", Memory("elementwise", size, r * one, w * one), host=PLAIN) for r, w in LOOP_PASSES]
    return [tiny("adam_count", "copy", PLAIN)._replace(waits=True), *own]


def metric(ranks: int) -> list[Kernel]:
    """What a metric's number of each rank is put into, one rank after another."""
    return [tiny("metric_zeros", "", PLAIN)] * ranks + [tiny("metric_copy", "copy", BARE)] * ranks


def _without_history(site: Shared, made: Sequence[Made]) -> float:
    """Elements of the embedding, the first tensor, whose gradients and moments are zero; none of one that is the head
    too, whose every row has a gradient."""
    if not made or made[0].end != EMBEDDING or any(unit.tied for unit in made):
        return 0.0
    return site.unseen * tensors(site, made[0])[0]
