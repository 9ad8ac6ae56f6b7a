"""Activations that wait for backward in the host's memory: copied there behind a layer's forward, and back before its
backward, on the copy engine, beside compute.

Megatron Core copies inputs of modules on streams of their own, and asks for a group's when the backward of the one
before it begins (megatron/core/pipeline_parallel/fine_grained_activation_offload.py of NVIDIA/Megatron-LM @d98e8a6; the
last groups stay, for their copies would be waited for); TransformerEngine's and torchtune's do likewise by layer. Here
a part of all that a layer keeps goes, and the last layer of a stage keeps its own. Both ways share one lane: a step
that runs forward and backward at once copies either way in turn, though PCIe could do both.
"""

from collections.abc import Callable, Sequence

from hwmodels.op import HostCopy
from sim.models.layer import HOST, Kernel, Part, Unit

AWAY, BACK = "offload", "reload"
"""Names of the parts that copy."""
BEHIND, BEFORE = 96, -4
"""Their places in a round: behind a unit's own parts, and before whatever a round begins with."""
PREFETCHED = 2
"""A layer's activations are asked for when the backward of the layer behind it begins: when that of the one behind that
is through."""


def hosted(stage: Sequence[Unit], part: float, kept: Callable[[Unit], float]) -> tuple[Unit, ...]:
    """A stage whose layers know how many bytes of a micro-batch wait on the host. kept: bytes that a unit keeps."""
    last = max((i for i, unit in enumerate(stage) if unit.block), default=0)
    sizes = [round(part * kept(unit)) if unit.block and i < last else 0 for i, unit in enumerate(stage)]
    return tuple(unit._replace(hosted=size) for unit, size in zip(stage, sizes, strict=True))


def around(parts: tuple[Part, ...], unit: Unit, direction: str) -> tuple[Part, ...]:
    """The parts of a unit in a direction, with the copy of what waits on the host."""
    chain = [part for part in parts if part.kernels and part.chained]
    if direction == "W" or not chain:
        return parts
    copy = (Kernel(AWAY if direction == "F" else BACK, HostCopy(float(unit.hosted)), HOST, host=0.0),)
    if direction == "F":
        after = (("F", chain[-1].name, unit.layer),)
        return (*parts, Part(AWAY, "F", unit.layer, copy, place=BEHIND, chained=False, after=after))
    first = parts.index(chain[0])
    waiting = chain[0]._replace(after=(*chain[0].after, ("B", BACK, unit.layer)))
    before = (("B", chain[-1].name, unit.layer + PREFETCHED),)
    back = Part(BACK, "B", unit.layer, copy, place=BEFORE, chained=False, after=before)
    return (back, *parts[:first], waiting, *parts[first + 1 :])
