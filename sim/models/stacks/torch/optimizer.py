"""The update of torch's fused AdamW: launches over many tensors at once, as many chunks each as its arguments hold.

Limits: aten/src/ATen/native/cuda/MultiTensorApply.cuh. A tensor's chunks may go to several launches; a launch ends when
it has 320 chunks, or all chunks of its last tensor.
"""

import math
from collections.abc import Iterator, Sequence

from hwmodels.op import Memory
from sim.models.blocks.made import EMBEDDING, Made
from sim.models.layer import Kernel
from sim.models.stacks.cudnn import Shared
from sim.models.stacks.torch.kernels import BARE, WIDTH, tiny
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


def update(site: Shared, made: Sequence[Made], part: float = 1.0) -> list[Kernel]:
    """Steps of all tensors counted up; parameters updated by their gradients and two moments, which are updated too.
    part: of each tensor, that a rank has as its shard."""
    sizes = [math.ceil(size * part) for unit in made for size in tensors(site, unit)]
    own, gradient, moments = WIDTH, site.recipe.gradient.bits / 8, 2 * site.recipe.moment.row_bytes(1)
    walk = CALL + EACH * len(sizes)
    steps = [tiny("adam_steps", "optimizer", walk * (not n)) for n, _ in enumerate(launches([1] * len(sizes), 1))]
    updated = list(launches(sizes, 4))
    zeros = part * _without_history(site, made)
    kinds = ["adam_unseen" if zeros - sum(updated[:n]) > count / 2 else "adam" for n, count in enumerate(updated)]
    return steps + [
        Kernel("adam", Memory(kind, count, own + gradient + moments, own + moments), host=BARE)
        for kind, count in zip(kinds, updated, strict=True)
    ]


def _without_history(site: Shared, made: Sequence[Made]) -> float:
    """Elements of the embedding, the first tensor, whose gradients and moments are zero; none of one that is the head
    too, whose every row has a gradient."""
    if not made or made[0].end != EMBEDDING or any(unit.tied for unit in made):
        return 0.0
    return site.unseen * tensors(site, made[0])[0]
