"""How an activation waits for the backward pass: as it is, in FP8 codes, in E5M6, or as inputs of what runs again.

Each way has `value()`, the activation [M, K], and `columns()`, its 128x1-tiled transposed cast (q, s) for a weight
gradient. `save` and `load` carry them through an autograd context, so that saved-tensor hooks see every byte.
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
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

    def columns(self) -> Cast:
        return ops.quantize_columns(self.x)


class Codes(NamedTuple):
    """E4M3 [M, K] with 1x128 scales, from which the transposed cast starts too.

    That second rounding is nearly free where all scales are powers of two. Else it adds a bias on non-negative data: a
    grid a little wider than the first rounds most codes back to themselves (0.6 % on uniform[0, 1): a test).
    """

    q: Tensor
    s: Tensor
    dtype: torch.dtype
    power_of_two: bool = False

    def value(self) -> Tensor:
        return ops.dequantize_rows(self.q, self.s, self.dtype)

    def columns(self) -> Cast:
        return ops.requantize_columns(self.q, self.s, self.power_of_two)


class Turned(NamedTuple):
    """The transposed cast alone, made already: a gradient's, which nothing else is needed of."""

    q: Tensor
    s: Tensor

    def value(self) -> Tensor:
        raise TypeError("of a matrix cast by columns alone, no value is kept")

    def columns(self) -> Cast:
        return self.q, self.s


class Packed(NamedTuple):
    """E5M6 with power-of-two scales, also of its columns: the attention output (arXiv 2412.19437 sec 3.3.3)."""

    packed: Tensor
    s: Tensor
    width: int
    dtype: torch.dtype

    def value(self) -> Tensor:
        return ops.load_e5m6(self.packed, self.s, self.width).to(self.dtype)

    def columns(self) -> Cast:
        return unpacked(self.value()).columns()


def unpacked(x: Tensor) -> Turned:
    """Columns of what `Packed` held, cast as it casts them, where the value is needed too."""
    return Turned(*ops.quantize_columns(x, power_of_two=True))


class Normed(NamedTuple):
    """RMSNorm(x) * weight, kept as its input, which the residual stream holds anyway; `value` runs the norm again."""

    x: Tensor
    weight: Tensor
    rstd: Tensor
    eps: float

    def value(self) -> Tensor:
        return ops.rmsnorm(self.x, self.weight, self.eps)[0]

    def columns(self) -> Cast:
        return ops.rmsnorm_quantize_columns(self.x, self.weight, self.rstd)


class Joined(NamedTuple):
    """Two normed inputs side by side: [left, right], [M, 2 K]."""

    left: Normed
    right: Normed

    def value(self) -> Tensor:
        return torch.cat([self.left.value(), self.right.value()], -1)

    def columns(self) -> Cast:
        return ops.quantize_columns(self.value())


class Activated(NamedTuple):
    """SwiGLU of gate_up [M, 2 K], run again from its inputs; the transposed cast takes the product before BF16."""

    gate_up: Tensor

    def value(self) -> Tensor:
        return ops.swiglu(self.gate_up)

    def columns(self) -> Cast:
        return ops.swiglu_quantize_columns(self.gate_up)


Kept = Plain | Codes | Turned | Packed | Normed | Joined | Activated


def save(ctx: Any, **things: Any) -> None:
    """Keep tensors, and NamedTuples and dataclasses of tensors (anything else as it is), for `load`."""
    tensors: list[Tensor] = []

    def strip(thing: Any) -> Any:
        if isinstance(thing, Tensor):
            tensors.append(thing.detach() if thing.requires_grad and not thing.is_leaf else thing)
            return _Slot(len(tensors) - 1)
        return _map(strip, thing)

    ctx.kept = {name: strip(thing) for name, thing in things.items()}
    ctx.save_for_backward(*tensors)


def load(ctx: Any) -> dict[str, Any]:
    """What `save` kept, by name."""
    tensors = ctx.saved_tensors

    def fill(thing: Any) -> Any:
        if isinstance(thing, _Slot):
            return tensors[thing.index]
        return _map(fill, thing)

    return {name: fill(thing) for name, thing in ctx.kept.items()}


def _map(change: Callable[[Any], Any], thing: Any) -> Any:
    """A NamedTuple or dataclass with its fields changed; anything else as it is."""
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*map(change, thing))
    if is_dataclass(thing):
        return type(thing)(**{f.name: change(getattr(thing, f.name)) for f in fields(thing)})
    return thing


class _Slot:
    """The place of a tensor among a context's saved tensors."""

    def __init__(self, index: int) -> None:
        self.index = index
