"""A bias-free linear layer with an FP32 master weight: three products in one precision, its input kept as FP8 codes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numerics.layers.kept import Kept, Plain, load, save
from numerics.layers.products import Recipe, dgrad, fprop, operand, wgrad


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, again: Kept | None, precision: Recipe) -> Tensor:
        a = operand(x, precision)
        save(ctx, weight=weight, x=again or a, precision=precision, dtype=x.dtype)
        return fprop(a, weight, precision)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        k, dy = load(ctx), dy.contiguous()
        weight, p = k["weight"], k["precision"]
        # the transposed cast of dY starts from dY itself, not from its row codes: one rounding
        dw = wgrad(Plain(dy), k["x"], p)
        return dgrad(operand(dy, p), weight, p).to(k["dtype"]), dw, None, None


def linear(x: Tensor, weight: Tensor, precision: Recipe, again: Kept | None = None) -> Tensor:
    """x [M, K], weight FP32 [N, K] -> [M, N]. again: how to get x in the backward pass, instead of keeping it."""
    return _Linear.apply(x, weight, again, precision)


class Linear(nn.Module):
    """x [..., inputs] -> [..., outputs] in `precision`; the weight and its gradient are FP32."""

    def __init__(self, inputs: int, outputs: int, precision: Recipe, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * std)
        self.precision = precision

    def forward(self, x: Tensor, again: Kept | None = None) -> Tensor:
        y = linear(x.reshape(-1, x.shape[-1]), self.weight, self.precision, again)
        return y.view(*x.shape[:-1], -1)
