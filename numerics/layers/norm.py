"""RMSNorm whose output can be run again: what follows it keeps the input that the residual stream holds already."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.kept import Cast, Codes, Normed, load, save
from numerics.layers.products import Recipe


class _Norm(Function):
    """The norm, its 1/rms, and codes and scales of its row casts (`powers`: a cast each, of powers of two or not)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, eps: float, powers: tuple[bool, ...], keep: bool
    ) -> tuple[Tensor, ...]:
        casts: tuple[Cast, ...] = ()
        if powers:
            casts, y, rstd = ops.rmsnorm_quantize(x, weight, eps, powers, keep)
            y = torch.full((), torch.nan, dtype=x.dtype, device=x.device).expand_as(x) if y is None else y
        else:
            y, rstd = ops.rmsnorm(x, weight, eps)
        save(ctx, x=x, weight=weight, rstd=rstd)
        flat = [t for cast in casts for t in cast]
        ctx.mark_non_differentiable(rstd, *flat)
        return y, rstd, *flat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        k = load(ctx)
        return *ops.rmsnorm_backward(dy.contiguous(), k["x"], k["weight"], k["rstd"]), None, None, None


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
        y, rstd = _Norm.apply(x, self.weight, self.eps, (), True)
        return y, Normed(x.detach(), self.weight.detach(), rstd, self.eps)

    def cast(
        self, x: Tensor, precision: Recipe, powers: tuple[bool, ...] = (False,), keep: bool = False
    ) -> tuple[Tensor, Normed, tuple[Codes | None, ...]]:
        """`normed`, and the output's row casts where the precision has them: from the norm's own kernel.

        Unless the output is to be kept too, what stands for it then has its shape, its gradient and no memory, and
        reads as NaN.
        """
        if not precision.quantized:
            return *self.normed(x), (None,) * len(powers)
        y, rstd, *flat = _Norm.apply(x, self.weight, self.eps, powers, keep)
        pairs = zip(flat[::2], flat[1::2], powers, strict=True)
        casts = tuple(Codes(q, s, precision.dtype, power) for q, s, power in pairs)
        return y, Normed(x.detach(), self.weight.detach(), rstd, self.eps), casts
