"""How an activation waits for the backward pass: as it is, in FP8 codes, in E5M6, or only as a norm to run again.

Each way has `value()`, the activation [M, K], and `columns()`, its 128x1-tiled transposed cast (q, s) for a weight
gradient. `save` and `load` carry them through an autograd context, so that saved-tensor hooks see every byte.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from numerics import ops

Cast = tuple[Tensor, Tensor]
"""E4M3 codes and FP32 scales."""


class Plain(NamedTuple):
    """The activation itself."""

    x: Tensor

    def value(self) -> Tensor:
        return self.x

    def columns(self, power_of_two: bool = False) -> Cast:
        return ops.quantize_columns(self.x, power_of_two)


class Codes(NamedTuple):
    """E4M3 [M, K] with 1x128 scales; the transposed cast starts from these codes, as in a cache of FP8 activations."""

    q: Tensor
    s: Tensor
    dtype: torch.dtype

    def value(self) -> Tensor:
        return ops.dequantize_rows(self.q, self.s, self.dtype)

    def columns(self, power_of_two: bool = False) -> Cast:
        return ops.requantize_columns(self.q, self.s, power_of_two)


class Packed(NamedTuple):
    """E5M6 with power-of-two scales: the attention output (arXiv 2412.19437 sec 3.3.3), whose columns keep such scales."""

    packed: Tensor
    s: Tensor
    width: int
    dtype: torch.dtype

    def value(self) -> Tensor:
        return ops.load_e5m6(self.packed, self.s, self.width).to(self.dtype)

    def columns(self, power_of_two: bool = True) -> Cast:
        return ops.quantize_columns(self.value(), power_of_two)


class Normed(NamedTuple):
    """RMSNorm(x) * weight, kept as its input, which the residual stream holds anyway; `value` runs the norm again."""

    x: Tensor
    weight: Tensor
    rstd: Tensor
    eps: float

    def value(self) -> Tensor:
        return ops.rmsnorm(self.x, self.weight, self.eps)[0]

    def columns(self, power_of_two: bool = False) -> Cast:
        return ops.quantize_columns(self.value(), power_of_two)


Kept = Plain | Codes | Packed | Normed


def save(ctx: Any, **things: Any) -> None:
    """Keep tensors and NamedTuples of tensors (and anything else, as it is) for `load`."""
    tensors: list[Tensor] = []

    def strip(thing: Any) -> Any:
        if isinstance(thing, Tensor):
            tensors.append(thing.detach() if thing.requires_grad and not thing.is_leaf else thing)
            return _Slot(len(tensors) - 1)
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*map(strip, thing))
        return thing

    ctx.kept = {name: strip(thing) for name, thing in things.items()}
    ctx.save_for_backward(*tensors)


def load(ctx: Any) -> dict[str, Any]:
    """What `save` kept, by name."""
    tensors = ctx.saved_tensors

    def fill(thing: Any) -> Any:
        if isinstance(thing, _Slot):
            return tensors[thing.index]
        if isinstance(thing, tuple) and hasattr(thing, "_fields"):
            return type(thing)(*map(fill, thing))
        return thing

    return {name: fill(thing) for name, thing in ctx.kept.items()}


class _Slot:
    """The place of a tensor among a context's saved tensors."""

    def __init__(self, index: int) -> None:
        self.index = index
