"""RMSNorm whose output can be run again: what follows it keeps the input that the residual stream holds already."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics import ops
from numerics.layers.kept import Normed, load, save


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
