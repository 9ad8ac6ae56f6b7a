"""RMSNorm whose output can be run again: what follows it keeps the input that the residual stream holds already."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.kept import Cast, Codes, Normed, load, save
from numerics.layers.products import Recipe


class _Norm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        y, rstd = ops.rmsnorm(x, weight, eps)
        save(ctx, x=x, weight=weight, rstd=rstd)
        ctx.mark_non_differentiable(rstd)
        return y, rstd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        k = load(ctx)
        return *ops.rmsnorm_backward(dy.contiguous(), k["x"], k["weight"], k["rstd"]), None


class _Passed(Function):
    """The residual stream, with something added or not; its norm; 1/rms; codes and scales of the norm's row casts.

    Both gradients meet in the norm's own backward kernel, in FP32. powers: a cast each, of powers of two or not.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, eps: float, powers: tuple[bool, ...], keep: bool
    ) -> tuple[Tensor, ...]:
        casts: tuple[Cast, ...] = ()
        if powers and added is not None:
            total, casts, y, rstd = ops.add_rmsnorm_quantize(x, added, weight, eps, powers, keep)
        elif powers:
            total, (casts, y, rstd) = x.view_as(x), ops.rmsnorm_quantize(x, weight, eps, powers, keep)
        elif added is not None:
            total, y, rstd = ops.add_rmsnorm(x, added, weight, eps)
        else:
            total, (y, rstd) = x.view_as(x), ops.rmsnorm(x, weight, eps)
        y = torch.full((), torch.nan, dtype=x.dtype, device=x.device).expand_as(x) if y is None else y
        save(ctx, x=total, weight=weight, rstd=rstd, added=added is not None)
        flat = [t for cast in casts for t in cast]
        ctx.mark_non_differentiable(rstd, *flat)
        ctx.set_materialize_grads(False)  # of codes there are none, which would be made up as zeros
        return total, y, rstd, *flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dtotal: Tensor | None, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        k = load(ctx)
        dx, dw = ops.rmsnorm_backward(dy.contiguous(), k["x"], k["weight"], k["rstd"], dtotal)
        return dx, dx if k["added"] else None, dw, None, None, None


class Given(NamedTuple):
    """A norm's output as what follows it takes it: itself, how to get it again, and its row casts.

    Where nothing reads the output itself it is a stand-in that has its shape, its gradient and no memory, and reads as
    NaN.
    """

    y: Tensor
    again: Normed
    casts: tuple[Codes | None, ...]


class RMSNorm(nn.Module):
    """x [M, width] -> x / rms(x) * weight, and how to get it again in the backward pass."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.normed(x)[0]

    def normed(self, x: Tensor) -> tuple[Tensor, Normed]:
        """The output, and what a consumer keeps in its place."""
        y, rstd = _Norm.apply(x, self.weight, self.eps)
        return y, Normed(x.detach(), self.weight.detach(), rstd, self.eps)

    def passed(
        self, x: Tensor, precision: Recipe, added: Tensor | None = None, powers: tuple[bool, ...] = (False,),
        keep: bool = False,
    ) -> tuple[Tensor, Given]:  # fmt: skip
        """The residual stream x, or x + added, and its norm, in FP8 with a row cast for each of `powers`, by the norm's
        own kernel. keep: whether the output itself is read in FP8 too."""
        casting = powers if precision.quantized else ()
        total, y, rstd, *flat = _Passed.apply(x, added, self.weight, self.eps, casting, keep)
        pairs = zip(flat[::2], flat[1::2], casting, strict=True)
        casts = tuple(Codes(q, s, precision.dtype, power) for q, s, power in pairs)
        again = Normed(total.detach(), self.weight.detach(), rstd, self.eps)
        return total, Given(y, again, casts or (None,) * len(powers))
